"""Is the server up: a state machine over what is seen of its container and of /health."""

import signal
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from builder.llama.client import Answer
from builder.model.finding import Finding, verdict

PROBE = "ready"
EXPECTED = "/health answers 200 and status ok, not before the server serves"

Health = Literal["ok", "loading", "silent", "other", "premature"]


class Phase(StrEnum):
    """Where a server stands. The last three are final."""

    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    EXITED = "exited"
    TIMED_OUT = "timed out"


_FINAL = {Phase.READY, Phase.EXITED, Phase.TIMED_OUT}


@dataclass(frozen=True, slots=True)
class Observation:
    """One look: seconds since the start, the container's state, and what /health said."""

    at_s: float
    health: Health
    running: bool = True
    exit_code: int | None = None
    out_of_memory: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """What is known after some looks. `timeout_s` is how long the server may take, in seconds.

    `premature`: /health once said ok while other questions were still turned away.
    """

    timeout_s: float
    phase: Phase = Phase.STARTING
    loading_seen: bool = False
    premature: bool = False
    last: Observation = Observation(0.0, "silent")

    @property
    def over(self) -> bool:
        """Whether another look changes nothing."""
        return self.phase in _FINAL

    def after(self, seen: Observation) -> "Wait":
        """What is known after one more look."""
        if self.over:
            return self
        return replace(
            self,
            phase=self._next(seen),
            loading_seen=self.loading_seen or seen.health == "loading",
            premature=self.premature or seen.health == "premature",
            last=seen,
        )

    def _next(self, seen: Observation) -> Phase:
        # A server that has exited may have been healthy a moment before: gone is gone. One that
        # answers at the very deadline made it.
        if not seen.running:
            return Phase.EXITED
        if seen.health == "ok":
            return Phase.READY
        if seen.at_s >= self.timeout_s:
            return Phase.TIMED_OUT
        return Phase.LOADING if seen.health == "loading" else self.phase


def health(answer: Answer) -> Health:
    """What an answer of /health means."""
    if answer.status is None:
        return "silent"
    if answer.status == 200 and answer.at("status") == "ok":  # noqa: PLR2004
        return "ok"
    return "loading" if answer.status == 503 else "other"  # noqa: PLR2004


def finding(wait: Wait) -> Finding:
    """The verdict of a wait that is over."""
    return verdict(
        PROBE,
        holds=wait.phase is Phase.READY and not wait.premature,
        expected=EXPECTED,
        observed=_observed(wait),
    )


def _observed(wait: Wait) -> str:
    seconds = f"{wait.last.at_s:.1f} s"
    if wait.premature:
        return f"200 and ok while it still answered 503 to /props, {seconds} after the start"
    if wait.phase is Phase.READY:
        return f"{'503 while loading, then ' if wait.loading_seen else ''}200 after {seconds}"
    if wait.phase is Phase.EXITED:
        how = ending(wait.last.exit_code, out_of_memory=wait.last.out_of_memory)
        return f"the server exited after {seconds}: {how}"
    if wait.loading_seen:
        return f"still loading after {seconds}"
    answers = {"silent": "no answer", "other": "no answer that makes sense"}
    return f"{answers.get(wait.last.health, wait.last.health)} after {seconds}"


def ending(exit_code: int | None, *, out_of_memory: bool) -> str:
    """How a server ended, in words."""
    if out_of_memory:
        return "killed for want of memory"
    code = exit_code or 0
    names = {128 + number: number.name for number in signal.Signals}
    return f"exit code {code}" + (f" ({names[code]})" if code in names else "")
