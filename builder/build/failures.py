"""What a failed build's output says: pure, from its lines to the error that it failed of."""

import itertools
import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["source", "memory", "disk", "other"]
"""At fault: the tree, the machine's memory, its disk, or something else."""

# Every form is matched at the start of a line: warnings, command lines and echoes of source code
# hold the same words further on.
_SOURCE = re.compile(
    # gcc, clang and gas write file:12:3:, nvcc's front end file(12):
    r"(?P<file>[^\s:(][^:(]*)(?::(?P<line>\d+)(?::\d+)?|\((?P<row>\d+)\)):"
    r" (?:(?:fatal|catastrophic|internal(?: compiler)?) )?[Ee]rror(?: [#\w-]+)?: "
)
_ERRORS = (
    _SOURCE,
    re.compile(
        r"(?:\S*/)?ld(?:\.\w+)?: (?!.*\bwarning: ).*"
        r"(?:undefined reference to|cannot find|multiple definition of|final link failed|error: )"
    ),
    # ld leaves its own name out where it has said the function
    re.compile(r"\S+:\(\.[^)]+\): undefined reference to"),
    re.compile(r"(?:nvcc|nvlink|ptxas|fatbinary|cicc|cudafe\+\+)\b[^:]*\b(?:error|fatal)\s*:"),
    re.compile(
        r"(?!(?:warning|note|remark): )(?:\S*/)?[\w.+-]+:"
        r" (?:fatal error|catastrophic error|internal compiler error|error|fatal): "
    ),
    re.compile(r"(?:[Ee]rror|[Cc]atastrophic error): |CMake Error\b|E: "),
)
_MEMORY = re.compile(
    r"Killed signal terminated program|died due to signal 9\b|terminated with signal 9\b"
    r"|virtual memory exhausted|[Cc]annot allocate memory|: out of memory|std::bad_alloc"
    r"|: line \d+: +\d+ Killed\b|^Killed$|^FAILED: \[code=137\]|exit code: 137\b"
)
_DISK = re.compile(r"(?i)no space left on device|enough free space in")
_FAILED = re.compile(r"FAILED: (?:\[code=-?\d+\] )?(?P<object>\S+)")
_BLOCK_ENDS = re.compile(r"\[\d+/\d+\] |FAILED: |ninja: build stopped")
_OBJECT_FOLDER = re.compile(r"CMakeFiles/[^/]+\.dir/")
_EXPLAINED = 4
_LAST = 5
_TREE = "/src/"
"""Where the Dockerfile mounts the tree; files elsewhere are the toolkit's."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a build failed. `text` is in the tools' own words.

    `place` is the file of the tree, with its line if the compiler named one; "" when unknown.
    """

    text: str
    kind: Kind
    place: str


def cause(output: list[str], failure: str = "") -> Cause:
    """The error that a build failed of, from the lines of the step that failed.

    `failure` is BuildKit's own word on that step.
    """
    start = next((i for i, line in enumerate(output) if _FAILED.match(line)), None)
    failed = _FAILED.match(output[start]) if start is not None else None
    # ninja prints FAILED, the command as one line, and what the command printed.
    block = output if start is None else _block(output[start + 2 :])
    made = _OBJECT_FOLDER.sub("", failed["object"]).removesuffix(".o") if failed else ""
    first = next((i for i, line in enumerate(block) if _is_error(line)), None)

    # dpkg's parts complain of each other's end before one of them names the disk.
    disk = _find(_DISK, [*output, failure])
    if disk:
        return Cause(disk, "disk", made)
    # A killed compiler's parts complain of each other's end too.
    memory = _find(_MEMORY, [output[start] if start is not None else "", *block, failure])
    if memory:
        return Cause(memory, "memory", made)
    if first is None and failed:
        return Cause("\n".join(block[-_LAST:]) or failed.string, "source", made)
    if first is None:
        return Cause("\n".join(block[-_LAST:]) or failure, "other", "")
    configuring = block[first].startswith("CMake Error")
    text = _explained(block[first:]) if configuring else block[first]
    at_fault: Kind = "source" if made or configuring or _SOURCE.match(text) else "other"
    return Cause(text.strip(), at_fault, _place(text) or made)


def _block(lines: Iterable[str]) -> list[str]:
    """The output of one command of ninja's: up to its next step."""
    block: list[str] = []
    for line in lines:
        if _BLOCK_ENDS.match(line):
            break
        block.append(line)
    return block


def _is_error(line: str) -> bool:
    return any(form.match(line) for form in _ERRORS)


def _find(form: re.Pattern[str], lines: Iterable[str]) -> str:
    return next((line.strip() for line in lines if form.search(line)), "")


def _explained(lines: list[str]) -> str:
    """CMake's error with what it says in the indented lines below."""
    words = (line for line in lines[1:] if line.strip())
    below = itertools.takewhile(lambda line: line.startswith(" "), words)
    return "\n".join([lines[0], *itertools.islice(below, _EXPLAINED)])


def _place(error: str) -> str:
    found = _SOURCE.match(error)
    if found is None or not found["file"].startswith(_TREE):
        return ""
    file = posixpath.normpath(found["file"].removeprefix(_TREE))
    return f"{file}:{found['line'] or found['row']}"
