"""What tests on the real engine share besides the engine and the image."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker import DockerClient

from builder import container
from tests import releasing
from tests.docker_registry import DockerRegistry
from tests.registry_proxy import Proxy, in_front_of


@pytest.fixture
def tiny_tags(engine: DockerClient) -> Iterator[None]:
    """Removes the images that a test builds from the tiny project."""
    yield
    for image in engine.images.list("turboquant"):
        for tag in image.tags:
            if tag.startswith("turboquant:tiny"):
                engine.images.remove(tag, force=True)


PLUGIN_FOLDERS = [
    f"{folder}/docker"
    for folder in ("/usr/local/lib", "/usr/local/libexec", "/usr/lib", "/usr/libexec")
]


def without_buildx(config: Path, *words: object) -> "subprocess.CompletedProcess[str]":
    """Run the command line where the docker command has no plugins, in mounts of its own."""
    hide = 'for d in $FOLDERS; do [ ! -d $d ] || mount -t tmpfs none $d; done; exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", hide, "sh", sys.executable, "-m", "builder"]
    environment = {"FOLDERS": " ".join(PLUGIN_FOLDERS), "DOCKER_CONFIG": str(config)}
    return subprocess.run(
        [*command, *(str(word) for word in words)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(autouse=True)
def _nothing_dangling(engine: DockerClient) -> Iterator[None]:
    """No test leaves a container of builder's behind; a module's own server outlives its tests."""

    def names() -> set[str | None]:
        found = engine.containers.list(all=True, filters={"label": container.LABEL})
        return {one.name for one in found}

    before = names()
    yield
    assert names() <= before


@pytest.fixture
def tiny_images(engine: DockerClient, tiny_pins: Path) -> Iterator[releasing.Tiny]:
    with releasing.tiny_images(engine, tiny_pins.parent) as images:
        yield images


@pytest.fixture
def registry(docker_registry_server: DockerRegistry) -> DockerRegistry:
    return docker_registry_server


@pytest.fixture
def publisher(
    tiny_pins: Path, registry: DockerRegistry, private_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> releasing.Publisher:
    """Nobody's login, a cache of the test's own."""
    monkeypatch.setenv("DOCKER_CONFIG", str(private_cache))
    return releasing.publisher(tiny_pins, registry.host)


@pytest.fixture
def proxy(registry: DockerRegistry) -> Iterator[Proxy]:
    with in_front_of(registry) as found:
        yield found
