"""Containers that `builder` runs: started from an image, reached over loopback, always removed."""

import contextlib
import io
import secrets
import signal
import stat
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from builder.engine import find_image, first_line
from builder.errors import BuilderError, EngineError, RefNotFoundError

if TYPE_CHECKING:
    from types import FrameType

    from docker import DockerClient
    from docker.errors import APIError
    from docker.models.containers import Container as DockerContainer
    from docker.models.images import Image
    from docker.types import DeviceRequest, Mount

    Info = dict[str, object]

LABEL = "io.github.turboquant-builder.started-by"
"""Every container of ours has it, so that `docker ps --filter label=…` finds them."""

MODEL = "/models/model.gguf"
"""Where the model lies inside the container."""

COPY_BYTES = 64 * 1024 * 1024
"""A model up to this size is copied into the container, which takes some 0.1 s: nothing about its
owner, mode, folder or the engine's user mapping matters then."""

_LOOPBACK = "127.0.0.1"
_TAR_BLOCK = 512
_CHUNK = 1024 * 1024
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Launch:
    """What to start. `port` is the loopback port to publish; None lets the engine pick a free one.

    `server_port` is the one that is listened on inside.
    """

    image: str
    command: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    model: Path | None = None
    port: int | None = None
    server_port: int = 8080


@dataclass(frozen=True, slots=True)
class State:
    """Whether the container runs; if not, how it ended."""

    running: bool
    exit_code: int | None = None
    out_of_memory: bool = False


@dataclass(frozen=True, slots=True)
class FileStatus:
    """What `stat` says of a file, as far as it matters here. Size in bytes."""

    size: int
    mode: int
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Access:
    """How the container gets to read the model, and as whom it must run for that.

    `user` None: the image's own. `groups` are added to the image's user.
    """

    way: Literal["copy", "mount"]
    user: str | None = None
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Running:
    """A started container. `user` is set when it runs as somebody else than the image says."""

    name: str
    port: int | None
    user: str | None
    _handle: "DockerContainer"

    @property
    def url(self) -> str:
        """The base of its HTTP address, without a slash at the end.

        Raises EngineError when the engine published no port: the container ended at once.
        """
        if self.port is None:
            raise EngineError(f"container {self.name} has no published port")
        return f"http://{_LOOPBACK}:{self.port}"

    def state(self) -> State:
        """The state now.

        Raises EngineError when the engine, or the container, is gone.
        """
        with _engine_errors("say how the container is"):
            self._handle.reload()
        found = self._handle.attrs["State"]
        if found["Running"]:
            return State(running=True)
        return State(
            running=False, exit_code=found["ExitCode"], out_of_memory=bool(found["OOMKilled"])
        )

    def log_tail(self, lines: int = 40) -> str:
        """The last lines of its output, both streams."""
        with _engine_errors("show the container's log"):
            text: bytes = self._handle.logs(tail=lines)
        return text.decode(errors="replace").rstrip()


def image_id(client: "DockerClient", reference: str) -> str:
    """The ID of the image of this name, digest or ID.

    Raises RefNotFoundError when the engine has none, EngineError when it refuses the question.
    """
    return str(_image(client, reference).id)


def image_labels(client: "DockerClient", reference: str) -> dict[str, str]:
    """The labels of the image of this name, digest or ID. Raises as `image_id` does."""
    return dict(_image(client, reference).labels)


def _image(client: "DockerClient", reference: str) -> "Image":
    with _engine_errors(f"look up {reference}"):
        image = find_image(client, reference)
    if image is None:
        raise RefNotFoundError(
            f"no image {reference} on the engine",
            hint="`builder build` makes one; `docker images` lists those there are",
        )
    return image


