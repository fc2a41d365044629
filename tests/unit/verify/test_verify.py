"""What a published image claims, on a real registry with a real cosign: true ones, and each lie."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from builder.build import attestations
from builder.image import contents as image_contents
from builder.model.labels import GPU, KV_TYPES, LEFT_OUT, PROVEN, RECIPE, REVISION
from builder.model.pins import Pins
from builder.pins import load as pins
from builder.registry import referrers
from builder.registry.client import RegistryClient
from builder.registry.referrers import Artifact, Document
from builder.release import attach as attest
from builder.release import cosign, provenance
from builder.release import record as records
from builder.release.cosign import Key
from builder.release.record import Attachment, Release
from builder.release.record_source import RecordSource
from builder.verify import run as verifies
from builder.verify.run import Verification
from tests.conftest import SAMPLES, Recorder, builder
from tests.support import cosign_program, published
from tests.support.docker_registry import DockerRegistry, serve

pytestmark = pytest.mark.usefixtures("with_cosign", "private_cache")


@pytest.fixture(scope="module")
def registry(
    registry_program: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DockerRegistry]:
    with serve(registry_program, tmp_path_factory.mktemp("registry")) as made:
        yield made


@pytest.fixture(scope="module")
def key(cosign_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return cosign_program.generate(cosign_folder, tmp_path_factory.mktemp("keys") / "ours")


@dataclass
class World:
    """An image that was published, what there is of it, and who may lie about it."""

    release: Release
    everything: Pins
    pins_file: Path
    public: Path
    folder: Path
    repository: RegistryClient
    registry: DockerRegistry
    private: Path
    aside: ExitStack
    progress: Recorder = field(default_factory=Recorder)

    def attested(self, signer: Key | None) -> list[Attachment]:
        nobody: Any = None  # the engine is not asked
        return attest.attach(
            nobody, self.release, self.everything, signer, self.progress, results=self.folder
        )

    def released(self, kv: str, **labels: str) -> None:
        """Another image in its place, with what goes with it, and with these labels more."""
        name = f"{self.repository.repository}-2"
        self.repository = self.aside.enter_context(RegistryClient(name))
        receipt = self.release.receipt
        self.release = published.released(self.repository, receipt, kv, **labels)
        self.release = replace(self.release, attachments=self.attested(None))

    @property
    def record(self) -> Path:
        """The record as it was written, with every lie of `release` in it."""
        return published.write_record(self.folder / "record", self.release)

    def verify(self, tag: str = "tiny", *, key: bool = True, record: bool = True) -> Verification:
        return verifies.verify(
            f"{self.repository.repository}:{tag}",
            self.everything,
            self.progress,
            signer=Key(self.public) if key else None,
            records=RecordSource(str(self.record)) if record else None,
        )

    def attach(self, kind: str, name: str, content: Any) -> None:
        """Lay another document beside the image, as whoever may write there can."""
        self.attach_all(kind, {name: json.dumps(content).encode()})

    def attach_all(self, kind: str, contents: Mapping[str, bytes]) -> None:
        subject = self.repository.manifest(self.release.digest)
        assert subject is not None
        documents = [Document(name, kind, content) for name, content in contents.items()]
        later = "2030-01-01T00:00:00Z"
        made = referrers._push(self.repository, subject, Artifact(kind, documents), later)
        referrers._list(self.repository, subject.digest, [made], set())

    def document(self, name: str) -> Any:
        return json.loads(self.content(name))

    def content(self, name: str) -> bytes:
        for one in referrers.attached(self.repository, self.release.digest):
            if name in one.files:
                return referrers.read(self.repository, one, name)
        raise AssertionError(name)


@pytest.fixture
def world(
    request: pytest.FixtureRequest,
    registry: DockerRegistry,
    key: tuple[Path, Path],
    tiny_pins: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    """All but the signature."""
    # A real image's contents are read in tests/engine/test_attest.py.
    monkeypatch.setattr(image_contents, "read", lambda *_: published.CONTENTS)
    tree = tmp_path / "tree"
    shutil.copytree(SAMPLES / "tiny", tree)
    everything = pins.load(tiny_pins)
    name = "".join(one for one in request.node.name if one.islower())[:40]
    with RegistryClient(f"{registry.host}/{name}") as repository, ExitStack() as aside:
        release = published.released(repository, published.a_receipt_of(tree, everything))
        private, public = key
        made = World(
            release, everything, tiny_pins, public, tmp_path, repository, registry, private, aside
        )
        made.release = replace(release, attachments=made.attested(None))
        yield made


@pytest.fixture
def signed(world: World) -> World:
    """With a signature too."""
    world.release = replace(world.release, attachments=world.attested(Key(world.private)))
    return world


def statuses(made: Verification, status: str) -> list[str]:
    return [one.probe for one in made.findings if one.status == status]


def observed(made: Verification, claim: str) -> str:
    return next(one.observed for one in made.findings if one.probe == claim)


class TestTrue:
    @pytest.mark.parametrize("tag", ["tiny", "its own name"])
    def test_every_claim_of_a_true_image_passes(self, signed, tag):
        made = signed.verify(signed.release.name if tag != "tiny" else tag)
        assert statuses(made, "pass") == [one.probe for one in made.findings]
        assert made.vouched == ["signature", "record"]

    def test_the_command_says_so_and_exits_0(self, signed):
        image = f"{signed.repository.repository}:tiny"
        words = ("--key", signed.public, "--record", signed.record, "--pins", signed.pins_file)
        result = builder("verify", image, *words, "--json")
        assert result.returncode == 0, result.stderr
        found = json.loads(result.stdout)
        assert (found["verdict"], found["passed"], found["digest"]) == (
            "pass",
            True,
            signed.release.digest,
        )

    @pytest.mark.parametrize("by", ["key", "record"])
    def test_either_key_or_record_vouches(self, signed, by):
        made = signed.verify(key=by == "key", record=by == "record")
        assert made.passed
        assert "promises" in statuses(made, "pass")

    def test_what_nobody_vouches_for_is_not_proven(self, world):
        made = world.verify(key=False, record=False)
        assert made.verdict == "unproven"
        assert statuses(made, "unproven") == ["attestation", "record", "signature"]

    def test_of_an_image_without_record_and_labels_nothing_is_promised(self, world):
        world.release = replace(world.release, proven=[])
        bare = published.push(world.repository, published.labels(world.release.receipt), "bare")
        made = verifies.verify(
            f"{world.repository.repository}@{bare.digest}", world.everything, world.progress
        )
        assert "promises" in statuses(made, "unproven")

    def test_the_command_calls_that_no(self, world):
        image = f"{world.repository.repository}:tiny"
        result = builder("verify", image, "--pins", world.pins_file)
        assert result.returncode == 1
        assert result.stdout.startswith(f"NOT PROVEN  {image} says that it is {world.release.name}")

    def test_attaching_again_changes_nothing(self, signed):
        before = signed.registry.tags(signed.repository.name), signed.release.attachments
        made = signed.attested(Key(signed.private))
        assert (signed.registry.tags(signed.repository.name), made) == before

    def test_an_image_after_a_bump_is_the_one_of_its_own_commit(self, world):
        """The pin of a fork is in its Dockerfile, so it is rendered by the labels' commit too."""
        fork = world.everything.forks["tiny"]
        elsewhere = replace(fork, commit="9" * 40, build_number=99, unpinned=None)
        labelled = replace(fork, commit=published.COMMIT, build_number=77, unpinned=None)
        recipe = verifies_recipe(world.everything, labelled)
        made = published.push(
            world.repository, published.labels(world.release.receipt, **{RECIPE: recipe}), "later"
        )
        world.everything = replace(world.everything, forks={"tiny": elsewhere})
        found = verifies.verify(
            f"{world.repository.repository}@{made.digest}", world.everything, world.progress
        )
        assert "recipe" in statuses(found, "pass")

    def test_an_image_without_a_part_is_of_the_recipe_without_it(self, world):
        """The label says what its commit lacks; without that label it is of another recipe."""
        recipe = world.release.receipt.dockerfile_sha256
        fork = replace(world.everything.forks["tiny"], codebooks="books")
        world.everything = replace(world.everything, forks={"tiny": fork})
        statuses_of = {}
        for left_out in ("codebooks", "", "kv_types.turbo9"):
            said = {RECIPE: recipe, LEFT_OUT: left_out}
            made = published.push(
                world.repository, published.labels(world.release.receipt, **said), "later"
            )
            found = verifies.verify(
                f"{world.repository.repository}@{made.digest}", world.everything, world.progress
            )
            statuses_of[left_out] = "recipe" in statuses(found, "pass")
        assert statuses_of == {"codebooks": True, "": False, "kv_types.turbo9": False}


