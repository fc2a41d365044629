"""Processes as Linux shows them under /proc: who still lives, who started whom, who listens where.

Where there is no /proc, nothing is known, and that is what is said.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")
_LISTEN = "0A"
_ENDED = {"Z", "X"}
_SESSION, _STARTED = 3, 19  # of the fields behind the command's name: see proc_pid_stat(5)


def started(pid: int) -> str | None:
    """When a process began, in ticks since the boot: with its number it names one for good."""
    fields = _fields(pid)
    return fields[_STARTED] if fields else None


def lives(pid: int, began: str) -> bool | None:
    """Whether the process of this number and this beginning lives; None: it cannot be told.

    One that has ended and that nobody collected does not.
    """
    if fields := _fields(pid):
        return fields[_STARTED] == began and fields[0] not in _ENDED
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    # It is there, and /proc hides it.
    return None


def booted() -> float:
    """When this machine was started: seconds since 1970; 0 where it does not say."""
    with contextlib.suppress(OSError):
        for line in (_PROC / "stat").read_text(encoding="ascii").splitlines():
            if line.startswith("btime "):
                return float(line.split()[1])
    return 0.0


def marked(variable: str) -> Iterator[tuple[int, str]]:
    """Processes of this user that have a variable in their environment, with its value."""
    start = f"{variable}=".encode()
    for pid in _all():
        with contextlib.suppress(OSError):
            for word in (_PROC / str(pid) / "environ").read_bytes().split(b"\0"):
                if word.startswith(start):
                    yield pid, word.removeprefix(start).decode(errors="replace")


def session(leader: int) -> list[int]:
    """Every process of the session that this one began."""
    return [pid for pid in _all() if (found := _fields(pid)) and found[_SESSION] == str(leader)]


def listens(leader: int, port: int) -> bool | None:
    """Whether whoever listens at a TCP port of this machine belongs to this process's session.

    With two listeners at one port, as SO_REUSEPORT has it, both must. None: it cannot be told.
    """
    sockets = _listening(port)
    if sockets is None:
        return None
    return bool(sockets) and sockets <= set(_sockets(leader))


def _all() -> Iterator[int]:
    with contextlib.suppress(OSError):
        yield from (int(each.name) for each in _PROC.iterdir() if each.name.isdecimal())


def _fields(pid: int) -> list[str] | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The command's name, in brackets, may hold anything.
    return text.rpartition(")")[2].split()


def _listening(port: int) -> set[str] | None:
    """The inodes of the sockets that listen at this port, whatever the address; None: unknown."""
    tables = [_PROC / "net" / name for name in ("tcp", "tcp6")]
    lines: list[str] = []
    for table in tables:
        with contextlib.suppress(OSError):
            lines += table.read_text(encoding="utf-8").splitlines()[1:]
    if not any(table.exists() for table in tables):
        return None
    rows = [line.split() for line in lines]
    return {
        row[9] for row in rows if row[3] == _LISTEN and int(row[1].rpartition(":")[2], 16) == port
    }


def _sockets(leader: int) -> Iterator[str]:
    """The inodes of all sockets that a session's processes have open."""
    for pid in session(leader):
        with contextlib.suppress(OSError):
            for descriptor in (_PROC / str(pid) / "fd").iterdir():
                with contextlib.suppress(OSError):
                    target = str(descriptor.readlink())
                    if target.startswith("socket:["):
                        yield target.removeprefix("socket:[").removesuffix("]")
