"""What tests on the real engine share besides the engine and the image."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker import DockerClient

from builder.build import bootstrap, render
from builder.common.progress import Silent
from builder.engine import containers as container
from builder.engine import ownership
from builder.model.pins import Pins
from tests.engine.second_engine import load, second_engine
from tests.support import releasing
from tests.support.docker_registry import DockerRegistry
from tests.support.registry_proxy import Proxy, in_front_of

COMPILERS = "turboquant-test:compilers"


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
    """No test leaves a container of builder's behind; a module's own server outlives its tests.

    Those of other builders on this engine, which live, are none of the tests' matter.
    """

    def names() -> set[str | None]:
        found = engine.containers.list(
            all=True, filters={"label": container.LABEL}, ignore_removed=True
        )
        owned = {one.name: one.labels.get(container.OWNER, "") for one in found}
        mine = ownership.mark()
        return {name for name, by in owned.items() if by == mine or ownership.lives(by) is False}

    before = names()
    yield
    assert names() <= before


@pytest.fixture(scope="module")
def sleeping_image(engine: DockerClient, mainline_cpu_image: str) -> Iterator[str]:
    """The good image, but what it starts never listens."""
    made = engine.containers.create(mainline_cpu_image)
    # A layer-less commit differs by its configuration alone.
    image = made.commit(
        conf={
            "Entrypoint": ["bash", "-c", '[[ "$*" == *--help* ]] || sleep 60', "llama-server"],
            "Cmd": [],
        }
    )
    made.remove()
    yield str(image.id)
    engine.images.remove(image.id)


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


@pytest.fixture(scope="module")
def cpu_base(engine: DockerClient, real_pins: Pins) -> str:
    recipe = real_pins.bases["debian-trixie"].bootstrap
    assert recipe is not None
    return bootstrap.ensure(engine, recipe.devel, Silent())[0]


@pytest.fixture(scope="module")
def compilers(
    engine: DockerClient, real_pins: Pins, cpu_base: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The devel stage as an image: what it installs need not be installed for each build here."""
    folder = tmp_path_factory.mktemp("compilers")
    (folder / "Dockerfile").write_text(render.render(real_pins, "mainline-cpu").text)
    words = ["--load", "--provenance=false", "--target=devel", f"--tag={COMPILERS}"]
    words += [f"--build-arg={role}_IMAGE={cpu_base}" for role in ("DEVEL", "RUNTIME")]
    subprocess.run(["docker", "buildx", "build", *words, folder], check=True, capture_output=True)
    yield COMPILERS
    engine.images.remove(COMPILERS)


@pytest.fixture(scope="module")
def store(engine: DockerClient, cpu_base: str, compilers: str) -> Iterator[str]:
    """The address of an engine with the containerd image store and both base images."""
    with (
        tempfile.TemporaryDirectory() as folder,
        second_engine(
            engine, cpu_base, Path(folder), features={"containerd-snapshotter": True}
        ) as address,
    ):
        load(engine, address, cpu_base)
        load(engine, address, compilers)
        yield address


@pytest.fixture
def compiled_pins(private_cache: Path, tiny_pins: Path, compilers: str) -> Path:  # noqa: ARG001
    """The tiny project's pins, to be built on the image that has the compilers."""
    text = tiny_pins.read_text(encoding="utf-8")
    tiny_pins.write_text(re.sub(r"(?m)^devel_packages = .*", "devel_packages = []", text))
    return tiny_pins
