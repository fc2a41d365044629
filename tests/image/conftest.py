"""A container of the image under test, for promises written with pytest-testinfra.

    pytest tests/image --image turboquant:mainline-cpu

Without --image it is the mainline-cpu image that the other tests build. Add files of your own to
this folder: `host` is a shell inside the image, as the user that it runs as, and `root` one as
root; https://testinfra.readthedocs.io/en/latest/modules.html lists what they can be asked.
"""

from collections.abc import Iterator

import pytest
import testinfra
from docker import DockerClient
from docker.models.images import Image
from testinfra.host import Host


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--image", metavar="NAME", help="the image that tests/image looks at")


@pytest.fixture(scope="session")
def image(request: pytest.FixtureRequest, engine: DockerClient) -> Image:
    """The image under test, as the engine describes it."""
    # Unknown where pytest was started in a folder above: this file is read after the arguments.
    name = request.config.getoption("--image", default=None)
    return engine.images.get(name or request.getfixturevalue("mainline_cpu_image"))


@pytest.fixture(scope="session")
def container(engine: DockerClient, image: Image) -> Iterator[str]:
    """The ID of a container in which nothing runs."""
    started = engine.containers.run(
        str(image.id),
        ["infinity"],
        entrypoint=["sleep"],
        detach=True,
        init=True,
        network_mode="none",
    )
    yield str(started.id)
    started.remove(force=True)


@pytest.fixture(scope="session")
def host(container: str) -> Host:
    """A shell inside, as the image's own user. Its name is testinfra's."""
    return testinfra.get_host(f"docker://{container}")


@pytest.fixture(scope="session")
def root(container: str) -> Host:
    """A shell inside, as root."""
    return testinfra.get_host(f"docker://root@{container}")
