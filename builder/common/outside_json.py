"""JSON from outside, read so that no text of any shape or size does more than be refused."""

from typing import Any


def read(text: bytes) -> Any:  # noqa: ANN401 -- JSON of whatever shape
    """What the text says. Raises ValueError, with the reason in one line.

    Python's own reader runs out of stack on deep nesting, makes numbers that it refuses to print,
    and halves of characters that cannot be written.
    """
    from pydantic_core import from_json

    return from_json(text, allow_inf_nan=False)


def read_object(text: bytes) -> dict[str, Any]:
    """The same of what has to be an object. Raises ValueError."""
    found = read(text)
    if not isinstance(found, dict):
        raise ValueError("no object")  # noqa: TRY004 -- of the text, not of the caller's
    return found
