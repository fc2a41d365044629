"""A second Docker engine on this machine, with data, settings and a network of its own."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from docker import DockerClient
from docker.models.containers import Container
from docker.types import Mount

from tests.engine import relay

# Where a containerd of the machine's own listens; an engine that sees it would share its images.
_SHARED = Path("/run/containerd")


@contextmanager
def second_engine(
    engine: DockerClient,
    image: str,
    folder: Path,
    *,
    features: dict[str, bool] | None = None,
    disk: int | None = None,
    registry: str | None = None,
) -> Iterator[str]:
    """The address of an engine that runs in a container of `image`, its files in `folder`.

    The host's own dockerd runs in a container that sees the host's files: only the network, and
    so the bridge, is another. `disk`: its data lie in memory, in so many bytes. `registry` is one
    of this machine (127.0.0.1:PORT) that it reaches by the same name. The folder's name leaves room
    for a socket's: 108 bytes in all.
    """
    dockerd = _dockerd()
    home = dockerd.parent.parent
    data = folder / "engine"
    data.mkdir(exist_ok=True)
    settings = folder / "daemon.json"
    settings.write_text(json.dumps({"features": features or {}}), encoding="utf-8")
    address = f"unix://{folder / 'docker.sock'}"
    command = ["/host", str(dockerd), f"--host={address}", f"--data-root={data}"]
    command += [f"--exec-root={folder / 'exec'}", f"--pidfile={folder / 'pid'}"]
    command += [f"--config-file={settings}"]
    mounts = [Mount(f"/host{data}", None, type="tmpfs", tmpfs_size=disk)] if disk else []
    mounts += [Mount(f"/host{_SHARED}", None, type="tmpfs")] if _SHARED.exists() else []
    container = engine.containers.run(
        image,
        command,
        entrypoint=["chroot"],
        user="root",
        detach=True,
        privileged=True,
        pid_mode="host",
        environment={"PATH": f"{home / 'sbin'}:{home / 'bin'}:{os.environ['PATH']}"},
        mounts=mounts,
        volumes={"/": {"bind": "/host", "mode": "rw"}},
    )
    try:
        _wait(container, b"API listen")
        with _reached(engine, container, registry, folder) if registry else nullcontext():
            yield address
    finally:
        container.remove(force=True)


@contextmanager
def _reached(
    engine: DockerClient, container: Container, registry: str, folder: Path
) -> Iterator[None]:
    """Let what runs in the container's network reach a registry of this machine by its name."""
    port = registry.rpartition(":")[2]
    file = folder / "registry.sock"
    with relay.serving(file, int(port)):
        handing_on = engine.containers.run(
            container.image,
            ["/host", sys.executable, relay.__file__, port, str(file)],
            entrypoint=["chroot"],
            user="root",
            detach=True,
            network_mode=f"container:{container.id}",
            volumes={"/": {"bind": "/host", "mode": "rw"}},
        )
        try:
            _wait(handing_on, b"listens")
            yield
        finally:
            handing_on.remove(force=True)


def _wait(container: Container, words: bytes) -> None:
    """Until a container has written these words."""
    said = any(words in line for line in container.logs(stream=True))
    assert said, container.logs().decode()


def load(engine: DockerClient, address: str, image: str) -> None:
    """Take an image by its name from one engine into another."""
    DockerClient(base_url=address).images.load(engine.images.get(image).save(named=True))


def _dockerd() -> Path:
    private = Path("/opt/turboquant-builder/engine/usr/sbin/dockerd")
    found = str(private) if private.exists() else shutil.which("dockerd")
    assert found is not None
    return Path(found)
