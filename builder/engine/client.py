"""The Docker engine, through its API: is it there, and what does it hold."""

import contextlib
import os
import shutil
import tarfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

from builder.common.errors import BuilderError, EngineError

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.images import Image

NEXT_COMMAND = "`builder doctor` says what is missing; `builder doctor --fix` installs it (root)"

_CHOSEN = ("BUILDX_BUILDER", "DOCKER_DEFAULT_PLATFORM")


def connect(timeout_s: int = 60) -> "DockerClient":
    """A client of the engine that the environment names (DOCKER_HOST, else the usual socket).

    Raises EngineError when nothing answers there, UsageError for broken settings of Docker's.
    """
    import docker
    from docker.errors import DockerException

    from builder.registry import docker_config

    docker_config.require_readable()
    try:
        client = docker.from_env(timeout=timeout_s)
        client.ping()
    except (DockerException, OSError) as error:
        raise EngineError(
            "no Docker engine answers", why=first_line(error), hint=NEXT_COMMAND
        ) from error
    return client


def require_command() -> None:
    """Raises EngineError when the docker command, through which builds go, is not installed."""
    if shutil.which("docker") is None:
        raise EngineError("the docker command is not installed", hint=NEXT_COMMAND)


def command_environment(builder: str | None = None) -> dict[str, str]:
    """The environment of a docker command that works on the engine of `connect`, for this platform.

    What a user has chosen for their own commands, another context, builder or platform, is for
    those: an image would land where nobody looks for it, or be one for another processor. `builder`
    is the one that is named on the command line, which may be in any context.
    """
    kept = {name: value for name, value in os.environ.items() if name not in _CHOSEN}
    # The context "default" is that of DOCKER_HOST, or of the usual socket.
    return kept if builder else {**kept, "BUILDX_BUILDER": "default", "DOCKER_CONTEXT": "default"}


def find_image(client: "DockerClient", reference: str) -> "Image | None":
    """The image of this name, digest or ID on the engine, or None. Raises EngineError."""
    from docker.errors import ImageNotFound

    with engine_errors(f"look up {reference}"):
        try:
            return client.images.get(reference)
        except ImageNotFound:
            return None


def has_containerd_store(client: "DockerClient") -> bool:
    """Whether its images lie in containerd's store, which keeps manifests and indexes.

    https://docs.docker.com/engine/storage/containerd/. Raises EngineError.
    """
    with engine_errors("say how it stores images"):
        status = client.info().get("DriverStatus") or []
    return ["driver-type", "io.containerd.snapshotter.v1"] in status


def untag(client: "DockerClient", tag: str) -> None:
    """Take a name from an image, and remove the image if it was its last.

    A name that is not there is no error. Raises EngineError when the engine refuses.
    """
    from docker.errors import ImageNotFound

    with engine_errors(f"remove {tag}"), contextlib.suppress(ImageNotFound):
        client.images.remove(tag)


def lost(error: Exception) -> EngineError | None:
    """What the SDK raised where nobody expected it: the engine is gone, or refuses what it did.

    None for an error that is not the SDK's.
    """
    request = getattr(error, "request", None)
    asked = str(getattr(request, "url", None) or "")
    if not asked.startswith("http+docker:") and not type(error).__module__.startswith("docker."):
        return None
    return EngineError(
        "the engine stopped answering, or refused", why=first_line(error), hint=NEXT_COMMAND
    )


def first_line(error: BaseException) -> str:
    """The first line of an exception's text, or its type's name."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextlib.contextmanager
def engine_errors(to_do: str) -> Iterator[None]:
    """What the SDK raises becomes an EngineError that says what the engine was asked for."""
    import requests
    from docker.errors import DockerException

    try:
        yield
    except BuilderError:
        raise
    except (DockerException, requests.RequestException, tarfile.TarError) as error:
        raise EngineError(
            f"the engine did not {to_do}", why=first_line(error), hint="`builder doctor`"
        ) from error
