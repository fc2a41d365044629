"""A smoke's report: what its verdicts add up to, and how it is written down."""

import dataclasses
import json

import pytest
from junitparser import Failure, JUnitXml, Skipped

from builder.model.finding import Finding
from builder.model.pins import Kv, Profile
from builder.smoke.probes.kv import InEffect, KvVerdict
from builder.smoke.report import CONTRACT, SmokeReport, proven, to_json, to_markdown, write_junit

FALLBACK = KvVerdict(
    asked=Kv("turbo4", "turbo4"),
    in_effect=(InEffect("full", 8, "q8_0", "q8_0"),),
    status="unproven",
    reason="no GPU",
    bytes="as q8_0",
    words="falling back",
    numbers="as q8_0",
)


def report(**statuses: str) -> SmokeReport:
    """A report in which every probe passed but those named, and kv is unproven."""
    given = {**dict.fromkeys(CONTRACT, "pass"), "kv": "unproven", **statuses}
    return SmokeReport(
        target="turboquant:x",
        kind="image",
        image_id="sha256:0",
        variant="x",
        profile=Profile("alias", 2, 2048),
        model="m.gguf",
        kv=dataclasses.replace(FALLBACK, status=given["kv"]),
        findings=[Finding(name, status, "a | b", "<c>\nd") for name, status in given.items()],
        required=[],
        not_available=[],
        ready_s=0.24,
        duration_s=9.96,
    )


def requiring(found: SmokeReport, *words: str) -> SmokeReport:
    return dataclasses.replace(found, required=list(words))


def test_what_is_unproven_does_not_fail():
    assert report().passed


def test_a_server_of_which_nothing_is_proven_but_that_it_answers_does_not_pass():
    locked = report(**{**dict.fromkeys(CONTRACT, "unproven"), "ready": "pass"})
    assert not locked.passed
    assert locked.headline.startswith("FAIL  ")
    assert ": nothing proven; " in locked.headline


def test_one_failure_fails():
    found = report(slots="fail")
    assert (found.passed, found.failed) == (False, ["slots"])


def test_what_is_required_has_to_be_proven():
    found = requiring(report(), "kv")
    assert (found.passed, found.failed, found.missing) == (False, [], ["kv"])
    assert requiring(report(kv="pass"), "kv").passed


@pytest.mark.parametrize("probe", CONTRACT)
def test_the_contract_is_every_probe_but_those_of_the_hardware(probe):
    assert requiring(report(), "contract").passed
    assert requiring(report(**{probe: "unproven"}), "contract").missing == [probe]


def test_a_fallback_is_said_so_that_nobody_misreads_it():
    assert report().headline == (
        "PASS  turboquant:x: KV NOT PROVEN: turbo4 asked, q8_0 in effect: no GPU; "
        "ready after 0.2 s; 10.0 s in all"
    )


def test_a_proof_is_short():
    assert "KV turbo4 in effect" in report(kv="pass").headline


def test_failures_come_first():
    found = requiring(report(slots="fail", kv="fail"), "contract")
    assert found.headline.startswith("FAIL  turboquant:x: failed: slots, kv; KV WRONG: turbo4")


def test_a_required_proof_that_is_missing_comes_first():
    found = requiring(report(), "kv")
    assert found.headline.startswith("FAIL  turboquant:x: required and not proven: kv; KV NOT")


def test_a_server_that_never_got_ready():
    assert "never ready" in dataclasses.replace(report(), ready_s=None).headline


def test_json_has_the_verdicts_beside_the_findings():
    found = json.loads(to_json(requiring(report(slots="fail"), "kv")))
    assert found["schema"] == 2
    assert (found["passed"], found["failed"], found["missing"]) == (False, ["slots"], ["kv"])
    assert found["kv"]["in_effect"] == [{"cache": "full", "layers": 8, "k": "q8_0", "v": "q8_0"}]


def test_junit_skips_what_is_unproven_and_fails_what_is_required(tmp_path):
    path = tmp_path / "smoke.xml"
    write_junit(requiring(report(slots="fail", offload="unproven"), "kv"), path)
    (suite,) = JUnitXml.fromfile(str(path))
    assert suite.time == 9.96
    kinds = {case.name: [type(one) for one in case.result] for case in suite}
    assert kinds["ready"] == []
    assert kinds["slots"] == [Failure]
    assert kinds["kv"] == [Failure]
    assert kinds["offload"] == [Skipped]
    assert [path] == list(tmp_path.iterdir())


def test_markdown_keeps_a_finding_in_its_row():
    lines = to_markdown(report()).splitlines()
    assert "| ready | pass | a \\| b | &lt;c&gt; d |" in lines
    assert lines[0].startswith("### PASS")


@pytest.mark.parametrize(
    ("statuses", "shown"),
    [
        ({}, []),
        (dict.fromkeys(CONTRACT, "pass"), ["contract"]),
        ({**dict.fromkeys(CONTRACT, "pass"), "kv": "pass", "offload": "pass"}, ["contract", "kv"]),
        ({**dict.fromkeys(CONTRACT, "pass"), "stop": "unproven", "kv": "pass"}, ["kv"]),
        ({**dict.fromkeys(CONTRACT, "pass"), "stop": "fail", "kv": "unproven"}, []),
        (dict.fromkeys(CONTRACT[1:], "pass"), []),
        (dict.fromkeys((*CONTRACT, "kv"), "fail"), []),
    ],
)
def test_the_contract_is_shown_by_all_of_its_probes_and_the_kv_type_by_its_own(statuses, shown):
    assert proven(statuses) == shown


@pytest.mark.parametrize(
    ("k", "v", "held"),
    [
        ("q8_0", "q8_0", "q8_0"),
        ("f16", "q8_0", "K f16, V q8_0"),
        ("q8_0", "f16", "K q8_0, V f16"),
    ],
)
def test_what_is_held_names_both_halves_where_they_differ(k, v, held):
    found = dataclasses.replace(FALLBACK, in_effect=(InEffect("full", 8, k, v),))
    assert found.held == held