@contextlib.contextmanager
def running(client: "DockerClient", launch: Launch) -> Iterator[Running]:
    """Start a container, and remove it at the end, whatever happens until then.

    SIGTERM and SIGHUP raise KeyboardInterrupt meanwhile, as Ctrl-C does, so that they leave no
    container behind either. Raises EngineError when it cannot be started: a port that is taken, a
    model that the engine does not see, a GPU that it cannot hand on.
    """
    _require_local(client)
    with _engine_errors("describe itself"):
        info = client.info()
    access = _access_to_model(launch.model, info)
    name = f"builder-{secrets.token_hex(6)}"
    with _ending_signals_interrupt():
        try:
            # An interrupted call may leave a container that nobody knows of: it has to come back.
            with _signals_held(), _engine_errors("create a container"):
                handle = _create(client, launch, access, gpu_requests(info), name)
            if launch.model is not None and access.way == "copy":
                _copy_model(handle, launch.model)
            _start(handle, launch)
            yield Running(name, _published_port(handle, launch), access.user, handle)
        finally:
            _remove(client, name)


def access_to(status: FileStatus, *, remapped: bool) -> Access:
    """How a container that runs as some unknown user can read a file of this size and mode.

    `remapped`: users inside are others than outside (rootless engine, userns-remap).

    The file itself is mounted, so the folders above it need no permission. What its mode denies to
    others, its group or its owner may have: the container then runs with that group or as that
    owner (root without capabilities, for root's files). Adding CAP_DAC_READ_SEARCH is no way: a
    user other than root gets no capability from the engine. When users are remapped, neither is
    the same one inside, and only a copy is sure.
    """
    if status.size <= COPY_BYTES:
        return Access("copy")
    if status.mode & stat.S_IROTH:
        return Access("mount")
    if remapped:
        return Access("copy")
    if status.mode & stat.S_IRGRP:
        return Access("mount", groups=(status.gid,))
    return Access("mount", user=f"{status.uid}:{status.gid}")


def _access_to_model(model: Path | None, info: "Info") -> Access:
    if model is None:
        return Access("copy")
    found = model.stat()
    status = FileStatus(found.st_size, found.st_mode, found.st_uid, found.st_gid)
    options = info.get("SecurityOptions") or []
    names = {option.split(",")[0] for option in options} if isinstance(options, list) else set()
    return access_to(status, remapped=bool({"name=rootless", "name=userns"} & names))


def _require_local(client: "DockerClient") -> None:
    """A port published on the loopback of another machine is reached by nobody here."""
    host = urlsplit(client.api.base_url).hostname
    if host not in {"localhost", "localnpipe", _LOOPBACK, "::1"}:
        raise EngineError(
            "the engine runs on another machine, and its loopback is out of reach",
            why=f"DOCKER_HOST leads to {client.api.base_url}",
            hint="run the smoke on the engine's machine",
        )


def _create(
    client: "DockerClient",
    launch: Launch,
    access: Access,
    gpus: "list[DeviceRequest]",
    name: str,
) -> "DockerContainer":
    return client.containers.create(
        launch.image,
        command=launch.command,
        name=name,
        environment=launch.env,
        labels={LABEL: "builder"},
        ports={f"{launch.server_port}/tcp": (_LOOPBACK, launch.port)},  # type: ignore[dict-item]
        mounts=_mounts(launch.model, access),
        user=access.user,
        group_add=list(access.groups),
        cap_drop=["ALL"] if access.user else [],
        security_opt=["no-new-privileges"],
        device_requests=gpus,
    )


def _mounts(model: Path | None, access: Access) -> "list[Mount]":
    from docker.types import Mount

    if model is None or access.way == "copy":
        return []
    return [Mount(MODEL, str(model.resolve()), type="bind", read_only=True)]


def gpu_requests(info: "Info") -> "list[DeviceRequest]":
    """What asks for all GPUs of the engine of this `docker info`; empty when it has none to give.

    An engine with NVIDIA's runtime but no GPU refuses: that is said, not passed over in silence.
    """
    from docker.types import DeviceRequest

    runtimes = info.get("Runtimes")
    if isinstance(runtimes, dict) and "nvidia" in runtimes:
        return [DeviceRequest(driver="nvidia", count=-1, capabilities=[["gpu"]])]
    devices = info.get("DiscoveredDevices")
    known = [device.get("ID") for device in devices] if isinstance(devices, list) else []
    if "nvidia.com/gpu=all" in known:
        return [DeviceRequest(driver="cdi", device_ids=["nvidia.com/gpu=all"])]
    return []


