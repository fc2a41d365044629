"""Nights of several variants, one after the other: each is told, and none hides another."""

import contextlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from builder.bisect import run as bisect
from builder.bisect.report import BisectReport
from builder.common import markdown
from builder.common.errors import RemoteUnavailableError, UsageError
from builder.common.progress import Progress
from builder.common.suggest import suggestion
from builder.engine import boundary
from builder.model.pins import Pins
from builder.nightly import issue as night_issue
from builder.nightly import night as nightly
from builder.nightly.issue import Issue
from builder.nightly.journal import Found
from builder.nightly.night import Case
from builder.release import record
from builder.release.record import Night

NO = 1
_BUDGET_S = 2 * 3600.0
"""No step of a bisect begins later: a night has to end before a job's time does."""


@dataclass(frozen=True, slots=True)
class Ends:
    """What comes after a night: `bisect` finds a first bad commit, `tell` keeps a fork's issue.

    `tell` says where it is, or "" when there is none. `page` is the address of the job that runs
    this, or empty. `keep` comes after each night, and after an interrupt: their record goes
    where it is kept.
    """

    bisect: Callable[[Pins, bisect.Request, Path, Progress], BisectReport]
    tell: Callable[[str, Issue, Path, Progress], str]
    page: str = ""
    keep: Callable[[Progress], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class NotJudged:
    """A night that did not come to its end, in the error's words: it is gone on with.

    Or, as `variant` "the record", what kept the record from where it is kept.
    """

    variant: str
    what: str
    why: str
    hint: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class NightsReport:
    """Every night that ended, and those that did not. `told`: where issues are, in words."""

    nights: list[Night]
    not_judged: list[NotJudged]
    told: list[str]
    schema: int = 1

    @property
    def exit_code(self) -> int:
        """6 where a remote did not answer; else of the first night not judged; else 1 or 0."""
        codes = [one.exit_code for one in self.not_judged]
        if RemoteUnavailableError.exit_code in codes:
            return RemoteUnavailableError.exit_code
        failed = NO if any(one.outcome == "failed" for one in self.nights) else 0
        return next(iter(codes), failed)


def chosen(everything: Pins, names: list[str]) -> list[str]:
    """The variants named, or those of the policy, or all whose fork can be asked for its branch.

    Raises UsageError for an unknown one, and for one whose fork has no url.
    """
    for name in names:
        if name not in everything.variants:
            hint = suggestion(name, everything.variants)
            raise UsageError(f"unknown variant {name!r}", hint=hint)
    wanted = list(dict.fromkeys(names)) or everything.policy.nightly.variants
    if not wanted:
        return [n for n, one in everything.variants.items() if everything.forks[one.fork].url]
    for name in wanted:
        fork = everything.variants[name].fork
        if everything.forks[fork].url is None:
            why = everything.forks[fork].unpinned or ""
            hint = f"write forks.{fork}.url into pins.toml"
            raise UsageError(f"{name}: fork {fork} has no url", why=why, hint=hint)
    return wanted


def run(cases: list[Case], ends: Ends, progress: Progress) -> NightsReport:
    """Every night to its end; what keeps one from its end is in the report, and ends no other."""
    report = NightsReport([], [], [])
    try:
        for case in cases:
            report = _with(report, case, ends, progress)
            if case is not cases[-1]:
                # A kill in the next night loses nothing of this one; what fails is told at the end.
                with contextlib.suppress(Exception):
                    ends.keep(progress)
    except BaseException:
        # A release that was promoted, and is in no record, would be taken for somebody else's.
        with contextlib.suppress(Exception):
            ends.keep(progress)
        raise
    try:
        ends.keep(progress)
    except Exception as error:
        lost = [*report.not_judged, _lost("the record", error)]
        return replace(report, not_judged=lost)
    return report


def plan(cases: list[Case], progress: Progress) -> tuple[list[tuple[Case, Found]], NightsReport]:
    """What each night would begin with, and a report of those that no night can be made of."""
    found, lost = [], []
    for case in cases:
        try:
            found.append((case, nightly.plan(case, progress)))
        except Exception as error:
            lost.append(_lost(case.request.variant, error))
    return found, NightsReport([], lost, [])


def _with(report: NightsReport, case: Case, ends: Ends, progress: Progress) -> NightsReport:
    try:
        journal = nightly.run(case, progress)
        night, where = _ended(case, nightly.night(journal, case.fork, ends.page), ends, progress)
    except Exception as error:
        lost = _lost(case.request.variant, error)
        progress.warn(f"{case.request.variant} is not judged: {lost.what}")
        return replace(report, not_judged=[*report.not_judged, lost])
    told = [*report.told, where] if where else report.told
    return replace(report, nights=[*report.nights, night], told=told)


def _lost(name: str, error: Exception) -> NotJudged:
    failure = boundary.failure(error)
    return NotJudged(name, failure.what, failure.why, failure.hint, failure.exit_code)


def _ended(case: Case, night: Night, ends: Ends, progress: Progress) -> tuple[Night, str]:
    """The night in the record and in the fork's issue; after that its journal is no more."""
    _write(case, night, progress)
    earlier = [one for one in record.read_nights(case.record) if one.fork == case.fork]
    question = _question(case, earlier)
    if question:
        progress.step(
            f"{night.variant}: bisect after {len(failing(earlier, night.variant))} nights"
        )
        night = replace(night, bisect=_bisected(case, question, ends, progress))
        _write(case, night, progress)
        earlier = [one for one in record.read_nights(case.record) if one.fork == case.fork]
    issue = night_issue.issue(
        case.everything.forks[case.fork].url, earlier, record.read_index(case.record)
    )
    where = ends.tell(case.fork, issue, case.results, progress)
    nightly.end(case)
    return night, where


def _write(case: Case, night: Night, progress: Progress) -> None:
    with record.alone(case.record, progress):
        record.write_night(case.record, night)


def failing(nights: list[Night], variant: str) -> list[Night]:
    """The variant's failed nights since it last passed, oldest first."""
    streak: list[Night] = []
    for one in (night for night in nights if night.variant == variant):
        streak = [*streak, one] if one.outcome == "failed" else []
    return streak


def _question(case: Case, nights: list[Night]) -> bisect.Request | None:
    """What to bisect after this night; None when it is not due or nothing is known to be good.

    The same as long as the failure is: a bisect that has its answer gives it again at once.
    """
    variant = case.request.variant
    streak = failing(nights, variant)
    if len(streak) < case.everything.policy.nightly.bisect_after:
        return None
    step = streak[-1].failed_step
    same = [one for one in streak if one.failed_step == step and one.commit]
    good = _last_good(case, nights)
    if step not in {"build", "smoke"} or not same or good in {None, same[0].commit}:
        return None
    return bisect.Request(
        fork=case.fork,
        good=str(good),
        bad=str(same[0].commit),
        stage=step,
        variant=variant,
        budget_s=_BUDGET_S,
    )


def _last_good(case: Case, nights: list[Night]) -> str | None:
    """The commit of the variant's last night that passed; without one the pin."""
    passed = [
        one.commit
        for one in nights
        if one.variant == case.request.variant and one.outcome != "failed" and one.commit
    ]
    return passed[-1] if passed else case.everything.forks[case.fork].commit


def _bisected(case: Case, question: bisect.Request, ends: Ends, progress: Progress) -> str:
    """What was found, as Markdown; why nothing was, where that is so."""
    try:
        report = ends.bisect(case.everything, question, case.results, progress)
    except Exception as error:
        what = boundary.failure(error).what
        return f"A bisect was tried and gave no answer: {markdown.code(what)}"
    return report.issue or f"A bisect found no first bad commit: {markdown.text(report.headline)}"


def to_json(report: NightsReport) -> str:
    """The report as indented JSON."""
    return json.dumps({**asdict(report), "exit_code": report.exit_code}, indent=2)


def plan_to_json(found: list[tuple[Case, Found]], report: NightsReport) -> str:
    """What `plan` gives, as indented JSON."""
    planned = [
        {
            "variant": case.request.variant,
            "commit": one.move.new.commit if one.move else None,
            "release": one.release,
            "standing": one.standing,
            "published": one.published,
        }
        for case, one in found
    ]
    lost = [asdict(one) for one in report.not_judged]
    page = {"schema": 1, "planned": planned, "not_judged": lost, "exit_code": report.exit_code}
    return json.dumps(page, indent=2)
