"""Text from elsewhere as a terminal can show it."""


def printable(text: str) -> str:
    """The text with bytes that are none, and control characters, as escapes."""
    known = text.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in known)
