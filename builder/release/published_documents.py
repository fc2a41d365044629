"""The documents beside a published image, each of the shape that its claims are held against.

SPDX 2.3: https://spdx.github.io/spdx-spec/v2.3/ · in-toto: `provenance.py` · reports: as `builder
audit --json` and `builder smoke --json` print them. What is not named here is left as it is.
"""

import functools
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from builder.build import attestations
from builder.common import outside_json
from builder.release import attach as attest

Sums = dict[str, str]
"""An algorithm's name → a sum."""


@dataclass(frozen=True, slots=True)
class _SpdxPackage:
    SPDXID: str = ""
    versionInfo: str | None = None  # noqa: N815 -- its name there


@dataclass(frozen=True, slots=True)
class _Spdx:
    packages: list[_SpdxPackage] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Subject:
    digest: Sums = field(default_factory=dict)
    name: str = ""


@dataclass(frozen=True, slots=True)
class _Resource:
    """What went into a build, or came out beside the image."""

    name: str = ""
    uri: str = ""
    digest: Sums = field(default_factory=dict)
    annotations: dict[str, str | bool | int | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Parameters:
    variant: str = ""
    fork: str = ""
    ref: str | None = None
    buildNumber: int | None = None  # noqa: N815 -- its name there


@dataclass(frozen=True, slots=True)
class _Definition:
    externalParameters: _Parameters | None = None  # noqa: N815 -- their names there
    resolvedDependencies: list[_Resource] = field(default_factory=list)  # noqa: N815


@dataclass(frozen=True, slots=True)
class _Run:
    byproducts: list[_Resource] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Predicate:
    buildDefinition: _Definition | None = None  # noqa: N815 -- their names there
    runDetails: _Run | None = None  # noqa: N815


@dataclass(frozen=True, slots=True)
class _Statement:
    """Ours: an in-toto statement with SLSA's predicate."""

    predicateType: str = ""  # noqa: N815 -- its name there
    subject: list[_Subject] = field(default_factory=list)
    predicate: _Predicate | None = None


@dataclass(frozen=True, slots=True)
class _AnyStatement:
    """BuildKit's: a statement of whatever it states."""

    predicateType: str = ""  # noqa: N815 -- its name there


@dataclass(frozen=True, slots=True)
class _Finding:
    probe: str
    status: str


@dataclass(frozen=True, slots=True)
class _Kv:
    status: str | None = None


@dataclass(frozen=True, slots=True)
class _Report:
    """What audit or smoke found."""

    image_id: str | None = None
    passed: bool | None = None
    findings: list[_Finding] = field(default_factory=list)
    kv: _Kv | None = None


_SHAPES: dict[str, type] = {
    attest.SBOM: _Spdx,
    attest.PROVENANCE: _Statement,
    attest.AUDIT: _Report,
    attest.SMOKE: _Report,
} | dict.fromkeys(attestations.NAMES, _AnyStatement)


def parse(name: str, text: bytes) -> dict[str, Any]:
    """A document by its file's name, as it is. Raises ValueError when it is of another shape."""
    found = outside_json.read_object(text)
    try:
        _adapter(_SHAPES[name]).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"not such a document: {place}: {first['msg']}") from error
    return found


# Making one takes longer than reading a hundred documents.
@functools.cache
def _adapter(kind: type) -> "TypeAdapter[Any]":
    return TypeAdapter(kind)
