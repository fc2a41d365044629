"""What a bisect found, as a value, for people and machines, and as an issue for the fork."""

import json
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from builder.bisect.search import Verdict
from builder.bisect.state import Judged
from builder.common import markdown
from builder.common.files import write_atomically
from builder.git.commits import Commit

Outcome = Literal[
    "planned", "found", "range", "stopped", "bad-is-good", "good-is-bad", "end-not-judged"
]
"""`range`: only commits that can't be judged are left. `stopped`: a limit was reached."""

WORDS: dict[Verdict, str] = {"good": "is good", "bad": "is bad", "skip": "can't be judged"}
"""What a verdict says of a commit."""

_LISTED = 20


@dataclass(frozen=True, slots=True)
class BisectReport:
    """The answer, or how far it came. Commits are oldest first, times in seconds.

    `good` and `bad` are the commits between which it looked, `good_ref` and `bad_ref` what they
    were called, `commits` how many there are, a merge as one. `suspects` hold the first bad one;
    `first_bad` is it, when it is known, `last_good` its first parent, `stat` what it changes.
    `merges` were looked into. `evidence` is the verdict that shows the failure. `steps` are this
    run's, `judged` all verdicts, of earlier runs too. `setup` is how the variant is built without
    builder. `state` is the path of the verdicts.
    """

    fork: str
    url: str
    stage: str
    command: list[str]
    variant: str
    good_ref: str
    good: str
    bad_ref: str
    bad: str
    outcome: Outcome
    commits: int
    suspects: list[Commit]
    first_bad: Commit | None
    last_good: str | None
    merges: list[Commit]
    stat: str
    evidence: Judged | None
    judged: list[Judged]
    steps: int
    steps_left: int
    notes: list[str]
    setup: str
    state: str
    duration_s: float
    schema: int = 1

    @property
    def exit_code(self) -> int:
        """0: the first bad commit is known, or the plan was asked for; 1: it is not known."""
        return 0 if self.outcome in {"found", "planned"} else 1

    @property
    def headline(self) -> str:
        """The answer in one line."""
        left = counted(len(self.suspects), "commit")
        about = f"about {counted(self.steps_left, 'step')}"
        nothing = f"nothing to find: {self.what}"
        if self.first_bad:
            return f"{_short(self.first_bad)} is the first bad commit: {self.what} fails"
        return {
            "planned": f"{left} of {self.commits} to search, {about}",
            "range": f"the first bad commit is among {left}: no more of them can be judged",
            "stopped": f"not found yet: {left} left, {about}",
            "bad-is-good": f"{nothing} passes at {self.bad[:9]}, said to be bad",
            "good-is-bad": f"{nothing} fails at {self.good[:9]}, said to be good",
            "end-not-judged": "not searched: one of the two ends can't be judged",
        }[self.outcome]

    @property
    def what(self) -> str:
        """What fails, in words."""
        if self.stage == "run":
            return f"`{shlex.join(self.command)}`"
        of = f" of {self.variant}"
        if self.stage.startswith("probe:"):
            return f"the probe {self.stage.removeprefix('probe:')}{of}"
        return f"the {self.stage}{of}"

    @property
    def issue(self) -> str:
        """Markdown for the fork, its first line the title; empty without a commit to tell of."""
        seen = self.evidence is not None and self.evidence.verdict == "bad"
        return _issue(self) if seen and self.outcome in {"found", "range"} else ""


def counted(number: int, what: str) -> str:
    """A number of things, in words."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def to_json(report: BisectReport) -> str:
    """The report as indented JSON, with the headline and the issue beside its fields."""
    more = {"headline": report.headline, "issue": report.issue}
    return json.dumps({**asdict(report), **more}, indent=2)


def write_issue(report: BisectReport, path: Path) -> None:
    """Write the issue's Markdown; never a half-written file."""
    write_atomically(path, report.issue)


