"""What pins.toml names beside forks: base images, source archives, published images.

Each is asked of its registry or package index. One that does not answer is unknown, never fresh.
"""

import datetime
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from packaging.version import InvalidVersion, Version

from builder.common.errors import RefNotFoundError
from builder.engine import boundary
from builder.freshness.end_of_life import end_of_life
from builder.freshness.report import Failure, PartReport, Reason
from builder.model.pins import Pins, Source
from builder.registry import registry
from builder.sources import package_index

NEAR = datetime.timedelta(days=90)
"""A base whose distribution gets updates for no longer than this is stale."""

_REVISION = "org.opencontainers.image.revision"
_SHORTEST = 7

Question = Callable[[], PartReport]


def questions(everything: Pins) -> list[Question]:
    """One for each part, to be asked side by side; none of them raises anything."""
    return [*_bases(everything), *_sources(everything), *_published(everything)]


def _asked(report: PartReport, look: Callable[[PartReport], PartReport]) -> PartReport:
    """The report as `look` makes it, with its verdict."""
    try:
        found = look(report)
    except Exception as error:
        return replace(report, failure=Failure.of(boundary.failure(error)))
    if found.verdict != "unknown":
        return found
    return replace(found, verdict="stale" if found.reasons else "fresh")


def _bases(everything: Pins) -> Iterator[Question]:
    places: dict[str, list[str]] = {}
    for name, base in everything.bases.items():
        for role, reference in (("devel", base.devel), ("runtime", base.runtime)):
            place = f"bases.{name}.{role}"
            if reference is None:
                yield partial(_bootstrapped, place)
            else:
                places.setdefault(reference, []).append(place)
    for reference, known in places.items():
        tag, _, pinned = reference.partition("@")
        report = PartReport("base", tag, tuple(known), pinned, "unknown")
        yield partial(_asked, report, base_image)


def _bootstrapped(place: str) -> PartReport:
    why = "made from Debian packages where it is built: no digest to compare"
    return PartReport(
        "base", place.removeprefix("bases."), (place,), None, "unpinned", notes=(why,)
    )


def base_image(report: PartReport) -> PartReport:
    """Whether the tag still stands for the pinned digest, and for how long its system is kept up.

    Raises RemoteUnavailableError.
    """
    image, reasons, notes = registry.image(report.name), [], []
    try:
        found = registry.digest(image)
    except RefNotFoundError as error:
        found = None
        reasons.append(Reason("gone", error.what))
    if found is not None and found != report.pinned:
        kept = report.pinned is not None and registry.holds(image, report.pinned)
        still = "is still given out" if kept else "is given out no more"
        reasons.append(Reason("digest", f"the tag is another image now; the pinned one {still}"))
    end = end_of_life(report.name)
    if end is None:
        notes.append("the end of its life is not known here")
    elif end - datetime.datetime.now(datetime.UTC).date() <= NEAR:
        reasons.append(Reason("end_of_life", f"its system gets updates until {end}"))
    return replace(
        report,
        found=found,
        end_of_life=None if end is None else end.isoformat(),
        reasons=tuple(reasons),
        notes=tuple(notes),
    )


def _sources(everything: Pins) -> Iterator[Question]:
    for name, source in everything.sources.items():
        report = PartReport(
            "source", source.package, (f"sources.{name}",), source.version, "unknown"
        )
        yield partial(_asked, report, partial(source_archive, source=source))


def source_archive(report: PartReport, *, source: Source) -> PartReport:
    """Whether the index still has the pinned archive as it was, and whether it has a newer one.

    Raises RemoteUnavailableError.
    """
    listed = package_index.listed(source.package)
    own = next((one for one in listed if one.version == source.version), None)
    reasons = []
    if own is None:
        reasons.append(Reason("gone", f"the index has no source archive of {source.version}"))
    elif own.yanked is not None:
        why = own.yanked and f": {own.yanked}"
        reasons.append(Reason("yanked", f"{source.version} was withdrawn{why}"))
    if own is not None and own.sha256 not in {None, source.sha256}:
        reasons.append(Reason("other_file", f"its sha256 is {own.sha256} now"))
    newest = _newest(source.version, [one.version for one in listed if one.yanked is None])
    if newest is not None:
        reasons.append(Reason("newer_version", f"{newest} is newer"))
    found = newest or (own.version if own else None)
    return replace(report, found=found, reasons=tuple(reasons))


def _newest(pinned: str, versions: list[str]) -> str | None:
    """The newest of those above the pinned one; a pre-release counts for a pre-release only."""
    floor, newer = Version(pinned), []
    for text in versions:
        try:
            version = Version(text)
        except InvalidVersion:
            continue
        if version > floor and (floor.is_prerelease or not version.is_prerelease):
            newer.append((version, text))
    return max(newer)[1] if newer else None


def _published(everything: Pins) -> Iterator[Question]:
    repository = everything.policy.release.repository
    if repository is None:
        return
    for name, variant in everything.variants.items():
        fork = everything.forks[variant.fork]
        commit = everything.sources[variant.source].upstream if variant.source else fork.commit
        place = f"variants.{name}"
        report = PartReport("image", f"{repository}:{name}", (place,), commit, "unknown")
        needed = name == everything.policy.default_variant
        if commit is None:
            why = f"fork {variant.fork} is not pinned: no commit to compare"
            yield partial(replace, report, verdict="unpinned", notes=(why,))
        else:
            yield partial(_asked, report, partial(published_image, needed=needed))


def published_image(report: PartReport, *, needed: bool) -> PartReport:
    """Whether the floating tag carries the pinned commit, by its label. `needed`: it must exist.

    Raises RemoteUnavailableError.
    """
    try:
        labels = registry.labels(registry.image(report.name))
    except RefNotFoundError as error:
        if needed:
            return replace(report, reasons=(Reason("not_published", error.what),))
        return replace(report, verdict="unpublished", notes=("never published",))
    found = labels.get(_REVISION)
    if found is None or report.pinned is None or not _same(found, report.pinned):
        carried = f"it carries {found}" if found else f"it has no label {_REVISION}"
        return replace(report, found=found, reasons=(Reason("other_commit", carried),))
    return replace(report, found=found)


def _same(one: str, other: str) -> bool:
    """Whether two commits are one, when one of them may be shortened."""
    short, long = sorted((one, other), key=len)
    return len(short) >= _SHORTEST and long.startswith(short)
