"""Which builder started a server, written so that another one can tell whether it still lives.

The number of a process says little: it is used again, after a reboot too, and means another process
in another PID namespace. With the boot's ID, the namespace and the start time it names one process.
"""

import os
import re
from pathlib import Path

from builder.engine import processes

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/pid")
_PARTS = 4
_PID = re.compile(r"[0-9]{1,9}")

VARIABLE = "BUILDER_STARTED_BY"
"""In the environment of programs that a builder starts: its mark."""


def mark() -> str:
    """The mark of this process: empty where the system does not tell (no Linux)."""
    try:
        boot = _BOOT.read_text(encoding="ascii").strip()
        namespace = str(_NAMESPACE.readlink())
    except OSError:
        return ""
    began = processes.started(os.getpid())
    return f"{boot} {namespace} {os.getpid()} {began}" if began else ""


def lives(owner: str) -> bool | None:
    """Whether the builder of this mark lives; None where that cannot be told from here.

    It cannot of one in another PID namespace, on another machine or of another boot.
    """
    here, parts = mark().split(), owner.split()
    if len(parts) != _PARTS or parts[:2] != here[:2] or not _PID.fullmatch(parts[2]):
        return None
    return processes.lives(int(parts[2]), parts[3])


def of_another_boot(owner: str) -> bool:
    """Whether the mark is of another boot of this machine, or of another machine."""
    here, parts = mark().split(), owner.split()
    return len(parts) == _PARTS and bool(here) and parts[0] != here[0]
