"""How a night publishes and promotes: the verbs of those names, in a night's words."""

from collections.abc import Callable

from builder.common.progress import Progress
from builder.model.pins import Pins
from builder.nightly.journal import Found
from builder.nightly.night import Case
from builder.release import promote as promotes
from builder.release import publish as publishes


def publisher(
    stages: publishes.Stages,
) -> Callable[[Case, Pins, Found, Progress], str]:
    """The step that gives an image its name for good, proven by these stages; no tag moves."""

    def publish(case: Case, candidate: Pins, found: Found, progress: Progress) -> str:
        if found.receipt is None:
            raise RuntimeError("a night published what it had not built")
        request = publishes.Request(
            what=found.receipt.image,
            repository=case.request.repository,
            pins=candidate,
            results=case.results,
            promote=False,
            passed=found.passed,
        )
        release = publishes.publish(request, stages, case.record, progress)
        unproven = f", not proven: {', '.join(release.not_proven)}" if release.not_proven else ""
        where = f"on {release.gpu}" if release.gpu else "no GPU here"
        return f"{release.digest}; proven: {', '.join(release.proven)}{unproven} ({where})"

    return publish


def promote(case: Case, name: str, progress: Progress) -> str:
    """The step that moves the variant's floating tags to a release of the record."""
    release = promotes.promote(promotes.Request(name, case.everything), case.record, progress)
    tags = [one.tag for one in release.events if one.what == "promoted" and one.tag]
    return f"{', '.join(dict.fromkeys(tags))} → {release.digest}"
