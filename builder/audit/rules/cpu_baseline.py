"""Whether what we compiled runs on every CPU that the variant promises."""

import re
from collections.abc import Mapping

from builder.audit.rules.subject import Subject, compiled, some, unproven, verdict_on
from builder.image.instructions import ASKS, UNDECODED
from builder.image.tree import File
from builder.model.finding import Finding

CPU_BASELINE = "cpu_baseline"

# iced-x86's names; the levels are those of the x86-64 psABI.
_X86_64 = frozenset({"INTEL8086", "INTEL186", "INTEL286", "INTEL386", "INTEL486", "X64"})
_X86_64 |= {"CLFSH", "CMOV", "CPUID", "CX8", "FPU", "FPU287", "FPU387", "FXSR", "MMX", "MSR"}
_X86_64 |= {"MULTIBYTENOP", "PAUSE", "SEP", "SSE", "SSE2", "SYSCALL", "TSC"}
_V2 = _X86_64 | {"CMPXCHG16B", "POPCNT", "SSE3", "SSSE3", "SSE4_1", "SSE4_2"}
_V3 = _V2 | {"AVX", "AVX2", "BMI1", "BMI2", "F16C", "FMA", "LZCNT", "MOVBE", "XSAVE"}

LEVELS = {"x86-64": _X86_64, "x86-64-v2": _V2, "x86-64-v3": _V3}

_Guards = Mapping[str, frozenset[str]]

_CHOSEN_AT_RUN_TIME = re.compile(r".*/libggml-cpu-[\w]+\.so")

# Code that asks CPUID first. A file is believed only if it holds that instruction too.
# libmtmd: dr_flac inside vendor/miniaudio/miniaudio.h, ma_dr_flac__is_lzcnt_supported().
_GUARDED = {"libmtmd.so": frozenset({"LZCNT"})}
# The same of cuBLAS, where it is linked in; seen in the archives of CUDA 12.4: cublasLt's heuristic
# (gemm_avx*.cpp.o, behind effective_simd_arch()) and its zstd.
_GUARDED_CUBLAS = {"libggml-cuda.so": frozenset({"AVX", "AVX512F", "BMI2", "FMA", "LZCNT"})}


def cpu_baseline(subject: Subject) -> Finding:
    """Whether no file that we compiled needs an extension above the variant's baseline.

    "all": x86-64 alone, and the CPU backends, of which the server chooses one when it starts, may
    need what they like.
    """
    files = compiled(subject)
    if isinstance(subject.pinned, str):
        found = some(sorted({one for file in files for one in _above(file, _X86_64, _GUARDED)}))
        why = f"{subject.pinned}; above x86-64: {found or 'nothing'}"
        return unproven(CPU_BASELINE, "no instruction above the variant's baseline", why)
    cpu = subject.pinned.variant.cpu
    level = "x86-64" if cpu == "all" else cpu
    if cpu == "all":
        files = [file for file in files if not _CHOSEN_AT_RUN_TIME.fullmatch(file.path)]
    expected = f"nothing above {level} in what we compiled"
    expected += ", but in backends chosen at run time" if cpu == "all" else ""
    unread = [file.path for file in files if _unreadable(file)]
    pruned = subject.pinned.variant.cublas == "pruned"
    guarded = _GUARDED | (_GUARDED_CUBLAS if pruned else {})
    faults = [fault for file in files if (fault := _fault(file, LEVELS[level], guarded))]
    if not faults and (unread or not files):
        what = some(unread) or "any file that we compiled"
        return unproven(CPU_BASELINE, expected, f"cannot read the instructions of {what}")
    return verdict_on(
        CPU_BASELINE, faults, expected=expected, good=f"{len(files)} files read to the last byte"
    )


def _unreadable(file: File) -> bool:
    extensions = file.elf.extensions if file.elf else None
    return extensions is None or UNDECODED in extensions


def _fault(file: File, level: frozenset[str], guards: _Guards) -> str | None:
    above = _above(file, level, guards)
    words = [f"{extension} ({instruction})" for extension, instruction in sorted(above.items())]
    return f"{file.path} needs {some(words)}" if words else None


def _above(file: File, level: frozenset[str], guards: _Guards) -> dict[str, str]:
    """The extensions above a level that the file needs without having asked for them."""
    extensions = (file.elf.extensions if file.elf else None) or {}
    name = file.path.rpartition("/")[2]
    guarded = frozenset[str]()
    if ASKS in extensions:
        guarded = frozenset().union(*(v for k, v in guards.items() if name.startswith(k)))
    known = level | guarded | {UNDECODED}
    return {one: by for one, by in extensions.items() if one not in known}
