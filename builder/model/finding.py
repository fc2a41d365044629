"""The answer to one question about a server."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["pass", "fail", "unproven"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one probe expected and what it observed.

    "unproven" is neither yes nor no: the probe could not tell, and `observed` says why.
    """

    probe: str
    status: Status
    expected: str
    observed: str


def verdict(probe: str, *, holds: bool, expected: str, observed: str) -> Finding:
    """A finding that is sure either way."""
    return Finding(probe, "pass" if holds else "fail", expected, observed)


def not_asked(probe: str, why: str) -> Finding:
    """A finding of a probe that was never run."""
    return Finding(probe, "unproven", expected="an answer", observed=f"not asked: {why}")
