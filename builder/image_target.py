"""An image as something that servers are started from."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from builder import container
from builder.container import Launch
from builder.serving import Serving

if TYPE_CHECKING:
    from docker import DockerClient

_POLL_S = 0.02
_ANSWER_S = 10.0


@dataclass(frozen=True, slots=True)
class ImageTarget:
    """An image on the engine. `env` is added to the image's own.

    `gpu`: its containers get all GPUs, if the engine has any.
    """

    name: str
    image_id: str
    client: "DockerClient"
    env: Mapping[str, str]
    gpu: bool = True

    def output(self, *arguments: str) -> str:
        """What llama-server prints for these arguments until it ends, within ten seconds."""
        launch = Launch(self.image_id, list(arguments), dict(self.env), gpu=self.gpu)
        with container.running(self.client, launch) as running:
            started = time.monotonic()
            while running.state().running and time.monotonic() - started < _ANSWER_S:
                time.sleep(_POLL_S)
            return running.log()

    @contextlib.contextmanager
    def serve(
        self, arguments: Sequence[str], model: Path, *, port: int | None = None
    ) -> Iterator[Serving]:
        """Start a container on a model; `port` is the one that is listened on inside it."""
        moved = [] if port is None else ["--port", str(port)]
        launch = Launch(
            image=self.image_id,
            command=["-m", container.MODEL, *moved, *arguments],
            env=dict(self.env),
            model=model,
            server_port=port or container.SERVER_PORT,
            gpu=self.gpu,
        )
        with container.running(self.client, launch) as running:
            yield running
