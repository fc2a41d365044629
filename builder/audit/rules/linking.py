"""Whether every ELF file finds what it needs inside the image."""

import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from builder.audit.rules.subject import Subject, compiled, some, unproven, verdict_on
from builder.audit.rules.symbols import undefined
from builder.image.elf import Elf
from builder.image.tree import File, Tree
from builder.model.finding import Finding

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
_GLIBC = "/lib64/ld-linux-x86-64.so.2"
_MUSL = "/lib/ld-musl-x86_64.so.1"
_MUSL_DEFAULT = ("/lib", "/usr/local/lib", "/usr/lib")

# glibc's sysdeps/generic/dl-cache.h: struct cache_file_new, struct file_entry_new.
_CACHE_MAGIC = b"glibc-ld.so.cache1.1"
_CACHE_HEAD = struct.Struct("<20sII20x")
_CACHE_ENTRY = struct.Struct("<iIIIQ")
_LONGEST = 4096

Loader = tuple[tuple[str, ...], Mapping[str, list[str]], tuple[str, ...]]
"""The folders that the environment names, what ldconfig wrote down (soname → paths), and the
folders that are looked in at last."""


@dataclass(frozen=True, slots=True)
class _Need:
    """What a file asks of the loader: a library or a loader, and a version of its symbols or ""."""

    by: File
    elf: Elf
    name: str
    version: str = ""

    def __str__(self) -> str:
        return f"{self.version} of {self.name}" if self.version else self.name


def needs(subject: Subject) -> Finding:
    """Whether each needed library, symbol version and loader is found as the loader would find it.

    Of what we compiled each symbol too: a backend without one is passed over when it is opened.
    OpenMP's runtime is left to `libgomp`.
    """
    expected = "every need of every ELF file is in the image, but for the driver's own"
    elves = [(file, file.elf) for file in subject.tree if file.elf is not None]
    wanted = [one for one in _wanted(subject) if not _OPENMP.fullmatch(one.name)]
    faults = _missing(subject, wanted) + _undefined(subject)
    broken = [f"{file.path} is no ELF file: {elf.problem}" for file, elf in elves if elf.problem]
    if broken and not faults:
        return unproven(NEEDS, expected, some(broken))
    versions = sum(1 for one in wanted if one.version)
    good = f"{len(elves)} files, {len(wanted) - versions} needs, {versions} symbol versions"
    return verdict_on(NEEDS, faults, expected=expected, good=good)


def libgomp(subject: Subject) -> Finding:
    """Whether OpenMP's runtime is there for the files that need it, with the versions they want."""
    expected = "the OpenMP runtime is in the image if a file needs it"
    wanted = [one for one in _wanted(subject) if _OPENMP.fullmatch(one.name)]
    by = some(sorted({one.by.path for one in wanted}))
    good = f"found, needed by {by}" if wanted else "nothing needs it"
    return verdict_on(LIBGOMP, _missing(subject, wanted), expected=expected, good=good)


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
    environment = dict(one.partition("=")[::2] for one in subject.config.environment)
    set_by_image = environment.get("LD_LIBRARY_PATH", "").replace(";", ":").split(":")
    default = _MUSL_DEFAULT if _is_musl(subject.tree) else _DEFAULT
    written = cached(cache.text if cache and cache.text else b"")
    return tuple(filter(None, set_by_image)), written, default


def cached(text: bytes) -> dict[str, list[str]]:
    """soname → paths of an /etc/ld.so.cache; empty for one in a layout older than glibc 2.2.

    As glibc's loader does (elf/dl-cache.c), a cache that is shorter than it says is passed over,
    and so is an entry whose strings lie outside.
    """
    start = text.find(_CACHE_MAGIC)
    text = text[max(start, 0) :]
    if start < 0 or len(text) < _CACHE_HEAD.size:
        return {}
    _, count, _ = _CACHE_HEAD.unpack_from(text)
    end = _CACHE_HEAD.size + count * _CACHE_ENTRY.size
    if end > len(text):
        return {}
    found: dict[str, list[str]] = {}
    for _, name, path, _, _ in _CACHE_ENTRY.iter_unpack(text[_CACHE_HEAD.size : end]):
        soname, place = _string(text, name), _string(text, path)
        if soname and place:
            found.setdefault(soname, []).append(place)
    return found


