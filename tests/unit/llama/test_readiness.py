from functools import reduce

import pytest

from builder.llama import readiness
from builder.llama.client import Answer
from builder.llama.readiness import Observation, Phase, Wait


def wait(*seen: Observation, timeout_s: float = 10.0) -> Wait:
    return reduce(Wait.after, seen, Wait(timeout_s))


SILENT = Observation(0.1, "silent")
LOADING = Observation(0.5, "loading")
READY = Observation(1.0, "ok")
EXITED = Observation(1.5, "silent", running=False, exit_code=1)


@pytest.mark.parametrize(
    ("seen", "phase"),
    [
        ([], Phase.STARTING),
        ([SILENT], Phase.STARTING),
        ([LOADING], Phase.LOADING),
        ([LOADING, SILENT], Phase.LOADING),
        ([Observation(0.5, "other")], Phase.STARTING),
        ([SILENT, LOADING, READY], Phase.READY),
        ([SILENT, EXITED], Phase.EXITED),
        ([LOADING, EXITED], Phase.EXITED),
        ([Observation(10.0, "silent")], Phase.TIMED_OUT),
        ([Observation(10.0, "loading")], Phase.TIMED_OUT),
        ([Observation(10.0, "other")], Phase.TIMED_OUT),
    ],
)
def test_phase(seen: list[Observation], phase: Phase) -> None:
    assert wait(*seen).phase is phase


@pytest.mark.parametrize("health", ["ok", "loading", "silent", "other"])
def test_an_exit_is_seen_whatever_health_said(health: readiness.Health) -> None:
    assert wait(Observation(0.2, health, running=False, exit_code=0)).phase is Phase.EXITED


def test_ready_at_the_deadline_is_ready() -> None:
    assert wait(Observation(10.0, "ok")).phase is Phase.READY


@pytest.mark.parametrize("last", [READY, EXITED, Observation(10.0, "silent")])
def test_nothing_follows_the_end(last: Observation) -> None:
    ended = wait(LOADING, last)
    assert ended.over
    assert ended.after(READY) == ended.after(EXITED) == ended


@pytest.mark.parametrize(
    ("answer", "health"),
    [
        (Answer(None, "refused"), "silent"),
        (Answer(200, "", {"status": "ok"}), "ok"),
        (Answer(200, "", {"error": "no"}), "other"),
        (Answer(200, "<html>", None), "other"),
        (Answer(503, "", {"error": {"message": "Loading model"}}), "loading"),
        (Answer(404, "", None), "other"),
    ],
)
def test_health(answer: Answer, health: readiness.Health) -> None:
    assert readiness.health(answer) == health


@pytest.mark.parametrize(
    ("seen", "status", "observed"),
    [
        ([LOADING, READY], "pass", "503 while loading, then 200 after 1.0 s"),
        ([READY], "pass", "200 after 1.0 s"),
        ([EXITED], "fail", "the server exited after 1.5 s: exit code 1"),
        ([Observation(12.0, "loading")], "fail", "still loading after 12.0 s"),
        ([Observation(12.0, "silent")], "fail", "no answer after 12.0 s"),
        ([Observation(12.0, "other")], "fail", "no answer that makes sense after 12.0 s"),
    ],
)
def test_finding(seen: list[Observation], status: str, observed: str) -> None:
    found = readiness.finding(wait(*seen))
    assert (found.status, found.observed) == (status, observed)


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (Observation(1, "silent", running=False, exit_code=132), "exit code 132 (SIGILL)"),
        (
            Observation(1, "silent", running=False, exit_code=137, out_of_memory=True),
            "killed for want of memory",
        ),
    ],
)
def test_finding_says_how_it_ended(end: Observation, words: str) -> None:
    assert readiness.finding(wait(end)).observed.endswith(words)
