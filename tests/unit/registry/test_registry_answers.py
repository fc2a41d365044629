"""What a registry answers is what its digest, its media type and the grammars say, or an error."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder.common import paths
from builder.common.errors import RemoteUnavailableError, UsageError
from builder.pins import load as pins
from builder.registry import client as registry_client
from builder.registry import referrers, registry
from builder.registry.client import RegistryClient
from builder.release import attach as attest
from builder.release import promote, published
from builder.release.record import Release
from tests.conftest import Recorder, builder
from tests.support import lying_registry
from tests.support.lying_registry import HOST, INDEX, REPOSITORY, Answer, Bend, World

HTML = b"<html><body>Please sign in</body></html>"


@pytest.fixture
def release(tiny_pins: Path) -> Release:
    return lying_registry.a_release(pins.load(tiny_pins))


pytestmark = pytest.mark.usefixtures("private_cache")


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> RegistryClient:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return RegistryClient(REPOSITORY)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, release: Release):
    def made(bend: Bend = lying_registry.straight, **more: Any) -> World:
        world = World(release, bend, **more)
        lying_registry.stand_in(monkeypatch, lambda: world)
        return world

    return made


def bent(document: str, change: Any) -> Bend:
    def bend(name: str, content: Any) -> bytes:
        return change(content) if name == document else lying_registry.straight(name, content)

    return bend


def of_kind(kind: str, answer: Answer) -> Any:
    return lambda asked, made: answer if asked == kind else made


PAGES = {
    "a page of HTML": Answer(200, HTML, {"Content-Type": "text/html"}),
    "HTML that is said to be a manifest": Answer(200, HTML, {"Content-Type": INDEX}),
    "nothing": Answer(200, b"", {"Content-Type": INDEX}),
    "a manifest that is said to be HTML": Answer(
        200, b'{"manifests": []}', {"Content-Type": "text/html"}
    ),
    "a manifest of another media type": Answer(
        200, json.dumps({"mediaType": INDEX, "manifests": []}).encode(), {}
    ),
    "an index without manifests": Answer(200, b"{}", {"Content-Type": INDEX}),
    "other bytes than its digest": Answer(
        200,
        b'{"manifests": []}',
        {"Content-Type": INDEX, "Docker-Content-Digest": "sha256:" + "0" * 64},
    ),
}


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_what_is_no_manifest_is_nobodys_release(page, client, release, stand_in):
    """As `promote` and `rollback` look: never "overwritten by somebody else"."""
    typed = dict(page.headers) or {"Content-Type": lying_registry.MANIFEST}
    stand_in(twist=of_kind("manifests", replace(page, headers=typed)))
    with pytest.raises(RemoteUnavailableError) as caught:
        promote.check_name(client, release)
    assert f"https://{HOST}/v2/me/llama/manifests/{release.name}" in caught.value.what
    assert "delete" not in caught.value.hint


@pytest.mark.parametrize("left", [0, 1, 100, -1])
def test_nor_is_a_manifest_that_is_cut(left, client, release, stand_in):
    stand_in(bent("image", lambda content: json.dumps(content).encode()[:left]))
    with pytest.raises(RemoteUnavailableError, match="not its own"):
        promote.check_name(client, release)


@pytest.mark.parametrize(
    "digest",
    ["sha256:../../../../escaped", "sha256:" + "A" * 64, "sha256:" + "0" * 63, "x", "sha512:0", ""],
)
@pytest.mark.parametrize("document", ["artifact", "referrers", "image", "index"])
def test_what_is_no_digest_becomes_no_path(digest, document, client, stand_in, tmp_path):
    def named(content: dict[str, Any]) -> bytes:
        for one in [*content.get("layers", []), *content.get("manifests", [])]:
            one["digest"] = digest
        return json.dumps(content).encode()

    (tmp_path / "escaped.tar.gz").write_bytes(b"a file of this machine")
    before = sorted(tmp_path.rglob("*"))
    stand_in(bent(document, named), multi=document == "index")
    with pytest.raises(RemoteUnavailableError, match="not its own"):
        fetch(client)
    assert sorted(tmp_path.rglob("*")) == before


def fetch(client: RegistryClient) -> Path:
    _, manifest = published.locate(client, f"{REPOSITORY}:tiny")
    return attest.fetch_source(client, manifest.digest, Recorder())


def test_a_cached_source_is_hashed_again(client, stand_in):
    stand_in()
    file = fetch(client)
    file.write_bytes(b"what somebody else put into the cache")
    assert fetch(client) == file
    assert file.read_bytes() == b"the source"


def test_no_more_is_fetched_than_an_artifact_says_it_has(client, stand_in):
    def smaller(content: dict[str, Any]) -> bytes:
        for one in content["layers"]:
            one["size"] = 10**15
        return json.dumps(content).encode()

    stand_in(bent("artifact", smaller))
    with pytest.raises(RemoteUnavailableError, match="too large to be fetched"):
        fetch(client)
    assert not list((paths.cache() / "published").glob("*.gz*[!k]"))


@pytest.mark.parametrize("what", ["tags", "referrers"])
@pytest.mark.parametrize("leads", ["on", "back"])
def test_a_list_without_an_end_is_given_up(what, leads, client, stand_in, monkeypatch):
    monkeypatch.setattr(registry_client, "_MOST_PAGES", 20)
    numbers = itertools.count() if leads == "on" else itertools.repeat(1)

    def twist(_asked: str, answer: Answer) -> Answer:
        following = f'</v2/me/llama/{what}/list?after={next(numbers)}>; rel="next"'
        return replace(answer, headers={**answer.headers, "Link": following})

    stand_in(twist=twist, api=True)
    ask = client.tags if what == "tags" else lambda: client.referrers("sha256:" + "0" * 64)
    with pytest.raises(RemoteUnavailableError, match="list has no end"):
        ask()


def test_the_documents_of_every_page_are_listed(client, stand_in):
    world = stand_in(api=True)
    page = json.loads(world.referrers)["manifests"]

    def twist(asked: str, answer: Answer) -> Answer:
        if asked != "referrers":
            return answer
        rest = page.pop(0)
        body = json.dumps({"manifests": [rest]}).encode()
        more = {"Link": '</v2/me/llama/referrers/x?n=1>; rel="next"'} if len(page) == 4 else {}
        return Answer(200, body, {"Content-Type": INDEX, **more})

    world.twist, world.twisted = twist, True
    listed = client.referrers(world.subject["digest"])
    assert listed is not None
    assert len(listed.children) == 2


@pytest.mark.parametrize("count", [1001, 100_000])
def test_a_list_of_endless_documents_is_given_up(count, client, stand_in):
    entry = {"mediaType": INDEX, "digest": "sha256:" + "0" * 64, "size": 1}
    stand_in(bent("referrers", lambda _: json.dumps({"manifests": [entry] * count}).encode()))
    _, manifest = published.locate(client, f"{REPOSITORY}:tiny")
    with pytest.raises(RemoteUnavailableError):
        referrers.attached(client, manifest.digest)


def test_indexes_of_indexes_are_read_once_each(client, stand_in):
    """Sixty of them, each naming the next one twice: 2**60 ways down."""
    world = stand_in()
    digest = world.subject["digest"]
    for _ in range(60):
        entries = [{"digest": digest}, {"digest": digest, "annotations": {"a": "b"}}]
        made = world._manifest("nested", INDEX, {"manifests": entries})
        digest = made["digest"]
    assert client.complete(digest).digest == digest


@pytest.mark.parametrize(
    "reference",
    ["not an image", f"{HOST}/../x", f"{HOST}/me/llama:../x", f"{HOST}/me/x@sha256:../x", "", "A"],
)
def test_a_name_that_is_none_is_said_so(reference):
    with pytest.raises(UsageError, match="not a valid name of an image"):
        registry.image(reference)


def test_the_command_says_so_with_exit_2(tiny_pins):
    result = builder("verify", "not an image", "--pins", tiny_pins)
    assert result.returncode == 2, result.stderr
    assert "not a valid name of an image" in result.stderr
