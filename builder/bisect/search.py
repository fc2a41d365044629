"""Where the first bad commit can be, and which to judge next: pure, on a line of commits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["good", "bad", "skip"]
"""`skip`: the commit can't be judged."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a search stands. `suspects` hold the first bad commit, oldest first.

    The last of them is the oldest that is known, or said, to be bad. No suspects: the commit that
    was said to be bad is good. `next` is the one to judge; None: nothing that is left tells more.
    `found` is the first bad commit, when it is known and was judged.
    """

    suspects: tuple[str, ...]
    next: str | None
    found: str | None

    @property
    def steps_left(self) -> int:
        """How many verdicts it still takes if none is a skip; one more may confirm the bad end."""
        return max((len(self.suspects) - 1).bit_length(), 1) if self.next else 0


def narrow(line: Sequence[str], verdicts: Mapping[str, Verdict]) -> Position:
    """Where a search on `line` stands: oldest first, its last commit said to be bad.

    What lies before the line is taken as good.
    """
    judged = [verdicts.get(commit) for commit in line]
    low = max((i for i, one in enumerate(judged) if one == "good"), default=-1)
    bad = (i for i in range(low + 1, len(line)) if judged[i] == "bad")
    suspects = tuple(line[low + 1 : next(bad, len(line) - 1) + 1])
    alone = suspects[0] if len(suspects) == 1 else None
    return Position(
        suspects=suspects,
        next=_choose(suspects, verdicts) if suspects else None,
        # One that is only said to be bad, and can't be judged, is what is left, and not found.
        found=alone if alone and verdicts.get(alone) == "bad" else None,
    )


def _choose(suspects: Sequence[str], verdicts: Mapping[str, Verdict]) -> str | None:
    """The commit nearest to the middle that can be judged; the last one when no other is left.

    Broken commits lie side by side: after the first skip the distance from the middle doubles with
    each, up to a quarter of the suspects. Beyond that the halves would be too unequal.
    """
    *others, last = suspects
    unjudged = [i for i, commit in enumerate(others) if commit not in verdicts]
    if not unjudged:
        return None if last in verdicts else last
    skipped = len(others) - len(unjudged)
    reach = min((1 << skipped) >> 1, len(suspects) // 4)
    middle = len(others) // 2
    return others[min(unjudged, key=lambda i: abs(abs(i - middle) - reach))]
