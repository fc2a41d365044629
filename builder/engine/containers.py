"""Containers that `builder` runs: started from an image, asked by this machine, always removed."""

import contextlib
import io
import posixpath
import secrets
import tarfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from builder.common import signals
from builder.common.errors import EngineError, RefNotFoundError
from builder.engine import file_access as model_access
from builder.engine import ownership, restrictions
from builder.engine.client import engine_errors, find_image, first_line
from builder.llama.container_paths import DRAFT, LOOPBACK, MODEL, SERVER_PORT
from builder.llama.target import CheckCommand, CheckRun, State

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.errors import APIError
    from docker.models.containers import Container as DockerContainer
    from docker.models.images import Image
    from docker.types import DeviceRequest, Mount

    Info = dict[str, object]

LABEL = "io.github.turboquant-builder.started-by"
"""Every container of ours has it, so that `docker ps --filter label=…` finds them."""

OWNER = "io.github.turboquant-builder.owner"
"""Which builder started it: see `ownership`."""


Reach = Literal["none", "host", "published"]
"""Who reaches a container's server: nobody; this machine; whoever reaches its published port.

The first two are for strangers' images, with all of `restrictions.sandbox`; a container of the last
is one that a user wants served.
"""

_CHECK_S = 30.0  # how long the engine gives a HEALTHCHECK that says nothing of it
_CHECK_POLL_S = 0.01
_SHELL = ("/bin/sh", "-c")
_CONFLICT = 409  # the engine's word for a container that does not run
_TAR_BLOCK = 512
_CHUNK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Launch:
    """What to start. `port` is the port to publish at `host`; None lets the engine pick a free one.

    `reach` is who reaches it; but for "published" nothing is published where that can be helped.
    `server_port` is the one that is listened on inside. `draft` is a second model, at DRAFT.
    `secrets` are files by their path inside: copied in, so that the engine tells nobody what is in
    them and a file that only its owner may read will do. `memory` is in bytes. `gpu`:
    with all GPUs, if the engine has any. `entrypoint` None: the image's. `lasts_s`: seconds after
    which `running` ends it; None: never.
    """

    image: str
    command: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    model: Path | None = None
    port: int | None = None
    server_port: int = SERVER_PORT
    host: str = LOOPBACK
    draft: Path | None = None
    secrets: dict[str, Path] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    memory: int | None = None
    gpu: bool = True
    entrypoint: list[str] | None = None
    reach: Reach = "host"
    lasts_s: float | None = None

    @property
    def sandboxed(self) -> bool:
        """Whether it is a stranger's, which may reach and write nothing."""
        return self.reach != "published"


@dataclass(frozen=True, slots=True)
class Running:
    """A started container. `user` is set when it runs as somebody else than the image says.

    `port` is the one that its server is reached at, at `host`: None when nobody reaches it.
    """

    name: str
    port: int | None
    user: str | None
    _handle: "DockerContainer"
    host: str = LOOPBACK
    _overdue: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        """The base of its HTTP address, without a slash at the end.

        Raises EngineError when the engine gave it no address: the container ended at once.
        """
        if self.port is None:
            raise EngineError(f"container {self.name} has no address")
        return f"http://{self.host}:{self.port}"

    def listens(self) -> bool:
        """Whether it has an address: the engine gives one to no other container or program."""
        return self.port is not None

    def state(self) -> State:
        """The state now.

        Raises EngineError when the engine, or the container, is gone.
        """
        with engine_errors("say how the container is"):
            self._handle.reload()
        found = self._handle.attrs["State"]
        if found["Running"]:
            return State(running=True)
        return State(
            running=False,
            exit_code=found["ExitCode"],
            out_of_memory=bool(found["OOMKilled"]),
            overdue=self._overdue.is_set(),
        )

    def log(self) -> str:
        """All that it has written so far, both streams."""
        with engine_errors("show the container's log"):
            text: bytes = self._handle.logs()
        return text.decode(errors="replace").rstrip()

    def terminate(self) -> None:
        """Send SIGTERM to the container's first process, and do not wait.

        One that has ended meanwhile is left alone.
        """
        from docker.errors import APIError

        with engine_errors("send the container SIGTERM"):
            try:
                self._handle.kill("SIGTERM")
            except APIError as error:
                if error.status_code != _CONFLICT:
                    raise

    def check(self) -> CheckRun | None:
        """The image's HEALTHCHECK, run once in the container; None when there is none.

        The engine's own runs are not waited for: an image may want the first one after minutes.
        Raises EngineError when the engine, or the container, is gone.
        """
        from docker.errors import APIError

        command = check_command(self._handle.attrs["Config"])
        if command is None:
            return None
        with engine_errors("run the image's HEALTHCHECK"):
            api = self._handle.client.api  # type: ignore[union-attr]
            try:
                run = api.exec_create(self.name, list(command.words))["Id"]
                api.exec_start(run, detach=True)
            except APIError as error:
                if error.is_server_error():
                    raise
                return CheckRun(fault=f"it cannot be started: {first_line(error)}")
            deadline = time.monotonic() + command.timeout_s
            while (found := api.exec_inspect(run))["Running"]:
                if time.monotonic() > deadline:
                    return CheckRun(fault=f"no end after {command.timeout_s:.0f} s")
                time.sleep(_CHECK_POLL_S)
        return CheckRun(found["ExitCode"])


