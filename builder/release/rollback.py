"""Move a variant's floating tags back, to what they stood for before or to a named release."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from builder.common.errors import UsageError
from builder.common.files import write_atomically
from builder.common.progress import Progress
from builder.model import tags
from builder.model.pins import Pins
from builder.registry import login as registry_login
from builder.registry.client import RegistryClient
from builder.release import floating, promote
from builder.release import record as records
from builder.release.record import Index, Release


@dataclass(frozen=True, slots=True)
class Request:
    """What is moved back: the variant, and to which release; None: the last good one.

    `force`: also a tag that somebody else moved.
    """

    variant: str
    pins: Pins
    to: str | None = None
    force: bool = False


def rollback(request: Request, record: Path, progress: Progress) -> Release:
    """Move back each floating tag that stands for the current release; the release gone back to.

    Raises UsageError when there is nothing to go back to, NameTakenError, RefNotFoundError and
    RemoteUnavailableError.
    """
    own = registry_login.own_registry(request.pins.policy.release.repository)
    with own, records.alone(record, progress):
        index, release, moved = chosen(request, record)
        with RegistryClient(index.repository) as repository:
            promote.check_name(repository, release)
            write_atomically(_pending(record, request.variant), release.name)
            return floating.move(
                repository, record, release, moved, "rolled-back", progress, force=request.force
            )


def plan(request: Request, record: Path) -> tuple[Release, tuple[str, ...]]:
    """The release and the tags that `rollback` would move. Changes nothing; raises as it does."""
    index, release, moved = chosen(request, record)
    with registry_login.own_registry(request.pins.policy.release.repository):
        promote.require_movable(index, record, release, moved, force=request.force)
    return release, moved


def told(record: Path, variant: str) -> None:
    """The user knows that the tags were moved back: the next rollback goes back once more.

    Before, the same command gives the same: it may have been killed when all was written.
    """
    _pending(record, variant).unlink(missing_ok=True)


def _pending(record: Path, variant: str) -> Path:
    return record.with_name(f"{record.name}-journals") / f"rollback-{variant}"


def _untold(index: Index, record: Path, variant: str, tag: str) -> str | None:
    """The release that a run which was killed went back to, and nothing was promoted since."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        name = _pending(record, variant).read_text(encoding="utf-8")
        return name if index.floating[tag] == name else None
    return None


def chosen(request: Request, record: Path) -> tuple[Index, Release, tuple[str, ...]]:
    """The record's index, the release to go back to, and the tags that are moved."""
    index = promote.recorded(record)
    own = tags.floating(request.variant, request.pins.policy.default_variant)
    moved = tuple(tag for tag in own if tag in index.floating)
    if not moved:
        raise UsageError(f"no tag of {request.variant} was ever promoted")
    untold = _untold(index, record, request.variant, moved[-1])
    name = request.to or untold or before(index, record, moved[-1])
    release = promote.read(index, record, name)
    if release.variant != request.variant:
        raise UsageError(f"{name} is a release of {release.variant}, not of {request.variant}")
    return index, release, moved


def before(index: Index, record: Path, tag: str) -> str:
    """The release that a tag stood for before it was promoted to the present one.

    After a rollback that is the one before the release gone back to, not the one left. A release
    that was deleted since is passed over. Raises UsageError when there is none.
    """
    by_digest = {records.read_release(record, name).digest: name for name in index.releases}
    release = records.read_release(record, index.floating[tag])
    seen = {release.digest}
    while previous := _previous(release, tag):
        if previous in seen:
            break
        if previous in by_digest:
            return by_digest[previous]
        seen.add(previous)
        found = _deleted(record, previous)
        if found is None:
            break
        release = found
    raise UsageError(
        f"the record knows no release before {release.name} under {tag}",
        hint="name one: `builder rollback VARIANT --to RELEASE`; `builder releases` lists them",
    )


def _previous(release: Release, tag: str) -> str | None:
    came = {"promoted", "rebuilt"}
    promoted = [one for one in release.events if one.what in came and one.tag == tag]
    return promoted[-1].previous if promoted else None


def _deleted(record: Path, digest: str) -> Release | None:
    """The release of a digest that the registry has no more."""
    for path in sorted((record / "releases").glob("*.json")):
        release = records.read_release(record, path.stem)
        if release.digest == digest:
            return release
    return None
