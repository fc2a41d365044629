"""Files of a stranger's source tree, as the host reads them: regular, inside the tree, not endless.

A tree can hold a link to /dev/zero or a pipe that nobody writes to. Everything that builder itself
reads of a tree goes through here. No link is followed, in no part of a path.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import BinaryIO

from builder.common.errors import BuilderError

LARGEST_TEXT = 4 << 20
"""Bytes of a file that is read as text: llama.cpp's table of types has 0.3 MB."""
MOST_ENTRIES = 200_000
"""Files and folders of a tree: llama.cpp has 3,000."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK a pipe that took a file's place just now would be waited for.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class TreeError(BuilderError):
    """A tree holds what is not read: a link, a device, a pipe, too much."""

    exit_code = 2


def is_folder(tree: Path, within: str | PurePath) -> bool:
    """Whether a tree has a folder of its own there; a link to one is none. Raises TreeError."""
    try:
        with _opened(tree, PurePath(within), _FOLDER):
            return True
    except TreeError:
        raise
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
            return False
        raise _unreadable(within, error) from error


def has_file(tree: Path, within: str | PurePath) -> bool:
    """Whether a tree has a regular file of its own there."""
    try:
        with opened(tree, within):
            return True
    except (FileNotFoundError, TreeError):
        return False


def text(tree: Path, within: str | PurePath) -> str | None:
    """A text file of a tree, bent bytes replaced; None where the tree has none of this name.

    Raises TreeError for a link or anything else in its place, or more than LARGEST_TEXT bytes.
    """
    try:
        with opened(tree, within) as file:
            data = file.read(LARGEST_TEXT + 1)
    except FileNotFoundError:
        return None
    if len(data) > LARGEST_TEXT:
        raise TreeError(f"{within} has more than {LARGEST_TEXT} bytes")
    return data.decode(errors="replace")


@contextmanager
def opened(tree: Path, within: str | PurePath) -> Iterator[BinaryIO]:
    """A regular file of a tree, to be read. Raises FileNotFoundError, else TreeError."""
    with _opened(tree, PurePath(within), _FILE) as descriptor:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise TreeError(f"{within} is no regular file")
        with os.fdopen(os.dup(descriptor), "rb") as file:
            yield file


def walk(tree: Path, left_out: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Every path below a folder, a folder before what it holds, in an order of its own.

    Links are told and not followed; what is below a name in `left_out` is not told. Raises
    TreeError for more than MOST_ENTRIES, or for what cannot be listed.
    """
    count, waiting = 0, [tree]
    while waiting:
        path = waiting.pop()
        if path != tree:
            count += 1
            if count > MOST_ENTRIES:
                raise TreeError(f"the tree has more than {MOST_ENTRIES} files and folders")
            yield path
        if path == tree or stat.S_ISDIR(path.lstat().st_mode):
            waiting += [path / name for name in _names(path, tree) if name not in left_out]


def _names(folder: Path, tree: Path) -> list[str]:
    """The last first: they are taken from the end."""
    try:
        return sorted((one.name for one in folder.iterdir()), reverse=True)
    except OSError as error:
        raise _unreadable(folder.relative_to(tree), error) from error


@contextmanager
def _opened(tree: Path, within: PurePath, flags: int) -> Iterator[int]:
    """A descriptor of what is there. The tree itself may be a link of the user's."""
    if within.is_absolute() or not within.parts or ".." in within.parts:
        raise TreeError(f"{within} lies outside of the tree")
    try:
        folder = os.open(tree, _FOLDER & ~os.O_NOFOLLOW)
    except NotADirectoryError as error:
        raise TreeError(f"{tree} is no folder") from error
    try:
        for part in within.parts[:-1]:
            inner = os.open(part, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = inner
        name = within.parts[-1]
        # Asked first: to open a device may already do something.
        kind = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        if flags == _FILE and not stat.S_ISREG(kind):
            raise TreeError(f"{within} is {_kind(kind)}, and no regular file")
        descriptor = os.open(name, flags, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError as error:
        if flags == _FILE:
            raise _unreadable(within, error) from error
        raise
    finally:
        os.close(folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFLNK: "a link",
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")


def _unreadable(within: str | PurePath, error: OSError) -> TreeError:
    # A link in place of a folder on the way is ENOTDIR, one that came just now ELOOP.
    linked = error.errno in {errno.ELOOP, errno.ENOTDIR}
    return TreeError(
        f"{within} lies behind a link or a file" if linked else f"{within} cannot be read",
        why=str(error.strerror),
    )
