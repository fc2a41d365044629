"""Find the first commit of a fork at which a stage fails."""

import hashlib
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from builder.bisect import history as bisect_history
from builder.bisect import state as bisect_state
from builder.bisect.judge import Case, Stages, judge, wants_image
from builder.bisect.report import WORDS, BisectReport, Outcome, counted
from builder.bisect.search import Position, Verdict, narrow
from builder.bisect.state import Question, State
from builder.bisect.verdicts import Book, LimitError
from builder.build import render
from builder.common import paths
from builder.common.errors import RefNotFoundError, RemoteUnavailableError, UsageError
from builder.common.locks import locked
from builder.common.progress import Progress, WarnOnce
from builder.common.suggest import suggestion
from builder.git import remote as git
from builder.git.commits import Commit
from builder.model.pins import Pins
from builder.pins import load as pins

_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0}
_TWO_PARENTS = 2


@dataclass(frozen=True, slots=True)
class Request:
    """What `builder bisect` was asked for.

    `command` judges in place of a stage when it is not empty. `variant` None: the default variant
    if it is the fork's, else the fork's first. `max_builds` and `budget_s` (seconds) end this run
    between two steps; verdicts of earlier runs do not count.
    """

    fork: str
    good: str
    bad: str
    stage: str = "build"
    command: tuple[str, ...] = ()
    variant: str | None = None
    max_builds: int | None = None
    budget_s: float | None = None
    enter_merges: bool = False
    check_ends: bool = False
    restart: bool = False
    dry_run: bool = False


def parse_budget(text: str) -> float:
    """Seconds of `90m`, `3h` or `1h30m`. Raises UsageError for anything else."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([hms])", text)
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if "".join(map("".join, parts)) != text or not seconds:
        raise UsageError(f"--budget {text!r} is no time", hint="such as 90m, 3h or 1h30m")
    return seconds


def bisect(
    everything: Pins, request: Request, stages: Stages, results: Path, progress: Progress
) -> BisectReport:
    """The first bad commit between two refs of a fork; a second bisect of the fork waits.

    Every verdict is kept under `results` before the next step begins: after an error or an
    interrupt the same request goes on from there. Raises UsageError, RemoteUnavailableError,
    RefNotFoundError for a ref, and what `bisect_judges.judge` raises.
    """
    git.require()
    progress = WarnOnce(progress)
    case = _case(everything, request, results)
    file = bisect_state.path(results, request.fork).resolve()
    key = hashlib.sha256(str(file).encode()).hexdigest()[:16]
    with locked(paths.cache() / "bisect" / key, f"another bisect of {request.fork}", progress):
        state = _state(case, request, file, progress)
        line = bisect_history.line(case.remote, state.good, state.bad, progress)
        trail = _Trail(line, len(line))
        if line[0].parents[:1] != (state.good,):
            trail.notes.append(
                f"{state.good[:9]} came in by a merge: what the branch was before that is taken "
                "as good"
            )
        book = Book(
            state,
            file,
            lambda commit: judge(case, commit, stages, progress),
            max_builds=request.max_builds,
            budget_s=request.budget_s,
        )
        outcome: Outcome = (
            "planned" if request.dry_run else _run(trail, book, case, request, progress)
        )
        return _report(case, book, trail, outcome, progress)


def _case(everything: Pins, request: Request, results: Path) -> Case:
    name = request.fork
    if name not in everything.forks:
        raise UsageError(f"unknown fork {name!r}", hint=suggestion(name, everything.forks))
    fork = everything.forks[name]
    if fork.url is None:
        raise UsageError(
            f"fork {name} has no url",
            why=fork.unpinned or "",
            hint=f"write forks.{name}.url into pins.toml",
        )
    command = list(request.command)
    builds = not command or wants_image(command)
    if request.variant and not builds:
        raise UsageError(
            "--variant says what is built, and this --run builds nothing",
            hint="write {image} into the command where the image's name goes",
        )
    return Case(
        pins=everything,
        remote=git.Remote(name, fork.url),
        variant=pins.variant_of(everything, "fork", name, request.variant) if builds else "",
        stage="run" if command else request.stage,
        command=command,
        results=results,
    )


def _state(case: Case, request: Request, file: Path, progress: Progress) -> State:
    """The state to go on with: the file's, when it is of the same question."""
    question = Question(
        fork=request.fork,
        url=case.remote.url,
        good=request.good,
        bad=request.bad,
        stage=case.stage,
        command=case.command,
        variant=case.variant,
        recipe=render.render(case.pins, case.variant).sha256 if case.variant else "",
    )
    stored = None if request.restart else bisect_state.load(file)
    same = stored is not None and stored.question == question
    if stored and same and not stored.answered:
        progress.step(f"go on after {len(stored.judged)} verdicts, from {file}")
        return stored
    good, bad = bisect_history.resolve(case.remote, [request.good, request.bad], progress)
    if stored and same and (stored.good, stored.bad) == (good, bad):
        progress.step(f"answered before, from {file}; --restart judges anew")
        return stored
    if stored:
        other = stored.question.differences(question) or "what its refs mean now"
        progress.warn(f"starts anew: {file} is of another question: {other}")
    return State(question, good, bad)


