"""An image as something that servers are started from."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from builder.engine import containers as container
from builder.engine.containers import Launch
from builder.llama import container_paths
from builder.llama.target import CheckCommand, CheckRun, Serving

if TYPE_CHECKING:
    from docker import DockerClient

_POLL_S = 0.02
_ANSWER_S = 10.0


@dataclass(frozen=True, slots=True)
class ImageTarget:
    """An image on the engine. `env` is added to the image's own.

    `gpu`: its containers get all GPUs, if the engine has any. `lasts_s`: how long a server may run
    before it is ended, in seconds; None: for ever.
    """

    name: str
    image_id: str
    client: "DockerClient"
    env: Mapping[str, str]
    gpu: bool = True
    lasts_s: float | None = None

    def output(self, *arguments: str) -> str:
        """What llama-server prints for these arguments until it ends, within ten seconds."""
        launch = Launch(self.image_id, list(arguments), dict(self.env), gpu=self.gpu, reach="none")
        with container.running(self.client, launch) as running:
            started = time.monotonic()
            while running.state().running and time.monotonic() - started < _ANSWER_S:
                time.sleep(_POLL_S)
            return running.log()

    def check_command(self) -> CheckCommand | None:
        """What the image's HEALTHCHECK runs; None when there is none."""
        return container.check_command(container.image_config(self.client, self.image_id))

    def check_alone(self) -> CheckRun | None:
        """The image's HEALTHCHECK in a container of its own, in which nobody listens."""
        command = self.check_command()
        if command is None:
            return None
        first, *rest = command.words
        launch = Launch(
            self.image_id,
            rest,
            dict(self.env),
            entrypoint=[first],
            gpu=False,
            reach="none",
        )
        with container.running(self.client, launch) as running:
            started = time.monotonic()
            while (state := running.state()).running:
                if time.monotonic() - started > command.timeout_s:
                    return CheckRun(fault=f"no end after {command.timeout_s:.0f} s")
                time.sleep(_POLL_S)
        return CheckRun(state.exit_code)

    @contextlib.contextmanager
    def serve(
        self, arguments: Sequence[str], model: Path, *, port: int | None = None
    ) -> Iterator[Serving]:
        """Start a container on a model; `port` is the one that is listened on inside it."""
        moved = [] if port is None else ["--port", str(port)]
        launch = Launch(
            image=self.image_id,
            command=["-m", container_paths.MODEL, *moved, *arguments],
            env=dict(self.env),
            model=model,
            server_port=port or container_paths.SERVER_PORT,
            gpu=self.gpu,
            lasts_s=self.lasts_s,
        )
        with container.running(self.client, launch) as running:
            yield running
