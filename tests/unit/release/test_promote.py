"""promote and rollback, and their dry runs, before a registry that answers something else."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from builder.common.errors import NameTakenError, RefNotFoundError, RemoteUnavailableError
from builder.model.pins import Pins
from builder.pins import load as pins
from builder.registry.client import RegistryClient
from builder.release import promote, record, rollback
from builder.release.record import Index, Release
from tests.conftest import Recorder
from tests.support import published
from tests.support.docker_registry import DockerRegistry
from tests.support.registry_proxy import Fault, Proxy, in_front_of

REPOSITORY = "me/tiny"
TAGS = ("tiny-nightly", "tiny", "latest")

pytestmark = pytest.mark.usefixtures("private_cache")


@dataclass
class World:
    """Two releases; the tags stand for the newer one."""

    registry: DockerRegistry
    proxy: Proxy
    client: RegistryClient
    pins: Pins
    record: Path
    old: Release
    new: Release

    def commands(self) -> dict[str, Callable[[], object]]:
        forth = promote.Request(self.new.name, self.pins)
        back = rollback.Request("tiny", self.pins)
        return {
            "promote": lambda: promote.promote(forth, self.record, Recorder()),
            "rollback": lambda: rollback.rollback(back, self.record, Recorder()),
            "promote --dry-run": lambda: promote.plan(forth, self.record),
            "rollback --dry-run": lambda: rollback.plan(back, self.record),
        }


@pytest.fixture
def world(
    docker_registry_server: DockerRegistry, tiny_pins: Path, tmp_path: Path
) -> Iterator[World]:
    with (
        in_front_of(docker_registry_server) as proxy,
        RegistryClient(f"{proxy.host}/{REPOSITORY}") as client,
    ):
        old, new = (
            published.released(client, published.a_receipt(commit=letter * 40)) for letter in "ab"
        )
        folder, everything = tmp_path / "record", pins.load(tiny_pins)
        index = Index(client.repository, {}, releases=[new.name, old.name])
        for one in (old, new):
            record.write_release(folder, one, index)
        client.put(client.complete(old.digest), "tiny")
        for one in (old, new):
            promote.promote(promote.Request(one.name, everything), folder, Recorder())
        yield World(docker_registry_server, proxy, client, everything, folder, old, new)


def cut(world: World) -> dict[str, object]:
    answer = world.registry.ask("GET", f"{REPOSITORY}/manifests/{world.new.name}")
    kind = answer.headers["Content-Type"]
    return {"status": 200, "headers": {"Content-Type": kind}, "body": answer.content[:-9]}


def page(_: World) -> dict[str, object]:
    return {"status": 200, "headers": {"Content-Type": "text/html"}, "body": b"<html>maintenance"}


NAMES = ("promote", "rollback", "promote --dry-run", "rollback --dry-run")


@pytest.mark.parametrize("odd", [cut, page])
@pytest.mark.parametrize("name", NAMES)
def test_another_body_is_a_registry_at_fault_and_nobodys_overwriting(world, odd, name):
    command = world.commands()[name]
    world.proxy.faults = [Fault("GET .*/manifests/", times=99, **odd(world))]
    with pytest.raises(RemoteUnavailableError) as caught:
        command()
    error = caught.value
    assert error.exit_code == 6
    told = f"{error.what} {error.why} {error.hint}"
    assert world.proxy.host in told
    assert "delete" not in told
    assert world.registry.digest(REPOSITORY, "tiny") == world.new.digest


@pytest.mark.parametrize("name", NAMES)
def test_a_release_that_is_gone_is_said_to_be(world, name):
    command = world.commands()[name]
    for one in (world.old, world.new):
        world.registry.ask("DELETE", f"{REPOSITORY}/manifests/{one.digest}")
    with pytest.raises(RefNotFoundError):
        command()


@pytest.mark.parametrize("name", NAMES)
def test_a_tag_that_somebody_else_moved_is_seen(world, name):
    command = world.commands()[name]
    other = published.push(world.client, {"another": "label"}, "latest")
    with pytest.raises(NameTakenError):
        command()
    assert world.registry.digest(REPOSITORY, "latest") == other.digest


def test_a_dry_run_changes_nothing(world):
    before = world.proxy.count("^(PUT|POST|DELETE)")
    release, moved = rollback.plan(rollback.Request("tiny", world.pins), world.record)
    assert (release.name, set(moved)) == (world.old.name, set(TAGS))
    assert world.proxy.count("^(PUT|POST|DELETE)") == before
    assert world.registry.digest(REPOSITORY, "tiny") == world.new.digest
