"""What a look at the pins found, as values and as the formats that people and machines read."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from builder.common import markdown
from builder.common.errors import BuilderError
from builder.common.files import write_atomically
from builder.git.commits import Group

Verdict = Literal["fresh", "stale", "unknown", "unpinned", "unpublished"]
PinState = Literal["head", "on branch", "orphaned", "branch gone"]

Rule = Literal[
    "branch gone",
    "default_branch",
    "orphaned",
    "max_days",
    "max_commits",
    "alert_paths",
    "digest",
    "end_of_life",
    "gone",
    "yanked",
    "other_file",
    "newer_version",
    "not_published",
    "other_commit",
]

NO = 1
UNAVAILABLE = 6
_COMMIT_DIGITS = 40

_COLOURS = {"fresh": "brightgreen", "stale": "orange", "unknown": "lightgrey"}


@dataclass(frozen=True, slots=True)
class Reason:
    """A rule that makes a pin stale, and the figures by which it does."""

    rule: Rule
    text: str


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a fork could not be judged."""

    what: str
    why: str
    hint: str

    @classmethod
    def of(cls, error: BuilderError) -> "Failure":
        """The same words as the error's."""
        return cls(error.what, error.why, error.hint)


@dataclass(frozen=True, slots=True)
class Upstream:
    """A fork against mainline, from its own history: its last merge of it, by commit and date.

    `merged` is the commit of mainline that it merged; `ahead` the fork's commits that mainline had
    not then, without merges, `since` those of them after the merge. `behind` counts what mainline
    has had since `merged`, by mainline's own history; None: mainline was not asked.
    """

    merge: str
    date: str
    merged: str
    ahead: int
    since: int
    behind: int | None = None


@dataclass(frozen=True, slots=True)
class Drift:
    """Where a pin stands in its branch. None: not known.

    `commits_behind` counts all that the head has and the pin has not, `days_behind` whole days
    from the pin's date to the head's. `groups` holds the branch's own steps, in which a merge is
    one. `served` is for an orphaned pin: whether the host still gives it out. `elsewhere` are
    branches that hold it. `alerts` maps an alert path to the files under it that changed.
    `compared`: by GitHub's comparisons and not by the history, which tells `upstream` too;
    `history_failed`: because it did not come, and so without groups.
    """

    pin: PinState
    commits_behind: int | None = None
    days_behind: int | None = None
    groups: tuple[Group, ...] = ()
    alerts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    served: bool | None = None
    elsewhere: tuple[str, ...] = ()
    upstream: Upstream | None = None
    compared: bool = False
    history_failed: bool = False


@dataclass(frozen=True, slots=True)
class ForkReport:
    """One fork. `archived` None: nobody told; `moved_to`: its address, if it is another now.

    `default_was` is the default branch when this pin was first looked at on this machine.
    """

    fork: str
    url: str | None
    branch: str | None
    pin: str | None
    pin_date: str | None
    verdict: Verdict
    head: str | None = None
    default_branch: str | None = None
    default_was: str | None = None
    moved_to: str | None = None
    archived: bool | None = None
    drift: Drift | None = None
    reasons: tuple[Reason, ...] = ()
    failure: Failure | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PartReport:
    """A base image, source archive or published image; `places` are where pins.toml names it.

    `pinned` is a digest, version or commit, and `found` the same as it is now; None: not known.
    `end_of_life` is the last day of a base's updates.
    """

    kind: Literal["base", "source", "image"]
    name: str
    places: tuple[str, ...]
    pinned: str | None
    verdict: Verdict
    found: str | None = None
    end_of_life: str | None = None
    reasons: tuple[Reason, ...] = ()
    failure: Failure | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """All that was asked. `checked` is when (RFC 3339, UTC); `parts` come with `--all` only.

    `not_asked` says what could have been looked at and was not, and why.
    """

    checked: str
    forks: tuple[ForkReport, ...]
    parts: tuple[PartReport, ...] = ()
    not_asked: tuple[str, ...] = ()
    schema: int = 1

    @property
    def verdicts(self) -> list[Verdict]:
        """Of forks, then of parts."""
        return [*(one.verdict for one in self.forks), *(one.verdict for one in self.parts)]

    @property
    def verdict(self) -> Verdict:
        """The worst of all; those without a pin have none to give."""
        order: tuple[Verdict, ...] = ("unknown", "stale", "fresh")
        return next((one for one in order if one in self.verdicts), "unpinned")

    @property
    def exit_code(self) -> int:
        """0, 1 for a stale pin, 6 for one that could not be judged: the worst wins."""
        return {"unknown": UNAVAILABLE, "stale": NO}.get(self.verdict, 0)

    @property
    def headline(self) -> str:
        """The verdict in one line."""
        return f"{self.verdict.upper()}  {self._counts}"

    @property
    def _counts(self) -> str:
        words: tuple[Verdict, ...] = ("fresh", "stale", "unknown", "unpinned", "unpublished")
        return ", ".join(f"{self.verdicts.count(w)} {w}" for w in words if w in self.verdicts)


