"""What is in the image and belongs to the build, to the driver or to root."""

import re
from collections.abc import Callable

from builder.image_tree import File
from builder.probe.finding import Finding
from builder.rule.subject import Subject, verdict_on

STUB = "stub"
LEFTOVERS = "leftovers"
PERMISSIONS = "permissions"

_LIBCUDA = re.compile(r".*/(libcuda\.so[^/]*|stubs/[^/]+\.so[^/]*)")

_TOOL = (
    r"(.*-)?(gcc|g\+\+|cc|c\+\+|cpp|clang|clang\+\+|ld|ld\.bfd|ld\.gold|lld|as|ar|nvcc|ptxas|cicc"
    r"|nvlink|fatbinary|cmake|ninja|make|ccache|rustc|go)(-\d+(\.\d+)*)?"
)
_LEFTOVERS = {
    "a compiler or build tool": re.compile(rf".*/s?bin/{_TOOL}|.*/(cc1|cc1plus|collect2)"),
    "apt's lists": re.compile(r"/var/lib/apt/lists/(?!lock$|partial$).+"),
    "apt's cache": re.compile(r"/var/cache/apt/(.*\.deb|.*\.bin)"),
    "a build tree": re.compile(
        r".*/(CMakeCache\.txt|build\.ninja|\.ninja_(log|deps)|CMakeFiles/.*|\.git/HEAD)"
        r"|.*\.(o|cu|cuh|gch)|/(src|build|ccache|out)/.+"
    ),
}

_ANYBODY = 0o002
_STICKY = 0o1000
_SET_ID = 0o6000


def stub(subject: Subject) -> Finding:
    """Whether any libcuda is in the image: a stub in the driver's place keeps CUDA from working."""
    return verdict_on(
        STUB,
        _paths(subject, lambda file: bool(_LIBCUDA.fullmatch(file.path))),
        expected="no libcuda: the driver's is mounted",
        good="none",
    )


def leftovers(subject: Subject) -> Finding:
    """Whether the build left its tools or its files behind."""
    files = _paths(subject, lambda file: file.kind != "folder")
    faults = [
        f"{what}: {path}"
        for what, pattern in _LEFTOVERS.items()
        for path in files
        if pattern.fullmatch(path)
    ]
    return verdict_on(
        LEFTOVERS, faults, expected="no compiler, apt lists or build tree", good="none"
    )


def permissions(subject: Subject) -> Finding:
    """Whether anybody may write a path, or run a file with rights that the base did not give.

    Folders with the sticky bit, as /tmp has it, are left out. The base is the lowest layer.
    """
    base = {file.path for file in subject.layers[0].files if _has_rights(file)}
    faults = [f"anybody may write {path}" for path in _paths(subject, _is_open)]
    faults += [
        f"{path} runs with rights of its own"
        for path in _paths(subject, _has_rights)
        if path not in base
    ]
    return verdict_on(
        PERMISSIONS,
        faults,
        expected="no path that anybody may write, no setuid file beyond the base's own",
        good=f"none; the base has {len(base)} setuid or setgid files",
    )


def _paths(subject: Subject, chosen: Callable[[File], bool]) -> list[str]:
    return sorted(file.path for file in subject.tree if chosen(file))


def _is_open(file: File) -> bool:
    if file.kind not in {"file", "folder"} or not file.mode & _ANYBODY:
        return False
    return file.kind == "file" or not file.mode & _STICKY


def _has_rights(file: File) -> bool:
    return file.kind == "file" and (bool(file.mode & _SET_ID) or file.capability)
