"""Does it end when it is asked to."""

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from builder.model.finding import Finding, verdict

PROBE = "stop"
DEADLINE_S = 5.0

When = Literal["idle", "loading", "in mid-stream"]

TERMINATED = 128 + signal.SIGTERM
"""What a shell calls the exit of a process that SIGTERM ended by itself."""

CODES: dict[When, tuple[int, ...]] = {
    "idle": (0,),
    # Its shutdown waits for the client, so the image's init may have to kill it (seen on mainline
    # 0c1e57098 and spiritbuun 1c4788192).
    "in mid-stream": (0, TERMINATED),
    # It has no handler for SIGTERM before the model is loaded.
    "loading": (0, TERMINATED),
}
"""Exit codes of a good end. llama-server catches SIGTERM and exits 0 once it serves."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a server took SIGTERM. `exit_code` None: it still ran after `seconds`.

    `missed` says why the signal could not be sent at that moment; nothing else counts then.
    """

    when: When
    seconds: float = 0.0
    exit_code: int | None = None
    missed: str = ""


def stop(endings: Sequence[Ending]) -> Finding:
    """Whether every SIGTERM ended the server in time and with a code that is documented."""
    bad = [one for one in endings if not one.missed and not _well(one)]
    missed = [one for one in endings if one.missed]
    expected = f"SIGTERM ends it in under {DEADLINE_S:.0f} s with exit code 0 (idle), 0 or 143"
    if missed and not bad:
        return Finding(PROBE, "unproven", expected, "; ".join(_words(one) for one in endings))
    return verdict(
        PROBE,
        holds=not bad,
        expected=expected,
        observed="; ".join(_words(one) for one in bad or endings),
    )


def _well(ending: Ending) -> bool:
    return ending.exit_code in CODES[ending.when] and ending.seconds < DEADLINE_S


def _words(ending: Ending) -> str:
    if ending.missed:
        return f"{ending.when}: not asked, {ending.missed}"
    if ending.exit_code is None:
        return f"{ending.when}: still running after {ending.seconds:.1f} s"
    return f"{ending.when}: exit code {ending.exit_code} after {ending.seconds:.1f} s"
