"""What builders that were killed left running: found by their marks, and removed.

A builder removes its own containers however it ends, but for SIGKILL, which nothing can answer.
The servers of profiles are meant to stay, and are none of this.
"""

import contextlib
import datetime
import os
import re
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from builder.common.errors import EngineError
from builder.common.progress import Progress
from builder.engine import containers as container
from builder.engine import ownership, processes
from builder.engine.client import engine_errors
from builder.model.labels import PROFILE

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container as DockerContainer

_NAME = re.compile(r"builder-[0-9a-f]{12}")
"""What containers of ours are called: one that a user starts from an image of ours is not."""


@dataclass(frozen=True, slots=True)
class Left:
    """Containers by name: those that were removed, and those of which nobody can tell here."""

    removed: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def remove(client: "DockerClient", progress: Progress) -> Left:
    """Remove the containers that no living builder owns.

    One of another PID namespace, another machine or another version of builder is left alone.
    Raises EngineError when the engine does not list them.
    """
    removed, unknown = [], []
    for one in _ours(client):
        name = str(one.name)
        state = _lives(one)
        if state is None:
            unknown.append(name)
        elif not state:
            progress.step(f"remove {name}: the builder that started it is gone")
            # Another builder may be about it as well.
            with contextlib.suppress(EngineError):
                container.remove(client, name)
                removed.append(name)
    return Left(tuple(removed), tuple(unknown))


def end_programs() -> None:
    """End the programs of this machine that no living builder owns: a smoke's with `--binary`."""
    for pid, owner in processes.marked(ownership.VARIABLE):
        if ownership.lives(owner) is False:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def _ours(client: "DockerClient") -> "list[DockerContainer]":
    with engine_errors("list the containers that builders started"):
        found = client.containers.list(
            all=True, filters={"label": container.LABEL}, ignore_removed=True
        )
    return [
        one for one in found if PROFILE not in one.labels and _NAME.fullmatch(str(one.name or ""))
    ]


def _lives(one: "DockerContainer") -> bool | None:
    owner = one.labels.get(container.OWNER, "")
    if ownership.of_another_boot(owner) and not one.attrs["State"]["Running"]:
        # No builder's container outlives the machine that it runs on.
        return False if _created(one) < processes.booted() else None
    return ownership.lives(owner)


def _created(one: "DockerContainer") -> float:
    """When it was made: seconds since 1970, to the second."""
    text = str(one.attrs["Created"])[:19]
    return datetime.datetime.fromisoformat(f"{text}+00:00").timestamp()
