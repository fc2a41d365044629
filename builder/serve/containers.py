"""The containers that serve profiles: what the engine says of them, and what is done to them.

Their labels and restart policies are all the state there is: no file says what runs. A container is
*confirmed*, and comes back after the engine does, once its server was ready. One that is not yet
names those that it is to replace, which are kept, stopped, until then.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from builder.common.errors import EngineError
from builder.engine import containers as container
from builder.engine.client import engine_errors
from builder.engine.containers import Launch, Running
from builder.llama.container_paths import LOOPBACK
from builder.model.labels import LABEL as BASE
from builder.model.labels import PROFILE
from builder.model.pins import Gpu

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container as DockerContainer

SPEC = f"{BASE}.serves"
REPLACES = f"{BASE}.replaces"
STACK = f"{BASE}.stack"

CHOSEN = "BUILDER_STACK"
"""In the environment: servers of another stack are neither seen nor stopped. For tests."""

NEXT = "next"
"""In a name: the one that is being started. The engine gives a name to one container only."""

_CONFIRMED = "unless-stopped"
_STOP_S = 20


@dataclass(frozen=True, slots=True)
class Spec:
    """What was asked for when a container was made: two of one spec serve the same.

    `model` has a size in bytes and a time in ns, so that another file under its name differs;
    so has `key_file`, of whose contents nothing is kept. `memory` is in bytes. `arguments` are
    llama-server's.
    """

    alias: str
    image: str
    image_id: str
    model: str
    model_stamp: tuple[int, int]
    host: str
    port: int
    gpu: Gpu
    arguments: tuple[str, ...]
    env: dict[str, str]
    draft: str | None = None
    key_file: str | None = None
    key_stamp: tuple[int, int] | None = None
    memory: int | None = None

    @property
    def url(self) -> str:
        """Where this machine reaches it."""
        host = LOOPBACK if self.host in {"0.0.0.0", "::"} else self.host  # noqa: S104
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Served:
    """A container of a profile, as it was when the engine was asked.

    `replaces` are the IDs of those that ran before it. `started` is UTC, ISO 8601. `restarts`
    counts those by the engine since then; `restarting`: it waits to do so again.
    """

    id: str
    name: str
    profile: str
    spec: Spec
    running: bool
    restarting: bool
    confirmed: bool
    replaces: tuple[str, ...]
    started: str
    restarts: int
    handle: "DockerContainer"

    @property
    def running_container(self) -> Running:
        """What looks into it."""
        return Running(self.name, self.spec.port, None, self.handle)


@dataclass(frozen=True, slots=True)
class Stack:
    """Those containers on one engine that share its GPU. `name` keeps others apart, for tests."""

    client: "DockerClient"
    name: str = "turboquant"

    def all(self) -> list[Served]:
        """Every container of the stack, running or not, by profile."""
        wanted: dict[str, str | list[str] | bool] = {"label": [PROFILE, f"{STACK}={self.name}"]}
        with engine_errors("list the containers that serve"):
            found = self.client.containers.list(all=True, filters=wanted, ignore_removed=True)
        return sorted((_read(one) for one in found), key=lambda one: one.profile)

    def create(
        self, profile: str, spec: Spec, launch: Launch, replaces: Sequence[Served]
    ) -> Served:
        """A container under the name of the next, not started.

        Raises EngineError when it cannot be made, or another builder is making one.
        """
        labels = {
            PROFILE: profile,
            STACK: self.name,
            SPEC: json.dumps(asdict(spec)),
            REPLACES: ",".join(one.id for one in replaces),
        }
        launch = replace(launch, labels={**launch.labels, **labels})
        handle, _ = container.create(self.client, launch, f"{self.name}-{NEXT}")
        with engine_errors("describe the container"):
            handle.reload()
        return _read(handle)

    def start(self, one: Served) -> None:
        """Raises EngineError: its port is taken, its GPU is not to be had."""
        container.start(one.handle, one.spec.host, one.spec.port)

    def stop(self, one: Served) -> None:
        """SIGTERM, and after 20 s SIGKILL. It stays, and the engine does not start it again."""
        with engine_errors(f"stop {one.name}"):
            one.handle.stop(timeout=_STOP_S)

    def confirm(self, one: Served) -> None:
        """Its server was ready: the engine starts it again from now on, unless it is stopped."""
        with engine_errors(f"say that {one.name} is to restart"):
            one.handle.update(restart_policy={"Name": _CONFIRMED})  # type: ignore[arg-type]

    def settle_name(self, one: Served) -> None:
        """Give it the name of its profile, so that the next may be made."""
        name = f"{self.name}-{one.profile}"
        if one.name != name:
            with engine_errors(f"rename {one.name}"):
                one.handle.rename(name)

    def remove(self, one: Served) -> None:
        """Remove it, running or not; one that is gone is no error."""
        container.remove(self.client, one.id)


def connect() -> Stack:
    """The stack of this environment, on the engine that it names. Raises EngineError."""
    from builder.engine import client as engine

    name = os.environ.get(CHOSEN)
    return Stack(engine.connect(), name) if name else Stack(engine.connect())


def _read(handle: "DockerContainer") -> Served:
    from pydantic import TypeAdapter, ValidationError

    attrs = handle.attrs
    state, host = attrs["State"], attrs["HostConfig"]
    labels = handle.labels
    try:
        spec = TypeAdapter(Spec).validate_json(labels.get(SPEC, ""))
    except ValidationError as error:
        raise EngineError(
            f"what container {handle.name} serves cannot be read",
            why="another version of builder started it",
            hint=f"`docker rm -f {handle.name}`, then start it anew",
        ) from error
    return Served(
        id=str(handle.id),
        name=str(handle.name),
        profile=labels[PROFILE],
        spec=spec,
        running=bool(state["Running"]),
        restarting=bool(state["Restarting"]),
        confirmed=host["RestartPolicy"]["Name"] == _CONFIRMED,
        replaces=tuple(filter(None, labels.get(REPLACES, "").split(","))),
        started=str(state["StartedAt"]),
        restarts=int(attrs["RestartCount"]),
        handle=handle,
    )
