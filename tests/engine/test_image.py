"""How an image behaves under Docker alone, without builder around it."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker import DockerClient
from docker.models.containers import Container

from builder.common import paths
from builder.llama.gguf.scripted import scripted_model

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def models() -> Path:
    return scripted_model(paths.cache() / "models").parent


@pytest.fixture
def served(
    engine: DockerClient, mainline_cpu_image: str, models: Path, request: pytest.FixtureRequest
) -> Iterator[Container]:
    """The server on the scripted model; `request.param` is (arguments, environment)."""
    arguments, environment = request.param
    name = scripted_model(models).name
    container = engine.containers.run(
        mainline_cpu_image,
        ["-m", f"/models/{name}", "-c", "512", *arguments],
        environment=environment,
        volumes={str(models): {"bind": "/models", "mode": "ro"}},
        detach=True,
    )
    yield container
    container.remove(force=True)


def health(container: Container) -> str:
    """The health that Docker settles on within a minute."""
    for _ in range(600):
        container.reload()
        status = str(container.attrs["State"]["Health"]["Status"])
        if status != "starting":
            return status
        time.sleep(0.1)
    return "starting"


PORTS = {
    "the default": ([], {}),
    "--port": (["--port", "9999"], {}),
    "LLAMA_ARG_PORT": ([], {"LLAMA_ARG_PORT": "9998"}),
    "--port over LLAMA_ARG_PORT": (["--port", "9999"], {"LLAMA_ARG_PORT": "9998"}),
}


@pytest.mark.parametrize("served", PORTS.values(), ids=PORTS.keys(), indirect=True)
def test_it_turns_healthy_on_the_port_in_use(served):
    assert health(served) == "healthy"


@pytest.mark.parametrize("served", [([], {})], indirect=True)
def test_it_ends_at_once_and_well_when_asked(served):
    health(served)
    started = time.monotonic()
    served.stop(timeout=30)
    assert time.monotonic() - started < 5
    assert served.wait()["StatusCode"] == 0


def test_its_labels_are_those_of_an_oci_image(engine, mainline_cpu_image):
    labels = engine.images.get(mainline_cpu_image).labels
    prefix = "org.opencontainers.image."
    names = {"revision", "source", "version", "base.name", "base.digest", "created", "title"}
    assert {name.removeprefix(prefix) for name in labels if name.startswith(prefix)} >= names


def test_its_entrypoint_is_the_server_under_an_init(engine, mainline_cpu_image):
    config = engine.images.get(mainline_cpu_image).attrs["Config"]
    assert config["Entrypoint"] == ["/opt/llama/init", "/opt/llama/llama-server"]


def under_init(engine: DockerClient, image: str, script: str) -> Container:
    """A shell script where the server would be."""
    command = ["/opt/llama/init", "/bin/bash", "-c", script]
    return engine.containers.run(image, entrypoint=command, detach=True)


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("kill -SEGV $$", 139)])
def test_the_init_ends_as_the_server_did(engine, mainline_cpu_image, script, code):
    container = under_init(engine, mainline_cpu_image, script)
    assert container.wait()["StatusCode"] == code
    container.remove()


def test_the_init_kills_a_server_that_does_not_stop_and_says_143(engine, mainline_cpu_image):
    container = under_init(
        engine, mainline_cpu_image, "trap '' TERM; echo deaf; sleep 60 & wait; sleep 60"
    )
    while b"deaf" not in container.logs():
        pass
    started = time.monotonic()
    container.kill("SIGTERM")
    assert container.wait()["StatusCode"] == 143
    assert 2 < time.monotonic() - started < 5
    container.remove()


def test_the_init_survives_orphans(engine, mainline_cpu_image):
    # The inner shell ends at once; its child becomes the init's, and ends first.
    container = under_init(engine, mainline_cpu_image, "(sleep 0.1 &); sleep 0.5; exit 5")
    assert container.wait()["StatusCode"] == 5
    container.remove()