def to_text(report: BisectReport) -> str:
    """The report for a terminal."""
    lines = [report.headline]
    if report.last_good:
        lines.append(f"  last good  {report.last_good[:9]}, {_known(report, report.last_good)}")
    lines += [f"  came in by {_short(one)}" for one in report.merges if one != report.first_bad]
    lines += [f"  note       {note}" for note in report.notes]
    counts = [f"{n} {v}" for v in ("good", "bad", "skip") if (n := _count(report, v))]
    if counts:
        lines.append(
            f"  judged     {', '.join(counts)} of {counted(report.commits, 'commit')}, "
            f"{counted(report.steps, 'step')} in this run"
        )
    if report.stat:
        lines += ["", *(f"  {line.strip()}" for line in report.stat.splitlines())]
    if report.evidence and report.evidence.reason:
        lines += ["", *(f"  {line}" for line in report.evidence.reason.splitlines())]
    if report.evidence and report.evidence.log:
        lines.append(f"  log: {report.evidence.log}")
    if not report.first_bad and report.outcome in {"planned", "range", "stopped"}:
        lines += ["", *_suspects(report)]
    return "\n".join(lines)


def _suspects(report: BisectReport) -> list[str]:
    verdicts = {one.commit: one for one in report.judged}
    lines = []
    for one in report.suspects:
        known = verdicts.get(one.commit)
        said = f"  {WORDS[known.verdict]} {known.headline}" if known else ""
        lines.append(f"  {_short(one)}{said}".rstrip())
    return lines


def _issue(report: BisectReport) -> str:
    web, evidence, first = markdown.web(report.url), report.evidence, report.first_bad
    since = first.commit[:9] if first else f"one of {counted(len(report.suspects), 'commit')}"
    lines = [f"# {markdown.text(_title(report))} since {since}", ""]
    if first:
        lines += [f"First bad commit: {_entry(first, web)}", ""]
    else:
        lines += [
            "The first bad commit is one of these; but for the last they can't be judged:",
            "",
        ]
        lines += [f"- {_entry(one, web)}" for one in report.suspects[-_LISTED:]]
        more = len(report.suspects) - _LISTED
        lines += [*([f"- and {counted(more, 'commit')} before them"] if more > 0 else []), ""]
    lines += [
        f"It came in by the merge {_entry(one, web)}" for one in report.merges if one != first
    ]
    if report.last_good:
        known = _known(report, report.last_good)
        lines += [f"The commit before it, {markdown.link(report.last_good, web)}, was {known}.", ""]
    if evidence and evidence.reason:
        lines += [f"What the {evidence.stage} said at {evidence.commit[:9]}:", ""]
        lines += [markdown.block(evidence.reason), ""]
    if report.setup:
        lines += ["Built as", "", markdown.block(report.setup), ""]
    if report.command:
        lines += ["Judged by", "", markdown.block(shlex.join(report.command)), ""]
    if report.stat:
        lines += ["What the commit changes:", "", markdown.block(report.stat), ""]
    lines += [
        f"Found by `builder bisect` along first parents, {counted(report.commits, 'commit')} from "
        f"{markdown.link(report.good, web)} to {markdown.link(report.bad, web)}, "
        f"{len(report.judged)} judged.",
        *(f"Note: {markdown.text(note)}." for note in report.notes),
        "",
    ]
    return "\n".join(lines)


def _title(report: BisectReport) -> str:
    if report.stage == "build":
        return "The build fails"
    if report.stage == "run":
        return "A check fails"
    failed = report.evidence.reason.splitlines() if report.evidence else []
    probes = ", ".join(line.partition(":")[0] for line in failed)
    return f"llama-server fails a smoke test ({probes})"


def _known(report: BisectReport, commit: str) -> str:
    judged = any(one.commit == commit and one.verdict == "good" for one in report.judged)
    return "judged good" if judged else "taken as good and not judged"


def _count(report: BisectReport, verdict: str) -> int:
    return sum(one.verdict == verdict for one in report.judged)


def _entry(commit: Commit, web: str | None) -> str:
    subject = markdown.code(commit.subject)
    return f"{markdown.link(commit.commit, web)} {subject} ({commit.date[:10]})"


def _short(commit: Commit) -> str:
    return f"{commit.commit[:9]} {commit.date[:10]} {commit.subject}"
