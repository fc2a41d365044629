"""Published names on a real registry and engine: what gets one, and what it stands for after.

The images are tiny and the verdicts of audit and smoke stand-ins (tests/support/releasing.py), but
for the last test, which publishes a real llama-server by the command line.
"""

import json
import os
import shutil
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from docker import DockerClient
from docker.errors import ImageNotFound

from builder.build import receipts
from builder.common.errors import NameTakenError, NotProvenError, UsageError
from builder.model.labels import BUILT_AS, GPU, NOT_PROVEN, OF_PUBLISH, PROVEN
from builder.model.pins import Receipt
from builder.registry.client import RegistryClient
from builder.release import list as lists
from builder.release import record as records
from tests.conftest import ROOT, builder
from tests.support.docker_registry import DockerRegistry
from tests.support.registry_proxy import Proxy
from tests.support.releasing import FLOATING, REPOSITORY, Publisher, killed, resolved, stages

pytestmark = pytest.mark.engine


def upstream(registry: DockerRegistry, tag: str, content: str) -> str:
    """Somebody else puts an empty index under a tag."""
    kind = "application/vnd.oci.image.index.v1+json"
    page = {"schemaVersion": 2, "mediaType": kind, "manifests": [], "annotations": {"is": content}}
    answer = registry.put(REPOSITORY, tag, kind, json.dumps(page).encode())
    answer.raise_for_status()
    return str(answer.headers["Docker-Content-Digest"])


# --- what gets a name


def test_every_tag_of_the_variant_stands_for_what_passed(publisher, tiny_images, registry):
    release = publisher.publish(tiny_images.image(b"one"))
    assert {tag: resolved(registry, tag) for tag in registry.tags(REPOSITORY)} == dict.fromkeys(
        [release.name, *FLOATING], release.digest
    )


def test_the_name_says_variant_build_commit_and_recipe(publisher, tiny_images):
    receipt = tiny_images.image(b"one")
    name = publisher.publish(receipt).name
    assert name == f"tiny-b1-{receipt.commit[:9]}-rabababab"


def test_what_was_built_is_proven_and_then_what_was_pulled_back(publisher, tiny_images):
    asked: list[str] = []
    who = with_stages(publisher, log=asked)
    receipt = tiny_images.image(b"one")
    release = who.publish(receipt)
    built, pulled = receipt.image_id, f"{who.repository}@{release.digest}"
    assert asked == [f"{stage} {it}" for it in (built, pulled) for stage in ("audit", "smoke")]


def test_what_has_passed_just_now_is_proven_as_pulled_back_alone(publisher, tiny_images):
    asked: list[str] = []
    who = with_stages(publisher, log=asked)
    release = who.publish(tiny_images.image(b"one"), passed=["contract", "audit"])
    pulled = f"{who.repository}@{release.digest}"
    assert asked == [f"audit {pulled}", f"smoke {pulled}"]


def test_what_fails_here_is_not_sent(publisher, tiny_images, proxy: Proxy):
    who = with_stages(publisher, ready="fail").at(proxy.host)
    with pytest.raises(NotProvenError):
        who.publish(tiny_images.image(b"one"))
    assert proxy.count("^(POST|PUT|PATCH)") == 0


def test_what_passes_here_and_not_as_pulled_back_gets_no_name(publisher, tiny_images, registry):
    who = with_stages(publisher, kv="unproven")
    with pytest.raises(NotProvenError, match="its label says kv"):
        who.publish(tiny_images.image(b"one"), passed=["contract", "audit", "kv"])
    assert registry.tags(REPOSITORY) == []


def test_the_engine_pulls_the_layers_that_it_does_not_know(
    publisher, tiny_images, registry, proxy: Proxy
):
    new = tiny_images.image(os.urandom(100_000), os.urandom(300_000))
    release = publisher.at(proxy.host).publish(new)
    layers = registry.manifest(REPOSITORY, release.digest)["layers"]
    # Once we, once the engine.
    assert [proxy.count(f"^GET .*/blobs/{one['digest']}") for one in layers] == [2, 2]


def test_nothing_that_was_pulled_stays_on_the_engine(engine: DockerClient, publisher, tiny_images):
    release = publisher.publish(tiny_images.image(b"one"))
    with pytest.raises(ImageNotFound):
        engine.images.get(f"{publisher.repository}@{release.digest}")


