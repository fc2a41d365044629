"""A disk that fills during a build, on a second engine whose disk is small."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker import DockerClient
from docker.types import Mount

from builder import bootstrap
from builder.model import Pins
from builder.progress import Silent
from tests.conftest import builder

pytestmark = pytest.mark.engine

DISK = 450 << 20
"""Room for the base, 116 MB, and not for the compilers on top of it."""


@pytest.fixture
def base_tag(engine: DockerClient, real_pins: Pins) -> str:
    recipe = real_pins.bases["debian-trixie"].bootstrap
    assert recipe is not None
    return bootstrap.ensure(engine, recipe.devel, Silent())[0]


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose name leaves room for a socket's: 108 bytes in all."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
def small_engine(engine: DockerClient, base_tag: str, short_path: Path) -> Iterator[str]:
    """The address of an engine with the base image on a small disk, in a network of its own.

    The host's own dockerd runs in a container that sees the host's files: only the network, and
    so the bridge, is another. Its disk cannot
    be seen from outside, so the plan refuses nothing.
    """
    home = Path(_dockerd()).parent.parent
    data = short_path / "engine"
    data.mkdir()
    socket = short_path / "docker.sock"
    command = ["chroot", "/host", _dockerd(), f"--host=unix://{socket}", f"--data-root={data}"]
    command += [f"--exec-root={short_path / 'exec'}", f"--pidfile={short_path / 'pid'}"]
    disk = Mount(f"/host{data}", None, type="tmpfs", tmpfs_size=DISK)
    container = engine.containers.run(
        base_tag,
        command,
        detach=True,
        privileged=True,
        pid_mode="host",
        environment={"PATH": f"{home / 'sbin'}:{home / 'bin'}:{os.environ['PATH']}"},
        mounts=[disk],
        volumes={"/": {"bind": "/host", "mode": "rw"}},
    )
    try:
        listens = any(b"API listen" in line for line in container.logs(stream=True))
        assert listens, container.logs().decode()
        address = f"unix://{socket}"
        small = DockerClient(base_url=address)
        small.images.load(engine.images.get(base_tag).save(named=True))
        yield address
    finally:
        container.remove(force=True)


def _dockerd() -> str:
    private = Path("/opt/turboquant-builder/engine/usr/sbin/dockerd")
    found = str(private) if private.exists() else shutil.which("dockerd")
    assert found is not None
    return found


@pytest.mark.usefixtures("private_cache")
def test_a_full_disk_is_a_failed_build_that_says_what_frees_it(small_engine, tiny_pins):
    environment = os.environ | {"DOCKER_HOST": small_engine}
    result = builder("build", "--ref", "HEAD", "--pins", tiny_pins, env=environment)
    assert result.returncode == 5, result.stderr
    assert "docker builder prune" in result.stderr
    assert not DockerClient(base_url=small_engine).images.list("turboquant")
