"""How a server ends."""

import pytest

from builder.smoke.probes.stop import Ending, stop

GOOD = [
    Ending("idle", 0.1, 0),
    Ending("in mid-stream", 0.2, 0),
    Ending("loading", 0.1, 143),
]


def test_documented_codes_in_time_pass():
    assert stop(GOOD).status == "pass"


@pytest.mark.parametrize("when", ["in mid-stream", "loading"])
@pytest.mark.parametrize("code", [0, 143])
def test_a_busy_server_may_end_either_way(when, code):
    others = [one for one in GOOD if one.when != when]
    assert stop([*others, Ending(when, 3.3, code)]).status == "pass"


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        (Ending("idle", 5.0, None), "idle: still running after 5.0 s"),
        (Ending("idle", 0.1, 143), "idle: exit code 143"),
        (Ending("in mid-stream", 0.1, 137), "in mid-stream: exit code 137"),
        (Ending("in mid-stream", 6.0, 0), "in mid-stream: exit code 0 after 6.0 s"),
        (Ending("loading", 5.1, None), "loading: still running"),
        (Ending("loading", 0.1, 139), "loading: exit code 139"),
    ],
)
def test_one_bad_end_fails_and_only_it_is_named(ending, words):
    others = [one for one in GOOD if one.when != ending.when]
    found = stop([*others, ending])
    assert found.status == "fail"
    assert words in found.observed
    assert ";" not in found.observed


def test_a_moment_that_was_missed_proves_nothing():
    found = stop([*GOOD[:2], Ending("loading", missed="it was never seen loading in 3 starts")])
    assert found.status == "unproven"
    assert "loading: not asked, it was never seen loading" in found.observed


def test_a_moment_that_was_missed_excuses_no_other():
    found = stop([Ending("idle", 5.0, None), Ending("loading", missed="never seen loading")])
    assert found.status == "fail"