def check_command(config: "Info") -> CheckCommand | None:
    """What the HEALTHCHECK of this configuration of an image or container runs.

    None when there is none.
    """
    check = config.get("Healthcheck")
    test = check.get("Test") if isinstance(check, dict) else None
    if not isinstance(check, dict) or not test or test[0] == "NONE":
        return None
    shell = config.get("Shell")
    before = shell if isinstance(shell, list) and shell else _SHELL
    words = (*before, *test[1:]) if test[0] == "CMD-SHELL" else tuple(test[1:])
    # The engine has it in nanoseconds.
    return CheckCommand(words, (check.get("Timeout") or 0) / 1e9 or _CHECK_S)


def new_name() -> str:
    """A name for a container of ours: what was left is known by it."""
    return f"builder-{secrets.token_hex(6)}"


def labels() -> dict[str, str]:
    """What every container of ours is marked with: that it is one, and whose."""
    return {LABEL: "builder", OWNER: ownership.mark()}


def image_id(client: "DockerClient", reference: str) -> str:
    """The ID of the image of this name, digest or ID.

    Raises RefNotFoundError when the engine has none, EngineError when it refuses the question.
    """
    return str(_image(client, reference).id)


def image_config(client: "DockerClient", reference: str) -> "Info":
    """The configuration of the image of this name, digest or ID. Raises as `image_id` does."""
    return dict(_image(client, reference).attrs["Config"])


def image_labels(client: "DockerClient", reference: str) -> dict[str, str]:
    """The labels of the image of this name, digest or ID. Raises as `image_id` does."""
    return dict(_image(client, reference).labels)


def _image(client: "DockerClient", reference: str) -> "Image":
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
    # Before anything that has to be taken back, which is asked of the engine too.
    _require_local(client, launch)
    name = new_name()
    with signals.interrupting():
        try:
            handle, user = create(client, launch, name)
            start(handle, launch.host, launch.port)
            with _lasting(handle, launch.lasts_s) as overdue:
                yield replace(_running(handle, launch, name, user), _overdue=overdue)
        finally:
            remove(client, name)


@contextlib.contextmanager
def _lasting(handle: "DockerContainer", seconds: float | None) -> Iterator[threading.Event]:
    """The container is killed after so many seconds, and the event is set: no server holds a night.

    Each question has a limit of its own, and a server may come close to that with every answer.
    """
    overdue = threading.Event()

    def end() -> None:
        overdue.set()
        # It may have ended by itself just now, and who looks at it next sees why it has not.
        with contextlib.suppress(Exception):
            handle.kill()

    timer = threading.Timer(seconds or 0.0, end)
    timer.daemon = True
    if seconds is None:
        yield overdue
        return
    timer.start()
    try:
        yield overdue
    finally:
        timer.cancel()
        timer.join()


def create(
    client: "DockerClient", launch: Launch, name: str
) -> "tuple[DockerContainer, str | None]":
    """A container that is not started yet, with all that it reads, and as whom it runs.

    None: as its image says. Raises as `running` does; no container is left then.
    """
    _require_local(client, launch)
    with engine_errors("describe itself"):
        info = client.info()
    files = {MODEL: launch.model, DRAFT: launch.draft}
    access = {
        path: model_access.access_to_model(file, info) for path, file in files.items() if file
    }
    gpus = gpu_requests(info) if launch.gpu else []
    # An interrupted call may leave a container that nobody knows of: it has to come back.
    with signals.held(), engine_errors("create a container"):
        handle = _create(client, launch, access, gpus, info, name)
    copied = {path: file for path, file in files.items() if file and access[path].way == "copy"}
    try:
        for path, file in {**copied, **launch.secrets}.items():
            _copy_in(handle, file, path)
    except BaseException:
        remove(client, str(handle.id))
        raise
    return handle, _user(access.values())


def _user(access: Iterable[model_access.Access]) -> str | None:
    """Who may read all of it. Raises EngineError for files of two owners."""
    users = {one.user for one in access if one.user}
    if len(users) > 1:
        raise EngineError(
            "the model and the draft model belong to two users, and neither lets others read",
            hint="`chmod o+r` both",
        )
    return next(iter(users), None)


def _require_local(client: "DockerClient", launch: Launch) -> None:
    """A server on another machine's loopback or bridge is reached by nobody here."""
    if launch.reach == "none":
        return
    host = urlsplit(client.api.base_url).hostname
    if host not in {"localhost", "localnpipe", LOOPBACK, "::1"}:
        raise EngineError(
            "the engine runs on another machine, and its loopback is out of reach",
            why=f"DOCKER_HOST leads to {client.api.base_url}",
            hint="run the smoke on the engine's machine",
        )


