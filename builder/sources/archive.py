"""A source tree as one file: written the same to the byte each time, unpacked without trust.

A gzipped tar with one folder, as `git archive --prefix` and GitHub's downloads make it. The commit
is in the comment of the global header, where `git get-tar-commit-id` finds it; the commit's date
is the files' time; a build number is our own addition to that header.
"""

import errno
import gzip
import lzma
import os
import re
import shutil
import stat
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Self

from filelock import FileLock

from builder.common import paths, tree_files
from builder.common.errors import UsageError
from builder.common.files import file_sha256
from builder.common.progress import Progress
from builder.common.tree_files import TreeError

MEDIA_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"

_COMMENT = "comment"
_NUMBER = "TURBOQUANT.build-number"
_COMMIT = re.compile(r"[0-9a-f]{7,40}")
_LEFT_OUT = frozenset({".git"})
_CHUNK = 1 << 20
_LARGEST = 4 * 10**9
"""Bytes that a tree may unpack to: forty times llama.cpp's."""
_MOST, _MOST_LINKS = 50_000, 1_000
"""Files, folders and links of a tree, and the links of them: ten times llama.cpp's and more."""
_DEEPEST = 100
_LARGEST_HEADER = 1 << 20
"""Bytes of a name, or of what an archive says beside it: they are held in memory."""
_BUILD_NUMBER = re.compile(r"[0-9]{1,9}")
_LAST_SECOND = 253_402_300_799
"""Of the year 9999."""
# What a tar archive, its compression or a name in it can be wrong with; RecursionError: headers of
# headers, and links to links.
_BROKEN = (
    tarfile.TarError,
    EOFError,
    OSError,
    ValueError,
    OverflowError,
    RecursionError,
    zlib.error,
    lzma.LZMAError,
)
_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE}


@dataclass(frozen=True, slots=True)
class Known:
    """What an archive says of its tree; None and "" are unknown. `created` is RFC 3339, UTC."""

    commit: str | None = None
    build_number: int | None = None
    created: str = ""


@dataclass(frozen=True, slots=True)
class Unpacked:
    """An archive's tree on disk, and what the archive says of it. `sha256` is the file's."""

    path: Path
    known: Known
    sha256: str


def write(tree: Path, archive: Path, name: str, known: Known) -> None:
    """Pack all of a tree but `.git` into a new file; `name` is the folder inside.

    Raises UsageError for what cannot be had elsewhere: a link that leads out of the tree, a device;
    and for more than can be unpacked again.
    """
    moment = int(datetime.fromisoformat(known.created).timestamp()) if known.created else 0
    facts = {_COMMENT: known.commit or "", _NUMBER: str(known.build_number or "")}
    scratch = archive.with_name(f"{archive.name}.part")
    try:
        with (
            scratch.open("wb") as file,
            # No name and no time of its own in the compressed file.
            gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as packed,
            tarfile.open(
                fileobj=packed,
                mode="w",
                format=tarfile.PAX_FORMAT,
                pax_headers={key: value for key, value in facts.items() if value},
            ) as tar,
        ):
            left = _LARGEST
            for path in tree_files.walk(tree, _LEFT_OUT):
                left -= _add(tar, tree, path, name, moment, left)
        scratch.replace(archive)
    except TreeError as error:
        raise _unpacked(tree, "; ".join(filter(None, [error.what, error.why]))) from error
    finally:
        scratch.unlink(missing_ok=True)


def unpack(archive: Path, progress: Progress) -> Unpacked:
    """The tree of an archive, unpacked once into the cache.

    Nothing is written outside of its folder, whatever the archive says. Raises UsageError when it
    is no such archive, leads out of its folder, or holds no CMakeLists.txt at its top.
    """
    sha256 = file_sha256(archive)
    home = paths.cache() / "archives" / sha256[:16]
    home.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{home}.lock"):
        if not home.exists():
            progress.step(f"unpack {archive.name}")
            scratch = home.with_name(f"{home.name}.part")
            shutil.rmtree(scratch, ignore_errors=True)
            try:
                extract(archive, scratch)
                scratch.rename(home)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    return Unpacked(_top(archive, home), read(archive), sha256)


