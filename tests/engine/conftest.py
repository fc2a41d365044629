"""The real engine, and the one mainline-cpu image that all engine tests of a run share."""

import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from docker import DockerClient

from builder import container
from builder import engine as engines
from tests.conftest import ROOT, builder


@pytest.fixture(scope="session")
def engine() -> DockerClient:
    return engines.connect()


@pytest.fixture(scope="session")
def mainline_cpu_receipt(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The receipt of `builder build mainline-cpu --json`, from a copy of the real pins."""
    pins = tmp_path_factory.mktemp("mainline-cpu") / "pins.toml"
    shutil.copy(ROOT / "pins.toml", pins)
    result = builder("build", "mainline-cpu", "--json", "--pins", pins)
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.fixture(scope="session")
def mainline_cpu_image(mainline_cpu_receipt: dict[str, Any]) -> str:
    return str(mainline_cpu_receipt["image"])


@pytest.fixture
def tiny_tags(engine: DockerClient) -> Iterator[None]:
    """Removes the images that a test builds from the tiny project."""
    yield
    for image in engine.images.list("turboquant"):
        for tag in image.tags:
            if tag.startswith("turboquant:tiny"):
                engine.images.remove(tag, force=True)


@pytest.fixture(autouse=True)
def _nothing_dangling(engine: DockerClient) -> Iterator[None]:
    """No test leaves a container of builder's behind."""
    yield
    left = engine.containers.list(all=True, filters={"label": container.LABEL})
    assert [one.name for one in left] == []
