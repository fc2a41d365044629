"""SIGKILL after every single step of publish, promote and rollback, then the same once more.

At every moment the floating tags stand for a whole image that had passed, and the second run
finishes. The images are tiny and the verdicts stand-ins (tests/support/releasing.py); the registry,
the engine and the signal are real.
"""

from typing import Any

import pytest

from builder.release.record import Release
from tests.support.docker_registry import DockerRegistry
from tests.support.releasing import FLOATING, Publisher, Tiny, killed, passed, resolved

pytestmark = pytest.mark.engine

MOVES = [
    f"{tag}: {step}"
    for tag in FLOATING
    for step in (
        "write down what it is moved to",
        "tell the registry",
        "read it back",
        "write down that it moved",
    )
]
PROVING = [
    "look for",
    "audit sha256:",
    "smoke sha256:",
    "push",
    "upload the layers",
    "layer 1 of 1",
    "pull it back",
    "audit 127.0.0.1:",
    "smoke 127.0.0.1:",
    "attach",
    "write down what it passed",
]
NAMING = ["name it", "tiny-b", "look at"]


@pytest.mark.parametrize("step", [*PROVING, *NAMING, *MOVES])
def test_kill_of_a_publish(
    publisher: Publisher, tiny_images: Tiny, registry: DockerRegistry, step: str
) -> None:
    old = publisher.publish(tiny_images.image(b"old"))
    receipt = tiny_images.image(b"new")
    killed(lambda on: publisher.publish(receipt, on), at=step)
    whole(publisher, registry, old)
    new = publisher.publish(receipt)
    assert finished(publisher, registry, new, old) == dict.fromkeys(FLOATING, old.digest)


@pytest.mark.parametrize("step", ["name it", "tiny-nightly: read it back", "tiny: tell"])
def test_kill_of_the_first_publish(
    publisher: Publisher, tiny_images: Tiny, registry: DockerRegistry, step: str
) -> None:
    receipt = tiny_images.image(b"first")
    killed(lambda on: publisher.publish(receipt, on), at=step)
    whole(publisher, registry, None)
    release = publisher.publish(receipt)
    assert finished(publisher, registry, release, None) == dict.fromkeys(FLOATING)


@pytest.mark.parametrize("step", ["look at", *MOVES[:4]])
def test_kill_of_a_promotion(
    publisher: Publisher, tiny_images: Tiny, registry: DockerRegistry, step: str
) -> None:
    old = publisher.publish(tiny_images.image(b"old"))
    new = publisher.publish(tiny_images.image(b"new"), promote=False)
    killed(lambda on: publisher.promote(new.name, on=on), at=step)
    whole(publisher, registry, old)
    new = publisher.promote(new.name)
    assert finished(publisher, registry, new, old) == dict.fromkeys(FLOATING, old.digest)


@pytest.mark.parametrize("step", ["look at", *MOVES[4:8]])
def test_kill_of_a_rollback(
    publisher: Publisher, tiny_images: Tiny, registry: DockerRegistry, step: str
) -> None:
    old = publisher.publish(tiny_images.image(b"old"))
    new = publisher.publish(tiny_images.image(b"new"))
    killed(lambda on: publisher.rollback(old.name, on=on), at=step)
    whole(publisher, registry, old)
    publisher.rollback(old.name)
    assert [resolved(registry, tag) for tag in FLOATING] == [old.digest] * 3
    assert resolved(registry, new.name) == new.digest


def test_kill_and_then_another_image_instead(
    publisher: Publisher, tiny_images: Tiny, registry: DockerRegistry
) -> None:
    publisher.publish(tiny_images.image(b"old"))
    left = tiny_images.image(b"left")
    killed(lambda on: publisher.publish(left, on), at="tiny: read it back")
    other = publisher.publish(tiny_images.image(b"other"))
    assert [resolved(registry, tag) for tag in FLOATING] == [other.digest] * 3


def whole(who: Publisher, registry: DockerRegistry, old: Release | None) -> None:
    """Every floating tag stands for what passed, all of it there; none went before a first one."""
    for tag in FLOATING:
        digest = resolved(registry, tag)
        assert digest == (old.digest if old else None) or (digest and passed(who, digest))


def finished(
    who: Publisher, registry: DockerRegistry, new: Release, old: Release | None
) -> dict[str, Any]:
    """Record and registry say the same; what each floating tag stood for before, by the record."""
    assert [resolved(registry, tag) for tag in (*FLOATING, new.name)] == [new.digest] * 4
    assert who.index.floating == dict.fromkeys(FLOATING, new.name)
    assert who.index.moving == {}
    assert who.index.releases == [new.name, *([old.name] if old else [])]
    moved = [one for one in who.recorded(new.name).events if one.what == "promoted"]
    assert [one.tag for one in moved] == list(FLOATING)
    return {str(one.tag): one.previous for one in moved}