HEADER = ("fork", "verdict", "behind", "the pin", "last upstream merge", "why")
PART_HEADER = ("beside forks", "verdict", "pinned", "now", "why")
GROUP_HEADER = ("fork", "steps that touch", "steps", "fixes", "newest")


def rows(report: Report) -> list[tuple[str, ...]]:
    """A line a fork, under HEADER."""
    return [_row(one) for one in report.forks]


def part_rows(report: Report) -> list[tuple[str, ...]]:
    """A line for each part that was asked, under PART_HEADER."""
    return [
        (
            f"{one.kind} {one.name.rpartition('/')[2]}",
            one.verdict,
            _shortened(one.pinned),
            _shortened(one.found),
            _why(one),
        )
        for one in report.parts
    ]


def _shortened(value: str | None) -> str:
    """A digest or commit by its first digits, as people compare them."""
    if value is None:
        return "–"
    if value.startswith("sha256:"):
        return value[:19]
    return value[:9] if len(value) == _COMMIT_DIGITS else value


def group_rows(report: Report) -> list[tuple[str, ...]]:
    """A line for each group of each fork that moved, most dangerous first, under GROUP_HEADER."""
    return [
        (
            one.fork,
            group.title,
            str(len(group.commits)),
            str(len(group.fixes)),
            f"{group.commits[0].commit[:9]} {group.commits[0].subject}",
        )
        for one in report.forks
        if one.drift is not None
        for group in one.drift.groups
    ]


def _row(one: ForkReport) -> tuple[str, ...]:
    drift = one.drift
    return (one.fork, one.verdict, _behind(drift), _pin(one), _upstream(drift), _why(one))


def _why(one: ForkReport | PartReport) -> str:
    reasons = [f"{reason.rule}: {reason.text}" for reason in one.reasons]
    failed = [f"{one.failure.what}: {_cause(one.failure)}"] if one.failure else []
    return "; ".join([*failed, *reasons, *one.notes]).replace("\n", " ")


def _cause(failure: Failure) -> str:
    """The one line that tells most of what git printed; JSON has them all."""
    lines = failure.why.splitlines() or [""]
    return next((line for line in lines if line.startswith("fatal:")), lines[-1])


def _behind(drift: Drift | None) -> str:
    if drift is None or drift.commits_behind is None:
        return "–" if drift is None else "not known"
    commits = f"{drift.commits_behind} commit{'s' * (drift.commits_behind != 1)}"
    days = "" if drift.days_behind is None else f", {drift.days_behind} d"
    return f"{commits}{days}"


def _pin(one: ForkReport) -> str:
    if one.pin is None:
        return "none"
    return f"{one.pin[:9]} {one.drift.pin if one.drift else 'not known'}"


def _upstream(drift: Drift | None) -> str:
    if drift is None or drift.upstream is None:
        return "–"
    upstream = drift.upstream
    own = f"{upstream.ahead} ahead, {upstream.since} since"
    if upstream.behind is not None:
        own = f"{own}, {upstream.behind} behind"
    return f"{upstream.date[:10]} {upstream.merge[:9]}; {own}"


def to_json(report: Report) -> str:
    """The report as indented JSON, `schema` 1, with the verdicts beside its fields."""
    page: dict[str, Any] = {
        **asdict(report),
        "verdict": report.verdict,
        "exit_code": report.exit_code,
    }
    for one, shown in zip(report.forks, page["forks"], strict=True):
        if one.drift is not None:
            shown["drift"]["groups"] = [_group(group) for group in one.drift.groups]
    return json.dumps(page, indent=2)


def _group(group: Group) -> dict[str, Any]:
    commits = [
        {"commit": one.commit, "date": one.date, "subject": one.subject, "fix": one.fix}
        for one in group.commits
    ]
    return {
        "name": group.name,
        "title": group.title,
        "steps": len(group.commits),
        "fixes": len(group.fixes),
        "commits": commits,
    }


def to_markdown(report: Report) -> str:
    """The report as Markdown for a CI summary."""
    parts = [f"### Pins: {report.headline}", "", *_table(HEADER, rows(report))]
    for header, lines in ((PART_HEADER, part_rows(report)), (GROUP_HEADER, group_rows(report))):
        if lines:
            parts += ["", *_table(header, lines)]
    parts += [f"\nNot asked: {markdown.text(what)}." for what in report.not_asked]
    return "\n".join([*parts, ""])


def _table(header: tuple[str, ...], lines: list[tuple[str, ...]]) -> list[str]:
    shown = [header, ("---",) * len(header), *(tuple(map(markdown.text, line)) for line in lines)]
    return [f"| {' | '.join(line)} |" for line in shown]


def badge(report: Report) -> dict[str, Any]:
    """What https://shields.io/badges/endpoint-badge shows."""
    stale = report.verdicts.count("stale")
    message = f"{stale} stale" if report.verdict == "stale" else report.verdict
    return {
        "schemaVersion": 1,
        "label": "pins",
        "message": message,
        "color": _COLOURS.get(report.verdict, "lightgrey"),
    }


def write_badge(report: Report, path: Path) -> None:
    """Write the badge's file, whole or not at all. Raises OSError."""
    write_atomically(path, f"{json.dumps(badge(report))}\n")
