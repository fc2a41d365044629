"""`builder freshness`: how far each pin is behind, and whether it is still there."""

import contextlib
import datetime
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock

from builder.common import paths
from builder.common.errors import RefNotFoundError, UsageError
from builder.common.files import write_atomically
from builder.common.progress import Progress
from builder.common.suggest import suggestion
from builder.engine import boundary
from builder.freshness import parts as freshness_parts
from builder.freshness import steps as freshness_steps
from builder.freshness.report import Drift, Failure, ForkReport, Reason, Report, Upstream
from builder.git import commits, github
from builder.git import remote as git
from builder.git.cache import anew
from builder.model.pins import Pins, Policy
from builder.pins import load as pins

MAINLINE = "mainline"
"""The fork of pins.toml that the others are made from; it has no merges of itself."""

_SHOWN_BRANCHES = 3
_UNPUBLISHED = "published images: pins.toml has no policy.release.repository"


@dataclass(frozen=True, slots=True)
class _Asked:
    """One pinned fork, as far as it is asked about. `date` is the pin's, from pins.toml.

    `steps`: after at most so many GitHub's comparisons will do; 0 where the history has to tell.
    """

    name: str
    remote: git.Remote
    branch: str | None
    pin: str
    date: datetime.datetime
    steps: int


def chosen(everything: Pins, names: list[str], *, whole: bool) -> list[str]:
    """The forks to ask: those named, every one, or the default variant's.

    Raises UsageError.
    """
    if whole and names:
        raise UsageError("--all and forks named do not go together", hint="leave one of them out")
    if whole:
        return list(everything.forks)
    for name in names:
        if name not in everything.forks:
            raise UsageError(f"unknown fork {name!r}", hint=suggestion(name, everything.forks))
    return list(dict.fromkeys(names)) or [pins.variant(everything, None)[1].fork]


def look(
    everything: Pins,
    names: list[str],
    host: github.Github,
    progress: Progress,
    *,
    whole: bool = False,
) -> Report:
    """Ask the forks side by side; `whole`: and bases, sources and published images with them.

    What does not answer is in the report, as unknown. Raises EngineError when git is missing.
    """
    git.require()
    questions = freshness_parts.questions(everything) if whole else []
    # A fork is measured against mainline by its history.
    steps = 0 if whole else freshness_steps.most(host, len(names))
    others = f" and {len(questions)} others" * bool(questions)
    progress.step(f"ask {len(names)} fork{'s' * (len(names) != 1)}{others}")
    with ThreadPoolExecutor(max_workers=len(names) + len(questions)) as workers:
        asked = [workers.submit(question) for question in questions]
        found = [workers.submit(_look, everything, name, steps, host, progress) for name in names]
        forks = [one.result() for one in found]
        parts = tuple(one.result() for one in asked)
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    unasked = [_UNPUBLISHED] if whole and everything.policy.release.repository is None else []
    if whole:
        forks = _against_mainline(forks, progress)
    return Report(checked=now, forks=tuple(forks), parts=parts, not_asked=tuple(unasked))


def _against_mainline(reports: list[ForkReport], progress: Progress) -> list[ForkReport]:
    """The reports with how far each fork's last merge is behind mainline, by mainline's history.

    Where that history does not come, `behind` stays unknown; mainline's own row says why.
    """
    mainline = next((one for one in reports if one.fork == MAINLINE), None)
    merged = [one for one in reports if one.drift is not None and one.drift.upstream is not None]
    if mainline is None or mainline.url is None or mainline.head is None or not merged:
        return reports
    remote = git.Remote(MAINLINE, mainline.url)
    with _locked(remote), contextlib.suppress(Exception):
        history = git.Branch(remote)
        if not history.holds(mainline.head):
            progress.step(f"fetch the history of {remote.url}")
            history.fetch(mainline.branch)
        return [_behind_or_unknown(one, history, mainline.head) for one in reports]
    return reports


def _behind_or_unknown(report: ForkReport, history: git.Branch, head: str) -> ForkReport:
    with contextlib.suppress(Exception):  # what one fork holds hides nothing of another
        return _behind_mainline(report, history, head)
    return report


def _behind_mainline(report: ForkReport, history: git.Branch, head: str) -> ForkReport:
    drift = report.drift
    if drift is None or drift.upstream is None or not history.holds(drift.upstream.merged):
        return report
    behind = history.count(f"{drift.upstream.merged}..{head}")
    upstream = replace(drift.upstream, behind=behind)
    return replace(report, drift=replace(drift, upstream=upstream))


def _look(
    everything: Pins, name: str, steps: int, host: github.Github, progress: Progress
) -> ForkReport:
    fork, policy = everything.forks[name], everything.policy
    if fork.url is None or fork.commit is None or fork.date is None:
        why = fork.unpinned or "pins.toml gives it no commit"
        return ForkReport(name, fork.url, fork.branch, None, None, "unpinned", notes=(why,))
    report = ForkReport(name, fork.url, fork.branch, fork.commit, _rfc3339(fork.date), "unknown")
    try:
        remote = git.Remote(name, fork.url)
        asked = _Asked(name, remote, fork.branch, fork.commit, fork.date, steps)
        return _answered(report, asked, policy, host, progress)
    except Exception as error:
        return replace(report, failure=Failure.of(boundary.failure(error)))


def _answered(
    report: ForkReport, asked: _Asked, policy: Policy, host: github.Github, progress: Progress
) -> ForkReport:
    """The report with what git and the repository's page tell; what git does not is unknown."""
    page = _side_by_side(host, host.name(asked.remote.url))
    try:
        heads = git.heads(asked.remote, asked.branch)
        report = replace(
            report,
            head=heads.commit,
            default_branch=heads.default_branch,
            default_was=_default_was(asked, heads.default_branch),
            moved_to=heads.moved_to,
        )
        report = judged(report, _drift(asked, heads, policy, host, progress), policy)
    except Exception as error:
        report = replace(report, failure=Failure.of(boundary.failure(error)))
    return _noted(report, page, asked)


def _default_was(asked: _Asked, now: str | None) -> str | None:
    """The default branch when this pin was first looked at here, by a note kept in the cache.

    pins.toml does not tell it: a pinned branch need not be the default one. A machine that never
    looked knows no other than `now`.
    """
    folder = paths.cache() / "default-branches"
    file = folder / f"{asked.remote.cache('names').parent.name}-{asked.pin[:12]}"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return file.read_text(encoding="utf-8").strip() or now
    if now is not None:
        with contextlib.suppress(OSError):  # what is not kept is not known next time
            write_atomically(file, now)
    return now


def _side_by_side(host: github.Github, name: str | None) -> "Future[github.Page] | None":
    """The repository's page, asked for while git is at work; None for one outside of GitHub."""
    if name is None:
        return None
    with_one = ThreadPoolExecutor(max_workers=1)
    future = with_one.submit(host.page, name)
    with_one.shutdown(wait=False)
    return future


def _noted(report: ForkReport, page: "Future[github.Page] | None", asked: _Asked) -> ForkReport:
    """The report with what the repository's page says; where that fails, a note and no more."""
    notes: list[str] = []
    if page is not None:
        try:
            told = page.result()
        except RefNotFoundError as error:
            notes.append(error.what)
        except Exception as error:
            notes.append(f"GitHub's API was no help: {boundary.failure(error).why}")
        else:
            # git says it too when it is redirected; by a mirror it is not.
            moved = told.url if _bare(told.url) != _bare(asked.remote.url) else report.moved_to
            report = replace(
                report,
                moved_to=moved,
                archived=told.archived,
                default_branch=report.default_branch or told.default_branch,
            )
    if report.drift is not None and report.drift.compared:
        notes.append(_compared_note(report.fork, report.drift))
    if report.moved_to:
        place = f"forks.{asked.name}.url"
        notes.insert(0, f"renamed: write {report.moved_to} into pins.toml, {place}")
    if asked.branch is not None and report.default_branch not in {None, asked.branch}:
        notes.append(f"its default branch is another: {report.default_branch}")
    if report.archived:
        notes.append("archived: nothing more will come")
    return replace(report, notes=(*report.notes, *notes))


def _compared_note(fork: str, drift: Drift) -> str:
    if drift.history_failed:
        return "by GitHub's comparison: the history did not come"
    if fork == MAINLINE:
        return "by GitHub's comparison"
    return (
        "by GitHub's comparison; the last merge of mainline is told by the history: "
        "`builder freshness --all`"
    )


def _bare(url: str) -> str:
    return url.rstrip("/").removesuffix(".git").lower()


def _drift(
    asked: _Asked, heads: git.Heads, policy: Policy, host: github.Github, progress: Progress
) -> Drift:
    """Where the pin stands. Raises RemoteUnavailableError, RefNotFoundError."""
    if heads.commit is None:
        return Drift("branch gone")
    if heads.commit == asked.pin:
        # Nothing moved: no history is fetched, and only one that is here already is looked at.
        return Drift("head", 0, 0, upstream=_upstream_here(asked))
    quick = _by_comparisons(asked, heads.commit, policy, host, progress)
    if quick is not None:
        return quick
    try:
        return _by_history(asked, heads.commit, policy, progress)
    except Exception:
        stand_in = _stand_in(asked, policy, host, heads.commit)
        if stand_in is None:
            raise
        return stand_in


def _by_comparisons(
    asked: _Asked, head: str, policy: Policy, host: github.Github, progress: Progress
) -> Drift | None:
    """What GitHub tells without a history; None where one is here, or GitHub tells only a part."""
    name = host.name(asked.remote.url)
    if name is None or asked.steps == 0 or _history_is_here(asked.remote):
        return None
    found = freshness_steps.steps(host, name, asked.pin, head, asked.steps, progress)
    if found is None:
        return None
    groups = commits.grouped(found.steps, found.upstream)
    newest = found.steps[0]
    drift = _moved(asked, policy, found.steps, groups, found.behind, newest.date)
    return replace(drift, compared=True)


@anew
def _history_is_here(remote: git.Remote) -> bool:
    if not remote.cache("names").exists():
        return False
    with _locked(remote):
        return git.Branch(remote).fetched()


@anew
def _by_history(asked: _Asked, told: str, policy: Policy, progress: Progress) -> Drift:
    """What the branch's own history says; `told` is its head, by ls-remote.

    Raises RemoteUnavailableError, RefNotFoundError.
    """
    with _locked(asked.remote):
        history = git.Branch(asked.remote)
        head, on_branch = told, _is_part_here(history, asked.pin, told)
        if not on_branch:
            progress.step(f"fetch the history of {asked.remote.url}")
            head = history.fetch(asked.branch)
            on_branch = history.holds(asked.pin)
        upstream = _upstream(asked, history, head)
        if on_branch:
            drift = _measured(asked, policy, history, head)
            return replace(drift, upstream=upstream)
        history.fetch_all()
        elsewhere = tuple(history.branches_with(asked.pin)[:_SHOWN_BRANCHES])
        served = bool(elsewhere) or history.fetch_commit(asked.pin)
        if not served:
            return Drift("orphaned", served=False, upstream=upstream)
        drift = _measured(asked, policy, history, head)
        return replace(drift, pin="orphaned", served=True, elsewhere=elsewhere, upstream=upstream)


def _is_part_here(history: git.Branch, pin: str, head: str) -> bool:
    """Whether an earlier fetch brought the head, with the pin as a part of it."""
    return history.holds(head) and history.holds(pin, below=head)


def _measured(asked: _Asked, policy: Policy, history: git.Branch, head: str) -> Drift:
    steps = history.steps(asked.pin, head)
    behind = history.count(f"{asked.pin}..{head}")
    newest = history.show([head])[head]
    return _moved(asked, policy, steps, history.groups(steps), behind, newest.date)


def _moved(
    asked: _Asked,
    policy: Policy,
    steps: list[commits.Commit],
    groups: tuple[commits.Group, ...],
    behind: int,
    head_date: str,
) -> Drift:
    return Drift(
        "on branch",
        commits_behind=behind,
        days_behind=_days(asked.date, head_date),
        groups=groups,
        alerts=commits.touching([name for one in steps for name in one.files], policy.alert_paths),
    )


def _upstream(asked: _Asked, history: git.Branch, head: str) -> Upstream | None:
    """The fork's last merge of mainline, from its own history alone."""
    if asked.name == MAINLINE:
        return None
    last = next(iter(history.upstream_merges(history.merges(head))), None)
    if last is None:
        return None
    return Upstream(
        merge=last.commit,
        date=last.date,
        merged=last.parents[1],
        ahead=history.count("--no-merges", f"{last.parents[1]}..{head}"),
        since=history.count("--no-merges", f"{last.commit}..{head}"),
    )


def _upstream_here(asked: _Asked) -> Upstream | None:
    """The same when nothing is fetched: from a history that an earlier run brought."""
    if not asked.remote.cache("names").exists():
        return None
    with _locked(asked.remote), contextlib.suppress(Exception):
        history = git.Branch(asked.remote)
        if history.holds(asked.pin):
            return _upstream(asked, history, asked.pin)
    return None


def _stand_in(asked: _Asked, policy: Policy, host: github.Github, head: str) -> Drift | None:
    """GitHub's own comparison, when the history did not come.

    None when it does not tell all that the policy asks: what was not seen is not fresh.
    """
    name = host.name(asked.remote.url)
    if name is None:
        return None
    try:
        told = host.compare(name, asked.pin, head)
    except Exception:
        return None  # the failure of git is what the report names
    if told.commits is None or (policy.alert_paths and told.files is None):
        return None
    touched = commits.touching(told.files or (), policy.alert_paths)
    return Drift(
        "orphaned" if told.lost else "on branch",
        commits_behind=told.ahead,
        days_behind=_days(asked.date, told.commits[-1].date),
        alerts=touched,
        compared=True,
        history_failed=True,
    )


def judged(report: ForkReport, drift: Drift, policy: Policy) -> ForkReport:
    """The report with where its pin stands, and stale by the rules that say so.

    Unknown where none says so and the newest commit has no date: it may be too many days behind.
    """
    reasons = tuple(_reasons(report, drift, policy))
    report = replace(report, drift=drift, reasons=reasons)
    if not reasons and drift.commits_behind and drift.days_behind is None:
        newest = (report.head or "")[:9]
        what = f"the newest commit {newest} states no date that can be read"
        return replace(report, failure=Failure(what, "how many days behind is not known", ""))
    return replace(report, verdict="stale" if reasons else "fresh")


def _reasons(report: ForkReport, drift: Drift, policy: Policy) -> list[Reason]:
    found = []
    if drift.pin == "branch gone":
        default = f"; the default branch is {report.default_branch}" * bool(report.default_branch)
        found.append(Reason("branch gone", f"there is no branch {report.branch}{default}"))
    if report.default_was not in {None, report.default_branch}:
        was, now = report.default_was, report.default_branch
        found.append(Reason("default_branch", f"the default branch was {was}, and is {now} now"))
    if drift.pin == "orphaned":
        found.append(Reason("orphaned", _orphaned(report, drift)))
    days, behind = drift.days_behind, drift.commits_behind
    if days is not None and days > policy.max_days:
        found.append(Reason("max_days", f"{days} days behind, at most {policy.max_days}"))
    if behind is not None and behind > policy.max_commits:
        found.append(
            Reason("max_commits", f"{behind} commits behind, at most {policy.max_commits}")
        )
    for path, touched in drift.alerts.items():
        others = f" and {len(touched) - 1} more" * (len(touched) > 1)
        found.append(Reason("alert_paths", f"{path}: {touched[0]}{others} changed"))
    return found


def _orphaned(report: ForkReport, drift: Drift) -> str:
    branch = report.branch or report.default_branch or "the default branch"
    if drift.elsewhere:
        return f"not on {branch} any more, but on {', '.join(drift.elsewhere)}"
    if drift.served is None:
        return f"not on {branch} any more"
    still = "the host still gives it out" if drift.served else "the host does not give it out"
    return f"a force-push dropped it from {branch}; {still}"


def _days(pin: datetime.datetime, head: str) -> int | None:
    """Whole days from the pin to the head; 0 when a rewritten head is the older one.

    None where the head states no date that can be read.
    """
    if not commits.readable_date(head):
        return None
    return max(0, (datetime.datetime.fromisoformat(head) - pin).days)


def _rfc3339(moment: datetime.datetime) -> str:
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _locked(remote: git.Remote) -> FileLock:
    """One history a fork: a second look at it waits for the first."""
    folder: Path = remote.cache("names")
    folder.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{folder}.lock")
