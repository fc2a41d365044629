"""The verdict on one commit: by its build, by a smoke of its image, or by a command."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from builder.bisect.search import Verdict
from builder.bisect.state import Judged
from builder.build.run import Request as BuildRequest
from builder.common.errors import BuilderError, BuildFailedError, RefNotFoundError, UsageError
from builder.common.files import write_atomically
from builder.common.locks import locked
from builder.common.progress import Progress
from builder.common.suggest import suggestion
from builder.engine import boundary
from builder.git import remote as git
from builder.model import tags
from builder.model.pins import Pins, Receipt
from builder.smoke.options import Options
from builder.smoke.report import CONTRACT, SmokeReport

IMAGE = "{image}"
COMMIT = "{commit}"

PROBES = (*CONTRACT, "kv", "offload", "thinking_by_request")

_PREFIX = "probe:"
_CANNOT_TELL = 125
_LAST_BAD = 127
_ERROR = re.compile(r"(?i)\berror\b")
_LINES = 10
_WIDTH = 300
_PATIENCE_S = 10.0


class AbortedError(BuilderError):
    """A command said that the bisect should not go on."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Stages:
    """What makes an image and asks it, and takes the name from an image that is needed no more."""

    build: Callable[[Pins, BuildRequest, Path, Progress], Receipt]
    smoke: Callable[[Pins, Receipt, Options, Path, Progress], SmokeReport]
    untag: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Case:
    """How commits are judged. `variant` is what is built; empty: nothing is.

    `stage` is `build`, `smoke`, `probe:NAME`, or `run` for `command`. Logs go under `results`.
    """

    pins: Pins
    remote: git.Remote
    variant: str
    stage: str
    command: list[str]
    results: Path


def parse_stage(text: str) -> str:
    """The stage itself. Raises UsageError for one that is not known."""
    name = text.removeprefix(_PREFIX)
    if text.startswith(_PREFIX):
        if name not in PROBES:
            raise UsageError(f"--stage {text}: no such probe", hint=suggestion(name, PROBES))
    elif text not in {"build", "smoke"}:
        raise UsageError(f"--stage {text}: no such stage", hint="build, smoke or probe:NAME")
    return text


def parse_command(text: str) -> tuple[str, ...]:
    """The words of a command as a shell splits them; nothing in them is expanded.

    Raises UsageError for a quote that is not closed, and for no words.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--run {text!r} cannot be split into words", why=str(error)) from error
    if not words:
        raise UsageError("--run names no command")
    return tuple(words)


def wants_image(command: list[str]) -> bool:
    """Whether the command is about the image, and not about the tree alone."""
    return any(IMAGE in word for word in command)


def judge(case: Case, commit: str, stages: Stages, progress: Progress) -> Judged:
    """The verdict on a commit.

    Raises AbortedError by the command, BuildFailedError by this machine's fault, EngineError and
    RemoteUnavailableError: of none of them the commit is to blame, nor is it judged.
    """
    started = time.monotonic()
    try:
        found = _not_there(case, commit, progress) or _ask(case, commit, stages, progress)
    except BuildFailedError as error:
        if not error.commits_fault:
            raise
        # Only the question of the build is answered by a build that fails.
        verdict: Verdict = "bad" if case.stage == "build" else "skip"
        found = _Found(verdict, "build", error.why or error.what, error.log)
    except Exception as error:
        if boundary.known(error):
            raise
        # What a commit makes builder itself stumble over is no verdict, and ends no search.
        found = _Found("skip", case.stage, boundary.failure(error).what)
    seconds = round(time.monotonic() - started, 2)
    return Judged(commit, found.verdict, found.stage, found.reason, found.log, seconds)


@dataclass(frozen=True, slots=True)
class _Found:
    verdict: Verdict
    stage: str
    reason: str = ""
    log: str = ""


def _not_there(case: Case, commit: str, progress: Progress) -> _Found | None:
    """A skip for a commit whose tree the remote does not give out, or that no disk can hold."""
    try:
        with _tree(case.remote, commit, progress):
            return None
    except (RefNotFoundError, BuildFailedError) as error:
        return _Found("skip", "fetch", f"{error.what}\n{error.why}".strip())


@contextlib.contextmanager
def _tree(remote: git.Remote, commit: str, progress: Progress) -> Iterator[Path]:
    """The fork's work tree at the commit, to ourselves."""
    with locked(remote.cache("checkout"), f"another build of fork {remote.fork}", progress):
        yield git.checkout(remote, commit, progress)[0]


