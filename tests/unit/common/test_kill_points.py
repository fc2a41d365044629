"""SIGKILL before every write of promote and rollback, and a full disk there: the next run mends.

The registry, the signal and the files are real. Those of prune are in test_retention.py, of what
goes with an image in test_attest.py, of a whole publish in tests/engine/test_publish_kill.py.
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from builder.common.errors import FileError
from builder.model.pins import Pins
from builder.pins import load as pins
from builder.registry.client import RegistryClient
from builder.release import promote, record, rollback
from builder.release.record import Index, Release
from tests.conftest import Recorder
from tests.support import kill_points, published
from tests.support.docker_registry import DockerRegistry

pytestmark = pytest.mark.usefixtures("private_cache")

REPOSITORY = "me/tiny"
TAGS = ("tiny-nightly", "tiny")


@dataclass
class World:
    """Two releases; the tags stand for the old one, and the record says so."""

    registry: DockerRegistry
    client: RegistryClient
    pins: Pins
    folder: Path
    old: Release
    new: Release
    number: int = 0

    @property
    def record(self) -> Path:
        return self.folder / str(self.number)

    def begin(self) -> None:
        """Both as at first, in a record of its own."""
        start = self.record
        self.number += 1
        shutil.copytree(self.folder / "0", self.record)
        for tag in TAGS if start else ():
            self.client.put(self.client.complete(self.old.digest), tag)

    def promote(self) -> Release:
        request = promote.Request(self.new.name, self.pins, TAGS)
        return promote.promote(request, self.record, Recorder())

    def rollback(self, to: str | None = None) -> Release:
        return rollback.rollback(rollback.Request("tiny", self.pins, to), self.record, Recorder())

    @property
    def tags(self) -> list[str | None]:
        return [self.registry.digest(REPOSITORY, tag) for tag in TAGS]

    @property
    def index(self) -> Index:
        found = record.read_index(self.record)
        assert found is not None
        return found

    def stands_for(self, release: Release) -> bool:
        """In the registry and in the record, with nothing under way."""
        told = (self.index.floating, self.index.moving)
        return (self.tags, told) == (
            [release.digest] * 2,
            (dict.fromkeys(TAGS, release.name), {}),
        )


@pytest.fixture
def world(
    docker_registry_server: DockerRegistry, tiny_pins: Path, tmp_path: Path
) -> Iterator[World]:
    with RegistryClient(f"{docker_registry_server.host}/{REPOSITORY}") as client:
        old, new = (
            published.released(client, published.a_receipt(commit=letter * 40)) for letter in "ab"
        )
        folder = tmp_path / "records"
        index = Index(client.repository, {}, releases=[new.name, old.name])
        for one in (old, new):
            record.write_release(folder / "0", one, index)
        made = World(docker_registry_server, client, pins.load(tiny_pins), folder, old, new)
        made.client.put(made.client.complete(old.digest), "tiny")
        request = promote.Request(old.name, made.pins, TAGS)
        promote.promote(request, folder / "0", Recorder())
        made.begin()
        yield made


def whole(world: World) -> bool:
    return set(world.tags) <= {world.old.digest, world.new.digest}


def test_a_promotion_that_is_killed_at_any_point_is_finished_by_the_next(world):
    for number in kill_points.each():
        more = kill_points.kill(world.promote, number)
        assert whole(world)
        world.promote()
        assert world.stands_for(world.new)
        # What each tag stood for before is known, so that one can go back.
        world.rollback()
        assert world.stands_for(world.old)
        if not more:
            break
        world.begin()
    assert number > 2 * 5


def test_a_rollback_that_is_killed_at_any_point_is_finished_by_the_next(world):
    for number in kill_points.each():
        world.promote()
        more = kill_points.kill(lambda: world.rollback(world.old.name), number)
        assert whole(world)
        world.rollback(world.old.name)
        assert world.stands_for(world.old)
        if not more:
            break
        world.begin()
    assert number > 2 * 5


def fails_at(number: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """The disk is full at so many files of the record; the answer empties it again."""
    left = number
    fdopen = os.fdopen

    class Full:
        def __init__(self, file: Any) -> None:
            self._file = file

        def __enter__(self) -> "Full":
            return self

        def __exit__(self, *_: object) -> None:
            self._file.close()

        def write(self, _: bytes) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def opened(descriptor: int, mode: str = "r", *words: Any, **more: Any) -> Any:
        nonlocal left
        file = fdopen(descriptor, mode, *words, **more)
        left -= mode == "wb"
        return Full(file) if mode == "wb" and left <= 0 else file

    monkeypatch.setattr(os, "fdopen", opened)
    return lambda: monkeypatch.setattr(os, "fdopen", fdopen)


def test_a_full_disk_under_a_promotion_is_said_and_the_next_finishes_it(world, monkeypatch):
    for number in range(1, 14):
        make_room = fails_at(number, monkeypatch)
        with pytest.raises(OSError, match="No space left") as caught:
            world.promote()
        make_room()
        told = FileError.of(caught.value)
        assert told is not None
        assert (told.exit_code, "make room" in told.hint) == (2, True)
        assert str(world.record) in told.what
        assert whole(world)
        world.promote()
        assert world.stands_for(world.new)
        world.rollback()
        assert world.stands_for(world.old)
        world.begin()
