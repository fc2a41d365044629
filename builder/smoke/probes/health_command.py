"""Does an image's HEALTHCHECK tell the truth: yes beside a server that serves, else no."""

from dataclasses import dataclass

from builder.llama.target import CheckCommand, CheckRun
from builder.model.finding import Finding, not_asked

PROBE = "healthcheck"
EXPECTED = "HEALTHCHECK says yes beside a server that is ready, and no where none is or one loads"


@dataclass(frozen=True, slots=True)
class Answers:
    """What HEALTHCHECK answered when it was run once. None: nobody could ask.

    `ready` beside a server on the default port, `moved` beside one on another port, `nobody` in a
    container without a server, `loading` beside a server that answered 503 before and after.
    """

    ready: CheckRun | None = None
    moved: CheckRun | None = None
    nobody: CheckRun | None = None
    loading: CheckRun | None = None


def healthcheck(command: CheckCommand | None, answers: Answers, port: int) -> Finding:
    """Whether HEALTHCHECK says yes where it should, and no where it should.

    A check whose words name the default port in the clear is about that port alone, as llama.cpp's
    own images have it; any other has to follow the server to another port. For a pass it has to
    have said no where none listens, and beside one that loads: one may be ready too soon for that.
    """
    if command is None:
        return Finding(PROBE, "fail", EXPECTED, "the image has no HEALTHCHECK")
    fixed = str(port) in " ".join(command.words)
    if faults := _faults(answers, fixed=fixed):
        return Finding(PROBE, "fail", EXPECTED, "; ".join(faults))
    if answers.ready is None:
        return not_asked(PROBE, "there was no server to ask it beside")
    words = [
        f"{where}: {run or 'not asked'}"
        for where, run in (
            ("ready", answers.ready),
            ("on another port", answers.moved),
            ("no server", answers.nobody),
            ("loading", answers.loading),
        )
    ]
    if answers.moved is not None and not answers.moved.healthy:
        words.append(f"it is about port {port} alone")
    said_no = answers.nobody is not None and answers.loading is not None
    known = said_no and (fixed or answers.moved is not None)
    return Finding(PROBE, "pass" if known else "unproven", EXPECTED, "; ".join(words))


def _faults(answers: Answers, *, fixed: bool) -> list[str]:
    faults = []
    if answers.ready is not None and not answers.ready.healthy:
        faults.append(f"not healthy beside a server that is ready: {answers.ready}")
    if answers.moved is not None and not answers.moved.healthy and not fixed:
        faults.append(f"not healthy beside a server on another port: {answers.moved}")
    if answers.nobody is not None and answers.nobody.healthy:
        faults.append("healthy where no server is")
    if answers.loading is not None and answers.loading.healthy:
        faults.append("healthy beside a server that still loads")
    return faults