def _string(text: bytes, offset: int) -> str:
    """The string at an offset, up to its zero byte; empty where there is none."""
    end = text.find(b"\0", offset, offset + _LONGEST)
    return text[offset:end].decode(errors="replace") if end > offset else ""


def _wanted(subject: Subject) -> Iterator[_Need]:
    """All needs of all files, but those of the driver's libraries."""
    # musl's loader looks at no version.
    versioned = not _is_musl(subject.tree)
    for file in subject.tree:
        if (elf := file.elf) is not None:
            names = [name for name in elf.needed if not _DRIVER.fullmatch(name)]
            names += [elf.interpreter] if elf.interpreter is not None else []
            yield from (_Need(file, elf, name) for name in names)
            for name, version in elf.wants if versioned else ():
                if not _DRIVER.fullmatch(name):
                    yield _Need(file, elf, name, version)


def _missing(subject: Subject, wanted: Iterable[_Need]) -> list[str]:
    """The needs that are not met, in words."""
    where = loader(subject)
    missing: dict[str, list[str]] = {}
    for one in wanted:
        if not _is_met(subject.tree, where, one):
            missing.setdefault(str(one), []).append(one.by.path)
    return [f"{name} is not there, needed by {some(by)}" for name, by in sorted(missing.items())]


def _is_met(tree: Tree, where: Loader, need: _Need) -> bool:
    found = _found(tree, where, need)
    if found is None:
        # Said once, of the library itself.
        return bool(need.version) and need.name in need.elf.needed
    # glibc's loader warns of a library without any versions, and goes on.
    defined = found.elf.defines if found.elf else frozenset()
    return not need.version or not defined or need.version in defined


def _undefined(subject: Subject) -> list[str]:
    """The symbols that our files need and nothing gives, in words."""
    where = loader(subject)

    def libraries(file: File) -> list[File | None]:
        elf = file.elf or Elf()
        names = [name for name in elf.needed if not _DRIVER.fullmatch(name)]
        return [_found(subject.tree, where, _Need(file, elf, name)) for name in names]

    missing = undefined(compiled(subject), libraries)
    return [f"no library has {name}, needed by {some(by)}" for name, by in sorted(missing.items())]


def _found(tree: Tree, where: Loader, need: _Need) -> File | None:
    """The library that the loader takes for it: the first of its machine."""
    for path in _candidates(where, need.by, need.elf, need.name):
        there = tree.resolve(path)
        if there is not None and there.elf is not None and there.elf.machine == need.elf.machine:
            return there
    return None


def _is_musl(tree: Tree) -> bool:
    return tree.resolve(_MUSL) is not None and tree.resolve(_GLIBC) is None


def _candidates(where: Loader, file: File, elf: Elf, name: str) -> Iterator[str]:
    """The paths under which the loader looks for a name, in its order."""
    if "/" in name:
        yield name
        return
    set_by_image, cache, folders = where
    own = [_expanded(file, folder) for folder in elf.search]
    given = [_expanded(file, folder) for folder in set_by_image]
    yield from (f"{folder}/{name}" for folder in (own + given if elf.first else given + own))
    yield from cache.get(name, ())
    yield from (f"{folder}/{name}" for folder in folders)


def _expanded(file: File, folder: str) -> str:
    origin = file.path.rpartition("/")[0]
    # A function, for in a text for `sub` a backslash of the path would mean something.
    folder = re.sub(r"\$ORIGIN|\$\{ORIGIN\}", lambda _: origin, folder)
    return re.sub(r"\$LIB|\$\{LIB\}", "lib/x86_64-linux-gnu", folder)


def _is_own(tree: Tree, file: File, folder: str) -> bool:
    """Whether it is an absolute path, or one beside the file, that the image has."""
    expanded = _expanded(file, folder)
    return expanded.startswith("/") and tree.has_folder(expanded)
