"""What a claim is held against."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from builder.model.finding import Finding, Status
from builder.model.pins import Pins
from builder.release.published import Published
from builder.release.record import Release

SHOWN = 19
"""Characters of a digest that a finding shows."""


@dataclass(frozen=True, slots=True)
class Signed:
    """What cosign says of the signature; `predicates` are those of provenance that it covers."""

    status: Status
    observed: str
    predicates: list[Mapping[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Claimed:
    """A published image, and what vouches for it.

    `recorded`: there is a record; `release` is what it has of this image, None: nothing. `floating`
    maps its floating tags to names of releases.
    """

    image: Published
    pins: Pins
    signed: Signed
    recorded: bool = False
    release: Release | None = None
    floating: Mapping[str, str] = field(default_factory=dict)


def unproven(claim: str, expected: str, why: str) -> Finding:
    """A finding on what could not be checked."""
    return Finding(claim, "unproven", expected, f"not checked: {why}")
