"""The releases of a record, with what each has proven."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from builder.release import floating, promote
from builder.release import record as records
from builder.release.record import Release

HEADER = ("release", "published", "tags", "proven", "not proven", "GPU", "MB", "digest")
_MB = 1e6


@dataclass(frozen=True, slots=True)
class Listed:
    """A release, and the floating tags that stand for it."""

    release: Release
    tags: list[str]


def releases(record: Path, variant: str | None = None) -> list[Listed]:
    """The releases that the registry has by the record, newest first; of one variant, or all.

    Raises UsageError when nothing was recorded there.
    """
    index = promote.recorded(record)
    found = [records.read_release(record, name) for name in index.releases]
    return [
        Listed(one, [tag for tag, name in index.floating.items() if name == one.name])
        for one in found
        if variant in {None, one.variant}
    ]


def rows(listed: list[Listed]) -> list[tuple[str, ...]]:
    """The cells of a table with HEADER."""
    return [
        (
            one.release.name,
            one.release.published[:16].replace("T", " "),
            ", ".join(one.tags) or "-",
            ", ".join(one.release.proven),
            ", ".join(one.release.not_proven) or "-",
            one.release.gpu or "none",
            f"{one.release.registry_bytes / _MB:.0f}",
            one.release.digest[: floating.SHOWN],
        )
        for one in listed
    ]


def to_json(listed: list[Listed]) -> str:
    """The releases as indented JSON, each with its `floating` tags beside its fields."""
    document = [{**dataclasses.asdict(one.release), "floating": one.tags} for one in listed]
    return json.dumps({"releases": document, "schema": 1}, indent=2)
