"""Move a variant's floating tags to a release that the record has as passed."""

from dataclasses import dataclass
from pathlib import Path

from builder.common.errors import NameTakenError, NotProvenError, RefNotFoundError, UsageError
from builder.common.progress import Progress
from builder.common.suggest import suggestion
from builder.model import tags
from builder.model.pins import Pins
from builder.registry import login as registry_login
from builder.registry.client import RegistryClient
from builder.release import floating
from builder.release import record as records
from builder.release.record import Index, Release


@dataclass(frozen=True, slots=True)
class Request:
    """What is moved: `release` is a release's name, or a variant's for its newest release.

    `tags`: only these; empty: all floating tags of the variant. `force`: also a tag that somebody
    else moved.
    """

    release: str
    pins: Pins
    tags: tuple[str, ...] = ()
    force: bool = False


def promote(request: Request, record: Path, progress: Progress) -> Release:
    """Move the tags; the release with what happened to it.

    Raises NotProvenError when it lacks what today's policy requires, NameTakenError when a tag was
    moved by somebody else, UsageError, RefNotFoundError, RemoteUnavailableError.
    """
    own = registry_login.own_registry(request.pins.policy.release.repository)
    with own, records.alone(record, progress):
        index, release = chosen(request, record)
        with RegistryClient(index.repository) as repository:
            check_name(repository, release)
            return floating.move(
                repository,
                record,
                release,
                chosen_tags(request, release),
                "promoted",
                progress,
                force=request.force,
            )


def plan(request: Request, record: Path) -> tuple[Release, tuple[str, ...]]:
    """The release and the tags that `promote` would move; changes nothing, raises as it does."""
    index, release = chosen(request, record)
    moved = chosen_tags(request, release)
    with registry_login.own_registry(request.pins.policy.release.repository):
        require_movable(index, record, release, moved, force=request.force)
    return release, moved


def require_movable(
    index: Index, record: Path, release: Release, moved: tuple[str, ...], *, force: bool
) -> None:
    """Ask the registry whether the tags could be moved to the release now; raises as `promote`."""
    with RegistryClient(index.repository) as repository:
        check_name(repository, release)
        repository.complete(release.digest)
        for tag in moved:
            floating.look(repository, record, release, tag, force=force)


def chosen(request: Request, record: Path) -> tuple[Index, Release]:
    """The record's index and the release that is asked for, if it may be promoted."""
    index = recorded(record)
    name = request.release
    if name in request.pins.variants:
        name = newest(index, record, name)
    release = read(index, record, name)
    missing = [one for one in request.pins.policy.release.require if one not in release.proven]
    if missing:
        raise NotProvenError(
            f"{name} is not promoted: {', '.join(missing)} not proven",
            why="pins.toml: policy.release.require asks for it",
            hint="build and publish the commit anew",
        )
    return index, release


def recorded(record: Path) -> Index:
    """The index of a record. Raises UsageError when nothing was recorded there."""
    index = records.read_index(record)
    if index is None:
        raise UsageError(f"{record} is no record of releases", hint="`builder publish` begins one")
    return index


def read(index: Index, record: Path, name: str) -> Release:
    """A release that the registry still has. Raises UsageError."""
    if name not in index.releases:
        raise UsageError(f"no release {name}", hint=suggestion(name, index.releases))
    return records.read_release(record, name)


def newest(index: Index, record: Path, variant: str) -> str:
    """The name of a variant's newest release. Raises UsageError when it has none."""
    for name in index.releases:
        if records.read_release(record, name).variant == variant:
            return name
    raise UsageError(f"{variant} has no release", hint="`builder publish` makes one")


def chosen_tags(request: Request, release: Release) -> tuple[str, ...]:
    """The tags to move. Raises UsageError for one that is none of the variant's."""
    own = tags.floating(release.variant, request.pins.policy.default_variant)
    for tag in request.tags:
        if tag not in own:
            raise UsageError(f"{tag} is no tag of {release.variant}", hint=suggestion(tag, own))
    return tuple(tag for tag in own if tag in request.tags or not request.tags)


def check_name(repository: RegistryClient, release: Release) -> None:
    """See that the immutable tag still stands for what passed.

    Raises RefNotFoundError when it is gone, NameTakenError when it is another image.
    """
    there = repository.digest(release.name)
    if there is None:
        raise RefNotFoundError(
            f"{repository.repository} has no {release.name} any more",
            hint="`builder publish` puts it there again",
        )
    if there != release.digest:
        raise NameTakenError(
            f"{release.name} was overwritten by somebody else",
            why=f"it stands for {there}, the record says {release.digest}",
            hint="no tag was moved; delete it in the registry, then publish anew",
        )
