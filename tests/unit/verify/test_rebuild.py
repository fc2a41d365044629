"""A record that was lost comes back from a real registry, as far as that knows, and no further."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import requests

from builder.common.errors import NameTakenError, NotProvenError, RefNotFoundError, UsageError
from builder.image import contents as image_contents
from builder.model.pins import Pins
from builder.nightly.night import _was_promoted
from builder.pins import load as pins
from builder.registry.client import RegistryClient
from builder.release import attach as attest
from builder.release import promote, record, rollback
from builder.release.record import Event, Index, Release
from builder.release.record_source import RecordSource
from builder.verify import rebuild
from builder.verify import run as verifies
from builder.verify.rebuild import Rebuilt
from tests.conftest import SAMPLES, Recorder, builder
from tests.support import published
from tests.support.docker_registry import DockerRegistry, serve

pytestmark = pytest.mark.usefixtures("private_cache")


@pytest.fixture(scope="module")
def registry(
    registry_program: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DockerRegistry]:
    with serve(registry_program, tmp_path_factory.mktemp("registry")) as made:
        yield made


@dataclass
class World:
    """A repository of a registry, and the folder in which its record was."""

    repository: RegistryClient
    everything: Pins
    pins_file: Path
    tree: Path
    folder: Path

    def publish(self, number: int = 77, *, attached: bool = True, **labels: str) -> Release:
        """An image with all that goes with it, under its own tag and the variant's."""
        receipt = published.a_receipt_of(self.tree, self.everything)
        receipt = replace(receipt, build_number=number)
        release = published.released(self.repository, receipt, **labels)
        if attached:
            nobody: Any = None  # the engine is not asked
            there = attest.attach(nobody, release, self.everything, None, Recorder())
            release = replace(release, attachments=there)
        return release

    def rebuild(self, *, dry_run: bool = False) -> Rebuilt:
        return rebuild.rebuild(
            self.repository.repository, self.everything, self.folder, Recorder(), dry_run=dry_run
        )

    def promote(self, name: str) -> Release:
        request = promote.Request(name, self.everything, tags=("tiny",))
        return promote.promote(request, self.folder, Recorder())