def _create(
    client: "DockerClient",
    launch: Launch,
    access: Mapping[str, model_access.Access],
    gpus: "list[DeviceRequest]",
    info: "Info",
    name: str,
) -> "DockerContainer":
    user = _user(access.values())
    options = {**restrictions.always(), **_network(client, launch, info)}
    if launch.sandboxed:
        options |= restrictions.sandbox(info)
    if launch.memory is not None:
        # Else as much again may go to swap, and a server that swaps serves nobody.
        options |= {"mem_limit": launch.memory, "memswap_limit": launch.memory}
    return client.containers.create(
        launch.image,
        command=launch.command,
        entrypoint=launch.entrypoint,
        name=name,
        environment=launch.env,
        labels={**labels(), **launch.labels},
        mounts=_mounts(launch, access),
        user=user,
        group_add=sorted({group for one in access.values() for group in one.groups}),
        device_requests=gpus,
        **options,
    )


def _network(client: "DockerClient", launch: Launch, info: "Info") -> dict[str, Any]:
    """Which network it is in, and what is published of it."""
    if launch.reach == "none":
        return {"network_mode": "none"}
    if launch.reach == "host" and restrictions.reaches_containers(info):
        return {"network": restrictions.join(client, restrictions.SANDBOX)}
    ports = {f"{launch.server_port}/tcp": (launch.host, launch.port)}
    return {"network": restrictions.join(client, restrictions.SERVED), "ports": ports}


def _mounts(launch: Launch, access: Mapping[str, model_access.Access]) -> "list[Mount]":
    """What it reads of this machine; and a volume for what is copied into a read-only root."""
    from docker.types import Mount

    files = {MODEL: launch.model, DRAFT: launch.draft}
    mounts = [
        Mount(path, str(file.resolve()), type="bind", read_only=True)
        for path, file in files.items()
        if file and access[path].way == "mount"
    ]
    copied = [path for path, file in files.items() if file and access[path].way == "copy"]
    if not launch.sandboxed:
        return mounts
    folders = {posixpath.dirname(path) for path in [*copied, *launch.secrets]}
    # Without a name: it goes with the container.
    return mounts + [Mount(one, None, type="volume", no_copy=True) for one in sorted(folders)]


def has_gpu(client: "DockerClient") -> bool:
    """Whether the engine has a GPU to give to a container."""
    with engine_errors("describe itself"):
        return bool(gpu_requests(client.info()))


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


def _copy_in(handle: "DockerContainer", source: Path, path: str) -> None:
    with source.open("rb") as file, engine_errors(f"take {source} in"):
        size = source.stat().st_size
        # The SDK hands the body to requests, which sends an iterator as it comes: no copy in memory
        # A read-only root takes nothing, a volume in it does.
        folder, name = posixpath.split(path)
        mounted = any(one["Destination"] == folder for one in handle.attrs["Mounts"])
        where, entry = (folder, name) if mounted else ("/", path.lstrip("/"))
        handle.put_archive(where, _tar(entry, size, file))


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


def start(handle: "DockerContainer", host: str, port: int | None) -> None:
    """Start a container that publishes this port. Raises EngineError: it is taken, or no GPU."""
    from docker.errors import APIError

    try:
        with engine_errors("start the container"):
            handle.start()
    except EngineError as error:
        cause = error.__cause__
        if isinstance(cause, APIError):
            raise _start_error(cause, host, port) from cause
        raise


def _start_error(error: "APIError", host: str, port: int | None) -> EngineError:
    text = str(error)
    taken = "port is already allocated" in text or "address already in use" in text
    if taken and port is not None:
        return EngineError(
            f"port {port} on {host} is taken",
            why=first_line(error),
            hint=f"`ss -ltnp sport = :{port}` names who has it; or leave the port open",
        )
    return EngineError(
        "the container did not start", why=first_line(error), hint="`builder doctor`"
    )


def _running(handle: "DockerContainer", launch: Launch, name: str, user: str | None) -> Running:
    """The container with the address that it is reached at, which one that has ended lacks."""
    with engine_errors("name the container's address"):
        handle.reload()
    settings = handle.attrs["NetworkSettings"]
    if found := (settings.get("Ports") or {}).get(f"{launch.server_port}/tcp"):
        return Running(name, int(found[0]["HostPort"]), user, handle)
    own = (settings.get("Networks") or {}).get(restrictions.SANDBOX.name) or {}
    if launch.reach == "host" and own.get("IPAddress"):
        return Running(name, launch.server_port, user, handle, own["IPAddress"])
    return Running(name, None, user, handle)


def remove(client: "DockerClient", name: str) -> None:
    """Remove the container of this name or ID, running or not, if it is there.

    No signal keeps us from it.
    """
    try:
        _force_remove(client, name)
    except KeyboardInterrupt:
        # It came before the signals were held, or was held until the end: doing it twice is safe.
        _force_remove(client, name)
        raise


def _force_remove(client: "DockerClient", name: str) -> None:
    from docker.errors import NotFound

    with signals.held(), engine_errors(f"remove container {name}"), contextlib.suppress(NotFound):
        client.api.remove_container(name, force=True, v=True)
