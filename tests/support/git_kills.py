"""SIGKILL at each change that git makes on the disk, by a library that is loaded into it."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

_SOURCE = Path(__file__).with_suffix(".c")
_MOST = 500


def compiled(folder: Path) -> Path:
    """The library, made with the machine's compiler."""
    library = folder / "git_kills.so"
    command = ["gcc", "-shared", "-fPIC", "-O", "-o", str(library), str(_SOURCE), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return library


def each(library: Path, work: Callable[[], object], *, step: int = 1) -> Iterator[int]:
    """The points at which `work` was killed, one after the other, until it comes to its end.

    Each time it runs in a process of its own, that is killed together with all that it started.
    `step`: only every so many of them.
    """
    count = library.with_suffix(".count")
    for point in range(1, _MOST, step):
        count.write_bytes(bytes(4))
        if not _killed(work, {"LD_PRELOAD": library, "KILL_COUNT": count, "KILL_AT": point}):
            return
        yield point
    raise AssertionError(f"not at its end after {_MOST} points")


def _killed(work: Callable[[], object], environment: dict[str, object]) -> bool:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setpgid(0, 0)
            os.environ.update({name: str(value) for name, value in environment.items()})
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "the work fails where it is not killed"
    return False
