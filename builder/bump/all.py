"""Move every pin: forks to their branches, bases to their tags, each whole or not at all."""

from dataclasses import replace
from pathlib import Path

from builder.bump.bases import bump_base
from builder.bump.fork import Request, Stages, bump
from builder.bump.report import AllReport, BaseReport, BumpReport, NotMoved, to_markdown
from builder.common.errors import EngineError, PinsError, UsageError
from builder.common.files import require_writable, write_atomically
from builder.common.progress import Progress
from builder.engine import boundary
from builder.model.pins import Pins
from builder.pins import load as pins

ALL = "all"


def bump_any(
    file: Path, request: Request, stages: Stages | None, progress: Progress
) -> BumpReport | BaseReport | AllReport:
    """Move what `request.fork` names: a fork, a base, or `all`. Raises what `bump` raises."""
    everything = pins.load(file)
    name = request.fork
    if name != ALL and (name in everything.forks or name not in everything.bases):
        return bump(file, request, stages, progress)
    if request.to or request.force:
        raise UsageError("--to and --force go with one fork", hint=f"leave them out for {name}")
    if name != ALL:
        return bump_base(file, name, request, stages, progress)
    if request.variant:
        raise UsageError("--variant goes with one fork or base", hint="leave it out for all")
    return bump_all(file, request, stages, progress)


def bump_all(file: Path, request: Request, stages: Stages | None, progress: Progress) -> AllReport:
    """Move every fork that has a pin, then every base that has images by digest.

    One that is refused, fails a stage or does not answer stays as it was, and the others move all
    the same. Raises EngineError and PinsError, which would meet the others too.
    """
    if request.pr_body and not request.pr_body.parent.is_dir():
        raise UsageError(f"--pr-body {request.pr_body}: there is no such folder")
    if request.pr_body:
        try:
            require_writable(request.pr_body)
        except OSError as error:
            raise PinsError(
                f"--pr-body {request.pr_body} cannot be written; nothing was changed",
                why=str(error),
            ) from error
    everything = pins.load(file)
    moves: list[BumpReport | BaseReport] = []
    failed = []
    alone = replace(request, pr_body=None, grouped=request.pr_body is not None)
    for name in names(everything):
        try:
            if name in everything.forks:
                moves.append(bump(file, replace(alone, fork=name), stages, progress))
            else:
                moves.append(bump_base(file, name, alone, stages, progress))
        except Exception as error:
            failure = boundary.failure(error)
            if isinstance(failure, EngineError | PinsError):
                raise failure from error
            progress.warn(f"{name} is not moved: {failure.what}")
            failed.append(
                NotMoved(name, failure.what, failure.why, failure.hint, failure.exit_code)
            )
    report = AllReport(moves, failed)
    if request.pr_body and any(one.written for one in moves):
        write_atomically(request.pr_body, to_markdown(report))
    return report


def names(everything: Pins) -> list[str]:
    """What `all` means: the forks that have a pin, then the bases that have images by digest."""
    forks = [name for name, fork in everything.forks.items() if fork.commit is not None]
    bases = [name for name, base in everything.bases.items() if base.devel or base.runtime]
    return [*forks, *(name for name in bases if name not in everything.forks)]