def verifies_recipe(everything: Pins, fork: Any) -> str:
    from datetime import UTC, datetime

    from builder.build import render

    dated = replace(fork, date=datetime(2026, 5, 1, 10, 20, 30, tzinfo=UTC))
    return render.render(replace(everything, forks={"tiny": dated}), "tiny").sha256


class TestOtherImages:
    def relabelled(self, world: World, *tags: str, **changes: str) -> str:
        said = published.labels(world.release.receipt) | changes
        return published.push(world.repository, said, *tags).digest

    def test_a_label_of_another_commit(self, signed):
        self.relabelled(signed, "tiny", **{REVISION: "9" * 40})
        made = signed.verify(key=False, record=False)
        assert "recipe" in statuses(made, "pass")  # the same pins, after all
        assert signed.verify(record=False).verdict == "fail"
        assert "record" in statuses(signed.verify(key=False), "fail")

    def test_a_label_of_another_recipe(self, world):
        self.relabelled(world, "tiny", **{RECIPE: "9" * 64})
        made = world.verify(key=False, record=False)
        assert statuses(made, "fail") == ["recipe"]
        assert "it says 999999999999, these pins and templates render" in observed(made, "recipe")

    def test_another_digest_under_the_floating_tag(self, world):
        other = self.relabelled(world, "tiny", **{KV_TYPES: "turbo4"})
        made = world.verify(key=False, record=False)
        assert statuses(made, "fail") == ["name"]
        assert f"this is {other[:19]}" in observed(made, "name")

    def test_another_digest_under_the_immutable_tag_too(self, world):
        self.relabelled(world, "tiny", world.release.name, **{KV_TYPES: "turbo4"})
        assert world.verify(key=False, record=False).verdict == "unproven"
        assert statuses(world.verify(record=False), "fail") == ["signature"]
        made = world.verify(key=False)
        assert "record" in statuses(made, "fail")
        assert made.vouched == []

    def test_the_image_of_another_release_under_the_tag(self, world):
        older = replace(world.release.receipt, commit="8" * 40, build_number=76)
        with RegistryClient(world.repository.repository) as repository:
            release = published.released(repository, older)
        folder = world.record
        both = records.Index(
            world.repository.repository,
            {"tiny": world.release.name},
            releases=[world.release.name, release.name],
        )
        records.write_release(folder, release, both)
        made = verifies.verify(
            f"{world.repository.repository}:tiny",
            world.everything,
            world.progress,
            records=RecordSource(str(folder)),
        )
        assert observed(made, "record") == (f"by the record tiny stands for {world.release.name}")

    def test_a_tag_that_is_not_the_images(self, world):
        self.relabelled(world, "v1.0")
        made = world.verify("v1.0", key=False, record=False)
        assert "name" in statuses(made, "fail")


