"""Which statements of BuildKit's are kept of a build, and when none are."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from builder.build import attestations, buildx
from builder.build.attestations import PROVENANCE, SBOM, Image
from builder.common.errors import BuildFailedError
from tests.unit.audit.test_reproduce import Blobs, manifest, write
from tests.unit.build.test_buildx import ORDER

CONTAINERD = {"DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]}
CLASSIC = {"DriverStatus": [["Backing Filesystem", "extfs"]]}
SLSA, SPDX = "https://slsa.dev/provenance/v0.2", "https://spdx.dev/Document"
CONFIG = {"architecture": "amd64"}

pytestmark = pytest.mark.usefixtures("private_cache")


@dataclasses.dataclass
class Tagged:
    tags: list[str]


class Engine:
    """An engine with this store, and the scanner under these names."""

    def __init__(self, info: dict[str, Any], *scanners: str) -> None:
        self._info, self._scanners = info, scanners
        self.images = self

    def info(self) -> dict[str, Any]:
        return self._info

    def list(self, name: str) -> list[Tagged]:
        return [Tagged([one]) for one in self._scanners if one.startswith(name)]


class BuildKit:
    """Writes an archive with what it was asked to state, and remembers the orders."""

    def __init__(self) -> None:
        self.orders: list[buildx.Order] = []
        self.error: Exception | None = None
        self.silent = False

    def build(self, order: buildx.Order, *_: object) -> None:
        self.orders.append(order)
        if self.error:
            raise self.error
        assert order.archive is not None
        asked = " ".join(order.attestations)
        kinds = [kind for word, kind in (("sbom", SPDX), ("provenance", SLSA)) if word in asked]
        blobs = Blobs()
        image = manifest(blobs, config=CONFIG)
        stated = attested(blobs, image, *([] if self.silent else kinds))
        write(order.archive, blobs, blobs.put({"manifests": [image, stated]}))


def attested(blobs: Blobs, image: dict[str, Any], *kinds: str) -> dict[str, Any]:
    """An attestation manifest about an image, as BuildKit 0.13 writes it."""
    layers = [
        blobs.put({"predicateType": kind}) | {"annotations": {"in-toto.io/predicate-type": kind}}
        for kind in kinds
    ]
    about = {
        "vnd.docker.reference.digest": image["digest"],
        "vnd.docker.reference.type": "attestation-manifest",
    }
    return blobs.put({"config": blobs.put({}), "layers": layers}) | {"annotations": about}


IMAGE = Image("sha256:" + "e" * 64, Blobs().put(CONFIG)["digest"])


@pytest.fixture
def buildkit(monkeypatch: pytest.MonkeyPatch) -> BuildKit:
    made = BuildKit()
    monkeypatch.setattr(buildx, "build", made.build)
    return made


@pytest.fixture
def keep(buildkit: BuildKit, tmp_path: Path, progress):  # noqa: ARG001
    """Ask for an image's statements; what is kept of it afterwards, by the statements' types."""

    def ask(engine: Engine, image: Image = IMAGE, **changes: Any) -> dict[str, str]:
        order = dataclasses.replace(ORDER, **changes)
        client: Any = engine
        attestations.keep(client, order, image, tmp_path, tmp_path / "log", progress)
        found = attestations.read(tmp_path, image.image_id)
        return {name: json.loads(content)["predicateType"] for name, content in found.items()}

    return ask


def test_the_provenance_is_kept_in_the_images_folder(keep, tmp_path, progress):
    assert keep(Engine(CONTAINERD)) == {PROVENANCE: SLSA}
    folder = tmp_path / "build" / "attestations" / ("e" * 64)
    assert [one.name for one in folder.iterdir()] == [PROVENANCE]
    assert progress.warnings == []


def test_the_sbom_is_asked_of_the_scanner_that_the_engine_holds(keep, buildkit):
    names = (f"{attestations.SCANNER}:stable-1", f"{attestations.SCANNER}:1.4")
    assert keep(Engine(CONTAINERD, *names)) == {PROVENANCE: SLSA, SBOM: SPDX}
    (order,) = buildkit.orders
    assert f"type=sbom,generator={attestations.SCANNER}:1.4" in order.attestations


def test_the_classic_store_is_not_asked(keep, buildkit, progress):
    assert keep(Engine(CLASSIC)) == {}
    assert keep(Engine({})) == {}
    assert (buildkit.orders, progress.warnings, progress.steps) == ([], [], [])


def test_what_is_kept_of_an_image_stays(keep, buildkit):
    keep(Engine(CONTAINERD))
    keep(Engine(CONTAINERD))
    assert len(buildkit.orders) == 1


def test_a_scanner_that_came_later_is_asked(keep):
    keep(Engine(CONTAINERD))
    assert keep(Engine(CONTAINERD, attestations.SCANNER)) == {PROVENANCE: SLSA, SBOM: SPDX}


def test_the_statements_of_another_image_are_not_kept(keep, progress):
    other = dataclasses.replace(IMAGE, config="sha256:" + "9" * 64)
    assert keep(Engine(CONTAINERD), other) == {}
    (warning,) = progress.warnings
    assert "another image than the one that was built" in warning


@pytest.mark.parametrize("error", [BuildFailedError("no", why="it did not"), OSError("disk full")])
def test_a_build_that_fails_now_is_a_warning(keep, buildkit, error, progress):
    buildkit.error = error
    assert keep(Engine(CONTAINERD)) == {}
    (warning,) = progress.warnings
    assert str(error) in warning


def test_a_buildkit_that_states_nothing_is_a_warning(keep, buildkit, progress):
    buildkit.silent = True
    assert keep(Engine(CONTAINERD)) == {}
    assert "gave no provenance" in progress.warnings[0]


def test_the_archive_is_gone_afterwards(keep, private_cache):
    keep(Engine(CONTAINERD))
    assert list(private_cache.iterdir()) == []


def test_a_statement_about_another_manifest_is_none(tmp_path):
    blobs = Blobs()
    image, other = manifest(blobs, config=CONFIG), {"digest": "sha256:" + "9" * 64}
    stated = attested(blobs, other, SLSA)
    found = write(tmp_path / "1.tar", blobs, blobs.put({"manifests": [image, stated]}))
    assert found.statements == {}


def test_an_archive_names_the_configuration_and_what_is_stated(tmp_path):
    blobs = Blobs()
    image = manifest(blobs, config=CONFIG)
    stated = attested(blobs, image, SPDX, SLSA)
    found = write(tmp_path / "1.tar", blobs, blobs.put({"manifests": [image, stated]}))
    assert found.config_digest == IMAGE.config
    kinds = {kind: json.loads(content) for kind, content in found.statements.items()}
    assert kinds == {kind: {"predicateType": kind} for kind in (SPDX, SLSA)}
    assert found.layers == ()
