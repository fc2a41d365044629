"""An engine whose disk fills during a build, or that ends in its middle: a second one, small."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker import DockerClient

from builder.build import bootstrap
from builder.common.progress import Silent
from builder.model.pins import Pins
from tests.conftest import builder, start_builder
from tests.engine.second_engine import load, second_engine

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


@pytest.fixture(params=[DISK])
def small_engine(
    engine: DockerClient, base_tag: str, short_path: Path, request: pytest.FixtureRequest
) -> Iterator[str]:
    """The address of an engine with the base image on a small disk; None: on one with room.

    The disk cannot be seen from outside, so the plan refuses nothing.
    """
    with second_engine(engine, base_tag, short_path, disk=request.param) as address:
        load(engine, address, base_tag)
        yield address


@pytest.mark.usefixtures("private_cache")
def test_a_full_disk_is_a_failed_build_that_says_what_frees_it(small_engine, tiny_pins):
    environment = os.environ | {"DOCKER_HOST": small_engine}
    result = builder("build", "--ref", "HEAD", "--pins", tiny_pins, env=environment)
    assert result.returncode == 5, result.stderr
    assert "docker builder prune" in result.stderr
    assert not DockerClient(base_url=small_engine).images.list("turboquant")


@pytest.mark.usefixtures("private_cache")
@pytest.mark.parametrize("small_engine", [None], indirect=True, ids=["room"])
@pytest.mark.parametrize("by", ["SIGKILL", "SIGTERM"])
def test_an_engine_that_ends_is_no_fault_of_the_fork(
    engine, small_engine, tiny_pins, monkeypatch, by
):
    monkeypatch.setenv("DOCKER_HOST", small_engine)
    of_it = f"--host={small_engine}"
    (daemon,) = (one for one in engine.containers.list() if of_it in one.attrs["Config"]["Cmd"])
    process = start_builder("build", "--ref", "HEAD", "--pins", tiny_pins)
    assert any("] RUN " in line for line in iter(process.stderr.readline, ""))
    daemon.kill(by)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 4, said
    assert "error: BuildKit ended in the middle of the build\n" in said
    assert not list((tiny_pins.parent / "build").rglob("*.json"))