def test_nothing_is_tagged_while_it_is_proven(publisher, tiny_images, registry):
    seen: dict[str, list[str]] = {}

    def look(text: str) -> None:
        seen[text] = registry.tags(REPOSITORY) if registry.ask("GET", "_catalog").ok else []

    publisher.publish(tiny_images.image(b"one"), look)
    smoking = [tags for text, tags in seen.items() if text.startswith("smoke")]
    assert smoking == [[], []]


@pytest.mark.parametrize(
    "verdicts",
    [{"ready": "fail"}, {"determinism": "unproven"}, {"audit": "fail"}, {"kv": "fail"}],
    ids=["probe fails", "contract unproven", "audit fails", "kv wrong"],
)
def test_what_fails_gets_no_name(publisher, tiny_images, registry, verdicts):
    who = with_stages(publisher, require=["contract", "audit"], **verdicts)
    with pytest.raises(NotProvenError):
        who.publish(tiny_images.image(b"one"))
    assert registry.tags(REPOSITORY) == []


def test_an_image_that_was_never_on_a_gpu_says_so(publisher, tiny_images):
    release = with_stages(publisher, kv="unproven").publish(tiny_images.image(b"one"))
    recorded = publisher.recorded(release.name)
    assert (recorded.proven, recorded.not_proven) == (["contract", "audit"], ["kv"])
    assert recorded.gpu is None


def test_the_labels_say_what_was_proven_and_what_not(engine: DockerClient, publisher, tiny_images):
    receipt = tiny_images.image(b"one")
    with_stages(publisher, kv="unproven").publish(receipt)
    assert labelled(engine, publisher) == {
        PROVEN: "contract,audit",
        NOT_PROVEN: "kv",
        GPU: "none",
        BUILT_AS: receipt.image_id,
    }


def test_the_labels_say_on_which_gpu(engine: DockerClient, publisher, tiny_images):
    with_cuda(with_stages(publisher, gpu="a GPU")).publish(tiny_images.image(b"one"))
    said = labelled(engine, publisher)
    assert (said[PROVEN], said[NOT_PROVEN], said[GPU]) == ("contract,audit,kv", "", "a GPU")


def test_a_variant_without_cuda_was_on_no_gpu(engine: DockerClient, publisher, tiny_images):
    release = with_stages(publisher, gpu="a GPU").publish(tiny_images.image(b"one"))
    assert (labelled(engine, publisher)[GPU], release.gpu) == ("none", None)


def labelled(engine: DockerClient, who: Publisher) -> dict[str, str]:
    """The labels that publishing added, as somebody sees them who has the floating tag."""
    image = engine.images.pull(who.repository, tag="tiny")
    try:
        return {name: value for name, value in image.labels.items() if name in OF_PUBLISH}
    finally:
        engine.images.remove(f"{who.repository}:tiny")


def test_where_a_gpu_runs_it_the_kv_type_is_required(publisher, tiny_images):
    with pytest.raises(NotProvenError, match="kv not passed"):
        with_stages(publisher, gpu="a GPU", kv="unproven").publish(tiny_images.image(b"one"))


def test_the_record_names_no_folder_of_this_machine(publisher, tiny_images):
    release = publisher.publish(tiny_images.image(b"one"))
    text = (publisher.record / "releases" / f"{release.name}.json").read_text(encoding="utf-8")
    assert "/home/" not in text
    assert str(publisher.results) not in text


def test_an_image_without_a_receipt_is_refused(publisher, tiny_images):
    receipt = tiny_images.image(b"one")
    for path in (publisher.results / "build" / "receipts").iterdir():
        path.unlink()
    with pytest.raises(UsageError, match="no receipt"):
        publisher.publish(receipt)


# --- what is sent


def test_layers_of_what_never_passed_are_not_believed(publisher, tiny_images):
    receipt = tiny_images.image(b"one")
    with pytest.raises(NotProvenError):
        with_stages(publisher, ready="fail").publish(receipt, passed=["contract", "audit"])
    news: list[str] = []
    publisher.publish(receipt, news.append)
    assert "read layer 1 of 1 back" in news


def test_a_layer_that_the_engine_knows_is_read_out_of_a_second_registry(
    publisher, tiny_images, registry, proxy: Proxy, tmp_path
):
    receipt = tiny_images.image(os.urandom(100_000))
    first = publisher.publish(receipt)
    (layer,) = registry.manifest(REPOSITORY, first.digest)["layers"]
    replace(publisher.at(proxy.host), record=tmp_path / "second").publish(receipt)
    assert proxy.count(f"^GET .*/blobs/{layer['digest']}") == 1


