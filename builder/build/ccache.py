"""`--ccache-dir`: a folder's ccache goes into a cache mount before a build, and back after it.

The folder has one in it for each fork and purpose, by the names of `compile_cache`.

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

from builder.build import buildx, compile_cache
from builder.build.compile_cache import CompileCache
from builder.common import paths, signals
from builder.common.errors import BuilderError, EngineError, UsageError
from builder.common.locks import locked
from builder.common.progress import Progress

# What ccache kept here before there was a folder for each fork: https://ccache.dev/manual/4.11.html
_EARLIER = re.compile(r"[0-9a-f]|ccache\.conf|CACHEDIR\.TAG|stats|lock|tmp")
# ccache 4.7 to 4.11: results and manifests, and the counts of each folder. Never its configuration,
# which names programs to run, and no link, program or file of another name.
_ENTRY = r"\./[0-9a-f](/[0-9a-f])*/([0-9a-z]+[RM]|stats)"
_COPY = f"""\
find . -regextype posix-extended -type f -regex '{_ENTRY}' \\
        -exec cp --parents --preserve=timestamps -t "$TO" {{}} + \\
 && find "$TO" -mindepth 1 -type f -exec chmod 644 {{}} + \\
 && find "$TO" -mindepth 1 -type d -exec chmod 755 {{}} +"""

# NOW makes each run anew; --no-cache would also throw the cache mount away.
_IN = f"""\
ARG IMAGE
FROM ${{IMAGE}}
ARG CCACHE_ID
ARG NOW
RUN --network=none \\
    --mount=type=bind,from=ccache,target=/from \\
    --mount=type=cache,id=${{CCACHE_ID}},target=/ccache \\
    find /ccache -mindepth 1 -delete && cd /from && TO=/ccache && {_COPY}
"""
_OUT = f"""\
ARG IMAGE
FROM ${{IMAGE}} AS copy
ARG CCACHE_ID
ARG NOW
RUN --network=none \\
    --mount=type=cache,id=${{CCACHE_ID}},target=/ccache \\
    mkdir /out && cd /ccache && TO=/out && {_COPY}
