"""`--ccache-dir`: a folder's ccache goes into a cache mount before a build, and back after it.

Machines that start empty, as hosted runners do, have no cache mount, and BuildKit exports none.
"""

import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from builder import buildx, paths, signals
from builder.errors import BuilderError, BuildFailedError, EngineError, UsageError
from builder.locks import locked
from builder.progress import Progress

# What ccache keeps in its folder: https://ccache.dev/manual/4.11.html#_how_ccache_works
_OURS = re.compile(r"[0-9a-f]|ccache\.conf|CACHEDIR\.TAG|stats|lock|tmp")

# NOW makes each run anew; --no-cache would also throw the cache mount away.
_IN = """\
ARG IMAGE
FROM ${IMAGE}
ARG CCACHE_ID
ARG NOW
RUN --network=none \\
    --mount=type=bind,from=ccache,target=/from \\
    --mount=type=cache,id=${CCACHE_ID},target=/ccache \\
    find /ccache -mindepth 1 -delete && cp -a /from/. /ccache/
"""
_OUT = """\
ARG IMAGE
FROM ${IMAGE} AS copy
ARG CCACHE_ID
ARG NOW
RUN --network=none \\
    --mount=type=cache,id=${CCACHE_ID},target=/ccache \\
    cp -a /ccache /out && rm -rf /out/tmp /out/lock
FROM scratch
COPY --from=copy /out/ /
"""


def prepare(folder: Path) -> Path:
    """The folder as an absolute path, made if it is not there.

    Raises UsageError for what is no folder, holds anything but a ccache, or cannot be replaced.
    """
    folder = folder.resolve()
    place = f"--ccache-dir {folder}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        foreign = sorted(one.name for one in folder.iterdir() if not _OURS.fullmatch(one.name))
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(
            f"{place}: is no folder", hint="name a folder; it is made if need be"
        ) from error
    except OSError as error:
        raise UsageError(
            f"{place}: cannot be used", why=str(error), hint="name a folder that you may write to"
        ) from error
    if folder.is_mount() or not os.access(folder.parent, os.W_OK):
        raise UsageError(
            f"{place}: cannot be replaced as a whole",
            why="it is a mount, or the folder around it may not be written to",
            hint=f"name a folder in it: --ccache-dir {folder / 'ccache'}",
        )
    if foreign:
        raise UsageError(
            f"{place}: is no ccache",
            why=f"it holds {', '.join(foreign[:3])}, and would be replaced as a whole",
            hint="name an empty folder, or one that does not exist yet",
        )
    return folder


def mount_id(folder: Path) -> str:
    """The name of the cache mount that stands for this folder in the engine."""
    return f"turboquant-ccache-{_key(folder)}"


@contextmanager
def carried(
    folder: Path, order: buildx.Order, image: str, log: Path, progress: Progress
) -> Iterator[None]:
    """The folder's ccache is in the order's cache mount inside, and in the folder after it.

    It comes back after a failed build too, as what compiled is worth keeping, but not after an
    interrupt. `image` has a shell and cp. Raises EngineError when it did not get in; when it does
    not come back the folder stays as it was, which is a warning: the image is there.
    """
    carrier = _Carrier(folder, order, image, log)
    with locked(paths.cache() / "ccache" / _key(folder), f"a build with {folder}", progress):
        # BuildKit's --no-cache throws the cache mount away: what goes in would be lost.
        if not order.no_cache:
            _carry_in(carrier, progress)
        try:
            yield
        except BuildFailedError:
            _carry_out(carrier, progress)
            raise
        _carry_out(carrier, progress)


def _key(folder: Path) -> str:
    return hashlib.sha256(str(folder).encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class _Carrier:
    """What both ways need."""

    folder: Path
    order: buildx.Order
    image: str
    log: Path

    def run(self, way: str, dockerfile: str, *words: str) -> None:
        file = self.order.dockerfile.with_name(f"ccache-{way}.Dockerfile")
        file.write_text(dockerfile, encoding="utf-8")
        arguments = {
            "IMAGE": self.image,
            "CCACHE_ID": mount_id(self.folder),
            "NOW": str(time.time_ns()),
        }
        passed = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        log = self.log.with_suffix(f".ccache-{way}.log")
        buildx.helper(self.order, [f"--file={file}", *passed, *words], log)


def _carry_in(carrier: _Carrier, progress: Progress) -> None:
    progress.step(f"ccache from {carrier.folder}")
    try:
        carrier.run(
            "in", _IN, "--output=type=cacheonly", f"--build-context=ccache={carrier.folder}"
        )
    except BuilderError as error:
        raise EngineError(
            f"the ccache in {carrier.folder} did not get into the engine",
            why=error.why,
            hint=error.hint,
        ) from error


def _carry_out(carrier: _Carrier, progress: Progress) -> None:
    folder = carrier.folder
    progress.step(f"ccache to {folder}")
    new, old = (folder.with_name(f".{folder.name}.builder-{end}") for end in ("new", "old"))
    # The destination is a field of CSV.
    quoted = str(new).replace('"', '""')
    try:
        _remove(new, old)
        new.mkdir()
        shutil.copymode(folder, new)
        carrier.run("out", _OUT, f'--output=type=local,"dest={quoted}"')
        with signals.held():
            _swap(folder, new, old)
    except (BuilderError, OSError) as error:
        why = error.why if isinstance(error, BuilderError) else str(error)
        progress.warn(f"the ccache did not get out of the engine, {folder} is as it was: {why}")
    finally:
        _remove(new, old)


def _swap(folder: Path, new: Path, old: Path) -> None:
    folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        old.rename(folder)
        raise


def _remove(*folders: Path) -> None:
    for one in folders:
        shutil.rmtree(one, ignore_errors=True)
