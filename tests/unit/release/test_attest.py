"""What is attached to a release in a real registry: the source as it was built, or nothing."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder.build import attestations
from builder.cli import wiring as stages
from builder.common import files
from builder.common.errors import UsageError
from builder.engine import client as engine
from builder.image import contents as image_contents
from builder.model.pins import Pins
from builder.pins import load as pins
from builder.registry import referrers
from builder.registry.client import RegistryClient
from builder.release import attach as attest
from builder.release import prune as retention
from builder.release import published as reading
from builder.release import record
from builder.release.record import Attachment, Index, Release
from builder.sources import archive as source_archive
from tests.conftest import SAMPLES, Recorder, builder
from tests.support import kill_points, published
from tests.support.docker_registry import DockerRegistry

pytestmark = pytest.mark.usefixtures("private_cache", "no_engine")


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in a real image is read in tests/engine/test_attest.py."""
    monkeypatch.setattr(image_contents, "read", lambda *_: published.CONTENTS)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    made = tmp_path / "tree"
    shutil.copytree(SAMPLES / "tiny", made)
    (made / "LICENSE").write_text("MIT License\n\nCopyright (c) somebody\n")
    return made


@pytest.fixture
def everything(tiny_pins: Path) -> Pins:
    return pins.load(tiny_pins)


@pytest.fixture
def client(docker_registry_server: DockerRegistry) -> Iterator[RegistryClient]:
    with RegistryClient(f"{docker_registry_server.host}/me/tiny") as made:
        yield made


@pytest.fixture
def release(client: RegistryClient, tree: Path, everything: Pins) -> Release:
    return published.released(client, published.a_receipt_of(tree, everything))


def attached(release: Release, everything: Pins, results: Path | None = None) -> list[Attachment]:
    nobody: Any = None  # the engine is not asked
    return attest.attach(nobody, release, everything, None, Recorder(), results=results)


def test_without_a_signer_there_is_everything_but_a_signature(release, everything):
    kinds = sorted(one.kind for one in attached(release, everything))
    assert kinds == ["evidence", "provenance", "sbom", "source"]


def test_the_tag_that_lists_them_is_recorded(release, everything, client):
    (tag,) = {one.tag for one in attached(release, everything)}
    found = client.manifest(str(tag))
    assert found is not None
    assert tag == release.digest.replace(":", "-")


def test_the_source_comes_back_as_it_was(release, everything, client, tree, tmp_path, progress):
    attached(release, everything)
    archive = attest.fetch_source(client, release.digest, progress)
    source_archive.extract(archive, tmp_path / "out")
    (top,) = (tmp_path / "out").iterdir()
    assert {one.name: one.read_bytes() for one in top.iterdir()} == {
        one.name: one.read_bytes() for one in tree.iterdir()
    }
    known = source_archive.read(archive)
    assert (known.commit, known.build_number) == (release.commit, release.build_number)


def test_the_licence_is_the_one_that_the_tree_names(release, everything, client, progress):
    attached(release, everything)
    found = attest.fetch_source(client, release.digest, progress)
    assert source_archive.text(found, "LICENSE").startswith("MIT License")
    read = reading.read(client, f"{release.repository}@{release.digest}", progress)
    (source,) = [
        one for one in read.documents[attest.SBOM]["packages"] if one["SPDXID"] == "SPDXRef-source"
    ]
    assert source["licenseDeclared"] == "MIT"


@pytest.mark.parametrize("count", [0, 1, 2], ids=["nothing", "provenance", "SBOM too"])
def test_what_buildkit_stated_goes_with_it_and_the_provenance_names_it(
    count, release, everything, client, tmp_path, progress
):
    stated = published.kept_statements(tmp_path, release, *[*attestations.NAMES][:count])
    kinds = sorted(one.kind for one in attached(release, everything, tmp_path))
    assert kinds == ["evidence", "provenance", "sbom", "source"]

    read = reading.read(client, f"{release.repository}@{release.digest}", progress)
    assert {name: read.documents.get(name) for name in stated} == stated
    assert read.documents.keys() & attestations.NAMES.keys() == stated.keys()
    named = read.documents[attest.PROVENANCE]["predicate"]["runDetails"]["byproducts"]
    sums = {one["name"]: one["digest"]["sha256"] for one in named}
    assert sums == {name: read.sums[name] for name in read.sums if name != attest.PROVENANCE}


def test_publish_takes_it_from_where_the_build_has_kept_it(
    release, everything, client, tmp_path, progress, monkeypatch
):
    monkeypatch.setattr(engine, "connect", lambda: None)
    stated = published.kept_statements(tmp_path, release, attestations.PROVENANCE)
    stages.publishing(None, tmp_path).attach(everything, release, progress)
    read = reading.read(client, f"{release.repository}@{release.digest}", progress)
    assert read.documents[attestations.PROVENANCE] == stated[attestations.PROVENANCE]


def test_what_buildkit_stated_of_another_image_stays_at_home(
    release, everything, client, tmp_path, progress
):
    other = replace(release, receipt=replace(release.receipt, image_id="sha256:" + "9" * 64))
    published.kept_statements(tmp_path, other, *attestations.NAMES)
    attached(release, everything, tmp_path)
    read = reading.read(client, f"{release.repository}@{release.digest}", progress)
    assert not read.documents.keys() & attestations.NAMES.keys()


def change(tree: Path) -> None:
    (tree / "server.cpp").write_text("int main() {}\n")
    os.utime(tree / "server.cpp", (2e9, 2e9))


def remove(tree: Path) -> None:
    shutil.rmtree(tree)


@pytest.mark.parametrize(
    ("harm", "why"),
    [(change, "something in it is newer than the image"), (remove, "it is gone")],
    ids=["changed", "gone"],
)
def test_another_tree_than_what_was_built_is_not_attached(harm, why, release, everything, tree):
    harm(tree)
    with pytest.raises(UsageError) as caught:
        attached(release, everything)
    assert caught.value.why == why


def test_an_archive_that_was_built_from_must_be_the_same_file(release, everything, tree, tmp_path):
    archive = tmp_path / "x.tar.gz"
    source_archive.write(tree, archive, "tiny", source_archive.Known(published.COMMIT))
    origin = f"--source {archive} (sha256:{files.file_sha256(archive)})"
    release = replace(release, receipt=replace(release.receipt, source=origin))
    assert attached(release, everything)
    archive.write_bytes(b"")
    with pytest.raises(UsageError) as caught:
        attached(release, everything)
    assert caught.value.why == "it is another file now"


def test_an_image_without_a_source_is_not_built_from_one(release, tiny_pins):
    result = builder("build", "--pins", tiny_pins, "--source-of", f"{release.repository}:tiny")
    assert result.returncode == 7
    assert "no source goes with" in result.stderr


def test_what_a_killed_run_has_left_is_made_whole_by_the_next(client, tree, everything):
    receipt = published.a_receipt_of(tree, everything)
    for number in kill_points.each():
        release = published.released(client, replace(receipt, build_number=number))
        left = replace(release, smoke=published.a_smoke("sha256:another"))
        more = kill_points.kill(lambda left=left: attached(left, everything), number)
        made = attached(release, everything)
        assert sorted(one.kind for one in made) == ["evidence", "provenance", "sbom", "source"]
        there = [one.digest for one in referrers.attached(client, release.digest)]
        assert sorted(there) == sorted(one.digest for one in made)
        if not more:
            break
    assert number > 10


def test_what_is_attached_goes_with_its_release(
    release, everything, client, docker_registry_server, tmp_path, progress
):
    older = published.released(client, replace(release.receipt, commit="8" * 40))
    # In the registry `tiny` is the newer one's again.
    client.put(client.complete(release.digest), "tiny")
    folder = tmp_path / "record"
    names: list[str] = []
    for one in (older, release):
        names.insert(0, one.name)
        made = replace(one, attachments=attached(one, everything))
        index = Index(one.repository, {"tiny": release.name}, releases=names)
        record.write_release(folder, made, index)
    retention.prune(retention.Request(keep=1), folder, progress)
    assert docker_registry_server.tags("me/tiny") == sorted(
        ["tiny", release.name, release.digest.replace(":", "-")]
    )
    gone = record.read_release(folder, older.name)
    assert [client.manifest(one.digest) for one in gone.attachments] == [None] * 4
    assert len(attest.recorded(client, release.digest)) == 4
