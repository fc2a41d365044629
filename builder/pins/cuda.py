"""Which CUDA toolkit goes with which compiler, architecture and driver."""

from dataclasses import dataclass

from packaging.version import Version

_NEWEST_GCC = {
    # CUDA release → newest major version of gcc that nvcc accepts. Source: the table "Host
    # Compiler Support Policy" in each release's CUDA Installation Guide for Linux.
    "12.0": 12,
    "12.1": 12,
    "12.2": 12,
    "12.3": 12,
    "12.4": 13,
    "12.5": 13,
    "12.6": 13,
    "12.8": 14,
    "12.9": 14,
    "13.0": 15,
}

_ARCHITECTURES = {
    # Architecture → first release whose nvcc knows it, and first that no longer does. Source:
    # the CUDA release notes ("Deprecated Architectures") and nvcc's --gpu-architecture.
    "50": ("6.0", "13.0"),
    "52": ("6.5", "13.0"),
    "60": ("8.0", "13.0"),
    "61": ("8.0", "13.0"),
    "70": ("9.0", "13.0"),
    "75": ("10.0", None),
    "80": ("11.0", None),
    "86": ("11.1", None),
    "87": ("11.4", None),
    "88": ("13.0", None),
    "89": ("11.8", None),
    "90": ("11.8", None),
    "90a": ("12.0", None),
    "100": ("12.8", None),
    "100a": ("12.8", None),
    "100f": ("12.9", None),
    "103": ("12.9", None),
    "103a": ("12.9", None),
    "103f": ("12.9", None),
    "110": ("13.0", None),
    "110a": ("13.0", None),
    "110f": ("13.0", None),
    "120": ("12.8", None),
    "120a": ("12.8", None),
    "120f": ("12.9", None),
    "121": ("12.9", None),
    "121a": ("12.9", None),
    "121f": ("12.9", None),
}

_TEGRA = {"87", "110", "110a", "110f"}
"""Jetson's architectures: machine code goes neither from them to others nor the other way."""

_COMPRESS_MODE_SINCE = Version("12.8")

_LOWEST_DRIVER = {
    # First release → lowest Linux driver (minor version compatibility). Source: CUDA Toolkit
    # Release Notes, table 2.
    "11.0": "450.80.02",
    "12.0": "525.60.13",
    # What nvcc compresses by -compress-mode=size, as every recipe of ours has it from here on,
    # older drivers of CUDA 12 cannot read. Source: RAPIDS' rapids_cuda_enable_fatbin_compression.
    "12.8": "550.54.14",
    "13.0": "580.65.06",
}


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two values that cannot go together: the key at fault, what is wrong, what to do."""

    key: str
    problem: str
    suggestion: str


def newest_gcc(cuda: str) -> int | None:
    """The newest gcc major that the toolkit's nvcc accepts; None for one not in the table."""
    version = Version(cuda)
    return _NEWEST_GCC.get(f"{version.major}.{version.minor}")


def lowest_driver(cuda: str) -> str | None:
    """The lowest driver that runs what a recipe compiles with this toolkit; None when unknown."""
    version = Version(cuda)
    until = [
        driver
        for first, driver in _LOWEST_DRIVER.items()
        if Version(first).major == version.major and Version(first) <= version
    ]
    return until[-1] if until else None


def has_compress_mode(cuda: str) -> bool:
    """Whether this toolkit's nvcc knows -compress-mode, which packs tighter than -compress-all."""
    return Version(cuda) >= _COMPRESS_MODE_SINCE


def compiler_conflict(cuda: str, gcc: str) -> Conflict | None:
    """What nvcc would say about this host compiler, before anything is compiled."""
    newest = newest_gcc(cuda)
    if newest is None:
        known = ", ".join(_NEWEST_GCC)
        return Conflict("cuda.version", f"CUDA {cuda} is not in the table", f"one of {known}")
    if Version(gcc).major > newest:
        return Conflict(
            "compiler.version",
            f"gcc {gcc} is too new for nvcc {cuda}",
            f"gcc {newest} or older",
        )
    return None


def driver_conflict(cuda: str, driver: str) -> Conflict | None:
    """Whether the lowest driver written down is lower than the toolkit's own."""
    lowest = lowest_driver(cuda)
    if lowest is not None and Version(driver) < Version(lowest):
        return Conflict(
            "cuda.driver",
            f"driver {driver} cannot run code of CUDA {cuda}",
            f"{lowest} or newer",
        )
    return None


def architecture_conflict(cuda: str, architecture: str) -> Conflict | None:
    """Whether this toolkit's nvcc compiles for this architecture ("86", "120a", …)."""
    known = _ARCHITECTURES.get(architecture)
    if known is None:
        return Conflict(
            "architectures",
            f"unknown CUDA architecture {architecture!r}",
            f"one of {', '.join(_ARCHITECTURES)}",
        )
    first, gone = known
    if Version(cuda) < Version(first):
        return Conflict(
            "architectures",
            f"CUDA {cuda} does not know architecture {architecture}",
            f"a base with CUDA {first} or newer",
        )
    if gone is not None and Version(cuda) >= Version(gone):
        return Conflict(
            "architectures",
            f"CUDA {cuda} no longer compiles for architecture {architecture}",
            f"a base with CUDA older than {gone}",
        )
    return None


def runnable(cuda: str, architectures: list[str]) -> list[str]:
    """The architectures whose machine code runs on GPUs of these ones, oldest first.

    Machine code runs on its own major version from its own minor version on; that of one
    architecture ("120a") there alone. Those that this toolkit's nvcc does not know are left out.
    Source: CUDA C++ Programming Guide, "Binary Compatibility", and nvcc's --gpu-architecture.
    """
    known = [name for name in _ARCHITECTURES if architecture_conflict(cuda, name) is None]
    return [name for name in known if any(_runs(name, one) for one in architectures)]


def _runs(code: str, architecture: str) -> bool:
    own, gpu = (int(name.rstrip("af")) for name in (code, architecture))
    if own == gpu:
        return True
    alone = code.endswith("a") or not _TEGRA.isdisjoint((code, architecture))
    return not alone and own // 10 == gpu // 10 and own < gpu


def variant_architecture(compute_capability: str) -> str:
    """The architecture's name for a compute capability: "8.6" → "86"."""
    return compute_capability.replace(".", "")
