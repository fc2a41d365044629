"""The real build, audit and smoke, handed to the verbs that move something behind them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from builder.common.errors import UsageError

if TYPE_CHECKING:
    from builder.bisect.judge import Stages as BisectStages
    from builder.bump.fork import Stages
    from builder.common.progress import Progress
    from builder.freshness.report import ForkReport
    from builder.git.github import Github
    from builder.git.github_threads import Threads
    from builder.model.pins import Pins
    from builder.nightly.night import Stages as NightStages
    from builder.nightly.nights import Ends
    from builder.release.cosign import Signer
    from builder.release.publish import Stages as PublishStages


def proving() -> "Stages":
    """Build, audit and smoke as a pin is moved behind them."""
    from builder.audit import run as audits
    from builder.build import run as builds
    from builder.bump.fork import Stages
    from builder.engine import client as engine
    from builder.smoke import run as smokes

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
    from builder.bisect import judge as bisect_judges
    from builder.engine import client as engine

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
    from builder.audit import run as audits
    from builder.engine import client as engine
    from builder.release import attach as attest
    from builder.release import publish
    from builder.smoke import run as smokes

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
    from builder.freshness import look as freshness
    from builder.nightly import publish as night_release
    from builder.nightly import pull_request as propose
    from builder.nightly.night import Stages

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
    from builder.bisect import run as bisect
    from builder.nightly import issue as night_issue
    from builder.nightly.nights import Ends

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
    from builder.git.github_threads import Threads

    repository = os.environ.get("GITHUB_REPOSITORY")
    return Threads(host, repository) if host.token and repository else None


def record_branch(
    file: Path, branch: str | None, folder: Path, host: "Github", progress: "Progress"
) -> "Callable[[Progress], None]":
    """Have the record from a branch of the checkout's remote: what pushes it there again.

    Without a branch nothing is had nor pushed. Raises UsageError, RemoteUnavailableError.
    """
    from builder.git import remote as git
    from builder.git.pushed_branches import Checkout
    from builder.release.record_branch import RecordBranch

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