def test_what_was_begun_does_not_hold_a_name(publisher, tiny_images, registry):
    first = tiny_images.image(b"one")
    killed(lambda on: publisher.publish(first, on), at="name it")
    release = publisher.publish(rebuilt(publisher, first, tiny_images.image(b"two")))
    assert registry.digest(REPOSITORY, release.name) == release.digest


def test_what_was_released_holds_its_name(publisher, tiny_images, registry):
    first = tiny_images.image(b"one")
    release = publisher.publish(first)
    with pytest.raises(NameTakenError, match="another image already"):
        publisher.publish(rebuilt(publisher, first, tiny_images.image(b"two")))
    assert registry.digest(REPOSITORY, release.name) == release.digest


def rebuilt(who: Publisher, first: Receipt, second: Receipt) -> Path:
    """A receipt that says that the second image is the first one's commit, built again."""
    again = replace(second, commit=first.commit, build_number=first.build_number)
    return receipts.write(again, who.results / "again")


def test_an_unchanged_image_sends_nothing(publisher, tiny_images, proxy: Proxy):
    receipt = tiny_images.image(b"one", b"two")
    publisher.at(proxy.host).publish(receipt)
    proxy.asked.clear()
    publisher.at(proxy.host).publish(receipt)
    assert proxy.count("^(POST|PUT|PATCH)") == 0


def test_an_image_that_the_record_has_as_passed_is_not_proven_again(publisher, tiny_images):
    receipt = tiny_images.image(b"one")
    publisher.publish(receipt)
    asked: list[str] = []
    with_stages(publisher, log=asked).publish(receipt)
    assert asked == []


def test_a_release_that_the_registry_lost_is_brought_back_as_it_was(
    publisher, tiny_images, registry
):
    receipt = tiny_images.image(b"one")
    first = publisher.publish(receipt)
    with RegistryClient(publisher.repository) as repository:
        repository.delete(first.digest)
    assert registry.tags(REPOSITORY) == []
    again = publisher.publish(receipt)
    assert [resolved(registry, tag) for tag in (*FLOATING, first.name)] == [first.digest] * 4
    assert again.events[: len(first.events)] == first.events


def test_only_a_changed_layer_is_sent(publisher, tiny_images, proxy: Proxy):
    who = publisher.at(proxy.host)
    base = os.urandom(300_000)
    who.publish(tiny_images.image(base, b"first"))
    proxy.uploaded = 0
    who.publish(tiny_images.image(base, b"second"))
    assert proxy.uploaded < 10_000


def test_a_client_pulls_by_the_floating_tag_alone(engine: DockerClient, publisher, tiny_images):
    receipt = tiny_images.image(b"one", os.urandom(300_000))
    publisher.publish(receipt)
    engine.images.remove(receipt.image_id, force=True)
    assert labelled(engine, publisher)[BUILT_AS] == receipt.image_id


def test_a_client_pulls_at_every_moment_of_a_publish(publisher, tiny_images, registry):
    old = publisher.publish(tiny_images.image(b"one", os.urandom(300_000)))
    over, pulled = threading.Event(), []

    def pull() -> None:
        while not over.is_set():
            pulled.append(resolved(registry, "tiny"))

    client = threading.Thread(target=pull)
    client.start()
    try:
        new = publisher.publish(tiny_images.image(b"two", os.urandom(300_000)))
    finally:
        over.set()
        client.join()
    assert pulled
    assert set(pulled) <= {old.digest, new.digest}


# --- names that are taken


def test_an_immutable_tag_is_never_overwritten(publisher, tiny_images, registry):
    receipt = tiny_images.image(b"one")
    name = f"tiny-b1-{receipt.commit[:9]}-rabababab"
    theirs = upstream(registry, name, "theirs")
    with pytest.raises(NameTakenError):
        publisher.publish(receipt)
    assert registry.digest(REPOSITORY, name) == theirs


def test_a_tag_that_somebody_else_moved_stays(publisher, tiny_images, registry):
    publisher.publish(tiny_images.image(b"one"))
    theirs = upstream(registry, "tiny", "theirs")
    with pytest.raises(NameTakenError, match="moved by somebody else"):
        publisher.publish(tiny_images.image(b"two"))
    assert registry.digest(REPOSITORY, "tiny") == theirs


def test_a_tag_that_somebody_else_moved_is_taken_back_by_force(publisher, tiny_images, registry):
    publisher.publish(tiny_images.image(b"one"))
    theirs = upstream(registry, "tiny", "theirs")
    release = publisher.publish(tiny_images.image(b"two"), force=True)
    assert registry.digest(REPOSITORY, "tiny") == release.digest
    (moved,) = (one for one in release.events if one.what == "promoted" and one.tag == "tiny")
    assert moved.previous == theirs


