"""The real build, audit and smoke, handed to the verbs that move something behind them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import UsageError

if TYPE_CHECKING:
    from builder.bisect_judges import Stages as BisectStages
    from builder.bump import Stages
    from builder.cosign import Signer
    from builder.freshness_report import ForkReport
    from builder.github import Github
    from builder.github_threads import Threads
    from builder.model import Pins
    from builder.nightly import Stages as NightStages
    from builder.nights import Ends
    from builder.progress import Progress
    from builder.publish import Stages as PublishStages


def proving() -> "Stages":
    """Build, audit and smoke as a pin is moved behind them."""
    from builder import audit as audits
    from builder import build as builds
    from builder import engine
    from builder import smoke as smokes
    from builder.bump import Stages

    return Stages(
        build=builds.build,
        audit=lambda pins, receipt, results, progress: audits.audit(
            engine.connect(),
            receipt.image,
            pins,
            results=results,
            variant=receipt.variant,
            progress=progress,
        ),
        smoke=lambda pins, receipt, options, results, progress: smokes.smoke_image(
            engine.connect(), receipt.image, pins, options, results, progress
        ),
    )


def bisecting() -> "BisectStages":
    """The same two as a bisection judges by them."""
    from builder import bisect_judges, engine

    stages = proving()
    return bisect_judges.Stages(
        build=stages.build,
        smoke=stages.smoke,
        untag=lambda tag: engine.untag(engine.connect(), tag),
    )


def publishing(signer: "Signer | None", results: Path) -> "PublishStages":
    """Audit and smoke of what was pulled back from a registry, and what goes with it there.

    Under `results` lies what the build has kept of it.
    """
    from builder import attest, engine, publish
    from builder import audit as audits
    from builder import smoke as smokes

    return publish.Stages(
        audit=lambda pins, image, variant, results, progress: audits.audit(
            engine.connect(), image, pins, results=results, variant=variant, progress=progress
        ),
        smoke=lambda pins, image, options, results, progress: smokes.smoke_image(
            engine.connect(), image, pins, options, results, progress
        ),
        gpu=publish.gpu,
        attach=lambda pins, release, progress: attest.attach(
            engine.connect(), release, pins, signer, progress, results=results
        ),
    )


def nightly(host: "Github", signer: "Signer | None", results: Path) -> "NightStages":
    """All that a night does to the world. Under `results` lies what its builds keep."""
    from builder import freshness, night_release, propose
    from builder.nightly import Stages

    def look(pins: "Pins", fork: str, progress: "Progress") -> "ForkReport":
        return freshness.look(pins, [fork], host, progress).forks[0]

    return Stages(
        look=look,
        proving=proving(),
        publish=night_release.publisher(publishing(signer, results)),
        promote=night_release.promote,
        propose=lambda case, move, release, progress: propose.propose(
            case.file, move, release, threads(host), case.results, progress
        ),
    )


def ending(host: "Github", keep: "Callable[[Progress], None]") -> "Ends":
    """What comes after a night; `keep` after the last one, for their record."""
    from builder import bisect, night_issue
    from builder.nights import Ends

    return Ends(
        bisect=lambda pins, request, results, progress: bisect.bisect(
            pins, request, bisecting(), results, progress
        ),
        tell=lambda fork, issue, results, progress: night_issue.tell(
            threads(host), fork, issue, results, progress
        ),
        page=night_issue.job_page(),
        keep=keep,
    )


def threads(host: "Github") -> "Threads | None":
    """The issues and pull requests of the repository that a GitHub job is of; None outside of one.

    https://docs.github.com/actions/reference/workflows-and-actions/variables
    """
    from builder.github_threads import Threads

    repository = os.environ.get("GITHUB_REPOSITORY")
    return Threads(host, repository) if host.token and repository else None


def record_branch(
    file: Path, branch: str | None, folder: Path, host: "Github", progress: "Progress"
) -> "Callable[[Progress], None]":
    """Have the record from a branch of the checkout's remote: what pushes it there again.

    Without a branch nothing is had nor pushed. Raises UsageError, RemoteUnavailableError.
    """
    from builder import git
    from builder.branches import Checkout
    from builder.record_branch import RecordBranch

    if branch is None:
        return lambda _: None
    root = git.top(file)
    if root is None or Checkout(root, host).origin is None:
        raise UsageError(
            "--record-branch is a branch of the remote `origin` of pins.toml's checkout",
            why=f"{file} lies in no git checkout that has one",
            hint="leave it out: the record is kept in a folder",
        )
    kept = RecordBranch.of(Checkout(root, host), branch, folder)
    kept.take(progress)
    return lambda progress: kept.give("Nights", progress)
