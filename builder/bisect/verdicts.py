"""The verdicts of a bisect: a commit is judged once, and written down before the next."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from builder.bisect import state as bisect_state
from builder.bisect.search import Verdict
from builder.bisect.state import Judged, State


class LimitError(Exception):
    """No further commit may be judged in this run. Its text says by which limit."""


class Book:
    """Verdicts on disk. `max_builds` and `budget_s` (seconds) count from when it was opened."""

    def __init__(
        self,
        state: State,
        file: Path,
        judge: Callable[[str], Judged],
        *,
        max_builds: int | None,
        budget_s: float | None,
    ) -> None:
        self.state = state
        self.judged_now = 0
        self._file = file
        self._judge = judge
        self._max_builds = max_builds
        self._budget_s = budget_s
        self._opened = time.monotonic()

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """All of them, by commit."""
        return {one.commit: one.verdict for one in self.state.judged}

    @property
    def seconds(self) -> float:
        """How long it has been open."""
        return time.monotonic() - self._opened

    def get(self, commit: str) -> Judged | None:
        """What is known of a commit."""
        return next((one for one in self.state.judged if one.commit == commit), None)

    def judge(self, commit: str) -> Judged:
        """The verdict, asked for if it is not known. Raises LimitError, and what judging raises."""
        known = self.get(commit)
        if known:
            return known
        if self._max_builds is not None and self.judged_now >= self._max_builds:
            raise LimitError(f"--max-builds {self._max_builds}")
        if self._budget_s is not None and self.seconds >= self._budget_s:
            raise LimitError(f"--budget after {self.seconds:.0f} s")
        found = self._judge(commit)
        self.judged_now += 1
        self._write(replace(self.state, judged=[*self.state.judged, found]))
        return found

    def close(self, *, answered: bool) -> None:
        """Write down whether the question is answered."""
        self._write(replace(self.state, answered=answered))

    def _write(self, state: State) -> None:
        bisect_state.save(state, self._file)
        self.state = state