class TestSignature:
    def test_another_key(self, signed, cosign_folder):
        _, signed.public = cosign_program.generate(cosign_folder, signed.folder / "other")
        made = signed.verify(record=False)
        assert statuses(made, "fail") == ["signature"]
        assert observed(made, "signature").startswith("not by who was named:")

    def test_no_signature_at_all(self, signed):
        for one in signed.release.attachments:
            if one.kind == "signature":
                signed.repository.delete(one.digest)
        assert "signature" in statuses(signed.verify(record=False), "fail")

    def test_a_signed_image_whose_provenance_nobody_signed(self, signed):
        stated = signed.document(attest.PROVENANCE)
        stated["predicate"]["runDetails"]["builder"]["id"] = "https://example.org/somebody-else"
        signed.attach(provenance.MEDIA_TYPE, attest.PROVENANCE, stated)
        assert statuses(signed.verify(record=False), "fail") == ["attestation"]

    def test_without_cosign_nothing_is_proven(self, signed, monkeypatch):
        monkeypatch.setattr(cosign, "find", lambda: None)
        made = signed.verify(record=False)
        assert made.verdict == "unproven"
        assert observed(made, "signature") == "not checked: cosign is not installed"


class TestBuildKits:
    """What BuildKit stated goes with some images."""

    @pytest.fixture
    def attested(self, world: World) -> World:
        published.kept_statements(world.folder, world.release, *attestations.NAMES)
        world.release = replace(world.release, attachments=world.attested(Key(world.private)))
        return world

    def test_an_image_with_it_passes(self, attested):
        made = attested.verify()
        assert attested.document(attestations.SBOM)
        assert attested.document(attestations.PROVENANCE)
        assert statuses(made, "pass") == [one.probe for one in made.findings]

    @pytest.mark.parametrize(
        ("name", "claim"),
        [(attestations.SBOM, "sbom"), (attestations.PROVENANCE, "provenance")],
        ids=["SBOM", "provenance"],
    )
    @pytest.mark.parametrize("there", [True, False], ids=["another", "gone"])
    def test_one_that_the_provenance_does_not_name_or_misses(self, attested, name, claim, there):
        names = {attest.PROVENANCE, *attestations.NAMES} - {name}
        documents = {one: attested.content(one) for one in names}
        attested.attach_all(provenance.MEDIA_TYPE, documents | ({name: b"{}"} if there else {}))
        made = attested.verify(key=False, record=False)
        assert claim in statuses(made, "fail" if there else "unproven")
        wanted = f"{name} is 44136fa355b3…" if there else f"no {name} goes with it"
        assert wanted in observed(made, claim)

    def test_a_statement_of_something_else(self, world):
        name = attestations.SBOM
        published.kept_statements(world.folder, world.release, name)
        file = attestations.folder(world.folder, world.release.receipt.image_id) / name
        file.write_text('{"predicateType": "https://example.org/else"}')
        world.attested(None)
        made = world.verify(key=False, record=False)
        assert statuses(made, "fail") == ["sbom"]
        assert observed(made, "sbom") == f"{name} states https://example.org/else"