@pytest.mark.parametrize("tag", ["tiny", None], ids=["floating", "immutable"])
def test_who_loses_a_race_for_a_tag_knows_it(publisher, tiny_images, registry, tag):
    receipt = tiny_images.image(b"one")
    raced = tag or f"tiny-b1-{receipt.commit[:9]}-rabababab"

    def race(text: str) -> None:
        if text == f"{raced}: read it back":
            upstream(registry, raced, "theirs")

    with pytest.raises(NameTakenError, match="at the same time") as caught:
        publisher.publish(receipt, race)
    assert caught.value.exit_code == 8
    (name,) = (path.stem for path in (publisher.record / "releases").iterdir())
    event = publisher.recorded(name).events[-1]
    assert (event.what, event.tag, event.previous) == (
        "lost",
        raced,
        registry.digest(REPOSITORY, raced),
    )


def test_a_record_is_of_one_repository(publisher, tiny_images):
    publisher.publish(tiny_images.image(b"one"))
    index = records.read_index(publisher.record)
    with pytest.raises(UsageError, match="is of"):
        publisher.at("127.0.0.1:1").publish(tiny_images.image(b"two"))
    assert records.read_index(publisher.record) == index


# --- promote, rollback, releases


def test_a_candidate_is_promoted_by_its_variants_name(publisher, tiny_images, registry):
    release = publisher.publish(tiny_images.image(b"one"), promote=False)
    assert registry.tags(REPOSITORY) == [release.name]
    publisher.promote("tiny")
    assert {registry.digest(REPOSITORY, tag) for tag in FLOATING} == {release.digest}


def test_one_tag_alone_is_promoted(publisher, tiny_images, registry):
    release = publisher.publish(tiny_images.image(b"one"), promote=False)
    publisher.promote(release.name, "tiny-nightly")
    assert registry.tags(REPOSITORY) == [release.name, "tiny-nightly"]


def test_what_todays_policy_asks_for_is_asked_of_a_candidate_too(publisher, tiny_images):
    release = with_stages(publisher, kv="unproven").publish(
        tiny_images.image(b"one"), promote=False
    )
    with pytest.raises(NotProvenError, match="kv not proven"):
        with_stages(publisher, require=["contract", "kv"]).promote(release.name)


def test_a_candidate_that_lacks_it_is_not_promoted_by_publishing_it_again(
    publisher, tiny_images, registry
):
    receipt = tiny_images.image(b"one")
    with_stages(publisher, kv="unproven").publish(receipt, promote=False)
    with pytest.raises(NameTakenError, match="another image already"):
        with_stages(publisher, require=["contract", "kv"]).publish(receipt)
    assert registry.digest(REPOSITORY, "tiny") is None


def test_a_candidate_that_somebody_overwrote_is_not_promoted(publisher, tiny_images, registry):
    release = publisher.publish(tiny_images.image(b"one"), promote=False)
    upstream(registry, release.name, "theirs")
    with pytest.raises(NameTakenError, match="overwritten"):
        publisher.promote(release.name)
    assert registry.digest(REPOSITORY, "tiny") is None


def test_a_rollback_goes_one_release_back_each_time(publisher, tiny_images, registry):
    made = [publisher.publish(tiny_images.image(content)) for content in (b"1", b"2", b"3")]
    seen = [publisher.rollback().digest, publisher.rollback().digest]
    assert seen == [made[1].digest, made[0].digest]
    assert {registry.digest(REPOSITORY, tag) for tag in FLOATING} == {made[0].digest}


def test_a_rollback_goes_to_a_named_release(publisher, tiny_images, registry):
    made = [publisher.publish(tiny_images.image(content)) for content in (b"1", b"2", b"3")]
    publisher.rollback(made[0].name)
    assert registry.digest(REPOSITORY, "tiny") == made[0].digest


def test_without_an_earlier_release_there_is_no_rollback(publisher, tiny_images):
    publisher.publish(tiny_images.image(b"one"))
    with pytest.raises(UsageError, match="no release before"):
        publisher.rollback()


def test_releases_are_listed_newest_first_with_their_tags(publisher, tiny_images):
    made = [publisher.publish(tiny_images.image(content)) for content in (b"1", b"2")]
    listed = lists.releases(publisher.record)
    assert [(one.release.name, one.tags) for one in listed] == [
        (made[1].name, list(FLOATING)),
        (made[0].name, []),
    ]


# --- the command line