def _ask(case: Case, commit: str, stages: Stages, progress: Progress) -> _Found:
    if not case.variant:
        return _run(case, commit, "", progress)
    with _built(case, commit, stages, progress) as receipt:
        if case.stage == "run":
            return _run(case, commit, receipt.image, progress)
        if case.stage == "build":
            return _Found("good", "build", log=receipt.log)
        options = Options(variant=case.variant)
        report = stages.smoke(case.pins, receipt, options, case.results, progress)
        return _smoked(report, case.stage)


@contextlib.contextmanager
def _built(case: Case, commit: str, stages: Stages, progress: Progress) -> Iterator[Receipt]:
    """The commit's image, under a name of its own that is gone afterwards: the caches stay."""
    tag = f"{tags.local(case.variant)}-bisect-{commit[:9]}"
    request = BuildRequest(case.variant, ref=commit, tag=tag, trial=True)
    try:
        yield stages.build(case.pins, request, case.results, progress)
    finally:
        stages.untag(tag)


def _smoked(report: SmokeReport, stage: str) -> _Found:
    """A probe that is unproven tells neither way: where it decides, the commit can't be judged."""
    probe = stage.removeprefix(_PREFIX)
    one = stage.startswith(_PREFIX)
    asked = [finding for finding in report.findings if not one or finding.probe == probe]
    failed = [finding for finding in asked if finding.status == "fail"]
    unsure = [
        finding
        for finding in asked
        if finding.status == "unproven" and (one or finding.probe in report.missing)
    ]
    told = failed or unsure
    lines = [f"{each.probe}: expected {each.expected}; observed {each.observed}" for each in told]
    said = "\n".join(line.replace("\n", " ") for line in lines)
    verdict: Verdict = "bad" if failed else "skip" if unsure or not asked else "good"
    return _Found(verdict, "smoke", said, report.log)


def _run(case: Case, commit: str, image: str, progress: Progress) -> _Found:
    """Run the command in the commit's tree, its output to a log: exit codes as `git bisect run`'s.

    https://git-scm.com/docs/git-bisect#_bisect_run
    """
    words = [word.replace(IMAGE, image).replace(COMMIT, commit) for word in case.command]
    log = case.results / "build" / "logs" / f"bisect-{case.remote.fork}-{commit[:9]}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with _tree(case.remote, commit, progress) as tree:
        progress.step(f"run {shlex.join(words)}")
        code = _exit_code(words, tree, log)
    # The command wrote it: without logins from here on.
    write_atomically(log, log.read_text(encoding="utf-8", errors="replace"))
    if code == 0:
        return _Found("good", "run", log=str(log))
    told = _telling(log.read_text(encoding="utf-8", errors="replace").splitlines())
    how = f"exit code {code}" if code > 0 else f"signal {-code}"
    if not 0 < code <= _LAST_BAD:
        raise AbortedError(
            f"{words[0]} ended with {how} at {commit[:9]}: the commit is not judged",
            why="\n".join(told),
            hint=f"the log: {log}",
        )
    return _Found(
        "skip" if code == _CANNOT_TELL else "bad", "run", "\n".join([how, *told]), str(log)
    )


def _telling(lines: list[str]) -> list[str]:
    """The first error and what follows it; the end of the output where none is named."""
    first = next((i for i, line in enumerate(lines) if _ERROR.search(line)), len(lines))
    told = lines[min(first, max(0, len(lines) - _LINES)) :][:_LINES]
    return [line[:_WIDTH] for line in told]


def _exit_code(words: list[str], tree: Path, log: Path) -> int:
    """The exit code of a command, or minus the signal that ended it."""
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(
                words,
                cwd=tree,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # With all that it starts: an interrupt ends them together.
                process_group=0,
            )
        except OSError as error:
            raise UsageError(
                f"--run: {words[0]} cannot be started",
                why=str(error),
                hint="it runs in the commit's tree: give a path that begins with /",
            ) from error
        try:
            return process.wait()
        except BaseException:
            _end(process)
            raise


def _end(process: "subprocess.Popen[bytes]") -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_PATIENCE_S)
            return