class TestDocuments:
    def test_another_source(self, world):
        world.attach(attest.SOURCE, attest.ARCHIVE, "another tree")
        made = world.verify(key=False, record=False)
        assert statuses(made, "fail") == ["source"]
        assert "the provenance names" in observed(made, "source")

    def test_another_list_of_parts(self, world):
        parts = world.document(attest.SBOM)
        parts["packages"] = parts["packages"][:1]
        world.attach("application/spdx+json", attest.SBOM, parts)
        assert statuses(world.verify(key=False, record=False), "fail") == ["sbom"]

    def test_another_list_of_parts_with_a_provenance_that_names_it(self, signed):
        parts = signed.document(attest.SBOM)
        parts["packages"] = parts["packages"][:1]
        signed.attach("application/spdx+json", attest.SBOM, parts)
        stated = signed.document(attest.PROVENANCE)
        named = referrers.attached(signed.repository, signed.release.digest)[-1].files[attest.SBOM]
        for one in stated["predicate"]["runDetails"]["byproducts"]:
            if one["name"] == attest.SBOM:
                one["digest"]["sha256"] = named
        signed.attach(provenance.MEDIA_TYPE, attest.PROVENANCE, stated)
        assert statuses(signed.verify(record=False), "fail") == ["attestation"]
        assert statuses(signed.verify(key=False), "fail") == ["record"]

    def test_a_provenance_of_another_image(self, world):
        stated = world.document(attest.PROVENANCE)
        stated["subject"][0]["digest"]["sha256"] = "9" * 64
        world.attach(provenance.MEDIA_TYPE, attest.PROVENANCE, stated)
        assert statuses(world.verify(key=False, record=False), "fail") == ["provenance"]

    def test_a_provenance_of_another_build(self, world):
        stated = world.document(attest.PROVENANCE)
        built = stated["predicate"]["buildDefinition"]
        built["resolvedDependencies"][0]["annotations"]["commit"] = "9" * 40
        world.attach(provenance.MEDIA_TYPE, attest.PROVENANCE, stated)
        made = world.verify(key=False, record=False)
        assert statuses(made, "fail") == ["labels"]
        assert "by the provenance '9999" in observed(made, "labels")

    def test_other_bytes_on_the_registrys_disk(self, world):
        (sbom,) = [one for one in world.release.attachments if one.kind == "sbom"]
        manifest = world.repository.manifest(sbom.digest)
        assert manifest is not None
        sha256 = manifest.content["layers"][0]["digest"].removeprefix("sha256:")
        blobs = world.registry.storage / "docker/registry/v2/blobs/sha256"
        data = blobs / sha256[:2] / sha256 / "data"
        data.write_bytes(data.read_bytes().replace(b"tzdata", b"tzdatb"))
        made = world.verify(key=False, record=False)
        assert statuses(made, "fail") == ["sbom"]
        assert "other bytes than" in observed(made, "sbom")

    def test_evidence_that_the_record_does_not_name(self, world):
        made = Document(attest.AUDIT, "application/json", b"{}")
        subject = world.repository.manifest(world.release.digest)
        older = "2020-01-01T00:00:00Z"
        pushed = referrers._push(
            world.repository, subject, Artifact(attest.EVIDENCE, [made]), older
        )
        referrers._list(world.repository, world.release.digest, [pushed], set())
        found = world.verify(key=False)
        assert statuses(found, "fail") == ["record"]
        assert f"does not name: evidence {pushed.digest[:19]}" in observed(found, "record")

    def test_an_attachment_that_the_record_names_is_gone(self, world):
        (source,) = [one for one in world.release.attachments if one.kind == "source"]
        world.repository.delete(source.digest)
        made = world.verify()
        assert "record" in statuses(made, "fail")
        assert f"source {source.digest[:19]}" in observed(made, "record")


