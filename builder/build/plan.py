"""What a build needs, whether the machine has it, and how long it will take. Pure."""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from builder.common.errors import EngineError

GB = 10**9
DISK_CPU = 6 * GB
"""Two Debian bases, the source, a build tree with 14 CPU backends, ccache, the image."""
DISK_CUDA = 25 * GB
"""A CUDA devel base is 7 GB unpacked; add its download, a build tree, ccache, 1 GB of image."""
_DEVEL_CUDA = 11 * GB
"""Of these the devel base with its download."""
MEMORY_CPU = 4 * GB
"""A few compilers at once, half a GB each."""
MEMORY_CUDA = 8 * GB
"""cicc, ptxas and host compilers of several files run at once: _JOB_CUDA for each."""

_JOB_CPU = GB // 2
_JOB_CUDA = 9 * GB // 10
"""Of the spiritbuun fork, sm_86, two at once held 1.77 GB at most, one ptxas 0.84."""
_REST = GB
"""Memory for all but the compilers: the system, the engine, BuildKit."""
_COPIES = 4
"""A rebuild writes what is in the image as objects, linked, stripped, and as layers."""

_TENTHS = 10
_SHORT_S = 90


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the compilers run. Bytes; `disk_free` None: its disk cannot be seen from here."""

    cores: int
    memory: int
    disk: str
    disk_free: int | None


@dataclass(frozen=True, slots=True)
class PlannedBase:
    """A base image that the build starts from, and whether the engine holds it."""

    role: str
    reference: str
    here: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What a build would do. Sizes in bytes, times in seconds; None is unknown.

    `cores`, `jobs` and `memory` are None for a named buildx builder: they are another machine's.
    `expected_s` is what the last build took that compiled.
    """

    variant: str
    source: str
    bases: list[PlannedBase]
    cores: int | None
    jobs: int | None
    memory: int | None
    disk_needed: int
    disk_free: int | None
    expected_s: float | None


def to_json(plan: Plan) -> str:
    """The plan as indented JSON."""
    return json.dumps(dataclasses.asdict(plan), indent=2)


def to_text(plan: Plan) -> str:
    """The plan for a reader."""
    places = [
        f"{one.role} {one.reference}{'' if one.here else ' (to fetch)'}" for one in plan.bases
    ]
    free = "free: unknown" if plan.disk_free is None else f"{plan.disk_free / GB:.1f} GB free"
    compilers = "as many as the builder's machine has cores"
    if plan.jobs is not None:
        compilers = f"{plan.jobs} at once, as asked for"
    if plan.jobs is not None and plan.memory is not None:
        compilers = f"{plan.jobs} at once: {plan.cores} cores, {plan.memory / GB:.1f} GB of memory"
    expected = "unknown: none that compiled was recorded here"
    if plan.expected_s is not None:
        expected = f"{words(plan.expected_s)}, as the last one that compiled"
    rows = [("source", plan.source), *(("base", place) for place in places)]
    rows += [("compilers", compilers), ("disk", f"{plan.disk_needed / GB:.1f} GB needed, {free}")]
    rows += [("time", expected)]
    return "\n".join([plan.variant, *(f"  {name:<10}{text}" for name, text in rows)])


def jobs(machine: Machine, *, cuda: bool) -> int:
    """How many compilers may run at once.

    Raises EngineError when the memory does not do for one.
    """
    need = _JOB_CUDA if cuda else _JOB_CPU
    if machine.memory < _REST + need:
        raise EngineError(
            f"the engine's machine has {machine.memory / GB:.1f} GB of memory, "
            f"one compiler takes {(_REST + need) / GB:.1f} GB with all around it",
            hint="build on a larger machine, or on another with --builder NAME",
        )
    return max(1, min(machine.cores, (machine.memory - _REST) // need))


def disk_need(*, cuda: bool, devel_here: bool, image: int | None) -> int:
    """Bytes that a build writes: the first one here, or one after an image of `image` bytes.

    `devel_here`: the engine holds the base image that it compiles in.
    """
    if image is not None:
        return _COPIES * image
    if not cuda:
        return DISK_CPU
    return DISK_CUDA - _DEVEL_CUDA if devel_here else DISK_CUDA


def check_disk(machine: Machine, need: int) -> None:
    """Raises EngineError where the disk is known to have no room for the build."""
    if machine.disk_free is None or machine.disk_free >= need:
        return
    raise EngineError(
        f"{machine.disk_free / GB:.1f} GB are free in {machine.disk}, "
        f"the build needs {need / GB:.1f} GB",
        hint="make room: `docker builder prune`, `docker image prune`, or a larger disk",
    )


def mark(pace: list[float], done: int, of: int, seconds: float) -> None:
    """Note in `pace` that `done` of `of` steps were done `seconds` after the compile step began."""
    if not pace:
        pace.append(seconds)
    while len(pace) <= _TENTHS and done * _TENTHS >= of * len(pace):
        pace.append(seconds)


def whole(pace: Sequence[float]) -> bool:
    """Whether a pace goes to the last step."""
    return len(pace) == _TENTHS + 1


def outlook(known: Sequence[Sequence[float]], share: float, passed: float) -> str:
    """The time left at `share` (0 to 1) of ninja's steps, in words; empty where nothing is known.

    `known` are whole paces of earlier builds, the one most like this first; `passed` are the
    seconds since ninja's first step. Before the first tenth: what the compile step took last time.
    """
    if not known:
        return ""
    if share < 1 / _TENTHS:
        return f"{words(known[0][-1])} last time"
    return f"about {words(_left(known, share, passed))} left"


def _left(known: Sequence[Sequence[float]], share: float, passed: float) -> float:
    """By the earlier build that was most nearly as fast as this one so far.

    A build whose files ccache has is a hundred times as fast as one without, and spends its time
    elsewhere: the nearest one tells more than the newest one.
    """

    def times_slower(pace: Sequence[float]) -> float:
        return max(passed, 0.1) / max(_at(pace, share) - pace[0], 0.1)

    nearest = min(known, key=lambda pace: abs(math.log(times_slower(pace))))
    return (nearest[-1] - _at(nearest, share)) * times_slower(nearest)


def _at(pace: Sequence[float], share: float) -> float:
    """When an earlier build was there, straight between two tenths."""
    place = min(share, 1.0) * _TENTHS
    before = min(int(place), _TENTHS - 1)
    return pace[before] + (pace[before + 1] - pace[before]) * (place - before)


def words(seconds: float) -> str:
    """A guess of a duration: no more digits than it deserves."""
    if seconds < _SHORT_S:
        return f"{math.ceil(seconds / 10) * 10} s"
    return f"{round(seconds / 60)} min"
