"""The record of what was published: a plain tree of JSON files, for a branch or a Pages site.

    index.json               the repository, its floating tags, the releases, newest first
    releases/<NAME>.json     one release; its name is the immutable tag
    nights/<DATE>-<VARIANT>.json   one night of `builder nightly`

Times are UTC, ISO 8601. Sizes are bytes, durations seconds. Every file is whole at any moment.

A record may come from a branch or an address that others write to. So what it names itself is held
against the names of its files and the characters of a tag, and no link in it is followed.
"""

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from builder.common import paths
from builder.common.errors import UsageError
from builder.common.files import as_kept, read_regular, replace_files, sweep, write_atomically
from builder.common.locks import locked
from builder.common.progress import Progress
from builder.model.pins import CacheStats, Receipt
from builder.model.tags import is_tag

T = TypeVar("T")
Proof = Literal["contract", "audit", "kv"]
What = Literal["pushed", "tagged", "promoted", "rolled-back", "lost", "deleted", "rebuilt"]

_NIGHT = re.compile(r"\d{4}-\d\d-\d\d-[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that was done to a release; `previous` is the digest that `tag` had before."""

    at: str
    what: What
    tag: str | None = None
    previous: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Attachment:
    """What goes with an image in its registry: `digest` of the manifest that carries it."""

    kind: Literal["source", "sbom", "provenance", "signature", "evidence"]
    digest: str
    media_type: str
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """An image in a registry and what is known of it.

    `digest` is the registry's, of the manifest or index that was pushed, `registry_bytes` what its
    layers weigh there. `proven` and `not_proven` part what a release can prove; `gpu` names the GPU
    that the smoke ran on, None: none. `audit` and `smoke` are the reports' JSON as `builder audit
    --json` and `builder smoke --json` print it, without folders of the machine.
    """

    name: str
    repository: str
    variant: str
    fork: str
    commit: str
    build_number: int
    digest: str
    published: str
    receipt: Receipt
    audit: dict[str, Any]
    smoke: dict[str, Any]
    required: list[Proof]
    proven: list[Proof]
    not_proven: list[Proof]
    gpu: str | None = None
    registry_bytes: int = 0
    attachments: list[Attachment] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    schema: int = 1


@dataclass(frozen=True, slots=True)
class Index:
    """`floating`: tag → the name of the release that it stands for. `releases`: newest first.

    `moving`: tag → the release that it is being moved to, written before the registry is told: what
    is killed in between knows the tag again as its own.
    """

    repository: str
    floating: dict[str, str] = field(default_factory=dict)
    moving: dict[str, str] = field(default_factory=dict)
    releases: list[str] = field(default_factory=list)
    schema: int = 1


@dataclass(frozen=True, slots=True)
class NightStep:
    """One step of a night. `log` is a path, or empty."""

    name: str
    status: Literal["ok", "failed", "skipped"]
    started: str
    duration_s: float
    detail: str = ""
    log: str = ""


@dataclass(frozen=True, slots=True)
class Night:
    """One night of one variant; `date` is YYYY-MM-DD, figures None where no step gave them.

    `outcome`: "promoted", "unchanged" (the published image is the newest commit's), "failed".
    `bisect` is what a bisect of the failure found, as Markdown; `page` the address of the job that
    ran the night. Both may be empty.
    """

    date: str
    variant: str
    fork: str
    outcome: Literal["promoted", "unchanged", "failed"]
    steps: list[NightStep]
    commit: str | None = None
    release: str | None = None
    failed_step: str | None = None
    commits_behind: int | None = None
    days_behind: float | None = None
    size_bytes: int | None = None
    compressed_bytes: int | None = None
    build_s: float | None = None
    ccache: CacheStats | None = None
    bisect: str = ""
    page: str = ""
    schema: int = 1


def read_index(folder: Path) -> Index | None:
    """The index; None when nothing was recorded yet. Raises UsageError."""
    path = folder / "index.json"
    return _read(folder, path, Index, "index") if path.exists() or path.is_symlink() else None


def read_release(folder: Path, name: str) -> Release:
    """Raises UsageError when there is no such release, or it is not one."""
    return _read(folder, folder / "releases" / f"{_tag(name)}.json", Release, name)


def read_nights(folder: Path) -> list[Night]:
    """Every night, oldest first. Raises UsageError."""
    paths = sorted((folder / "nights").glob("*.json"))
    return [_read(folder, path, Night, path.stem) for path in paths]


def write_release(folder: Path, release: Release, index: Index) -> None:
    """The release and the index that names it, together. The caller keeps other runs out."""
    path = folder / "releases" / f"{_tag(release.name)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    for one in (folder, path.parent):
        sweep(one)
    replace_files({path: to_bytes(release), folder / "index.json": to_bytes(index)}, root=folder)


def alone(folder: Path, progress: Progress) -> AbstractContextManager[None]:
    """One run at a time writes a record; the lock does not lie in it."""
    key = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]
    return locked(paths.cache() / f"record-{key}", f"the other run on {folder}", progress)


