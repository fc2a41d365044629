"""A second Docker engine on this machine, with data, settings and a network of its own."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from docker import DockerClient
from docker.types import Mount

# Where a containerd of the machine's own listens; an engine that sees it would share its images.
_SHARED = Path("/run/containerd")


@contextlib.contextmanager
def second_engine(
    engine: DockerClient,
    image: str,
    folder: Path,
    *,
    features: dict[str, bool] | None = None,
    disk: int | None = None,
) -> Iterator[str]:
    """The address of an engine that runs in a container of `image`, its files in `folder`.

    The host's own dockerd runs in a container that sees the host's files: only the network, and
    so the bridge, is another. `disk`: its data lie in memory, in so many bytes. The folder's name
    leaves room for a socket's: 108 bytes in all.
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
        listens = any(b"API listen" in line for line in container.logs(stream=True))
        assert listens, container.logs().decode()
        yield address
    finally:
        container.remove(force=True)


def load(engine: DockerClient, address: str, image: str) -> None:
    """Take an image by its name from one engine into another."""
    DockerClient(base_url=address).images.load(engine.images.get(image).save(named=True))


def _dockerd() -> Path:
    private = Path("/opt/turboquant-builder/engine/usr/sbin/dockerd")
    found = str(private) if private.exists() else shutil.which("dockerd")
    assert found is not None
    return Path(found)
