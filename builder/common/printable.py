"""Text from elsewhere as a terminal can show it."""

import re

_BYTES = range(0xDC80, 0xDD00)
"""What Python makes of bytes that are no text, by its error handler `surrogateescape`."""
# A runner reads these out of what a step prints. `ActionCommand.cs` of github.com/actions/runner:
# `::` at the beginning of a line behind any blanks, `##[` anywhere.
_COMMAND = re.compile(r"^([ \t]*):(?=:)", re.MULTILINE)
_OLD_COMMAND = re.compile(r"#(?=#\[)")


def printable(text: str) -> str:
    """The text in one line, with bytes that are none, and control characters, as escapes."""
    return text if text.isprintable() else "".join(map(_shown, text))


def printable_lines(text: str) -> str:
    """The same of text that may have several lines, and tabs."""
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))


def without_commands(text: str) -> str:
    """The text with nothing in it that a runner of GitHub Actions takes for a workflow command.

    The escapes are valid in strings of JSON, where `##[` may stand.
    """
    return _OLD_COMMAND.sub(r"\\u0023", _COMMAND.sub(r"\1\\u003a", text))


def _shown(one: str) -> str:
    if one.isprintable():
        return one
    code = ord(one)
    return f"\\x{code - 0xDC00:02x}" if code in _BYTES else ascii(one)[1:-1]
