"""Files written whole or not at all: one, or several together."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_NEW = ".builder-new"
_OLD = ".builder-old"
_SOME = 1 << 16


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file whole under its name, its folder too where there is none.

    Text is written as UTF-8. The mode of a file that is there stays. What is there and is no
    regular file, as a pipe, is written to directly. Raises OSError, which names the file; after it,
    and after an interrupt, the file is as it was and no other is left behind.
    """
    data = content.encode() if isinstance(content, str) else content
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            path.write_bytes(data)
            return
        target = path.resolve()
        scratch = target.with_name(f".{secrets.token_hex(8)}.tmp")
        try:
            scratch.write_bytes(data)
            if target.is_file():
                shutil.copymode(target, scratch)
            scratch.replace(target)
        finally:
            _remove(scratch)


def require_writable(path: Path) -> None:
    """Raises OSError where a file of 64 KiB cannot be written; nothing of it is left."""
    scratch = path.resolve().with_name(f".{secrets.token_hex(8)}.tmp")
    with _naming(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_bytes(bytes(_SOME))
        finally:
            _remove(scratch)


def replace_files(contents: Mapping[Path, bytes]) -> None:
    """Write every file whole under its name, in this order; modes stay as they were.

    Raises OSError; after it, and after an interrupt, every file is as it was and no other is left
    behind. What is killed outright between two renames leaves the first files new and the others
    old, each of them whole.
    """
    replaced: dict[Path, bool] = {}
    try:
        for path, content in contents.items():
            with _naming(path):
                _beside(path, _NEW).write_bytes(content)
            if path.is_file():
                shutil.copymode(path, _beside(path, _NEW))
        for path in contents:
            existed = path.is_file()
            if existed:
                shutil.copy2(path, _beside(path, _OLD))
            replaced[path] = existed
            _beside(path, _NEW).replace(path)
    except BaseException:
        for path, existed in replaced.items():
            _put_back(path, existed=existed)
        raise
    else:
        replaced.clear()
    finally:
        for path in contents:
            _remove(_beside(path, _NEW))
            if path not in replaced:
                _remove(_beside(path, _OLD))


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Errors of the system name this file: one of a full disk names none."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), os.fspath(path)) from error


def _put_back(path: Path, *, existed: bool) -> None:
    old = _beside(path, _OLD)
    if not existed:
        _remove(path)
        return
    try:
        old.replace(path)
    except OSError:
        # The rename that failed has changed nothing. Else the old file stays beside the new one.
        if old.read_bytes() == path.read_bytes():
            _remove(old)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
