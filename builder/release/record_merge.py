"""Two copies of a record made one by what they mean: neither loses a release, a night or an event.

Pure. `ours` is the copy in a folder, `theirs` the one that was pushed meanwhile, `base` what both
began with, as far as it is known. Merging again what was merged changes nothing.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import TypeVar

from builder.common.errors import UsageError
from builder.release import record
from builder.release.record import Index, Night, Release

Files = Mapping[str, bytes]
"""Path in the record → content."""

T = TypeVar("T", Release, Night, Index)

INDEX = "index.json"
_MARKED = re.compile(
    rb"^<{7}.*\n(?P<a>(?:.*\n)*?)(?:\|{7}.*\n(?:.*\n)*?)?={7}\n(?P<b>(?:.*\n)*?)>{7}.*(?:\n|\Z)",
    re.MULTILINE,
)
"""A conflict as git marks it: an older builder committed such."""
_MOVES = {"promoted", "rolled-back", "rebuilt"}


def merge(base: Files, ours: Files, theirs: Files) -> dict[str, bytes]:
    """The files of the record that both copies make.

    What one of them alone has stays, unless it was pushed that it is gone and nothing else was done
    to it. A file that is none of builder's and was changed in both is theirs. Raises UsageError
    when the copies are of two repositories.
    """
    merged: dict[str, bytes] = {}
    for name in sorted({*ours, *theirs} - {INDEX}):
        found = _file(name, base.get(name), ours.get(name), theirs.get(name))
        if found is not None:
            merged[name] = found
    index = _index(base.get(INDEX), ours.get(INDEX), theirs.get(INDEX), merged)
    return merged if index is None else {**merged, INDEX: index}


def _file(name: str, base: bytes | None, ours: bytes | None, theirs: bytes | None) -> bytes | None:
    kind, _, stem = name.removesuffix(".json").partition("/")
    if kind == "releases":
        return _joined(stem, Release, base, ours, theirs, _release)
    if kind == "nights":
        return _joined(stem, Night, base, ours, theirs, _night)
    alone = _unchanged(base, ours, theirs)
    return theirs if alone is None else alone


def _unchanged(base: bytes | None, ours: bytes | None, theirs: bytes | None) -> bytes | None:
    """The copy that counts where only one of them was changed; None: none of them, or both were."""
    if ours is None or ours in {base, theirs}:
        return theirs
    return ours if theirs in {base, None} else None


def _joined(
    stem: str,
    kind: type[T],
    base: bytes | None,
    ours: bytes | None,
    theirs: bytes | None,
    join: Callable[[T, T], T],
) -> bytes | None:
    """One of the record's files; a copy that nobody can read is no reason to lose the other."""
    if theirs is None and ours == base:
        return None
    alone = _unchanged(base, ours, theirs)
    if alone is not None and _parsed(alone, kind, stem):
        return alone
    found = [one for copy in (theirs, ours) for one in _readings(copy, kind, stem)]
    return record.to_bytes(reduce(join, found)) if found else theirs or ours


def _index(
    base: bytes | None, ours: bytes | None, theirs: bytes | None, files: Files
) -> bytes | None:
    known = _releases(files)
    began = _parsed(base, Index, "index")

    def join(one: Index, other: Index) -> Index:
        return _indexes(began, other, one, known)

    return _joined("index", Index, base, ours, theirs, join)


def _releases(files: Files) -> dict[str, Release]:
    """The releases that can be read, by name."""
    found = {}
    for path, content in files.items():
        kind, _, name = path.removesuffix(".json").partition("/")
        release = _parsed(content, Release, name) if kind == "releases" else None
        if release is not None:
            found[name] = release
    return found


def _readings(content: bytes | None, kind: type[T], stem: str) -> list[T]:
    """What a file says: one value, or those of both sides where git has marked a conflict."""
    if content is None:
        return []
    sides = [content]
    if _MARKED.search(content):
        sides = [_MARKED.sub(rb"\g<a>", content), _MARKED.sub(rb"\g<b>", content)]
    return [one for side in sides if (one := _parsed(side, kind, stem)) is not None]


def _parsed(content: bytes | None, kind: type[T], stem: str) -> T | None:
    if content is None:
        return None
    try:
        return record.parse(content, kind, stem, stem)
    except UsageError:
        return None


def _release(one: Release, other: Release) -> Release:
    """The later state of a release, with the events of both."""
    first = one
    if (_named(other) and not _named(one)) or (
        other.digest == one.digest and _last(other) > _last(one)
    ):
        first = other
    events = dict.fromkeys([*one.events, *other.events])
    return replace(first, events=sorted(events, key=lambda event: event.at))


def _named(release: Release) -> bool:
    """Whether it got its immutable tag, which no other image under this name ever gets."""
    return any(event.what == "tagged" for event in release.events)


def _last(release: Release) -> str:
    return max((event.at for event in release.events), default=release.published)


def _night(one: Night, other: Night) -> Night:
    """The run of a night that began later: a second one replaces the first."""

    def began(night: Night) -> str:
        return night.steps[0].started if night.steps else ""

    return other if began(other) > began(one) else one


def _indexes(base: Index | None, ours: Index, theirs: Index, known: Mapping[str, Release]) -> Index:
    if ours.repository != theirs.repository:
        raise UsageError(
            f"the record is of {ours.repository}, and the branch has one of {theirs.repository}",
            hint="name another branch: `--record-branch NAME`, or another folder: `--record DIR`",
        )
    began = base or Index(ours.repository)
    return replace(
        theirs,
        floating=_tags(began.floating, ours.floating, theirs.floating, known),
        moving=_tags(began.moving, ours.moving, theirs.moving, known),
        releases=_names([*theirs.releases, *ours.releases], known),
    )


def _tags(
    base: Mapping[str, str],
    ours: Mapping[str, str],
    theirs: Mapping[str, str],
    known: Mapping[str, Release],
) -> dict[str, str]:
    """Tag → release: as the one that changed it has it, or where both did, the later event."""
    found: dict[str, str] = {}
    for tag in dict.fromkeys([*theirs, *ours]):
        began, mine, other = base.get(tag), ours.get(tag), theirs.get(tag)
        if mine in {other, began}:
            name = other
        elif other == began:
            name = mine
        elif mine is None or other is None:
            name = mine or other
        else:
            name = max([other, mine], key=lambda one: _moved(tag, one, known))
        if name is not None:
            found[tag] = name
    return found


def _moved(tag: str, name: str, known: Mapping[str, Release]) -> str:
    """When a tag was last moved to a release; "" for never."""
    events = known[name].events if name in known else []
    return max((one.at for one in events if one.what in _MOVES and one.tag == tag), default="")


def _names(names: Sequence[str], known: Mapping[str, Release]) -> list[str]:
    """Those that the registry still has, the last one tagged first."""
    there = [
        name
        for name in dict.fromkeys(names)
        if name not in known or record.deleted(known[name]) is None
    ]

    def tagged(name: str) -> str:
        release = known.get(name)
        events = release.events if release else []
        began = release.published if release else ""
        return max((one.at for one in events if one.what == "tagged"), default=began)

    return sorted(there, key=tagged, reverse=True)
