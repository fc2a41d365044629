"""Several files replaced together: all of them, or none."""

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path

_NEW = ".builder-new"
_OLD = ".builder-old"


def replace_files(contents: Mapping[Path, bytes]) -> None:
    """Write every file whole under its name, in this order; modes stay as they were.

    Raises OSError; after it, and after an interrupt, every file is as it was and no other is left
    behind. What is killed outright between two renames leaves the first files new and the others
    old, each of them whole.
    """
    replaced: dict[Path, bool] = {}
    try:
        for path, content in contents.items():
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
