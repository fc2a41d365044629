"""What is in the image and belongs to the build, to the driver or to root."""

import re
from collections.abc import Callable, Mapping

from builder.audit.rules.subject import Subject, some, unproven, verdict_on
from builder.image.elf import Elf
from builder.image.tree import File
from builder.model.finding import Finding

STUB = "stub"
LEFTOVERS = "leftovers"
PERMISSIONS = "permissions"

_DRIVER = re.compile(
    r"lib(cuda|cudadebugger|nvcuvid|nvoptix|(EGL|GLX|GLESv1_CM|GLESv2|vdpau)_nvidia|nvidia-[^/]*)"
    r"\.so[^/]*"
)
"""The driver's libraries, which the container toolkit mounts from the host."""

_STUB = re.compile(r".*/stubs/[^/]+\.so[^/]*")

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


def stub(subject: Subject) -> Finding:
    """Whether a library of the driver is in the image: in the driver's place it breaks CUDA.

    A file's name says so, or its soname, under which ldconfig lists it whatever the file's name.
    """
    expected = "no libcuda or other library of the driver: they are mounted"
    files = sorted(subject.tree, key=lambda file: file.path)
    faults = [fault for file in files if (fault := _stub(file))]
    unread = [file.path for file in files if file.elf and file.elf.problem]
    if unread and not faults:
        return unproven(STUB, expected, f"cannot read the soname of {some(unread)}")
    return verdict_on(STUB, faults, expected=expected, good="none")


def _stub(file: File) -> str | None:
    name = file.path.rpartition("/")[2]
    soname = (file.elf or Elf()).soname
    if _DRIVER.fullmatch(name) or _STUB.fullmatch(file.path):
        return file.path
    return f"{file.path} calls itself {soname}" if _DRIVER.fullmatch(soname) else None


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

    The base is the lowest layer. Its files with rights are allowed as they are there, to the byte,
    and so are its folders with the sticky bit: /tmp.
    """
    base = {file.path: file for layer in subject.layers[:1] for file in layer.files}
    files = sorted(subject.tree, key=lambda file: file.path)
    faults = [f"anybody may write {one.path}" for one in files if _is_open(one, base)]
    faults += [
        f"{one.path} runs with rights of its own" + (", unlike the base's" * (one.path in base))
        for one in files
        if one.has_rights and not _is_same(one, base)
    ]
    given = sum(1 for one in base.values() if one.has_rights)
    expected = "no path that anybody may write, no setuid file beyond the base's own"
    if given and len(subject.layers) == 1 and not faults:
        why = f"one layer has all, so {given} setuid or setgid files are the base's or not"
        return unproven(PERMISSIONS, expected, why)
    return verdict_on(
        PERMISSIONS,
        faults,
        expected=expected,
        good=f"none; the base has {given} setuid or setgid files",
    )


def _paths(subject: Subject, chosen: Callable[[File], bool]) -> list[str]:
    return sorted(file.path for file in subject.tree if chosen(file))


def _is_open(file: File, base: Mapping[str, File]) -> bool:
    if file.kind not in {"file", "folder"} or not file.mode & _ANYBODY:
        return False
    is_shared = file.kind == "folder" and bool(file.mode & _STICKY)
    return not (is_shared and _is_same(file, base))


def _is_same(file: File, base: Mapping[str, File]) -> bool:
    """Whether the base has this path with the same content, owner and rights."""
    known = base.get(file.path)
    return known is not None and _identity(known) == _identity(file)


def _identity(file: File) -> tuple[object, ...]:
    return file.kind, file.mode, file.owner, file.capability, file.digest
