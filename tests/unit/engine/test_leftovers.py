"""Whose a server is that nobody stopped: only what no living builder owns may be removed."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from builder.engine import containers as container
from builder.engine import leftovers, ownership, processes
from builder.model.labels import PROFILE
from tests.conftest import ROOT, Recorder

BEFORE_THIS_BOOT, SINCE = "1999-01-01T00:00:00.1Z", "2999-01-01T00:00:00.1Z"

CHILD = """
import sys
from builder.engine import ownership
print(ownership.mark(), flush=True)
sys.stdin.read()
"""


@dataclass
class Process:
    """Another builder, and its mark."""

    process: "subprocess.Popen[str]"
    mark: str


@pytest.fixture
def another() -> Iterator[Process]:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield Process(process, process.stdout.readline().strip())
        process.kill()


def test_a_process_knows_itself_by_its_mark() -> None:
    assert ownership.mark() == ownership.mark()
    assert ownership.lives(ownership.mark()) is True


def test_a_builder_lives_until_it_ends(another: Process) -> None:
    assert another.mark != ownership.mark()
    assert ownership.lives(another.mark) is True
    another.process.kill()
    # Ended, and not collected yet: its number is still taken.
    os.waitid(os.P_PID, another.process.pid, os.WEXITED | os.WNOWAIT)
    assert ownership.lives(another.mark) is False
    another.process.wait()
    assert ownership.lives(another.mark) is False


def changed(place: int, value: str) -> str:
    parts = ownership.mark().split()
    parts[place] = value
    return " ".join(parts)


def test_a_number_that_another_process_has_now_is_not_the_builder() -> None:
    assert ownership.lives(changed(3, "1")) is False


@pytest.mark.parametrize(
    "owner",
    [
        "",
        "builder",
        "0123",
        "a b c d",
        changed(0, "4176d128-0000-0000-0000-000000000000"),
        changed(1, "pid:[1]"),
    ],
    ids=["none", "a name", "a number", "four words", "another boot", "other processes"],
)
def test_nobody_knows_of_a_builder_elsewhere(owner: str) -> None:
    assert ownership.lives(owner) is None


# --- Containers


@dataclass
class Made:
    """A container as the engine lists it."""

    name: str
    labels: dict[str, str]
    attrs: dict[str, Any]


@dataclass
class Engine:
    """An engine with these containers, in place of one with its network."""

    there: list[Made]
    gone: list[str] = field(default_factory=list)

    @property
    def containers(self) -> "Engine":
        return self

    @property
    def api(self) -> "Engine":
        return self

    def list(self, *, filters: dict[str, str], **asked: bool) -> list[Made]:
        # Without `ignore_removed` one that another builder removes meanwhile ends the listing.
        assert asked == {"all": True, "ignore_removed": True}
        return [one for one in self.there if filters["label"] in one.labels]

    def remove_container(self, name: str, **_how: object) -> None:
        self.gone.append(name)


def made(
    owner: str,
    name: str = "builder-0123456789ab",
    *,
    running: bool = True,
    created: str = SINCE,
    **labels: str,
) -> Made:
    marks = {container.LABEL: "builder", container.OWNER: owner, **labels}
    return Made(name, marks, {"State": {"Running": running}, "Created": created})


DEAD = changed(3, "1")
OTHER_BOOT = changed(0, "4176d128-0000-0000-0000-000000000000")


@pytest.mark.parametrize(
    ("one", "removed", "unknown"),
    [
        (made(DEAD), 1, 0),
        (made(DEAD, running=False), 1, 0),
        (made(ownership.mark()), 0, 0),
        # A profile's server stays, whoever started it.
        (made(DEAD, **{PROFILE: "local"}), 0, 0),
        # A user's, from an image that was made of one of ours.
        (made(DEAD, name="my-server"), 0, 0),
        (made("", name="builder-000000000000"), 0, 1),
        (made(changed(1, "pid:[1]")), 0, 1),
        # From before the machine was started again; or another machine's, which may live.
        (made(OTHER_BOOT, running=False, created=BEFORE_THIS_BOOT), 1, 0),
        (made(OTHER_BOOT, running=False), 0, 1),
        (made(OTHER_BOOT, created=BEFORE_THIS_BOOT), 0, 1),
    ],
)
def test_what_no_living_builder_owns_is_removed(
    one: Made, removed: int, unknown: int, progress: Recorder
) -> None:
    engine = Engine([one])
    left = leftovers.remove(engine, progress)  # type: ignore[arg-type]
    assert (len(left.removed), len(left.unknown)) == (removed, unknown)
    assert engine.gone == list(left.removed)
    assert len(progress.steps) == removed


# --- Programs


@pytest.mark.parametrize(
    ("owner", "ends"), [(DEAD, True), (ownership.mark(), False)], ids=["dead", "living"]
)
def test_a_program_that_no_living_builder_owns_is_ended(owner: str, *, ends: bool) -> None:
    environment = os.environ | {ownership.VARIABLE: owner}
    with subprocess.Popen(["sleep", "600"], env=environment) as program:
        assert (program.pid, owner) in [*processes.marked(ownership.VARIABLE)]
        leftovers.end_programs()
        if not ends:
            assert program.poll() is None
            program.kill()
        program.wait(timeout=5)


@pytest.mark.parametrize("number", ["9" * 30, "²", "١", "-1", ""])
def test_a_mark_with_another_number_than_a_processs_tells_nothing(number: str) -> None:
    boot, namespace, _, began = ownership.mark().split()
    assert ownership.lives(f"{boot} {namespace} {number} {began}") is None