class TestPromises:
    def test_kv_that_was_not_proven(self, world):
        smoke = published.a_smoke(world.release.smoke["image_id"], kv="unproven")
        world.release = replace(world.release, smoke=smoke)
        made = world.verify(key=False)
        assert "promises" in statuses(made, "fail")
        assert observed(made, "promises") == (
            "kv is promised by the record and was not proven: kv is unproven; "
            "kv is promised by its label and was not proven: kv is unproven"
        )

    def test_kv_by_a_smoke_that_never_was(self, world):
        """The record says that it passed; the evidence in the registry says that it did not."""
        with RegistryClient(f"{world.repository.repository}-2") as repository:
            other = published.released(repository, world.release.receipt)
            smoke = published.a_smoke(other.smoke["image_id"], "unproven")
            nobody: Any = None
            made = attest.attach(
                nobody, replace(other, smoke=smoke), world.everything, None, world.progress
            )
        world.release = replace(other, attachments=made)
        found = verifies.verify(
            f"{other.repository}:tiny",
            world.everything,
            world.progress,
            records=RecordSource(str(world.record)),
        )
        assert statuses(found, "fail") == ["evidence"]
        assert observed(found, "evidence") == "the record has another smoke.json"

    def test_a_smoke_on_a_gpu_that_there_was_none(self, world):
        world.release = replace(world.release, gpu="NVIDIA GeForce RTX 3090")
        made = world.verify(key=False)
        assert statuses(made, "fail") == ["promises"]
        assert "its offload is unproven" in observed(made, "promises")

    @pytest.mark.parametrize("report", ["audit", "smoke"])
    def test_evidence_of_another_image(self, world, report):
        evidence = getattr(world.release, report) | {"image_id": "sha256:" + "9" * 64}
        world.release = replace(world.release, **{report: evidence})
        made = world.verify(key=False)
        assert f"the {report} is of sha256:999999999999" in observed(made, "promises")

    @pytest.mark.parametrize(
        ("lie", "told"),
        [
            ({PROVEN: "contract,audit,kv"}, "kv is promised by its label and was not proven"),
            ({PROVEN: "magic"}, "magic is promised by its label and was not proven: nobody knows"),
            ({GPU: "NVIDIA GeForce RTX 3090"}, "a smoke on NVIDIA GeForce RTX 3090 is promised by"),
        ],
        ids=["kv", "what there is not", "a GPU"],
    )
    @pytest.mark.parametrize("record", [True, False], ids=["record", "no record"])
    def test_a_label_that_says_more_than_the_evidence(self, world, lie, told, record):
        world.released(kv="unproven", **lie)
        made = world.verify(key=False, record=record)
        assert statuses(made, "fail") == ["promises"]
        assert told in observed(made, "promises")

    def test_what_was_required_and_is_not_there(self, world):
        world.release = replace(world.release, proven=["audit"], not_proven=["contract", "kv"])
        made = world.verify(key=False)
        assert "contract was required and is not among the proven" in observed(made, "promises")


def test_a_registry_that_is_down_is_neither_yes_nor_no(registry_program, tmp_path, tiny_pins):
    with serve(registry_program, tmp_path / "down") as registry:
        host = registry.host
    result = builder("verify", f"{host}/me/llama:tiny", "--pins", tiny_pins)
    assert result.returncode == 6, result.stderr