def extract(archive: Path, folder: Path) -> None:
    """Write an archive's files into a new folder. Raises UsageError.

    Debian 12's Python 3.11.2 has no extraction filters. Links are made last, so that no file is
    written through one, and each must lead to somewhere in the folder.
    """
    try:
        with tarfile.open(archive, tarinfo=_Member) as tar:
            # All names first: of what is refused nothing is written.
            members = [(member, _safe(archive, member)) for member in _members(archive, tar)]
            folder.mkdir(parents=True)
            links: dict[Path, str] = {}
            left = _LARGEST
            for member, within in members:
                path = folder / within
                if member.issym():
                    links[path] = member.linkname
                    if len(links) > _MOST_LINKS:
                        raise _refused(archive, f"it has more than {_MOST_LINKS} links")
                    continue
                left -= member.size
                if left < 0:
                    raise _refused(archive, f"it unpacks to more than {_LARGEST} bytes")
                _write(tar, member, path, archive)
        _link(archive, folder, links)
    except _BROKEN as error:
        raise _broken(archive, error) from error


def read(archive: Path) -> Known:
    """What an archive says of its tree. Raises UsageError when it is no tar archive."""
    try:
        with tarfile.open(archive, tarinfo=_Member) as tar:
            first = next((one for one in _members(archive, tar) if one.isfile()), None)
            said = tar.pax_headers
    except _BROKEN as error:
        raise _broken(archive, error) from error
    commit, number = said.get(_COMMENT, ""), said.get(_NUMBER, "")
    if not _COMMIT.fullmatch(commit):
        return Known()
    return Known(
        commit=commit,
        build_number=int(number) if _BUILD_NUMBER.fullmatch(number) else None,
        # As `git archive` has it: all files bear the commit's time.
        created=_time(first.mtime) if first else "",
    )


