"""The real build, audit and smoke, handed to the verbs that move something behind them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from builder.bisect_judges import Stages as BisectStages
    from builder.bump import Stages
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


def publishing() -> "PublishStages":
    """Audit and smoke of what was pulled back from a registry."""
    from builder import audit as audits
    from builder import engine, publish
    from builder import smoke as smokes

    return publish.Stages(
        audit=lambda pins, image, variant, results, progress: audits.audit(
            engine.connect(), image, pins, results=results, variant=variant, progress=progress
        ),
        smoke=lambda pins, image, options, results, progress: smokes.smoke_image(
            engine.connect(), image, pins, options, results, progress
        ),
        gpu=publish.gpu,
    )
