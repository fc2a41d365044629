"""`builder releases --prune` of a real registry that does not tell all: then it deletes nothing."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from builder.common.errors import RemoteUnavailableError
from builder.registry import referrers
from builder.registry.client import Manifest, RegistryClient
from builder.registry.referrers import Artifact, Document
from builder.release import prune as retention
from builder.release import record
from builder.release.prune import Pruned
from builder.release.record import Index, Release
from tests.support import kill_points, published
from tests.support.docker_registry import DockerRegistry
from tests.support.registry_proxy import Fault, Proxy, in_front_of
from tests.support.releasing import News

REPOSITORY = "me/tiny"
LIST = f"GET /v2/{REPOSITORY}/tags/list"
SPDX = "application/spdx+json"

pytestmark = pytest.mark.usefixtures("private_cache")


@dataclass
class World:
    """Three releases, newest first; `prod` is somebody's own tag of the oldest."""

    registry: DockerRegistry
    proxy: Proxy
    client: RegistryClient
    releases: list[Release]
    record: Path

    def prune(self, on: Callable[[str], object] = lambda _: None, **rules: bool) -> Pruned:
        return retention.prune(retention.Request(keep=1, **rules), self.record, News(on))

    def tag(self, tag: str, release: Release) -> None:
        self.client.put(self.client.complete(release.digest), tag)

    def there(self) -> list[str]:
        """The releases that the registry still has."""
        digests = {one.name: one.digest for one in self.releases}
        return [name for name, one in digests.items() if self.registry.digest(REPOSITORY, one)]

    @property
    def names(self) -> list[str]:
        return [one.name for one in self.releases]


@pytest.fixture
def world(docker_registry_server: DockerRegistry, tmp_path: Path) -> Iterator[World]:
    with (
        in_front_of(docker_registry_server) as proxy,
        RegistryClient(f"{proxy.host}/{REPOSITORY}") as client,
    ):
        made = [
            published.released(client, published.a_receipt(commit=letter * 40, build_number=n))
            for n, letter in enumerate("abc")
        ]
        folder = tmp_path / "record"
        names: list[str] = []
        for one in made:
            names.insert(0, one.name)
            record.write_release(folder, one, Index(one.repository, {"tiny": made[-1].name}))
        index = Index(made[0].repository, {"tiny": made[-1].name}, releases=names)
        record.write_release(folder, made[-1], index)
        world = World(docker_registry_server, proxy, client, made[::-1], folder)
        world.tag("prod", made[0])
        yield world


def test_with_the_whole_list_what_a_tag_stands_for_stays(world):
    assert world.prune().deleted == [world.names[1]]
    assert world.there() == [world.names[0], world.names[2]]


@pytest.mark.parametrize(
    "body",
    [
        b'{"name": "me/tiny", "tags": null}',
        b'{"name": "me/tiny", "tags": []}',
        b'{"name": "me/tiny"}',
        b'{"name": "me/tiny", "tags": ["tiny"]}',
        b'{"name": "me/tiny", "tags": ["others"]}',
    ],
    ids=["null", "none", "no list", "cut", "another's"],
)
def test_by_a_list_that_lacks_its_own_releases_nothing_is_deleted(world, body):
    world.proxy.faults = [Fault(LIST, times=9, status=200, body=body)]
    with pytest.raises(RemoteUnavailableError) as caught:
        world.prune()
    assert caught.value.exit_code == 6
    assert world.there() == world.names
    assert world.proxy.count("DELETE") == 0


def test_by_a_list_that_is_said_not_to_be_there_nothing_is_deleted(world):
    world.proxy.faults = [Fault(LIST, times=9, status=404)]
    with pytest.raises(RemoteUnavailableError):
        world.prune()
    assert world.there() == world.names


def test_a_list_that_lacks_one_of_its_own_names_is_not_whole(world):
    tags = [*world.names[:2], "tiny", "prod"]
    body = json.dumps({"tags": tags}).encode()
    world.proxy.faults = [Fault(LIST, times=9, status=200, body=body)]
    with pytest.raises(RemoteUnavailableError) as caught:
        world.prune(dry_run=True)
    assert f"it lacks {world.names[2]}" in caught.value.why


def test_a_list_that_fails_after_the_first_look_stops_it(world):
    """The second time it is asked for, before what goes is deleted."""

    def fail(text: str) -> None:
        if text.startswith("delete"):
            world.proxy.faults = [Fault(LIST, times=9, status=404)]

    with pytest.raises(RemoteUnavailableError):
        world.prune(fail)
    assert world.there() == world.names


@pytest.mark.parametrize("tag", ["prod", "new"], ids=["moved", "new"])
def test_a_tag_that_is_put_on_it_meanwhile_keeps_it(world, tag):
    def put(text: str) -> None:
        if text.startswith("delete"):
            world.tag(tag, world.releases[1])

    pruned = world.prune(put)
    assert world.names[1] not in pruned.deleted
    assert f"the tag {tag} stands for it" in {one.why for one in pruned.kept}
    assert world.names[1] in world.there()


def test_a_release_that_somebody_deleted_by_hand_is_no_gap_in_the_list(world):
    world.registry.ask("DELETE", f"{REPOSITORY}/manifests/{world.releases[1].digest}")
    assert world.prune().deleted == [world.names[1]]


def test_a_prune_that_is_killed_at_any_point_is_finished_by_the_next(world):
    ours, theirs = attach(world)
    whole = world.client.manifest(world.releases[1].digest), read(world.record)
    for number in kill_points.each():
        more = kill_points.kill(world.prune, number)
        world.prune()
        assert world.there() == [world.names[0], world.names[2]]
        assert world.client.manifest(ours) is None
        assert world.client.manifest(theirs) is not None
        index = record.read_index(world.record)
        assert index is not None
        assert index.releases == [world.names[0], world.names[2]]
        if not more:
            break
        again(world, *whole)
        ours, theirs = attach(world)


def test_attachments_of_somebody_else_stay(world):
    ours, theirs = attach(world)
    world.prune()
    assert world.client.manifest(ours) is None
    (left,) = referrers.attached(world.client, world.releases[1].digest)
    assert left.digest == theirs


def attach(world: World) -> tuple[str, str]:
    """What builder attached to the release that goes, and what a scanner did: their digests."""
    subject = world.client.manifest(world.releases[1].digest)
    assert subject is not None
    (ours,) = referrers.attach(
        world.client,
        subject,
        [Artifact(SPDX, [Document("sbom.spdx.json", SPDX, b"{}")])],
        record.now(),
    )
    theirs = published.attach_as_a_scanner(world.client, subject, SPDX)
    return ours.digest, theirs


def read(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*.json")}


def again(world: World, image: Manifest | None, files: Mapping[Path, bytes]) -> None:
    """The release that went, as it was."""
    assert image is not None
    world.client.put(image)
    world.client.put(image, world.names[1])
    for path, content in files.items():
        path.write_bytes(content)