def has_release(folder: Path, name: str) -> bool:
    """Whether the record has a release of this name, be it deleted from the registry since."""
    return (folder / "releases" / f"{_tag(name)}.json").exists()


def deleted(release: Release) -> str | None:
    """When the registry's copy was deleted; None: it was not, or was tagged again since."""
    ends = [one for one in release.events if one.what in {"tagged", "deleted"}]
    return ends[-1].at if ends and ends[-1].what == "deleted" else None


def rebuilt(release: Release) -> bool:
    """Whether the record has only the registry's own word for it: then it vouches for nothing."""
    return any(one.what == "rebuilt" and one.tag is None for one in release.events)


def event(what: What, tag: str | None = None, previous: str | None = None, note: str = "") -> Event:
    """An event of this moment."""
    return Event(now(), what, tag, previous, note)


def now() -> str:
    """The time as the record writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def write_night(folder: Path, night: Night) -> Path:
    """Write one night; a second run of the same night replaces it. The caller keeps others out."""
    path = folder / "nights" / f"{_night(night)}.json"
    sweep(path.parent)
    write_atomically(path, to_bytes(night), root=folder)
    return path


def to_json(release: Release) -> str:
    """The release as indented JSON, as it lies in the record."""
    return json.dumps(dataclasses.asdict(release), indent=2)


def parse(text: bytes, kind: type[T], where: str, name: str) -> T:
    """The value of one of the record's files; `where` is how errors call it. Raises UsageError.

    `name` is that of the file, without its ending: what is in it has to say the same.
    """
    from pydantic import ValidationError

    try:
        found: T = _adapter(kind).validate_json(text)  # type: ignore[arg-type]
    except ValidationError as error:
        raise _not_ours(where, str(error)) from error
    fault = next(_faults(found, name), None)
    if fault:
        raise _not_ours(where, fault)
    return found


def _not_ours(where: str, why: str) -> UsageError:
    return UsageError(
        f"{where}: is not what builder wrote",
        why=why,
        hint="put back what it was (`git log` where the record is a branch), or take it away: "
        "`builder record rebuild` brings back what the registry knows",
    )


def _faults(value: object, name: str) -> Iterator[str]:
    """What its fields say that cannot be."""
    if isinstance(value, Release) and value.name != name:
        yield f"name: {value.name!r}, in a file of another name"
    if isinstance(value, Night) and _night(value) != name:
        yield f"date and variant: {_night(value)!r}, in a file of another name"
    if isinstance(value, Index):
        named = (*value.floating.items(), *value.moving.items())
        for one in (*value.releases, *(word for pair in named for word in pair)):
            if not is_tag(one):
                yield f"{one!r} is not a valid tag"


def _tag(name: str) -> str:
    if not is_tag(name):
        raise UsageError(f"{name!r} is not a valid name of a release")
    return name


def _night(night: Night) -> str:
    """The name of its file, without the ending. Raises UsageError for what is no name."""
    name = f"{night.date}-{night.variant}"
    if not _NIGHT.fullmatch(name):
        raise UsageError(f"{name!r} is not a valid name of a night")
    return name


def _read(folder: Path, path: Path, kind: type[T], name: str) -> T:
    try:
        text = read_regular(path, root=folder)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read", why=str(error)) from error
    return parse(text, kind, str(path), name)


# Making one takes longer than reading a hundred nights.
@functools.cache
def _adapter(kind: Any) -> Any:  # noqa: ANN401 -- a class, and its TypeAdapter
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def to_bytes(value: Release | Index | Night) -> bytes:
    """As it lies in the record."""
    return as_kept(json.dumps(dataclasses.asdict(value), indent=2) + "\n")