def _time(moment: float) -> str:
    """RFC 3339; "" for 0, which is nobody's, and for what is in no calendar."""
    if not 1 <= moment <= _LAST_SECOND:
        return ""
    return datetime.fromtimestamp(int(moment), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class _Member(tarfile.TarInfo):
    """One of whose header no more is read than a tree's has."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        found = super().frombuf(buf, encoding, errors)
        if found.size < 0 or (found.type in _EXTENDED and found.size > _LARGEST_HEADER):
            raise tarfile.ReadError(f"a header of {found.size} bytes")
        return found

    def _proc_sparse(self, *_: object) -> Self:
        raise tarfile.ReadError("a file with holes")

    # Their maps are read without a limit; git makes none.
    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _proc_sparse


_EXTENDED = {
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
}


def _members(archive: Path, tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Every member, and no more of them than a tree has."""
    for count, member in enumerate(tar, 1):
        if count > _MOST:
            raise _refused(archive, f"it has more than {_MOST} files, folders and links")
        if member.size < 0:
            raise _refused(archive, f"{member.name[:80]!r} has {member.size} bytes")
        yield member


def _broken(archive: Path, error: Exception) -> Exception:
    """What is wrong with the archive; with this machine's disk, if it is that."""
    if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
        return error
    return _refused(archive, str(error)[:300] or type(error).__name__)


def text(archive: Path, name: str) -> str:
    """A text file at the top of an archive's one folder; "" when there is none."""
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and PurePosixPath(member.name).parts[1:] == (name,):
                content = tar.extractfile(member)
                # Of a longer one the beginning, which names the licence.
                read = content.read(tree_files.LARGEST_TEXT) if content else b""
                return read.decode(errors="replace")
    return ""


def newest(tree: Path) -> datetime:
    """When anything in a tree was changed last."""
    times = (path.lstat().st_mtime for path in [tree, *tree_files.walk(tree, _LEFT_OUT)])
    return datetime.fromtimestamp(max(times), UTC)


def _add(tar: tarfile.TarFile, tree: Path, path: Path, name: str, moment: int, most: int) -> int:
    """Pack one path, of at most so many bytes, and tell how many it had."""
    found = path.lstat()
    within = path.relative_to(tree)
    member = tarfile.TarInfo(f"{name}/{within.as_posix()}")
    member.mtime = moment
    member.mode = 0o755 if stat.S_ISDIR(found.st_mode) or found.st_mode & stat.S_IXUSR else 0o644
    if stat.S_ISDIR(found.st_mode):
        member.type = tarfile.DIRTYPE
        tar.addfile(member)
    elif stat.S_ISLNK(found.st_mode):
        member.type, member.mode, member.linkname = tarfile.SYMTYPE, 0o777, str(path.readlink())
        if not _end(path).is_relative_to(tree.resolve()) or Path(member.linkname).is_absolute():
            raise _unpacked(tree, f"{within} is a link out of it, to {member.linkname}")
        tar.addfile(member)
    else:
        with tree_files.opened(tree, within) as file:
            member.size = os.fstat(file.fileno()).st_size
            if member.size > most:
                raise _unpacked(tree, f"it has more than {_LARGEST} bytes")
            tar.addfile(member, file)
    return member.size


def _unpacked(tree: Path, why: str) -> UsageError:
    return UsageError(f"{tree}: cannot be archived", why=why)


def _safe(archive: Path, member: tarfile.TarInfo) -> PurePosixPath:
    """The member's path, if it stays inside and is of a kind that a tree has."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts:
        raise _refused(archive, f"{member.name!r} lies outside of it")
    if len(path.parts) > _DEEPEST:
        raise _refused(archive, f"{member.name[:80]!r}… lies more than {_DEEPEST} folders deep")
    if not (member.isfile() or member.isdir() or member.issym()):
        raise _refused(archive, f"{member.name!r} is no file, folder or symbolic link")
    return path


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path, archive: Path) -> None:
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    content = tar.extractfile(member)
    if content is None:
        raise _refused(archive, f"{member.name!r} has no content")
    # "x": a second file of one name is refused.
    with path.open("xb") as file:
        shutil.copyfileobj(content, file, _CHUNK)
    path.chmod(0o755 if member.mode & stat.S_IXUSR else 0o644)


def _link(archive: Path, folder: Path, links: dict[Path, str]) -> None:
    """Make the links, each inside; then see that all lead inside: one may bend another."""
    inside = folder.resolve()
    for path, target in links.items():
        if not _end(path.parent).is_relative_to(inside):
            raise _refused(archive, f"{path.relative_to(folder)} lies behind a link out of it")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)
    for path, target in links.items():
        if target.startswith("/") or not _end(path).is_relative_to(inside):
            raise _refused(archive, f"{path.relative_to(folder)} is a link out of it, to {target}")


def _end(link: Path) -> Path:
    """Where a link leads when all links on the way are followed; one in a circle stays put."""
    return Path(os.path.realpath(link))


def _top(archive: Path, home: Path) -> Path:
    """The folder with the tree: the archive's own, or the only one in it."""
    entries = list(home.iterdir())
    single = len(entries) == 1 and tree_files.is_folder(home, entries[0].name)
    top = entries[0] if single else home
    if not tree_files.has_file(top, "CMakeLists.txt"):
        raise _refused(archive, "it holds no CMakeLists.txt at its top, nor in its only folder")
    return top


def _refused(archive: Path, why: str) -> UsageError:
    return UsageError(
        f"--source {archive}: is no archive of a source tree",
        why=why,
        hint="a .tar.gz as `git archive --prefix=NAME/` or a published image's own",
    )
