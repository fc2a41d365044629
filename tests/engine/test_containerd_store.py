"""Audit and publish on an engine with containerd's image store: built there, pulled back, pulled.

The images are tiny: their audits find much wrong, and see the same as on the engine's own store.
"""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from docker import DockerClient
from docker.errors import ImageNotFound

from builder.audit import run as audits
from builder.build import receipts as receipt
from builder.common.errors import EngineError
from builder.common.progress import Progress, Silent
from builder.image import stream as image_stream
from builder.model.pins import Pins
from tests.engine.second_engine import second_engine
from tests.support import docker_registry, releasing
from tests.support.docker_registry import DockerRegistry
from tests.support.releasing import REPOSITORY, Publisher

pytestmark = pytest.mark.engine

# Of the shape that the service gives out; it opens nothing.
LAYERS = [os.urandom(50_000), b"npm_" + b"a1B2" * 9]


@dataclass(frozen=True)
class Store:
    """An engine with containerd's store, and a registry that it reaches by the name it has here."""

    address: str
    client: DockerClient
    registry: DockerRegistry


@pytest.fixture(scope="module")
def store(
    engine: DockerClient,
    cpu_base: str,
    registry_program: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("registry")
    with (
        tempfile.TemporaryDirectory() as short,
        docker_registry.serve(registry_program, folder) as registry,
        second_engine(
            engine,
            cpu_base,
            Path(short),
            features={"containerd-snapshotter": True},
            registry=registry.host,
        ) as address,
    ):
        yield Store(address, DockerClient(base_url=address), registry)


@pytest.fixture
def reports() -> list[audits.AuditReport]:
    """Of each audit that a publish asked for."""
    return []


@pytest.fixture
def publisher(
    store: Store,
    reports: list[audits.AuditReport],
    tiny_pins: Path,
    private_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Publisher:
    """A publisher on that engine: the smoke is a stand-in, and the audit's verdict."""
    monkeypatch.setenv("DOCKER_CONFIG", str(private_cache))
    monkeypatch.setenv("DOCKER_HOST", store.address)
    passes = releasing.stages()

    def audited(
        pins: Pins, image: str, variant: str, results: Path, progress: Progress
    ) -> audits.AuditReport:
        reports.append(audited_by(store.client, image, pins, results))
        return passes.audit(pins, image, variant, results, progress)

    made = releasing.publisher(tiny_pins, store.registry.host)
    return replace(made, stages=replace(passes, audit=audited))


def audited_by(client: DockerClient, image: str, pins: Pins, results: Path) -> audits.AuditReport:
    return audits.audit(client, image, pins, results=results, progress=Silent())


def seen(report: audits.AuditReport) -> object:
    """What was read of the layers."""
    (secrets,) = (one.observed for one in report.findings if one.probe == "secrets")
    return report.size_bytes, report.largest, secrets


def test_an_image_is_published_from_there_and_from_where_it_was_pulled(
    engine: DockerClient,
    store: Store,
    publisher: Publisher,
    reports: list[audits.AuditReport],
    tmp_path: Path,
) -> None:
    with releasing.tiny_images(engine, tmp_path / "own") as images:
        own = audited_by(engine, images.image(*LAYERS).image_id, publisher.pins, tmp_path)

    with releasing.tiny_images(store.client, publisher.results) as images:
        built = images.image(*LAYERS)
        release = publisher.publish(built)

    with pytest.raises(ImageNotFound):
        store.client.images.get(f"{publisher.repository}@{release.digest}")
    # Built there, then pulled back, when the engine lacks the layers that it did not have to pull.
    assert [seen(one) for one in reports] == [seen(own)] * 2
    assert "an npm token: /layer-0 (layer 2)" in str(seen(own))
    pulled = store.client.images.pull(publisher.repository, release.name)
    names = {one["digest"] for one in store.registry.manifest(REPOSITORY, release.digest)["layers"]}
    with image_stream.archive(pulled) as files:
        assert names <= {image_stream.named_after(file) for file in files.getmembers()}
    name = f"{publisher.repository}:{release.name}"
    again = audited_by(store.client, name, publisher.pins, tmp_path)
    assert seen(again) == seen(own)

    # Packed layers are unpacked, and packed again to the same bytes.
    copy = replace(built, image_id=str(pulled.id), commit="c" * 40)
    receipt.write(copy, publisher.results)
    other = replace(publisher, record=tmp_path / "record-of-another").publish(copy, promote=False)
    pages = [store.registry.manifest(REPOSITORY, one.digest) for one in (release, other)]
    assert pages[0]["layers"] == pages[1]["layers"]


def test_a_pulled_image_beside_the_one_it_was_pushed_from_is_not_whole(
    store: Store, publisher: Publisher, tmp_path: Path
) -> None:
    with releasing.tiny_images(store.client, publisher.results) as images:
        built = images.image(*LAYERS, b"for this test alone")
        release = publisher.publish(built, promote=False)
        pulled = store.client.images.pull(publisher.repository, release.name)
        copy = replace(built, image_id=str(pulled.id), commit="d" * 40)
        receipt.write(copy, publisher.results)
        with pytest.raises(EngineError) as error:
            replace(publisher, record=tmp_path / "another").publish(copy, promote=False)
    assert "build the image again" in error.value.hint
