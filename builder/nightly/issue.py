"""The one issue that tells how a fork's nights go, and the summary of a run: Markdown."""

import os
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from builder.common import markdown
from builder.common.files import write_atomically
from builder.common.progress import Progress
from builder.git.github_threads import Thread, Threads
from builder.release.record import Index, Night

_TAIL = 40
_WIDTH = 300


@dataclass(frozen=True, slots=True)
class Issue:
    """What a fork's issue says now. `failing`: whether any variant's last night failed.

    `mark` is in the text, unseen, and in no other fork's.
    """

    mark: str
    title: str
    text: str
    failing: bool


def issue(url: str | None, nights: list[Night], index: Index | None) -> Issue:
    """The issue of a fork with these nights, at least one, oldest first."""
    fork = nights[-1].fork
    last = {one.variant: one for one in nights}
    failed = [one for one in last.values() if one.outcome == "failed"]
    title = f"Nightly images of {fork}: "
    title += f"{', '.join(one.variant for one in failed)} failed" if failed else "they pass again"
    mark = f"<!-- builder nightly: {fork} -->"
    lines = [mark, "Written by `builder nightly`, over and over: what is edited here is lost.", ""]
    lines += [
        "| variant | last night | commit | outcome | the tag stands for |",
        "|---|" + "---|" * 4,
    ]
    web = markdown.web(url) if url else None
    for one in last.values():
        commit = markdown.link(one.commit, web) if one.commit else "–"
        outcome = (
            f"**{markdown.text(one.failed_step or '')} failed**"
            if one.outcome == "failed"
            else one.outcome
        )
        stands = index.floating.get(one.variant) if index else None
        stands = markdown.code(stands) if stands else "nothing yet"
        variant = markdown.text(one.variant)
        lines.append(f"| {variant} | {one.date} | {commit} | {outcome} | {stands} |")
    for one in failed:
        lines += ["", *_failure(one, nights, web)]
    return Issue(mark, title, "\n".join([*lines, ""]), failing=bool(failed))


def _failure(night: Night, nights: list[Night], web: str | None) -> list[str]:
    """One variant's failure: its stage, its log, since when, and what a bisect says."""
    since = [one for one in nights if one.variant == night.variant]
    good = next((n for n, one in enumerate(reversed(since)) if one.outcome != "failed"), len(since))
    first = since[len(since) - good]
    at = markdown.link(night.commit, web) if night.commit else "the branch"
    nights_in_words = f"{good} night{'s' * (good != 1)}, since {first.date}"
    lines = [
        f"### {markdown.text(f'{night.variant}: {night.failed_step} failed')} at {at}",
        "",
        f"For {nights_in_words}. The floating tags were not moved.",
        "",
        *_evidence(night),
    ]
    if night.bisect:
        title, _, rest = night.bisect.partition("\n")
        lines += ["", f"**{title.removeprefix('# ')}**", rest]
    return lines


def _evidence(night: Night) -> list[str]:
    """What the failed step said, and the end of its log where that lies here."""
    step = next(one for one in night.steps if one.status == "failed")
    lines = [markdown.block(step.detail)]
    tail = _tail(step.log)
    if tail:
        lines += ["", "The end of the log:", "", markdown.block(tail)]
    if step.log:
        lines += ["", f"The log: {markdown.code(step.log)}"]
    if night.page:
        lines += ["", markdown.page("The job that ran it", night.page)]
    return lines


def _tail(path: str) -> str:
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            return "".join(line.rstrip()[:_WIDTH] + "\n" for line in deque(file, _TAIL)).rstrip()
    except OSError:
        return ""


def summary(nights: list[Night], not_judged: list[tuple[str, str]]) -> str:
    """A run's nights for a summary page; `not_judged` are variants and why."""
    lines = []
    for night in nights:
        commit = f" at {markdown.code(night.commit[:9])}" if night.commit else ""
        what = f"{night.failed_step} failed" if night.outcome == "failed" else night.outcome
        lines += [f"### {markdown.text(f'{night.variant}: {what}')}{commit}", ""]
        lines += ["| step | | seconds | |", "|---|---|---|---|"]
        for one in night.steps:
            detail = markdown.text(one.detail.partition("\n")[0])
            name = markdown.text(one.name)
            lines.append(f"| {name} | {one.status} | {one.duration_s:.1f} | {detail} |")
        lines += [""]
        if night.outcome == "failed":
            lines += [*_evidence(night), "", night.bisect, ""]
    lines += [
        f"### {markdown.text(variant)}: not judged: {markdown.code(why)}"
        for variant, why in not_judged
    ]
    return "\n".join(lines)


def tell(threads: Threads | None, fork: str, told: Issue, results: Path, progress: Progress) -> str:
    """Keep the fork's one issue: opened when a night fails, written over, closed when all pass.

    Where it is, in words; empty when there is none. `threads` None: there is nobody to tell, and
    the text of a failure goes to a file. Raises RefNotFoundError, RemoteUnavailableError.
    """
    if threads is None:
        return _to_file(fork, told, results) if told.failing else ""
    progress.step(f"the issue of {fork}")
    known = threads.issue(told.mark)
    if known is None:
        if not told.failing:
            return ""
        return f"opened {threads.open_issue(told.title, told.text).page}"
    if not known.open and not told.failing:
        return ""
    return _written(threads, known, told)


def _written(threads: Threads, known: Thread, told: Issue) -> str:
    one = threads.write_issue(known.number, told.title, told.text, closed=not told.failing)
    if not told.failing:
        return f"closed {one.page}"
    return f"{'updated' if known.open else 'opened again'} {one.page}"


def _to_file(fork: str, told: Issue, results: Path) -> str:
    path = results / "build" / "nights" / f"{fork}-issue.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, f"# {told.title}\n\n{told.text}")
    return f"no issue was written, for want of a token: its text is in {path}"


def job_page() -> str:
    """The address of the GitHub job that runs this; empty outside of one.

    https://docs.github.com/actions/reference/workflows-and-actions/variables
    """
    names = ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID")
    server, repository, run = (os.environ.get(name, "") for name in names)
    return f"{server}/{repository}/actions/runs/{run}" if server and repository and run else ""
