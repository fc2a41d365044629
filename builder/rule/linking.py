"""Whether every ELF file finds what it needs inside the image."""

import re
import struct
from collections.abc import Iterator, Mapping

from builder.elf import Elf
from builder.image_tree import File, Tree
from builder.probe.finding import Finding
from builder.rule.subject import Subject, some, unproven, verdict_on

NEEDS = "needs"
RUNPATH = "runpath"
LIBGOMP = "libgomp"

_DRIVER = re.compile(r"libcuda\.so\.1|libnvidia-[\w-]+\.so(\.\d+)*")
"""What the container toolkit mounts from the host."""

_OPENMP = re.compile(r"lib(gomp|omp|iomp5)\.so(\.\d+)*")

_DEFAULT = (
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
)
_MUSL = "/lib/ld-musl-x86_64.so.1"
_MUSL_DEFAULT = ("/lib", "/usr/local/lib", "/usr/lib")

# glibc's sysdeps/generic/dl-cache.h: struct cache_file_new, struct file_entry_new.
_CACHE_MAGIC = b"glibc-ld.so.cache1.1"
_CACHE_HEAD = struct.Struct("<20sII20x")
_CACHE_ENTRY = struct.Struct("<iIIIQ")

Loader = tuple[Mapping[str, list[str]], tuple[str, ...]]
"""What ldconfig wrote down (soname → paths), and the folders that are looked in beside it."""


def needs(subject: Subject) -> Finding:
    """Whether each needed library and loader is found as the dynamic loader would find it.

    OpenMP's runtime is left to `libgomp`.
    """
    expected = "every need of every ELF file is in the image, but for the driver's own"
    elves = [(file, file.elf) for file in subject.tree if file.elf is not None]
    broken = [f"{file.path} is no ELF file: {elf.problem}" for file, elf in elves if elf.problem]
    if broken:
        return unproven(NEEDS, expected, some(broken))
    where = loader(subject)
    missing: dict[str, list[str]] = {}
    count = 0
    for file, elf in elves:
        for name in _needed(elf):
            count += 1
            if not _OPENMP.fullmatch(name) and not _found(subject.tree, where, file, elf, name):
                missing.setdefault(name, []).append(file.path)
    faults = [f"{name} is not there, needed by {some(by)}" for name, by in sorted(missing.items())]
    good = f"{len(elves)} files, {count} needs"
    return verdict_on(NEEDS, faults, expected=expected, good=good)


def libgomp(subject: Subject) -> Finding:
    """Whether OpenMP's runtime is there for the files that need it."""
    expected = "the OpenMP runtime is in the image if a file needs it"
    where = loader(subject)
    wanted = [
        (file, elf, name)
        for file in subject.tree
        if (elf := file.elf) is not None
        for name in elf.needed
        if _OPENMP.fullmatch(name)
    ]
    faults = [
        f"{name} is not there, needed by {file.path}"
        for file, elf, name in wanted
        if not _found(subject.tree, where, file, elf, name)
    ]
    by = some(sorted(file.path for file, _, _ in wanted))
    good = f"found, needed by {by}" if wanted else "nothing needs it"
    return verdict_on(LIBGOMP, faults, expected=expected, good=good)


def runpath(subject: Subject) -> Finding:
    """Whether a search path inside a file leads out of the image: into a build tree, say."""
    count = sum(1 for file in subject.tree if file.elf is not None and file.elf.search)
    faults = [
        f"{file.path} searches {folder or 'the current folder'}"
        for file in subject.tree
        if file.elf is not None
        for folder in file.elf.search
        if not _is_own(subject.tree, file, folder)
    ]
    return verdict_on(
        RUNPATH,
        faults,
        expected="RPATH and RUNPATH name folders of the image alone",
        good=f"the {count} files that have one, and none outside",
    )


def loader(subject: Subject) -> Loader:
    """What the image's dynamic loader goes by."""
    cache = subject.tree.resolve("/etc/ld.so.cache")
    musl = subject.tree.resolve(_MUSL) is not None
    environment = dict(one.partition("=")[::2] for one in subject.config.environment)
    set_by_image = [one for one in environment.get("LD_LIBRARY_PATH", "").split(":") if one]
    default = _MUSL_DEFAULT if musl else _DEFAULT
    return cached(cache.text if cache and cache.text else b""), (*set_by_image, *default)


def cached(text: bytes) -> dict[str, list[str]]:
    """soname → paths of an /etc/ld.so.cache; empty for one in a layout older than glibc 2.2."""
    start = text.find(_CACHE_MAGIC)
    if start < 0:
        return {}
    text = text[start:]
    _, count, _ = _CACHE_HEAD.unpack_from(text)
    found: dict[str, list[str]] = {}
    for number in range(count):
        offset = _CACHE_HEAD.size + number * _CACHE_ENTRY.size
        _, name, path, _, _ = _CACHE_ENTRY.unpack_from(text, offset)
        found.setdefault(_string(text, name), []).append(_string(text, path))
    return found


def _string(text: bytes, offset: int) -> str:
    return text[offset : text.index(b"\0", offset)].decode()


def _needed(elf: Elf) -> Iterator[str]:
    yield from (name for name in elf.needed if not _DRIVER.fullmatch(name))
    if elf.interpreter is not None:
        yield elf.interpreter


def _found(tree: Tree, where: Loader, file: File, elf: Elf, name: str) -> bool:
    return any(
        (there := tree.resolve(path)) is not None
        and there.elf is not None
        and there.elf.machine == elf.machine
        for path in _candidates(where, file, elf, name)
    )


def _candidates(where: Loader, file: File, elf: Elf, name: str) -> Iterator[str]:
    """The paths under which the loader looks for a name."""
    if "/" in name:
        yield name
        return
    cache, folders = where
    for folder in elf.search:
        yield f"{_expanded(file, folder)}/{name}"
    yield from cache.get(name, ())
    yield from (f"{folder}/{name}" for folder in folders)


def _expanded(file: File, folder: str) -> str:
    origin = file.path.rpartition("/")[0]
    folder = re.sub(r"\$ORIGIN|\$\{ORIGIN\}", origin, folder)
    return re.sub(r"\$LIB|\$\{LIB\}", "lib/x86_64-linux-gnu", folder)


def _is_own(tree: Tree, file: File, folder: str) -> bool:
    """Whether it is an absolute path, or one beside the file, that the image has."""
    expanded = _expanded(file, folder)
    return expanded.startswith("/") and tree.has_folder(expanded)