def run(who: Publisher, *words: object) -> "subprocess.CompletedProcess[str]":
    pins = who.results / "pins.toml"
    return builder(*words, "--pins", pins, "--record", who.record)


def test_a_dry_run_says_what_would_be_named_and_sends_nothing(publisher, tiny_images, registry):
    receipt = tiny_images.image(b"one")
    words = ["publish", receipt.image_id, "--to", publisher.repository, "--dry-run", "--json"]
    plan = json.loads(run(publisher, *words).stdout)
    assert (plan["name"], plan["digest"], plan["proven"]) == (
        f"tiny-b1-{receipt.commit[:9]}-rabababab",
        None,
        False,
    )
    assert plan["floating"] == dict.fromkeys(FLOATING)
    assert registry.tags(REPOSITORY) == []


def test_without_a_repository_there_is_nowhere_to_publish(publisher, tiny_images):
    result = run(publisher, "publish", tiny_images.image(b"one").image_id)
    assert result.returncode == 2
    assert "policy.release.repository" in result.stderr


def test_a_taken_name_is_exit_code_8(publisher, tiny_images, registry):
    release = publisher.publish(tiny_images.image(b"one"), promote=False)
    upstream(registry, release.name, "theirs")
    assert run(publisher, "promote", release.name).returncode == 8


def test_promote_rollback_and_releases_by_hand(publisher, tiny_images, registry):
    made = [
        publisher.publish(tiny_images.image(content), promote=False) for content in (b"1", b"2")
    ]
    for release in made:
        assert run(publisher, "promote", release.name).returncode == 0
    assert run(publisher, "rollback", "tiny").returncode == 0
    listed = json.loads(run(publisher, "releases", "--json").stdout)["releases"]
    assert [(one["name"], one["floating"]) for one in listed] == [
        (made[1].name, []),
        (made[0].name, list(FLOATING)),
    ]
    assert registry.digest(REPOSITORY, "latest") == made[0].digest


@pytest.mark.parametrize("words", [["promote", "tiny"], ["rollback", "tiny"]])
def test_a_dry_run_moves_nothing(publisher, tiny_images, registry, words):
    old = publisher.publish(tiny_images.image(b"old"))
    new = publisher.publish(tiny_images.image(b"new"))
    if words[0] == "promote":
        publisher.rollback()
    before, target = registry.digest(REPOSITORY, "tiny"), new if words[0] == "promote" else old
    result = run(publisher, *words, "--dry-run")
    assert f"would move tiny to {target.name}" in result.stdout
    assert registry.digest(REPOSITORY, "tiny") == before


# --- the real thing


def test_a_real_llama_server_is_published_and_served_by_its_floating_tag(
    engine: DockerClient, mainline_cpu_receipt, tmp_path: Path, registry
):
    pins = shutil.copy(ROOT / "pins.toml", tmp_path)
    path = tmp_path / "build" / "receipts" / "20261121T000000Z-mainline-cpu-0c1e57098.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(mainline_cpu_receipt), encoding="utf-8")
    repository = f"{registry.host}/{REPOSITORY}"
    words = ["--to", repository, "--record", tmp_path / "record", "--pins", pins]
    result = builder("publish", mainline_cpu_receipt["image_id"], *words, "--json")
    assert result.returncode == 0, result.stderr
    release = json.loads(result.stdout)
    try:
        served = engine.images.pull(repository, tag="mainline-cpu")
        output = engine.containers.run(served, ["--version"], remove=True, stderr=True)
    finally:
        # Its digest goes with the last name of the repository.
        engine.images.remove(f"{repository}:mainline-cpu")
    assert release["proven"] == served.labels[PROVEN].split(",") == ["contract", "audit", "kv"]
    (labels,) = (one for one in release["audit"]["findings"] if one["probe"] == "labels")
    assert "agree with pins, receipt and Dockerfile" in labels["observed"]
    assert mainline_cpu_receipt["commit"] in output.decode()


def with_stages(who: Publisher, *, require: list[str] | None = None, **more) -> Publisher:
    """The same publisher with other stand-in verdicts, and perhaps another policy."""
    policy = who.pins.policy
    if require:
        policy = replace(policy, release=replace(policy.release, require=require))
    return replace(who, stages=stages(**more), pins=replace(who.pins, policy=policy))


def with_cuda(who: Publisher) -> Publisher:
    """The same publisher, whose variant is one for CUDA."""
    cuda = replace(who.pins.variants["tiny"], architectures=["86"])
    return replace(who, pins=replace(who.pins, variants={**who.pins.variants, "tiny": cuda}))
