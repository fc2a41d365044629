"""What differs between the files of two layers, down to the byte."""

import contextlib
import hashlib
import itertools
import posixpath
import re
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import IO, Literal

from builder.image import elf

What = Literal[
    "content",
    "mode",
    "owner",
    "mtime",
    "target",
    "kind",
    "attributes",
    "only in the first",
    "only in the second",
]

Open = Callable[[], AbstractContextManager[IO[bytes]]]
"""Opens a layer, a tar archive that may be compressed, at its beginning."""

SHOWN_BYTES = 16

_CHUNK = 256 * 1024
_IN_MEMORY = 64 * 1024 * 1024
_AROUND = 48
_XATTR = "SCHILY.xattr."
_BUILD_ID = ".note.gnu.build-id"

# What is near the first byte that differs, in both files → what it looks like.
_LOOKS = (
    (re.compile(rb"tmpxft_[0-9a-f]{8}"), "a temporary name of nvcc"),
    (re.compile(rb"/tmp/\w"), "a temporary name"),
    (re.compile(rb"\d{4}-\d\d-\d\d|\d\d:\d\d:\d\d"), "a date or a time of day"),
    (re.compile(rb"(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [ \d]\d"), "a date"),
    (re.compile(rb"\b1\d{9}(\d{9})?\b"), "seconds or nanoseconds since 1970"),
)
_GZIP = b"\x1f\x8b"
_GZIP_TIME = range(4, 8)
_ARCHIVE = b"!<arch>\n"


@dataclass(frozen=True, slots=True)
class Content:
    """Where two files first differ. `offset` is in bytes, `first` and `second` hex from there on.

    `section` is the ELF section there; the linker's hash of the file, its build ID, is passed over
    where anything else differs. `looks_like` is a guess from the bytes around, or empty.
    """

    offset: int
    first: str
    second: str
    section: str | None
    looks_like: str


@dataclass(frozen=True, slots=True)
class Difference:
    """One path that differs, in the layer of this number, the lowest being 1."""

    layer: int
    path: str
    what: tuple[What, ...]
    content: Content | None = None


@dataclass(frozen=True, slots=True)
class _Entry:
    kind: bytes
    mode: int
    owner: tuple[int, int]
    mtime: float
    target: str
    attributes: tuple[tuple[str, str], ...]
    sha256: str


def compare(
    first: Open, second: Open, *, layer: int, times: bool, most_contents: int
) -> list[Difference]:
    """The paths that differ, sorted. `times`: files' times count too.

    Contents are compared byte by byte for the first `most_contents` paths. Raises tarfile.TarError
    for what is no layer.
    """
    ours, theirs = _entries(first), _entries(second)
    found = []
    for path in sorted(ours.keys() | theirs.keys()):
        what = tuple(_what(ours.get(path), theirs.get(path), times=times))
        if what:
            found.append(Difference(layer, path, what))
    wanted = [one.path for one in found if "content" in one.what][:most_contents]
    contents = _contents(first, second, set(wanted)) if wanted else {}
    return [Difference(one.layer, one.path, one.what, contents.get(one.path)) for one in found]


def _entries(layer: Open) -> dict[str, _Entry]:
    return {path: _entry(archive, member) for archive, member, path in _members(layer)}


def _members(layer: Open) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo, str]]:
    with layer() as file, tarfile.open(fileobj=file, mode="r|*", bufsize=_CHUNK) as archive:
        for member in archive:
            yield archive, member, posixpath.normpath(f"/{member.name}")


def _entry(archive: tarfile.TarFile, member: tarfile.TarInfo) -> _Entry:
    digest = hashlib.sha256()
    # A second name of a file has no content of its own, and no extractfile in a stream.
    content = archive.extractfile(member) if member.isreg() else None
    for chunk in _chunks(content) if content else ():
        digest.update(chunk)
    return _Entry(
        kind=member.type,
        mode=member.mode,
        owner=(member.uid, member.gid),
        mtime=member.mtime,
        target=member.linkname or f"{member.devmajor}:{member.devminor}",
        attributes=tuple(
            sorted(item for item in member.pax_headers.items() if item[0].startswith(_XATTR))
        ),
        sha256=digest.hexdigest(),
    )


def _what(first: _Entry | None, second: _Entry | None, *, times: bool) -> Iterator[What]:
    if first is None:
        yield "only in the second"
    elif second is None:
        yield "only in the first"
    elif first.kind != second.kind:
        yield "kind"
    else:
        if first.sha256 != second.sha256:
            yield "content"
        if first.mode != second.mode:
            yield "mode"
        if first.owner != second.owner:
            yield "owner"
        if times and first.mtime != second.mtime:
            yield "mtime"
        if first.target != second.target:
            yield "target"
        if first.attributes != second.attributes:
            yield "attributes"


def _contents(first: Open, second: Open, wanted: set[str]) -> dict[str, Content]:
    with contextlib.ExitStack() as stack:
        ours, theirs = (_copies(layer, wanted, stack) for layer in (first, second))
        return {path: _content(ours[path], theirs[path]) for path in wanted}


def _copies(layer: Open, wanted: set[str], stack: contextlib.ExitStack) -> dict[str, IO[bytes]]:
    """The wanted files, in memory or on disk, until the stack ends."""
    found: dict[str, IO[bytes]] = {}
    for archive, member, path in _members(layer):
        content = archive.extractfile(member) if path in wanted and member.isreg() else None
        if content:
            copy = stack.enter_context(tempfile.SpooledTemporaryFile(_IN_MEMORY))  # noqa: SIM115
            for chunk in _chunks(content):
                copy.write(chunk)
            found[path] = copy
    return found


def _content(first: IO[bytes], second: IO[bytes]) -> Content:
    sections = elf.sections(first)
    hashed = next((one for one in sections if one.name == _BUILD_ID), None)
    everywhere = _differing(first, second)
    start = next(everywhere)
    offset = start
    if hashed and offset in hashed.where:
        offset = next((one for one in everywhere if one not in hashed.where), start)
    heads = [_at(file, 0, 8) for file in (first, second)]
    around = [_at(file, max(0, offset - _AROUND), 2 * _AROUND) for file in (first, second)]
    section = next((one.name for one in sections if offset in one.where), None)
    return Content(
        offset=offset,
        first=_at(first, offset, SHOWN_BYTES).hex(),
        second=_at(second, offset, SHOWN_BYTES).hex(),
        section=section,
        looks_like=_looks_like(heads, around, offset, section),
    )


def _differing(first: IO[bytes], second: IO[bytes]) -> Iterator[int]:
    """The offsets at which two files differ; where one ends first, the rest is one difference."""
    first.seek(0)
    second.seek(0)
    for start in itertools.count(0, _CHUNK):
        one, other = first.read(_CHUNK), second.read(_CHUNK)
        if one != other:
            yield from (
                start + i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b
            )
            if len(one) != len(other):
                yield start + min(len(one), len(other))
                return
        if not one:
            return


def _at(file: IO[bytes], offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _looks_like(
    heads: Iterable[bytes], around: Iterable[bytes], offset: int, section: str | None
) -> str:
    if section == _BUILD_ID:
        return "the linker's hash of what is stripped"
    if offset in _GZIP_TIME and all(head.startswith(_GZIP) for head in heads):
        return "the time in gzip's header"
    for pattern, words in _LOOKS:
        if all(pattern.search(bytes_) for bytes_ in around):
            return words
    if all(head == _ARCHIVE for head in heads):
        return "a member of a static archive"
    return ""


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk
