"""Documents beside an image in a real registry, which has no referrers API: listed under a tag."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder.common.errors import NotAllowedError, RefNotFoundError, RemoteUnavailableError
from builder.registry import client as registry_client
from builder.registry import referrers
from builder.registry.client import Manifest, RegistryClient
from builder.registry.referrers import Artifact, Document
from tests.support import published
from tests.support.docker_registry import DockerRegistry
from tests.support.registry_proxy import Fault, in_front_of

KIND = "application/spdx+json"
NOW, LATER, LATEST = (f"2026-11-2{day}T00:00:00Z" for day in range(3))


def artifact(text: str = "one", kind: str = KIND) -> Artifact:
    return Artifact(kind, [Document("a.json", "application/json", json.dumps(text).encode())])


@pytest.fixture
def repository(docker_registry_server: DockerRegistry) -> Iterator[RegistryClient]:
    with RegistryClient(f"{docker_registry_server.host}/me/llama") as made:
        yield made


def listing(repository: RegistryClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry lists what is pushed with a subject, as one with the referrers API does."""
    pushed: list[str] = []
    put = repository.put

    def noted(manifest: Manifest, name: str | None = None) -> None:
        put(manifest, name)
        if "subject" in manifest.content:
            pushed.append(manifest.digest)

    def referrers_of(_: str) -> Manifest:
        entries = [{"digest": one} for one in pushed]
        return registry_client.of(registry_client.INDEX, {"manifests": entries})

    monkeypatch.setattr(repository, "put", noted)
    monkeypatch.setattr(repository, "referrers", referrers_of)


@pytest.fixture
def image(repository: RegistryClient) -> Manifest:
    return published.push(repository, {"a": "label"}, "x")


def test_what_was_attached_is_found_again_with_its_files(repository, image):
    (made,) = referrers.attach(repository, image, [artifact()], NOW)
    assert referrers.attached(repository, image.digest) == [made]
    assert referrers.read(repository, made, "a.json") == b'"one"'


def test_it_is_an_artifact_as_oci_1_1_has_them(repository, image):
    (made,) = referrers.attach(repository, image, [artifact()], NOW)
    content = made.manifest.content
    assert content["artifactType"] == KIND
    assert content["subject"] == {
        "mediaType": registry_client.MANIFEST,
        "digest": image.digest,
        "size": len(image.body),
    }
    index = repository.manifest(image.digest.replace(":", "-"))
    assert index is not None
    assert index.media_type == registry_client.INDEX
    (entry,) = index.content["manifests"]
    assert (entry["digest"], entry["artifactType"]) == (made.digest, KIND)


def test_the_same_again_stays_the_one_that_is_there(repository, image):
    first = referrers.attach(repository, image, [artifact()], NOW)
    assert referrers.attach(repository, image, [artifact()], LATER) == first
    assert len(referrers.attached(repository, image.digest)) == 1


def test_another_kind_is_listed_beside_the_first(repository, image):
    referrers.attach(repository, image, [artifact("two", KIND)], LATER)
    referrers.attach(repository, image, [artifact("one", "application/another")], NOW)
    found = referrers.attached(repository, image.digest)
    assert [referrers.read(repository, one, "a.json") for one in found] == [b'"one"', b'"two"']


def test_another_of_its_kind_takes_its_place(repository, image):
    """As after a publish that was killed: its evidence is of a smoke that nobody recorded."""
    referrers.attach(repository, image, [artifact("one")], NOW)
    made = referrers.attach(repository, image, [artifact("two")], LATER)
    assert referrers.attached(repository, image.digest) == made


def test_a_scanners_document_of_the_same_kind_stays(repository, image):
    theirs = published.attach_as_a_scanner(repository, image, KIND)
    referrers.attach(repository, image, [artifact("one")], NOW)
    (made,) = referrers.attach(repository, image, [artifact("two")], LATER)
    found = {one.digest: one.ours for one in referrers.attached(repository, image.digest)}
    assert found == {made.digest: True, theirs: False}


def test_a_scanners_document_is_not_taken_for_ours(repository, image):
    """It has the very same file, and so the same sum."""
    theirs = published.attach_as_a_scanner(repository, image, KIND)
    same = Artifact(KIND, [Document("file 1", KIND, b"{}")])
    (made,) = referrers.attach(repository, image, [same], NOW)
    assert made.digest != theirs


class TestApi:
    """A registry that lists referrers itself. None was at hand: its one answer is made up."""

    @pytest.fixture
    def listed(self, repository: RegistryClient, monkeypatch: pytest.MonkeyPatch) -> None:
        listing(repository, monkeypatch)

    @pytest.mark.usefixtures("listed")
    def test_another_of_its_kind_is_deleted_and_a_scanners_is_not(self, repository, image):
        theirs = published.attach_as_a_scanner(repository, image, KIND)
        referrers.attach(repository, image, [artifact("one")], NOW)
        (made,) = referrers.attach(repository, image, [artifact("two")], LATER)
        found = [one.digest for one in referrers.attached(repository, image.digest)]
        assert found == [made.digest, theirs]

    @pytest.mark.usefixtures("listed")
    @pytest.mark.parametrize("status", [401, 403, 405, 501])
    def test_a_login_that_may_only_push_leaves_it_there_with_a_warning(
        self, repository, image, monkeypatch, progress, status
    ):
        (left,) = referrers.attach(repository, image, [artifact("one")], NOW)
        once = repository._once

        def refused(method: str, *words: Any) -> Any:
            answer = once(method if method != "DELETE" else "GET", *words)
            return replace(answer, status=status) if method == "DELETE" else answer

        monkeypatch.setattr(repository, "_once", refused)
        monkeypatch.setattr(repository, "_authorize", lambda _: None)
        made = referrers.attach(repository, image, [artifact("two")], LATER, progress)
        assert [one.digest for one in made] == [made[0].digest, left.digest]
        assert f"HTTP {status}" in progress.warnings[0]

    @pytest.mark.usefixtures("listed")
    def test_what_could_not_be_deleted_is_older_than_what_holds(
        self, repository, image, monkeypatch, progress
    ):
        """The first again, after another: else readers would take the other, which is newer."""

        def refused(_: str) -> None:
            raise NotAllowedError("HTTP 403")

        monkeypatch.setattr(repository, "delete", refused)
        referrers.attach(repository, image, [artifact("one")], NOW)
        referrers.attach(repository, image, [artifact("two")], LATER, progress)
        made = referrers.attach(repository, image, [artifact("one")], LATEST, progress)
        assert referrers.attached(repository, image.digest)[-1].digest == made[0].digest


def test_what_names_another_subject_is_not_this_images(repository, image):
    other = published.push(repository, {"another": "label"}, "y")
    referrers.attach(repository, other, [artifact()], NOW)
    theirs = repository.manifest(referrers.fallback_tag(other.digest))
    assert theirs is not None
    repository.put(theirs, referrers.fallback_tag(image.digest))
    assert referrers.attached(repository, image.digest) == []


def test_a_list_that_somebody_else_wrote_meanwhile_gets_ours_again(repository, image, monkeypatch):
    empty = registry_client.of(
        registry_client.INDEX,
        {"schemaVersion": 2, "mediaType": registry_client.INDEX, "manifests": []},
    )
    put, lost = repository.put, []

    def overwritten(manifest: Manifest, name: str | None = None) -> None:
        put(manifest, name)
        if name is not None and not lost:
            lost.append(name)
            put(empty, name)

    monkeypatch.setattr(repository, "put", overwritten)
    (made,) = referrers.attach(repository, image, [artifact()], NOW)
    assert lost == [referrers.fallback_tag(image.digest)]
    assert [one.digest for one in referrers.attached(repository, image.digest)] == [made.digest]


def test_a_list_that_never_keeps_it_is_given_up(repository, image, monkeypatch):
    put = repository.put
    monkeypatch.setattr(repository, "put", lambda manifest, name=None: name or put(manifest, name))
    with pytest.raises(RemoteUnavailableError) as caught:
        referrers.attach(repository, image, [artifact()], NOW)
    assert "does not keep what is written to it" in caught.value.what


def test_where_the_registry_lists_them_itself_no_tag_is_written(
    repository, image, monkeypatch, docker_registry_server
):
    """No registry with the referrers API was at hand: its one answer is made up here."""
    listing(repository, monkeypatch)
    (made,) = referrers.attach(repository, image, [artifact()], NOW)
    assert [one.digest for one in referrers.attached(repository, image.digest)] == [made.digest]
    assert docker_registry_server.tags("me/llama") == ["x"]


def test_a_large_file_comes_whole(repository, image, tmp_path: Path):
    big = tmp_path / "big"
    big.write_bytes(b"0123456789abcdef" * (2 << 20))  # 32 MB: more than a small blob may have
    document = Document("source.tar.gz", "application/gzip", big)
    (made,) = referrers.attach(repository, image, [Artifact(KIND, [document])], NOW)
    referrers.fetch(repository, made.files["source.tar.gz"], tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == big.read_bytes()


def test_a_file_that_was_bent_on_the_registrys_disk_is_refused(
    repository, image, docker_registry_server, tmp_path
):
    (made,) = referrers.attach(repository, image, [artifact()], NOW)
    sha256 = made.files["a.json"]
    blobs = docker_registry_server.storage / "docker/registry/v2/blobs/sha256"
    (blobs / sha256[:2] / sha256 / "data").write_bytes(b'"two"')
    with pytest.raises(RemoteUnavailableError) as caught:
        referrers.fetch(repository, sha256, tmp_path / "out")
    assert "other bytes" in caught.value.what
    assert list(tmp_path.glob("out*")) == []


def test_a_file_that_is_not_there_is_said_to_be_missing(repository, image):
    (made,) = referrers.attach(repository, image, [artifact()], NOW)
    gone = referrers.Attached(made.kind, made.digest, NOW, {"a.json": "9" * 64}, made.manifest)
    with pytest.raises(RefNotFoundError):
        referrers.read(repository, gone, "a.json")


NONE_LISTED = b'{"schemaVersion": 2, "manifests": []}'


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 400},
        {"status": 401},
        {"status": 403},
        {"status": 405},
        {"status": 501},
        {"status": 200, "headers": {"Content-Type": "text/html"}, "body": b"<html>"},
        {"status": 200, "headers": {"Content-Type": registry_client.INDEX}, "body": NONE_LISTED},
    ],
    ids=["400", "401 without a challenge", "403", "405", "501", "a page", "nothing of it"],
)
def test_however_the_api_is_refused_they_are_listed_under_the_tag(docker_registry_server, answer):
    with (
        in_front_of(docker_registry_server) as proxy,
        RegistryClient(f"{proxy.host}/me/llama") as repository,
    ):
        image = published.push(repository, {"a": "label"}, "x")
        proxy.faults = [Fault("GET .*/referrers/", times=99, **answer)]
        (made,) = referrers.attach(repository, image, [artifact()], NOW)
        (found,) = referrers.attached(repository, image.digest)
        assert found.digest == made.digest
    tag = referrers.fallback_tag(image.digest)
    listed = docker_registry_server.manifest("me/llama", tag)["manifests"]
    assert [one["digest"] for one in listed] == [made.digest]


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_any_success_is_one(docker_registry_server, status):
    """Of 202 to a manifest's PUT: containers/image#381."""
    with (
        in_front_of(docker_registry_server) as proxy,
        RegistryClient(f"{proxy.host}/me/llama") as repository,
    ):
        proxy.faults = [Fault("PUT .*/manifests/", status=status, body=b"")]
        repository.put(registry_client.of(registry_client.MANIFEST, {"config": {}}), "x")
        proxy.faults = [Fault("PUT .*/blobs/", status=status, body=b"")]
        repository.upload("sha256:" + "a" * 64, b"x")
        proxy.faults = [Fault("DELETE", status=status, body=b"")]
        repository.delete("sha256:" + "a" * 64)
