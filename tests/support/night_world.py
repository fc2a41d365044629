"""A world for a night that nothing leaves: what is done in it is written to files."""

import os
import signal
from dataclasses import replace
from pathlib import Path

from builder.bump.fork import Stages as Proving
from builder.common.errors import BuildFailedError
from builder.freshness.report import Drift, ForkReport
from builder.nightly import night as nightly
from builder.nightly import nights
from builder.nightly.night import Case, Stages
from builder.pins import load as pins
from builder.release import record
from builder.release.record import Event, Index, Release
from tests.conftest import Recorder
from tests.unit.bump.test_bump import a_receipt, a_smoke, an_audit

REPOSITORY = "registry.example/me/llama"


class World:
    """What the night's steps did, in the order in which they did it, and how they are to fail."""

    def __init__(self, home: Path, *, broken: str = "", kill: str = "never") -> None:
        self.home, self.broken, self.kill = home, broken, kill
        self.record = home / "build" / "record"
        self.passed: list[str] = []
        """What the image had passed that was last published."""

    @property
    def done(self) -> list[str]:
        path = self.home / "done"
        return path.read_text().split() if path.exists() else []

    @property
    def floating(self) -> dict[str, str]:
        index = record.read_index(self.record)
        return index.floating if index else {}

    def did(self, what: str) -> None:
        with (self.home / "done").open("a") as file:
            file.write(f"{what}\n")
        if self.kill == f"in:{what}":
            os.kill(os.getpid(), signal.SIGKILL)

    def case(self, **changes: object) -> Case:
        file = self.home / "pins.toml"
        request = nightly.Request("tiny", REPOSITORY)
        stages = Stages(
            look=self.look,
            proving=Proving(build=self.build, audit=self.audit, smoke=self.smoke),
            publish=self.publish,
            promote=self.promote,
            propose=self.propose,
        )
        everything = pins.load(file)
        text = file.read_text()
        case = Case(file, text, everything, request, self.record, stages)
        return replace(case, **changes)

    def look(self, *_):
        self.did("freshness")
        drift = Drift("on branch", commits_behind=2, days_behind=1)
        return ForkReport("tiny", "", "master", "", "", "fresh", head="", drift=drift)

    def build(self, _, order, *__):
        self.did("build")
        if self.broken == "build":
            raise BuildFailedError("no build", why="a.cu(7)", log="/no/log", commits_fault=True)
        if self.broken == "machine":
            raise BuildFailedError("the disk is full")
        return a_receipt(order.ref, image=order.tag)

    def audit(self, *_):
        self.did("audit")
        return an_audit("fail" if self.broken == "audit" else "pass")

    def smoke(self, *_):
        self.did("smoke")
        return a_smoke("fail" if self.broken == "smoke" else "pass")

    def publish(self, case, _, found, *__):
        receipt, self.passed = found.receipt, found.passed
        release = Release(
            name=found.release,
            repository=REPOSITORY,
            variant="tiny",
            fork="tiny",
            commit=receipt.commit,
            build_number=3,
            digest="sha256:5678",
            published="2026-11-20T00:00:00Z",
            receipt=receipt,
            audit={},
            smoke={},
            required=["contract"],
            proven=["contract"],
            not_proven=["kv"],
        )
        index = record.read_index(case.record) or Index(REPOSITORY)
        names = list(dict.fromkeys([found.release, *index.releases]))
        record.write_release(case.record, release, replace(index, releases=names))
        self.did("publish")
        return "pushed"

    def promote(self, case, name, *_):
        index, release = record.read_index(case.record), record.read_release(case.record, name)
        event = Event("2026-11-20T00:00:00Z", "promoted", "tiny", index.floating.get("tiny"))
        release = replace(release, events=[*release.events, event])
        floating = {**index.floating, "tiny": name}
        record.write_release(case.record, release, replace(index, floating=floating))
        self.did("promote")
        return "moved tiny"

    def propose(self, *_):
        self.did("bump")
        return "opened"

    def tell(self, *_):
        self.did("tell")
        return ""

    def ends(self) -> nights.Ends:
        return nights.Ends(lambda *_: None, self.tell)


class Killing(Recorder):
    """Progress that ends the process when it is told of a step."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def step(self, text: str) -> None:
        super().step(text)
        if self.where == f"before:{text.removeprefix('tiny: ')}":
            os.kill(os.getpid(), signal.SIGKILL)


def ends(told: list[str] | None = None, bisect=None) -> nights.Ends:
    """After a night: what is told goes to the list."""

    def tell(fork, issue, *_):
        if told is not None:
            told.append(issue.text)
        return f"the issue of {fork}"

    return nights.Ends(bisect or (lambda *_: None), tell)


def killed(world: World, where: str) -> None:
    """A night of the world in a process that ends itself with SIGKILL.

    `where`: `before:STEP`, as the step begins and the one before it is written down, or `in:STEP`,
    when it has done what it does and that is not written down yet.
    """
    child = os.fork()
    if child == 0:
        try:
            world.kill = where
            nights.run([world.case()], world.ends(), Killing(where))
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL
