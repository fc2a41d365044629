"""Delete old releases from the registry: never what a tag, an index or the record leans on.

The API cannot say how old a manifest is, so only what the record has is ever deleted.
"""

import datetime
from collections.abc import Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from builder.common.errors import RemoteUnavailableError, UsageError
from builder.common.progress import Progress
from builder.registry import referrers
from builder.registry.answers import MOST_LISTED
from builder.registry.client import Manifest, RegistryClient
from builder.release import promote, rollback
from builder.release import record as records
from builder.release.record import Index, Release

_CLOCKS_APART_S = 3600.0
_AT_ONCE = 8
"""Questions to the registry side by side: a repository can have thousands of tags."""


@dataclass(frozen=True, slots=True)
class Request:
    """A release is old when both say so: not among its variant's newest `keep`, over `keep_days`.

    None: that one is not asked. At least one is given.
    """

    keep: int | None = None
    keep_days: int | None = None
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Kept:
    """An old release that stays, and why."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Pruned:
    """`deleted`: names of releases, with `dry_run` those that would go. `kept`: old ones that stay.

    `young` counts those that are not old.
    """

    deleted: list[str]
    kept: list[Kept]
    young: int
    dry_run: bool
    schema: int = 1


def prune(request: Request, record: Path, progress: Progress) -> Pruned:
    """Delete the old releases of a record, and their attachments, from its registry.

    Raises UsageError without a rule, or when this machine's clock is not the registry's;
    RemoteUnavailableError when the registry does not tell all of its tags, and when it deletes
    nothing (GHCR's API does not).
    """
    if request.keep is None and request.keep_days is None:
        raise UsageError("which releases are old?", hint="--keep N, --keep-days DAYS, or both")
    with records.alone(record, progress):
        index = promote.recorded(record)
        with RegistryClient(index.repository) as repository:
            releases = [records.read_release(record, name) for name in index.releases]
            old = [one for one in releases if one.name in set(_old(request, releases))]
            progress.step("look at every tag")
            tags = _Tags(repository, old)
            used = tags.look(index)
            _same_clock(request, repository)
            kept, deleted = [], []
            for release in old:
                why = _needed(index, record, release, used)
                if not why and not request.dry_run:
                    progress.step(f"delete {release.name}")
                    # Somebody may have put a tag on it since.
                    used = tags.look(index)
                    why = _needed(index, record, release, used)
                if why:
                    kept.append(Kept(release.name, why))
                    continue
                deleted.append(release.name)
                if not request.dry_run:
                    others = [one for one in releases if one.name in index.releases]
                    _delete(repository, release, used.keys() | _attached(others, release))
                    progress.detail(f"write down that {release.name} is gone")
                    index = _written(record, index, release)
    return Pruned(deleted, kept, len(releases) - len(old), request.dry_run)


def _old(request: Request, releases: list[Release]) -> Iterator[str]:
    """The names of old releases; they come newest first."""
    seen: dict[str, int] = {}
    now = datetime.datetime.now(datetime.UTC)
    for release in releases:
        seen[release.variant] = seen.get(release.variant, 0) + 1
        age = now - datetime.datetime.fromisoformat(release.published)
        many = request.keep is None or seen[release.variant] > request.keep
        aged = request.keep_days is None or age > datetime.timedelta(days=request.keep_days)
        if many and aged:
            yield release.name


def _same_clock(request: Request, repository: RegistryClient) -> None:
    ahead = repository.clock_ahead_s()
    if request.keep_days is not None and ahead is not None and abs(ahead) > _CLOCKS_APART_S:
        raise UsageError(
            f"nothing is deleted by its age: this clock and {repository.host}'s are "
            f"{abs(ahead) / 3600:.0f} h apart",
            hint="set the clock, or leave --keep-days out",
        )


class _Tags:
    """The tags of a repository, to be looked at as often as something is deleted."""

    def __init__(self, repository: RegistryClient, old: list[Release]) -> None:
        self._repository = repository
        self._own = {one.name: one.digest for one in old}
        self._own |= {a.tag: a.digest for one in old for a in one.attachments if a.tag}
        # Where the registry lists no referrers such a tag stands for a list of them instead.
        self._lists = {referrers.fallback_tag(one.digest) for one in old}
        self._immutable: dict[str, list[str]] = {}

    def look(self, index: Index) -> dict[str, str]:
        """Digest → the tag that references it, through an index too; old releases' own left out.

        A recorded release's own tag, which is never moved, is resolved once. Raises
        RemoteUnavailableError when the list of tags lacks some that are there.
        """
        listed = self._repository.tags()
        self._require_whole(index, set(listed))
        known = {*self._lists, *self._immutable}
        wanted = [tag for tag in dict.fromkeys(listed) if tag not in known]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = dict(zip(wanted, pool.map(self._references, wanted), strict=True))
        self._immutable |= {tag: found[tag] for tag in wanted if tag in index.releases}
        used: dict[str, str] = {}
        for tag in listed:
            digests = found.get(tag) or self._immutable.get(tag) or []
            if digests and self._own.get(tag) != digests[0]:
                used |= dict.fromkeys(digests, tag)
        return used

    def _references(self, tag: str) -> list[str]:
        """The digest of a tag, and those of all manifests below it; empty: it is gone again."""
        found = self._repository.manifest(tag)
        return _below(self._repository, found) if found else []

    def _require_whole(self, index: Index, listed: Set[str]) -> None:
        """By a list that is cut short, empty or of another repository nothing may be deleted."""
        known = {*index.releases, *index.floating}
        lost = [tag for tag in known - listed if self._repository.digest(tag) is not None]
        if lost or not known & listed:
            lacks = (
                f"it lacks {min(lost)}, which is there" if lost else "it has no tag of the record"
            )
            raise RemoteUnavailableError(
                f"nothing is deleted: {self._repository.repository} does not list all of its tags",
                why=lacks,
                hint="try again later; by a list that is cut short a tag could lose its image",
            )


def _below(repository: RegistryClient, top: Manifest) -> list[str]:
    """The digests of a manifest and of all that it names, whether or not they are there still."""
    whole = [top.digest, *top.children]
    for digest in whole:
        found = repository.manifest(digest) if digest != top.digest else None
        whole += [one for one in (found.children if found else ()) if one not in whole]
        if len(whole) > MOST_LISTED:
            raise RemoteUnavailableError(f"{top.digest} names over {MOST_LISTED} manifests")
    return whole


def _needed(index: Index, record: Path, release: Release, used: dict[str, str]) -> str | None:
    """Why a release stays, or None."""
    if release.digest in used:
        return f"the tag {used[release.digest]} stands for it"
    for names, what in ((index.floating, "stands for it"), (index.moving, "is being moved to it")):
        for tag, name in names.items():
            if name == release.name:
                return f"by the record {tag} {what}"
    for tag in index.floating:
        try:
            back = rollback.before(index, record, tag)
        except UsageError:
            continue
        if back == release.name:
            return f"a rollback of {tag} goes back to it"
    return None


def _attached(releases: list[Release], to_all_but: Release) -> set[str]:
    """What is attached to the other releases too, such as the source of one commit."""
    others = (one for one in releases if one.name != to_all_but.name)
    return {attachment.digest for one in others for attachment in one.attachments}


def _delete(repository: RegistryClient, release: Release, used: Set[str]) -> None:
    """The manifest first: what is left after a kill is found again by its record."""
    found = repository.manifest(release.digest)
    children = _below(repository, found)[1:] if found else []
    attached = [one.digest for one in release.attachments]
    attached += [one.digest for one in referrers.attached(repository, release.digest) if one.ours]
    gone = [one for one in [release.digest, *attached, *children] if one not in used]
    for digest in gone:
        repository.delete(digest)
    referrers.leave_out(repository, release.digest, set(gone))


def _written(record: Path, index: Index, release: Release) -> Index:
    gone = replace(release, events=[*release.events, records.event("deleted", release.name)])
    left = replace(index, releases=[name for name in index.releases if name != release.name])
    records.write_release(record, gone, left)
    return left