FROM scratch
COPY --from=copy /out/ /
"""


def prepare(folder: Path) -> Path:
    """The folder as an absolute path, made if it is not there.

    Raises UsageError for what is no folder, holds anything but caches, or cannot be written to.
    """
    folder = folder.resolve()
    place = f"--ccache-dir {folder}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        foreign = sorted(one.name for one in folder.iterdir() if not _is_ours(one.name))
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(
            f"{place}: is no folder", hint="name a folder; it is made if need be"
        ) from error
    except OSError as error:
        raise UsageError(
            f"{place}: cannot be used", why=str(error), hint="name a folder that you may write to"
        ) from error
    if not os.access(folder, os.W_OK):
        raise UsageError(
            f"{place}: cannot be written to", hint="name a folder that you may write to"
        )
    if foreign:
        raise UsageError(
            f"{place}: is no ccache",
            why=f"it holds {', '.join(foreign[:3])}",
            hint="name an empty folder, or one that does not exist yet",
        )
    return folder


def _is_ours(name: str) -> bool:
    return bool(_EARLIER.fullmatch(name)) or compile_cache.is_name(name.removeprefix("."))


def mount_id(folder: Path, cache: CompileCache) -> str:
    """The engine's cache mount for this folder's cache: of one commit, and emptied before it."""
    return f"{cache.name}-{cache.commit}-{_key(folder)}"


@contextmanager
def carried(
    folder: Path,
    cache: CompileCache,
    order: buildx.Order,
    image: str,
    log: Path,
    progress: Progress,
    *,
    settled: bool = True,
) -> Iterator[None]:
    """The cache is in the order's cache mount inside, and in a folder of its name after it.

    A build that fails or is interrupted leaves the folder as it was. What one leaves that is not
    `settled` is not read until `settle` is told that it may be. `image` has a shell, find and cp.
    Raises EngineError when the cache did not get in; when it does not come back the folder stays as
    it was, which is a warning: the image is there.
    """
    carrier = _Carrier(folder / cache.name, mount_id(folder, cache), order, image, log)
    with locked(paths.cache() / "ccache" / _key(folder), f"a build with {folder}", progress):
        _remove(carrier.waiting)
        # BuildKit's --no-cache throws the cache mount away: what goes in would be lost.
        if not order.no_cache:
            _carry_in(carrier, progress)
        yield
        _carry_out(carrier, progress, carrier.folder if settled else carrier.waiting)
        if cache.purpose == "pin":
            _remove(*_earlier_pins(folder, cache))


def settle(folder: Path, cache: CompileCache) -> None:
    """The commit is a good one: what its build left in the folder is read from now on.

    Raises OSError; the folder is then as it was.
    """
    named = folder.resolve() / cache.name
    waiting, old = _waiting(named), _old(named)
    if not waiting.is_dir():
        return
    try:
        with signals.held():
            _swap(named, waiting, old)
    finally:
        _remove(old)


def _earlier_pins(folder: Path, cache: CompileCache) -> list[Path]:
    """What other pinned commits of the fork left, which no later one may read."""
    kind = cache.name.removesuffix(cache.commit)
    return [one for one in folder.iterdir() if one.name.startswith(kind) and one.name != cache.name]


def _key(folder: Path) -> str:
    return hashlib.sha256(str(folder).encode()).hexdigest()[:8]


def _waiting(named: Path) -> Path:
    return named.with_name(f".{named.name}.waiting")


def _old(named: Path) -> Path:
    return named.with_name(f".{named.name}.old")


@dataclass(frozen=True, slots=True)
class _Carrier:
    """What both ways need. `folder` holds the one cache."""

    folder: Path
    mount: str
    order: buildx.Order
    image: str
    log: Path

    @property
    def waiting(self) -> Path:
        return _waiting(self.folder)

    def run(self, way: str, dockerfile: str, *words: str) -> None:
        file = self.order.dockerfile.with_name(f"ccache-{way}.Dockerfile")
        file.write_text(dockerfile, encoding="utf-8")
        arguments = {"IMAGE": self.image, "CCACHE_ID": self.mount, "NOW": str(time.time_ns())}
        passed = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        log = self.log.with_suffix(f".ccache-{way}.log")
        buildx.helper(self.order, [f"--file={file}", *passed, *words], log)


def _carry_in(carrier: _Carrier, progress: Progress) -> None:
    progress.step(f"ccache from {carrier.folder}")
    # A link in its place would be a folder of somebody else's.
    known = carrier.folder.is_dir() and not carrier.folder.is_symlink()
    context = carrier.folder if known else carrier.order.context
    try:
        carrier.run("in", _IN, "--output=type=cacheonly", f"--build-context=ccache={context}")
    except BuilderError as error:
        raise EngineError(
            f"the ccache in {carrier.folder} did not get into the engine",
            why=error.why,
            hint=error.hint,
        ) from error


def _carry_out(carrier: _Carrier, progress: Progress, to: Path) -> None:
    progress.step(f"ccache to {carrier.folder}")
    new, old = carrier.folder.with_name(f".{carrier.folder.name}.new"), _old(carrier.folder)
    # The destination is a field of CSV.
    quoted = str(new).replace('"', '""')
    try:
        _remove(new, old)
        new.mkdir()
        carrier.run("out", _OUT, f'--output=type=local,"dest={quoted}"')
        with signals.held():
            _swap(to, new, old)
    except (BuilderError, OSError) as error:
        why = error.why if isinstance(error, BuilderError) else str(error)
        progress.warn(f"the ccache did not get out of the engine, {to} is as it was: {why}")
    finally:
        _remove(new, old)


def _swap(folder: Path, new: Path, old: Path) -> None:
    there = folder.is_dir()
    if there:
        folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        if there:
            old.rename(folder)
        raise


def _remove(*folders: Path) -> None:
    for one in folders:
        if one.is_symlink():
            one.unlink()
        shutil.rmtree(one, ignore_errors=True)