def _copy_model(handle: "DockerContainer", model: Path) -> None:
    with model.open("rb") as file, _engine_errors("take the model in"):
        size = model.stat().st_size
        # The SDK hands the body to requests, which sends an iterator as it comes: no copy in memory
        handle.put_archive("/", _tar(MODEL.lstrip("/"), size, file))


def _tar(name: str, size: int, file: io.BufferedReader) -> Iterator[bytes]:
    """A tar stream of one file that everybody may read and nobody may write."""
    entry = tarfile.TarInfo(name)
    entry.size = size
    entry.mode = 0o444
    yield entry.tobuf()
    left = size
    while left and (chunk := file.read(min(_CHUNK, left))):
        left -= len(chunk)
        yield chunk
    yield bytes(-size % _TAR_BLOCK + 2 * _TAR_BLOCK)


def _start(handle: "DockerContainer", launch: Launch) -> None:
    from docker.errors import APIError

    try:
        with _engine_errors("start the container"):
            handle.start()
    except EngineError as error:
        cause = error.__cause__
        if isinstance(cause, APIError):
            raise _start_error(cause, launch) from cause
        raise


def _start_error(error: "APIError", launch: Launch) -> EngineError:
    text = str(error)
    taken = "port is already allocated" in text or "address already in use" in text
    if taken and launch.port is not None:
        return EngineError(
            f"port {launch.port} on {_LOOPBACK} is taken",
            why=first_line(error),
            hint=f"`ss -ltnp sport = :{launch.port}` names who has it; or leave the port open",
        )
    return EngineError(
        "the container did not start", why=first_line(error), hint="`builder doctor`"
    )


def _published_port(handle: "DockerContainer", launch: Launch) -> int | None:
    with _engine_errors("name the published port"):
        handle.reload()
    bindings = handle.attrs["NetworkSettings"]["Ports"].get(f"{launch.server_port}/tcp")
    return int(bindings[0]["HostPort"]) if bindings else None


def _remove(client: "DockerClient", name: str) -> None:
    """Remove the container by name, running or not, if it is there; no signal keeps us from it."""
    try:
        _force_remove(client, name)
    except KeyboardInterrupt:
        # It came before the signals were held, or was held until the end: doing it twice is safe.
        _force_remove(client, name)
        raise


def _force_remove(client: "DockerClient", name: str) -> None:
    from docker.errors import NotFound

    with _signals_held(), _engine_errors(f"remove container {name}"), contextlib.suppress(NotFound):
        client.api.remove_container(name, force=True, v=True)


@contextlib.contextmanager
def _engine_errors(to_do: str) -> Iterator[None]:
    """What the SDK raises becomes an EngineError that says what the engine was asked for."""
    import requests
    from docker.errors import DockerException

    try:
        yield
    except BuilderError:
        raise
    except (DockerException, requests.RequestException) as error:
        raise EngineError(
            f"the engine did not {to_do}", why=first_line(error), hint="`builder doctor`"
        ) from error


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Ctrl-C and its like wait until the block is done. Only the main thread ever gets them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []

    def note(number: int, _frame: "FrameType | None") -> None:
        caught.append(number)

    before = {number: signal.signal(number, note) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if caught:
            signal.raise_signal(caught[0])


@contextlib.contextmanager
def _ending_signals_interrupt() -> Iterator[None]:
    """Signals that would end the process on the spot raise KeyboardInterrupt instead."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    deadly = [number for number in _ENDING if signal.getsignal(number) is signal.SIG_DFL]
    for number in deadly:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in deadly:
            signal.signal(number, signal.SIG_DFL)
