"""What an image's HEALTHCHECK answers, asked where it has to say yes and where it has to say no."""

import dataclasses

import pytest

from builder.engine import containers as container
from builder.llama.target import CheckCommand, CheckRun
from builder.smoke.probes.health_command import Answers, healthcheck

YES, NO = CheckRun(0), CheckRun(1)
HUNG = CheckRun(fault="no end after 5 s")

SCRIPT = CheckCommand(("/usr/local/bin/healthcheck",), 5.0)
CURL = CheckCommand(("curl", "-f", "http://localhost:8080/health"), 30.0)

GOOD = Answers(ready=YES, moved=YES, nobody=NO, loading=NO)


def status(answers: Answers, command: CheckCommand | None = SCRIPT) -> str:
    return healthcheck(command, answers, 8080).status


def test_yes_where_a_server_is_ready_and_no_elsewhere_passes() -> None:
    found = healthcheck(SCRIPT, GOOD, 8080)
    assert found.status == "pass"
    assert found.observed == (
        "ready: exit code 0; on another port: exit code 0; no server: exit code 1; "
        "loading: exit code 1"
    )


@pytest.mark.parametrize(
    ("where", "run", "why"),
    [
        ("ready", NO, "not healthy beside a server that is ready: exit code 1"),
        ("ready", HUNG, "not healthy beside a server that is ready: no end after 5 s"),
        ("moved", NO, "not healthy beside a server on another port: exit code 1"),
        ("nobody", YES, "healthy where no server is"),
        ("loading", YES, "healthy beside a server that still loads"),
    ],
)
def test_one_wrong_answer_fails(where: str, run: CheckRun, why: str) -> None:
    found = healthcheck(SCRIPT, dataclasses.replace(GOOD, **{where: run}), 8080)
    assert (found.status, found.observed) == ("fail", why)


@pytest.mark.parametrize("where", ["nobody", "loading"])
@pytest.mark.parametrize("run", [HUNG, CheckRun(7)])
def test_any_other_end_is_a_no(where: str, run: CheckRun) -> None:
    assert status(dataclasses.replace(GOOD, **{where: run})) == "pass"


def test_a_check_whose_words_name_the_default_port_is_about_that_port_alone() -> None:
    found = healthcheck(CURL, dataclasses.replace(GOOD, moved=CheckRun(7)), 8080)
    assert found.status == "pass"
    assert found.observed.endswith("it is about port 8080 alone")
    assert status(dataclasses.replace(GOOD, ready=NO), CURL) == "fail"
    assert status(dataclasses.replace(GOOD, nobody=YES), CURL) == "fail"


@pytest.mark.parametrize("where", ["ready", "moved", "nobody", "loading"])
def test_what_nobody_could_ask_is_unproven(where: str) -> None:
    assert status(dataclasses.replace(GOOD, **{where: None})) == "unproven"


def test_where_no_start_was_caught_loading_half_is_unproven() -> None:
    found = healthcheck(SCRIPT, dataclasses.replace(GOOD, loading=None), 8080)
    assert found.status == "unproven"
    assert found.observed.endswith("loading: not asked")


def test_what_could_not_be_asked_excuses_nothing() -> None:
    assert status(Answers(moved=NO)) == "fail"


def test_no_healthcheck_fails() -> None:
    assert status(Answers(), None) == "fail"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"Healthcheck": {"Test": ["CMD", "a", "b"]}}, ("a", "b")),
        ({"Healthcheck": {"Test": ["CMD-SHELL", "a b"]}}, ("/bin/sh", "-c", "a b")),
        (
            {"Healthcheck": {"Test": ["CMD-SHELL", "a"]}, "Shell": ["bash", "-ec"]},
            ("bash", "-ec", "a"),
        ),
    ],
)
def test_a_check_is_run_as_the_engine_runs_it(
    config: dict[str, object], words: tuple[str, ...]
) -> None:
    assert container.check_command(config) == CheckCommand(words, 30.0)


def test_a_check_has_the_time_that_the_image_gives_it() -> None:
    config = {"Healthcheck": {"Test": ["CMD", "a"], "Timeout": 5_000_000_000}}
    assert container.check_command(config) == CheckCommand(("a",), 5.0)


@pytest.mark.parametrize(
    "config",
    [{}, {"Healthcheck": None}, {"Healthcheck": {}}, {"Healthcheck": {"Test": ["NONE"]}}],
)
def test_no_check_is_none(config: dict[str, object]) -> None:
    assert container.check_command(config) is None
