"""Files written whole or not at all, one or several together, and files read as what they are.

A link is followed only where root or this user made it: in a folder that others may write to, a
link of theirs would have this user write where they want. In a tree that came from elsewhere, a
`root`, no link is followed at all. Folders are opened one after the other and kept open, so that a
link which is put in a folder's place meanwhile leads nowhere.
"""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from builder.common.redaction import redacted

LARGEST = 64 << 20
"""Bytes of a file that `read_regular` reads."""

_LEFT = re.compile(r"\.[0-9a-f]{16}\.tmp|.+\.builder-(new|old)", re.DOTALL)
"""What a kill leaves behind: of this module, and of it as it was before 2026-12."""
_SOME = 1 << 16
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LINKS = 40
"""As many as Linux follows."""


def write_atomically(path: Path, content: bytes | str, *, root: Path | None = None) -> None:
    """Write a file whole under its name, its folder too where there is none.

    Text is written as UTF-8, without the logins of its addresses; bytes as they are. The mode of a
    file that is there stays. What is there and is no regular file, as a pipe, is written to
    directly, and so is an open file of this process, as /dev/stdout. Below `root` no link is
    followed, and nothing but a regular file replaced. Raises OSError, which names the file; after
    it, and after an interrupt, the file is as it was and no other is left behind.
    """
    data = as_kept(content) if isinstance(content, str) else content
    with _naming(path), ExitStack() as stack:
        descriptor = None if root else _descriptor(path)
        if descriptor is not None:
            _write_to(descriptor, data)
            return
        place = _place(path, root, stack, make=True)
        if place.is_other:
            place.write_through(data)
            return
        scratch = stack.enter_context(place.beside(data))
        scratch.replace(place)


def as_kept(text: str) -> bytes:
    """A text as a file has it that people read, or that is published: no login is in it."""
    return redacted(text).encode(errors="backslashreplace")


def require_writable(path: Path) -> None:
    """Raises OSError where a file of 64 KiB cannot be written; nothing of it is left."""
    with _naming(path), ExitStack() as stack:
        place = _place(path, None, stack, make=True)
        stack.enter_context(place.beside(bytes(_SOME)))


def replace_files(contents: Mapping[Path, bytes], *, root: Path | None = None) -> None:
    """Write every file whole under its name, in this order; modes stay as they were.

    What is there and is no regular file, and an open file of this process, is written to directly,
    after the others. Below `root` no link is followed. Raises OSError; after it, and after an
    interrupt, every file is as it was and no other is left behind. What is killed outright between
    two renames leaves the first files new and the others old, each of them whole.
    """
    direct = {} if root else {path: contents[path] for path in contents if _is_direct(path)}
    with ExitStack() as stack:
        ready: list[tuple[Path, _Place, _Place, _Place | None]] = []
        for path, content in contents.items():
            if path in direct:
                continue
            with _naming(path):
                place = _place(path, root, stack, make=False)
                new = stack.enter_context(place.beside(content))
                old = stack.enter_context(place.copy()) if place.is_regular else None
                ready.append((path, place, new, old))
        replaced: list[tuple[_Place, _Place | None]] = []
        try:
            for path, place, new, old in ready:
                with _naming(path):
                    replaced.append((place, old))
                    new.replace(place)
            for path, content in direct.items():
                write_atomically(path, content)
        except BaseException:
            for place, old in replaced:
                _put_back(place, old)
            raise


def read_regular(path: Path, *, root: Path) -> bytes:
    """The bytes of a file below `root`. No link is followed, no device or pipe is read.

    Raises OSError, which names the file, also for more than LARGEST bytes.
    """
    with _naming(path), ExitStack() as stack:
        place = _place(path, root, stack, make=False)
        with os.fdopen(os.open(place.name, _READ, dir_fd=place.folder), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(errno.EINVAL, "no regular file")
            content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise OSError(errno.EFBIG, f"over {LARGEST} bytes", os.fspath(path))
    return content


def sweep(folder: Path) -> None:
    """Remove what writes that were killed have left in a folder. The caller keeps others out."""
    if folder.is_symlink():
        return
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if is_left_over(path.name):
                path.unlink(missing_ok=True)


def is_left_over(name: str) -> bool:
    """Whether a file of this name is what a write that was killed has left behind."""
    return bool(_LEFT.fullmatch(name))


@dataclass(frozen=True, slots=True)
class _Place:
    """A name in an open folder; it is no link."""

    folder: int
    name: str

    @property
    def mode(self) -> int | None:
        """The mode of what is there, as `stat` has it; None: nothing is there."""
        try:
            return os.stat(self.name, dir_fd=self.folder).st_mode
        except FileNotFoundError:
            return None

    @property
    def is_regular(self) -> bool:
        return self.mode is not None and stat.S_ISREG(self.mode)

    @property
    def is_other(self) -> bool:
        """Whether it is neither file nor folder, as a pipe or a device."""
        mode = self.mode
        return mode is not None and not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)

    def write_through(self, content: bytes) -> None:
        with os.fdopen(os.open(self.name, os.O_WRONLY, dir_fd=self.folder), "wb") as file:
            file.write(content)

    @contextmanager
    def beside(self, content: bytes) -> "Iterator[_Place]":
        """A new file with this content, and the mode of what is here: gone at the end, if there."""
        scratch = _Place(self.folder, f".{secrets.token_hex(8)}.tmp")
        try:
            with os.fdopen(os.open(scratch.name, _NEW, 0o666, dir_fd=self.folder), "wb") as file:
                file.write(content)
                if self.is_regular:
                    os.fchmod(file.fileno(), stat.S_IMODE(self.mode or 0))
            yield scratch
        finally:
            scratch.remove()

    @contextmanager
    def copy(self) -> "Iterator[_Place]":
        """A copy of what is here, with its times."""
        with os.fdopen(os.open(self.name, _READ, dir_fd=self.folder), "rb") as file:
            content, times = file.read(), os.fstat(file.fileno())
        with self.beside(content) as made:
            moments = (times.st_atime_ns, times.st_mtime_ns)
            os.utime(made.name, ns=moments, dir_fd=made.folder, follow_symlinks=False)
            yield made

    def replace(self, other: "_Place") -> None:
        """Give the file here the name of the other."""
        os.rename(self.name, other.name, src_dir_fd=self.folder, dst_dir_fd=other.folder)

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self.name, dir_fd=self.folder)


