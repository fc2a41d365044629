"""Suggestions for misspelt words."""

import difflib
from collections.abc import Iterable

_LISTED = 20


def suggestion(word: str, known: Iterable[str]) -> str:
    """The question "did you mean …?" for a misspelt word, else all that is known."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1)
    more = ", …" if len(names) > _LISTED else ""
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names[:_LISTED])}{more}"
