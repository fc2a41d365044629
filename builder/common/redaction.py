"""Text without the logins that are in it: what is told, kept or published goes through here."""

import re
from collections.abc import Iterator

# In JSON a slash may be escaped.
_SLASHES = re.compile(r"((?:\\?/){2})")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}:$")
# An address ends with the word that it is in; a quote may be escaped in JSON.
_WORD = re.compile(r"(?:\\.|[^\s\"<>\\])*")
_HOST_ENDS = re.compile(r"\\?[/?#]")
_PORT = re.compile(r"[^:]*:\d{0,5}")
_DIGEST = re.compile(r"sha\d+:")
_SSH_USER = re.compile(r"[\w.-]+")

_QUERY = re.compile(
    r"(?P<name>(?:[?&]|\\u0026)(?:[\w.-]{0,40}(?:token|signature|secret|passw(?:or)?d|credential"
    r"|api[_-]?key|access[_-]?key)|sig|key|auth)=)[^&\s\"'<>\\]+",
    re.IGNORECASE,
)
_HEADER = re.compile(
    r"(?P<name>\b(?:proxy-)?authorization(?:\\?[\"'])?[ \t]*[=:][ \t]*(?:\\?[\"'])?"
    r"(?:(?:basic|bearer|token)[ \t]+)?)(?!(?:basic|bearer|token)[ \t])[\w.~+/=-]{6,}",
    re.IGNORECASE,
)


def redacted(text: str) -> str:
    """The text, JSON too, with no login in an address and none in a header.

    What stands before the `@` of an address is left out, so that the address can still be used; of
    ssh's the user stays. Secrets in a query, as those of signed addresses, and after
    `Authorization:` are `***`.
    """
    if "//" in text or "\\/" in text:
        text = "".join(_without_logins(_SLASHES.split(text)))
        text = _QUERY.sub(r"\g<name>***", text)
    return _HEADER.sub(r"\g<name>***", text)


def _without_logins(pieces: list[str]) -> Iterator[str]:
    """The pieces of a text around its double slashes, which stand at the odd places."""
    yield pieces[0]
    for before, slashes, after in zip(pieces[::2], pieces[1::2], pieces[2::2], strict=False):
        yield slashes
        scheme = _SCHEME.search(before[-32:])
        login = _login(after)
        # Without a scheme a name alone is no login: it is a path with two slashes and an @ in it.
        if not login or (not scheme and ":" not in login):
            yield after
            continue
        user = _SSH_USER.match(login) if scheme and scheme[0].lower().endswith("ssh:") else None
        yield f"{user[0]}@{after[len(login) :]}" if user else after[len(login) :]


def _login(after: str) -> str:
    """What stands before the host, with its `@`, in what comes after two slashes; mostly nothing.

    A password may have an @, and a slash that should have been written as %2F.
    """
    match = _WORD.match(after)
    word = match[0] if match else ""
    authority = _HOST_ENDS.split(word, maxsplit=1)[0]
    if "@" in authority:
        login = authority[: authority.rindex("@") + 1]
    elif ":" in authority and not authority.startswith("[") and not _PORT.fullmatch(authority):
        login = word[: word.rfind("@") + 1]
    else:
        return ""
    # docker-image://NAME:TAG@sha256:… has none.
    return "" if _DIGEST.match(word, len(login)) else login
