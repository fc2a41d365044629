"""A CUDA toolkit's folder from NVIDIA's wheels, for machines with a package index and no hub."""

import fnmatch
import re
import shutil
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from builder.common import paths
from builder.common.errors import PinsError
from builder.common.progress import Progress
from builder.model.pins import Wheel
from builder.sources import package_index

HOME = "/usr/local/cuda"
"""Where the toolkit lies in the image; CMake and nvcc's own profile look there."""

# CUDA 13's wheels have one folder for all: nvidia/cu13/{bin,include,lib,nvvm}.
_CARRIED = re.compile(r"nvidia/cu\d+/(?P<path>\w.*)")
_DECLARED = re.compile(r"^\w* ?CUresult CUDAAPI\s+(cu\w+)\(", re.MULTILINE)
_RENAMED = re.compile(r"^\s*#\s*define (?:cu\w+)\s+(cu\w+)\s*$", re.MULTILINE)
_PER_THREAD = re.compile(r"__CUDA_API_(PTDS|PTSZ)\((cu\w+)\)")
_STUB_LIBRARY = 34
"""CUDA_ERROR_STUB_LIBRARY of cuda.h: what NVIDIA's own stub answers to every call."""


def lay_out(wheels: list[Wheel], exclude: list[str], target: Path, progress: Progress) -> None:
    """The toolkit as `target`, as it belongs at HOME; `exclude` are patterns of paths there.

    No wheel carries the stub of the driver's library: its source comes to lib64/stubs/libcuda.c.
    Raises RemoteUnavailableError as `package_index.download`, PinsError without cuda.h and for a
    wheel with a file outside of the folder.
    """
    for wheel in wheels:
        _unpack(_fetch(wheel, progress), exclude, target, progress)
    (target / "lib").symlink_to("lib64")
    for library in list((target / "lib64").glob("lib*.so.*")):
        (library.parent / f"{library.name.partition('.so.')[0]}.so").symlink_to(library.name)
    header = target / "include" / "cuda.h"
    if not header.is_file():
        raise PinsError("the pinned wheels bring no cuda.h", hint="add nvidia-cuda-runtime")
    stub = target / "lib64" / "stubs" / "libcuda.c"
    stub.parent.mkdir()
    stub.write_text(_stub(driver_functions(header.read_text(encoding="utf-8"))), encoding="utf-8")


def driver_functions(header: str) -> list[str]:
    """The names that code compiled with this cuda.h can ask the driver's library for, sorted.

    The header renames functions: by version (cuMemAlloc is cuMemAlloc_v2), and for a default
    stream to each thread (cuMemcpy_ptds).
    """
    names = {*_DECLARED.findall(header), *_RENAMED.findall(header)}
    for kind, name in _PER_THREAD.findall(header):
        names |= {name, f"{name}_{kind.lower()}"}
    return sorted(names)


def _stub(names: Iterable[str]) -> str:
    return "".join(f"int {name}(void) {{ return {_STUB_LIBRARY}; }}\n" for name in names)


def _fetch(wheel: Wheel, progress: Progress) -> Path:
    """The wheel's file in the cache, downloaded once."""
    file = paths.cache() / "wheels" / f"{wheel.package}-{wheel.version}-{wheel.sha256[:12]}.whl"
    if not file.is_file():
        progress.step(f"download {wheel.package} {wheel.version} from the package index")
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        try:
            package_index.download(wheel, "wheel", part, progress)
            part.rename(file)
        finally:
            part.unlink(missing_ok=True)
    return file


def _unpack(wheel: Path, exclude: list[str], target: Path, progress: Progress) -> None:
    progress.detail(f"unpack {wheel.name}")
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            carried = _CARRIED.fullmatch(member.filename)
            if carried is None or member.is_dir():
                continue
            path = _place(wheel, carried["path"])
            if any(fnmatch.fnmatchcase(f"{HOME}/{path}", pattern) for pattern in exclude):
                continue
            file = target / path
            file.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, file.open("wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
            # The wheels' own modes let nobody but the owner run nvcc.
            file.chmod(0o755 if member.external_attr >> 16 & 0o100 else 0o644)


def _place(wheel: Path, path: str) -> PurePosixPath:
    """Where a wheel's file lies in a toolkit: nvcc looks for libraries in lib64."""
    parts = PurePosixPath(path).parts
    if ".." in parts:
        raise PinsError(
            f"{wheel.name} holds a file that leaves the toolkit's folder: {path!r}",
            hint="pin another version of it in pins.toml",
        )
    return PurePosixPath("lib64" if parts[0] == "lib" else parts[0], *parts[1:])