@dataclass(slots=True)
class _Trail:
    """The line that is searched now, and what is to be told. `commits`: those of the first line."""

    line: list[Commit]
    commits: int
    merges: list[Commit] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def _run(trail: _Trail, book: Book, case: Case, request: Request, progress: Progress) -> Outcome:
    """Judge commits until the answer is known or a limit is reached."""
    book.close(answered=False)
    again = f"the same command{', without --restart,' if request.restart else ''} goes on"
    try:
        outcome = _search(trail, book, case.remote, request, progress)
    except LimitError as limit:
        trail.notes.append(f"stopped by {limit}; {again}")
        outcome = "stopped"
    except BaseException:
        progress.warn(f"stopped after {counted(book.judged_now, 'step')}; {again}")
        raise
    book.close(answered=outcome != "stopped")
    return outcome


def _search(
    trail: _Trail, book: Book, remote: git.Remote, request: Request, progress: Progress
) -> Outcome:
    if request.check_ends and (wrong := _wrong_end(book, progress)):
        return wrong
    position = _narrowed(trail, book, progress)
    while request.enter_merges and (merge := _merge(trail, position)):
        trail.merges.append(merge)
        inside = bisect_history.inside(remote, merge, progress)
        if not inside or not _can_enter(merge, inside, trail, book, progress):
            break
        trail.line = [*inside, merge]
        position = _narrowed(trail, book, progress)
    if position.found:
        return "found"
    return "range" if position.suspects else "bad-is-good"


def _wrong_end(book: Book, progress: Progress) -> Outcome | None:
    ends: tuple[tuple[str, Verdict, Outcome], ...] = (
        (book.state.bad, "bad", "bad-is-good"),
        (book.state.good, "good", "good-is-bad"),
    )
    for commit, said, wrong in ends:
        progress.step(f"judge {commit[:9]}, said to be {said}")
        found = book.judge(commit).verdict
        if found != said:
            return "end-not-judged" if found == "skip" else wrong
    return None


def _narrowed(trail: _Trail, book: Book, progress: Progress) -> Position:
    """The position when nothing that is left on the line tells more."""
    known = {one.commit: one for one in trail.line}
    while (position := narrow([*known], book.verdicts)).next:
        one = known[position.next]
        progress.step(
            f"{counted(len(position.suspects), 'commit')} left, about "
            f"{counted(position.steps_left, 'step')}: judge {one.commit[:9]} {one.subject}"
        )
        found = book.judge(one.commit)
        progress.step(f"{one.commit[:9]} {WORDS[found.verdict]} {found.headline}".rstrip())
    return position


def _merge(trail: _Trail, position: Position) -> Commit | None:
    """The merge that is the answer so far and was not looked into."""
    found = next((one for one in trail.line if one.commit == position.found), None)
    enter = found and found not in trail.merges and len(found.parents) == _TWO_PARENTS
    return found if enter else None


def _can_enter(
    merge: Commit, inside: list[Commit], trail: _Trail, book: Book, progress: Progress
) -> bool:
    """Whether the merged branch can be judged alone: it may lack what the stage asks for."""
    for base in inside[0].parents[:1]:
        progress.step(f"judge {base[:9]}, where the branch began that {merge.commit[:9]} merges")
        found = book.judge(base)
        if found.verdict != "good":
            trail.notes.append(
                f"merge {merge.commit[:9]} is not entered: {base[:9]}, where its branch began, "
                f"{WORDS[found.verdict]} {found.headline}"
            )
            return False
    return True


def _report(
    case: Case, book: Book, trail: _Trail, outcome: Outcome, progress: Progress
) -> BisectReport:
    state, question = book.state, book.state.question
    known = {one.commit: one for one in trail.line}
    position = narrow([*known], book.verdicts)
    first = known[position.found] if position.found and outcome == "found" else None
    last_good = first.parents[0] if first and first.parents else None
    shown = state.good if outcome == "good-is-bad" else [state.bad, *position.suspects][-1]
    return BisectReport(
        fork=question.fork,
        url=question.url,
        stage=question.stage,
        command=question.command,
        variant=question.variant,
        good_ref=question.good,
        good=state.good,
        bad_ref=question.bad,
        bad=state.bad,
        outcome=outcome,
        commits=trail.commits,
        suspects=[known[commit] for commit in position.suspects],
        first_bad=first,
        last_good=last_good,
        merges=trail.merges,
        stat=_stat(case.remote, last_good, first, trail, progress) if first and last_good else "",
        evidence=book.get(shown),
        judged=state.judged,
        steps=book.judged_now,
        steps_left=position.steps_left,
        notes=trail.notes,
        setup=_setup(case),
        state=str(bisect_state.path(case.results, question.fork)),
        duration_s=round(book.seconds, 2),
    )


def _stat(remote: git.Remote, old: str, new: Commit, trail: _Trail, progress: Progress) -> str:
    """What a commit changes; a note instead where the remote no longer gives one of the two out."""
    try:
        return bisect_history.stat(remote, old, new.commit, progress)
    except (RemoteUnavailableError, RefNotFoundError) as error:
        trail.notes.append(f"what it changes is not known: {error.what}")
        return ""


def _setup(case: Case) -> str:
    """How the variant is configured without builder."""
    if not case.variant:
        return ""
    variant = case.pins.variants[case.variant]
    base = case.pins.bases[variant.base]
    options = render.cmake_options(case.pins.forks[variant.fork], variant, base)
    cuda = f", CUDA {base.cuda.version}" if base.cuda else ""
    words = [shlex.quote(f"-D{name}={value}") for name, value in options.items()]
    command = " \\\n    ".join(["cmake -S . -B build -G Ninja", *words])
    title = f"# base {variant.base}: {base.compiler.cxx}{cuda}"
    return f"{title}\n{command}\ncmake --build build --target llama-server"