@pytest.fixture
def world(
    request: pytest.FixtureRequest,
    registry: DockerRegistry,
    tiny_pins: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    monkeypatch.setattr(image_contents, "read", lambda *_: published.CONTENTS)
    tree = tmp_path / "tree"
    shutil.copytree(SAMPLES / "tiny", tree)
    name = "".join(one for one in request.node.name if one.islower())[:40]
    with RegistryClient(f"{registry.host}/{name}") as repository:
        yield World(repository, pins.load(tiny_pins), tiny_pins, tree, tmp_path / "record")


def test_a_lost_record_comes_back(world):
    was = world.publish()
    made = world.rebuild()
    index = record.read_index(world.folder)
    assert index == Index(was.repository, {"tiny": was.name}, releases=[was.name])
    now = record.read_release(world.folder, was.name)
    same = ("name", "repository", "variant", "fork", "commit", "build_number", "digest")
    more = ("audit", "smoke", "proven", "not_proven", "gpu", "registry_bytes", "attachments")
    for field in (*same, *more):
        if field != "registry_bytes":
            assert getattr(now, field) == getattr(was, field), field
    assert now.registry_bytes > 0
    built = ("variant", "fork", "commit", "commit_claimed", "build_number", "dockerfile_sha256")
    assert [getattr(now.receipt, one) for one in built] == [
        getattr(was.receipt, one) for one in built
    ]
    assert [one.name for one in made.added] == [was.name]
    assert (made.left, made.not_judged, made.exit_code) == ([], [], 0)


def test_it_says_what_nobody_can_know(world):
    was = world.publish()
    made = world.rebuild()
    event = record.read_release(world.folder, was.name).events[0]
    assert event.what == "rebuilt"
    for what in ("when its tags were moved", "what was required", "nights", "ccache"):
        assert what in event.note
        assert any(what in one for one in made.unknown)


def test_a_second_time_adds_nothing(world):
    was = world.publish()
    world.rebuild()
    before = {path: path.read_bytes() for path in world.folder.rglob("*.json")}
    made = world.rebuild()
    assert (made.added, made.known, made.floating) == ([], [was.name], {})
    assert {path: path.read_bytes() for path in world.folder.rglob("*.json")} == before


def test_it_vouches_for_nothing(world):
    """Whoever may write to the registry would vouch for themselves through the record."""
    was = world.publish()
    world.rebuild()
    found = verifies.verify(
        f"{was.repository}:tiny",
        world.everything,
        Recorder(),
        records=RecordSource(str(world.folder)),
    )
    assert (found.verdict, found.vouched) == ("unproven", [])


def test_a_record_that_lost_the_run_which_moved_a_tag_goes_on(world):
    """As on a hosted runner whose push of the record was lost: exit 8, for ever, it was."""
    old = world.publish(1)
    published.write_record(world.folder, old)
    lost = world.publish(2)
    with pytest.raises(NameTakenError) as caught:
        world.promote(old.name)
    assert "`builder record rebuild`" in caught.value.hint
    made = world.rebuild()
    assert (made.floating, made.known) == ({"tiny": lost.name}, [old.name])
    assert record.read_index(world.folder).releases == [lost.name, old.name]
    back = rollback.rollback(rollback.Request("tiny", world.everything), world.folder, Recorder())
    assert back.name == old.name
    assert world.promote(lost.name).name == lost.name


def test_what_no_evidence_shows_is_not_proven(world):
    was = world.publish(attached=False)
    made = world.rebuild()
    assert made.added[0].proven == []
    with pytest.raises(NotProvenError):
        world.promote(was.name)


def test_evidence_of_another_image_makes_no_release(world):
    was = world.publish(**{"org.example.other": "1"}, attached=False)
    liar = replace(was, smoke=published.a_smoke("sha256:" + "9" * 64))
    nobody: Any = None
    attest.attach(nobody, liar, world.everything, None, Recorder())
    made = world.rebuild()
    assert made.added == []
    assert [one.tag for one in made.left] == [was.name, "tiny"]
    assert "is not what it says it is" in made.left[0].why
    assert not (world.folder / "index.json").exists()


def test_an_image_under_another_images_tag_is_left(world):
    first = world.publish(1)
    world.publish(2)
    manifest = world.repository.manifest(first.digest)
    for tag in ("latest-of-them", "prod"):
        world.repository.put(manifest, tag)
    made = world.rebuild()
    assert {one.tag: one.why for one in made.left} == {
        "latest-of-them": f"by its labels it is {first.name}",
        "prod": f"by its labels it is {first.name}",
    }


def test_images_that_are_none_of_builders_hide_no_release(world):
    was = world.publish()
    published.push(world.repository, {"org.opencontainers.image.version": "b1"}, "theirs")
    hostile = published.labels(published.a_receipt(variant="../../../escaped"))
    published.push(world.repository, hostile, "escaped")
    made = world.rebuild()
    assert [one.name for one in made.added] == [was.name]
    assert sorted(one.tag for one in made.left) == ["escaped", "theirs"]
    assert not list(world.folder.parent.rglob("*escaped*"))


def test_the_registry_is_only_read(world, monkeypatch):
    world.publish()
    asked = set()
    real = requests.Session.request

    def noting(session, method, *words, **more):
        asked.add(method)
        return real(session, method, *words, **more)

    monkeypatch.setattr(requests.Session, "request", noting)
    world.rebuild()
    assert asked in ({"GET"}, {"GET", "HEAD"})


def test_a_dry_run_writes_nothing_and_says_the_same(world):
    world.publish()
    would = world.rebuild(dry_run=True)
    assert not world.folder.exists()
    assert replace(would, dry_run=False) == world.rebuild()


def test_a_night_does_not_promote_what_may_have_been_rolled_back_from(world):
    world.publish(1)
    left = world.publish(2)
    world.rebuild()
    assert _was_promoted(world.folder, left.name)


def test_a_repository_without_tags_is_exit_7_and_another_ones_record_exit_2(world):
    with pytest.raises(RefNotFoundError, match="has no tags"):
        world.rebuild()
    was = world.publish()
    published.write_record(world.folder, replace(was, repository="elsewhere/x"))
    with pytest.raises(UsageError, match="is of elsewhere/x"):
        world.rebuild()


def test_the_command_tells_it_as_json(world):
    was = world.publish()
    words = ["record", "rebuild", "--to", was.repository, "--record", str(world.folder), "--json"]
    made = builder(*words, "--pins", world.pins_file)
    assert made.returncode == 0, made.stderr
    told = json.loads(made.stdout)
    assert [one["name"] for one in told["added"]] == [was.name]
    assert (told["floating"], told["schema"], told["exit_code"]) == ({"tiny": was.name}, 1, 0)


def test_a_registry_that_does_not_answer_is_exit_6(tiny_pins, tmp_path):
    words = ["record", "rebuild", "--to", "127.0.0.1:1/me/x", "--record", str(tmp_path / "record")]
    made = builder(*words, "--pins", tiny_pins)
    assert made.returncode == 6
    assert not (tmp_path / "record").exists()


# --- A rollback that was killed -------------------------------------------------------------------


def test_a_rollback_that_was_killed_after_its_last_write_is_the_same_once_more(world):
    oldest, old, new = (world.publish(number) for number in (1, 2, 3))
    index, previous = Index(oldest.repository), None
    for one in (oldest, old, new):
        came = Event("2026-11-20T00:00:00Z", "promoted", "tiny", previous)
        index = replace(index, floating={"tiny": one.name}, releases=[one.name, *index.releases])
        record.write_release(world.folder, replace(one, events=[came]), index)
        previous = one.digest

    def back() -> str:
        request = rollback.Request("tiny", world.everything)
        return rollback.rollback(request, world.folder, Recorder()).name

    assert [back(), back()] == [old.name, old.name]
    rollback.told(world.folder, "tiny")
    assert back() == oldest.name


def test_a_promotion_since_then_counts_more_than_a_rollback_that_nobody_heard_of(world):
    old, new = (world.publish(number) for number in (1, 2))
    came = Event("2026-11-20T00:00:00Z", "promoted", "tiny", old.digest)
    index = Index(old.repository, {"tiny": new.name}, releases=[new.name, old.name])
    record.write_release(world.folder, old, index)
    record.write_release(world.folder, replace(new, events=[came]), index)
    request = rollback.Request("tiny", world.everything)
    assert rollback.rollback(request, world.folder, Recorder()).name == old.name
    world.promote(new.name)
    assert rollback.rollback(request, world.folder, Recorder()).name == old.name
