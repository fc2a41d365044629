"""Tags that follow a release: moved behind a look at what they stand for, and read back.

A registry has no compare-and-swap. What is seen before a move is compared with the record; what is
seen after it says who won.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from builder.common.errors import NameTakenError, UsageError
from builder.common.progress import Progress
from builder.release import record as records
from builder.release.record import Index, Release

if TYPE_CHECKING:
    from builder.registry.client import RegistryClient

SHOWN = 19
"""Characters of a digest that a message shows."""


def move(
    repository: "RegistryClient",
    record: Path,
    release: Release,
    tags: Sequence[str],
    what: Literal["promoted", "rolled-back"],
    progress: Progress,
    *,
    force: bool = False,
) -> Release:
    """Move the tags to a recorded release; the release with what happened.

    A tag that already stands for it is only recorded. Raises NameTakenError when a tag stands for
    something that the record does not say (unless `force`), or somebody else won it;
    RefNotFoundError when the registry lacks a part of the release, RemoteUnavailableError.
    """
    progress.step(f"look at {', '.join(tags)}")
    manifest = repository.complete(release.digest)
    for tag in tags:
        look(repository, record, release, tag, force=force)
    for tag in tags:
        progress.step(f"move {tag}")
        previous = look(repository, record, release, tag, force=force)
        if previous != release.digest:
            progress.detail(f"{tag}: write down what it is moved to")
            index = of(record, repository.repository)
            moving = {**index.moving, tag: release.name}
            records.write_release(record, release, replace(index, moving=moving))
            progress.detail(f"{tag}: tell the registry")
            repository.put(manifest, tag)
        progress.detail(f"{tag}: read it back")
        _won(repository, record, release, tag)
        progress.detail(f"{tag}: write down that it moved")
        release = _moved(record, release, tag, what, previous)
    return release


def look(
    repository: "RegistryClient", record: Path, release: Release, tag: str, *, force: bool
) -> str | None:
    """The digest that a tag stands for now; None: there is no such tag.

    Raises NameTakenError when neither the record nor this release accounts for it.
    """
    now = repository.digest(tag)
    told = told_of(of(record, repository.repository), record, tag)
    if now is None or now in {*told, release.digest} or force:
        return now
    said = f"the record says {told[0][:SHOWN]}" if told else "the record knows nothing of it"
    raise NameTakenError(
        f"{tag} was moved by somebody else: it stands for {now[:SHOWN]}",
        why=f"{said}; {repository.repository}",
        hint="where the record lost a run, `builder record rebuild` reads it from the registry; "
        "`--force` moves the tag all the same",
    )


def of(record: Path, repository: str) -> Index:
    """The index of the record, of this repository. Raises UsageError for another's."""
    index = records.read_index(record) or Index(repository)
    if index.repository != repository:
        raise UsageError(
            f"the record in {record} is of {index.repository}, not of {repository}",
            hint="name another folder: `--record DIR`",
        )
    return index


def told_of(index: Index, record: Path, tag: str) -> list[str]:
    """The digests that a tag may stand for by the record: where it is, and where it was going."""
    names = [names[tag] for names in (index.floating, index.moving) if tag in names]
    return [records.read_release(record, name).digest for name in names]


def _won(repository: "RegistryClient", record: Path, release: Release, tag: str) -> None:
    now = repository.digest(tag)
    if now == release.digest:
        return
    index = of(record, repository.repository)
    moving = {key: name for key, name in index.moving.items() if key != tag}
    raise lost(record, replace(index, moving=moving), release, tag, now)


def lost(
    record: Path, index: Index, release: Release, tag: str, winner: str | None
) -> NameTakenError:
    """Write down that somebody else has the tag; the error that says so."""
    note = f"it stands for {winner}" if winner else "it is gone again"
    event = records.event("lost", tag, winner, note)
    records.write_release(record, replace(release, events=[*release.events, event]), index)
    return NameTakenError(
        f"somebody else moved {tag} at the same time: {note}",
        why=f"{release.name} stays in {index.repository} under its digest {release.digest}",
        hint="`builder releases` shows what the record knows",
    )


def _moved(
    record: Path,
    release: Release,
    tag: str,
    what: Literal["promoted", "rolled-back"],
    previous: str | None,
) -> Release:
    index = of(record, release.repository)
    before = index.floating.get(tag)
    if before == release.name and tag not in index.moving:
        return release
    if previous == release.digest:
        # A run that was killed in between moved it; what it stood for before, the record knows.
        previous = records.read_release(record, before).digest if before else None
    index = replace(
        index,
        floating={**index.floating, tag: release.name},
        moving={key: name for key, name in index.moving.items() if key != tag},
    )
    release = replace(release, events=[*release.events, records.event(what, tag, previous)])
    records.write_release(record, release, index)
    return release
