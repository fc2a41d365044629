"""Which symbols our files take from libraries that do not give them."""

import re
from collections.abc import Callable, Iterable

from builder.image.tree import File

_OF_DRIVER = re.compile(r"(cu|nvml)[A-Z]\w*")
"""What libcuda and libnvidia-ml give, by NVIDIA's manuals."""

Libraries = Callable[[File], list[File | None]]
"""The libraries that a file names, without the driver's; None for one that is not there."""


def undefined(files: Iterable[File], libraries: Libraries) -> dict[str, list[str]]:
    """Each symbol that no library gives, with the paths of the files that need it.

    As the loader looks for them: in the programs and what they load, and in what the file loads. A
    file with a library that is not there, or cannot be read, is left out: that is said elsewhere.
    """
    listed = list(files)
    programs = [file for file in listed if file.elf and file.elf.interpreter]
    shared = {
        symbol
        for file in programs
        for one in _loaded(file, libraries) or ()
        for symbol in _exports(one)
    }
    missing: dict[str, list[str]] = {}
    for file in listed:
        loaded = _loaded(file, libraries)
        if file.elf is None or loaded is None:
            continue
        given = shared.union(*(_exports(one) for one in loaded))
        for symbol in file.elf.imports - given:
            if not _OF_DRIVER.fullmatch(symbol):
                missing.setdefault(symbol, []).append(file.path)
    return missing


def _exports(file: File) -> frozenset[str]:
    return file.elf.exports if file.elf else frozenset()


def _loaded(file: File, libraries: Libraries) -> list[File] | None:
    """The file and all that is loaded with it; None where some of that cannot be looked at."""
    loaded: dict[str, File] = {}
    left = [file]
    while left:
        one = left.pop()
        if one.elf is None or one.elf.problem:
            return None
        loaded[one.path] = one
        for library in libraries(one):
            if library is None:
                return None
            if library.path not in loaded:
                left.append(library)
    return list(loaded.values())
