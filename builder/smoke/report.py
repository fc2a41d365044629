"""What a smoke found, as values and as the formats that people and machines read."""

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from builder.common.files import write_atomically
from builder.common.markdown import text
from builder.model.finding import Finding
from builder.model.pins import Profile, Requirement
from builder.smoke.probes.kv import KvVerdict

CONTRACT = ("ready", "identity", "slots", "thinking", "load", "stop", "healthcheck", "determinism")
"""The probes that any published image has to pass, whatever KV type it is made for."""


@dataclass(frozen=True, slots=True)
class SmokeReport:
    """The verdict on a target. Times in seconds; `ready_s` is None when it never got ready.

    `image_id` is None for a target that is no image. `model` is the name of one of ours, or the
    path as it was given. `not_available` are flags that the smoke would have passed and this commit
    lacks. `log` is the path of the servers' logs, kept when something failed or is required and not
    proven, else empty.
    """

    target: str
    kind: Literal["image", "binary", "url"]
    image_id: str | None
    variant: str | None
    profile: Profile
    model: str
    kv: KvVerdict
    findings: list[Finding]
    required: list[Requirement]
    not_available: list[str]
    ready_s: float | None
    duration_s: float
    log: str = ""
    schema: int = 2

    @property
    def failed(self) -> list[str]:
        """The probes that failed."""
        return [one.probe for one in self.findings if one.status == "fail"]

    @property
    def missing(self) -> list[str]:
        """The probes that had to be proven and were not."""
        wanted = {
            *(CONTRACT if "contract" in self.required else ()),
            *(("kv",) if "kv" in self.required else ()),
        }
        unproven = [one.probe for one in self.findings if one.status == "unproven"]
        return [probe for probe in unproven if probe in wanted]

    @property
    def proves_nothing(self) -> bool:
        """Whether no probe passed but `ready`, as /health also answers who has no API key."""
        return all(one.status != "pass" for one in self.findings if one.probe != "ready")

    @property
    def passed(self) -> bool:
        """Whether something is proven, no probe failed, and none that is required is unproven."""
        return not self.failed and not self.missing and not self.proves_nothing

    @property
    def headline(self) -> str:
        """The verdict in one line."""
        verdict = "PASS" if self.passed else "FAIL"
        ready = "never ready" if self.ready_s is None else f"ready after {self.ready_s:.1f} s"
        parts = [_kv(self.kv), ready, f"{self.duration_s:.1f} s in all"]
        if self.failed:
            parts.insert(0, f"failed: {', '.join(self.failed)}")
        if self.missing:
            parts.insert(0, f"required and not proven: {', '.join(self.missing)}")
        if self.proves_nothing and not self.failed:
            parts.insert(0, "nothing proven")
        return f"{verdict}  {self.target}: {'; '.join(parts)}"


def _kv(verdict: KvVerdict) -> str:
    if verdict.status == "pass":
        return f"KV {verdict.asked} in effect"
    words = "NOT PROVEN" if verdict.status == "unproven" else "WRONG"
    return f"KV {words}: {verdict.in_words}: {verdict.reason}"


def proven(statuses: Mapping[str, str]) -> list[Requirement]:
    """What probes show by their verdicts: the contract, when all of it passed, and the KV type."""
    passed = {probe for probe, status in statuses.items() if status == "pass"}
    shown: dict[Requirement, set[str]] = {"contract": {*CONTRACT}, "kv": {"kv"}}
    return [one for one, probes in shown.items() if probes <= passed]


def to_json(report: SmokeReport) -> str:
    """The report as indented JSON, with the verdicts beside its fields."""
    verdicts = {"passed": report.passed, "failed": report.failed, "missing": report.missing}
    return json.dumps({**asdict(report), **verdicts}, indent=2)


def write_junit(report: SmokeReport, path: Path) -> None:
    """Write the report as a JUnit test suite: what is unproven is skipped, or failed if required.

    Never a half-written file. Raises OSError.
    """
    from junitparser import Failure, JUnitXml, Skipped, TestCase, TestSuite

    suite = TestSuite(f"builder smoke {report.target}")
    for finding in report.findings:
        case = TestCase(finding.probe, "builder.smoke")
        text = f"expected: {finding.expected}\nobserved: {finding.observed}"
        if finding.status == "fail" or finding.probe in report.missing:
            case.result = [Failure(text)]
        elif finding.status == "unproven":
            case.result = [Skipped(text)]
        suite.add_testcase(case)
    # After the cases: each one added makes it their sum again.
    suite.time = report.duration_s
    xml = JUnitXml()
    xml.add_testsuite(suite)
    written = io.BytesIO()
    xml.write(written, pretty=True)
    write_atomically(path, written.getvalue().decode())


def to_markdown(report: SmokeReport) -> str:
    """The report as Markdown for a CI summary."""
    rows = [
        f"| {one.probe} | {one.status} | {text(one.expected)} | {text(one.observed)} |"
        for one in report.findings
    ]
    head = "| probe | verdict | expected | observed |"
    return "\n".join([f"### {text(report.headline)}", "", head, "|---|---|---|---|", *rows, ""])
