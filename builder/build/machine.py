"""Asks the engine about its machine."""

from pathlib import Path
from typing import TYPE_CHECKING

from builder.build.plan import Machine
from builder.engine import facts
from builder.engine.client import engine_errors

if TYPE_CHECKING:
    from docker import DockerClient


def look(client: "DockerClient") -> Machine:
    """Cores, memory and disk of the engine's machine.

    Raises EngineError when it does not say.
    """
    with engine_errors("say what machine it runs on"):
        info = client.info()
    folder = Path(str(info.get("DockerRootDir") or "/var/lib/docker"))
    return Machine(
        cores=int(info["NCPU"]),
        memory=int(info["MemTotal"]),
        disk=str(folder),
        disk_free=_free(folder) if facts.Engine(host=facts.host()).local else None,
    )


def _free(folder: Path) -> int | None:
    try:
        return facts.free_bytes(folder)
    except OSError:
        return None