def _is_direct(path: Path) -> bool:
    """Whether a file is no regular one that a rename could replace."""
    return _descriptor(path) is not None or (path.exists() and not path.is_file())


def _descriptor(path: Path) -> int | None:
    """The number of this process's own open file that a path names: /dev/stdout, /dev/fd/63.

    Where the shell sent it to a file, a new file under that name would not have what comes later.
    """
    own = f"/proc/{os.getpid()}/fd"
    for _ in range(_LINKS):
        if path.name.isdecimal() and os.path.realpath(path.parent) == own:
            return int(path.name)
        if not path.is_symlink():
            return None
        path = path.parent / path.readlink()
    return None


def _write_to(descriptor: int, content: bytes) -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # what was said before stands before it
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(content)


def _put_back(place: _Place, old: _Place | None) -> None:
    if old is None:
        place.remove()
        return
    # A rename that failed has changed nothing: then this changes nothing either.
    with contextlib.suppress(OSError):
        old.replace(place)


def _place(path: Path, root: Path | None, stack: ExitStack, *, make: bool) -> _Place:
    """Where a path leads. Raises OSError where that goes through a link that is not followed."""
    top = (root or path.parent).absolute()
    walk = _Walk(path, stack, make=make)
    folder = walk.down(_slash(stack), top.parts[1:], links=True)
    if root is None:
        return walk.to(folder, path.name, links=True)
    *folders, name = path.absolute().relative_to(top).parts
    return walk.to(walk.down(folder, folders, links=False), name, links=False)


@dataclass(slots=True)
class _Walk:
    """The way to a file, through folders that are opened and kept so, and links."""

    path: Path
    stack: ExitStack
    make: bool
    followed: int = 0

    def down(self, folder: int, parts: "tuple[str, ...] | list[str]", *, links: bool) -> int:
        """The open folder at the end of the parts."""
        for part in parts:
            target = self._link(folder, part, links=links)
            if target is not None:
                folder = self.down(self._start(folder, target), target.parts, links=links)
                continue
            if self.make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, dir_fd=folder)
            folder = _open(part, folder, self.stack)
        return folder

    def to(self, folder: int, name: str, *, links: bool) -> _Place:
        """The file of a name, behind the links that lead to it; not of one that leads to no file.

        Such is /dev/stdout: its link says `pipe:[1234]`.
        """
        target = self._link(folder, name, links=links)
        place = _Place(folder, name)
        if target is None or place.is_other:
            return place
        start = self._start(folder, target)
        return self.to(self.down(start, target.parts[:-1], links=True), target.name, links=True)

    def _start(self, folder: int, target: Path) -> int:
        return _slash(self.stack) if target.is_absolute() else folder

    def _link(self, folder: int, name: str, *, links: bool) -> Path | None:
        """Where a link leads that may be followed; None for what is no link."""
        try:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return None
        if not stat.S_ISLNK(found.st_mode):
            return None
        self.followed += 1
        if not links:
            raise OSError(errno.ELOOP, "goes through a link, and none is followed there")
        if found.st_uid not in {0, os.geteuid()}:
            raise OSError(errno.ELOOP, "goes through a link that another user made")
        if self.followed > _LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        return Path(os.readlink(name, dir_fd=folder))


def _slash(stack: ExitStack) -> int:
    return _open("/", None, stack)


def _open(name: str, within: int | None, stack: ExitStack) -> int:
    folder = os.open(name, _FOLDER, dir_fd=within)
    stack.callback(os.close, folder)
    return folder


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Errors of the system name this file: one of a full disk names none."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), os.fspath(path)) from error


def file_sha256(path: Path) -> str:
    """64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
