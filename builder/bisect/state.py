"""What a bisect knows so far, in a file beside pins.toml: a stop loses no verdict."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal

from builder.bisect.search import Verdict
from builder.common.files import write_atomically


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: verdicts are of use to no other question.

    `good` and `bad` are refs as they were typed. `recipe` is the SHA-256 of the Dockerfile that the
    steps build with; it and `variant` are empty when nothing is built.
    """

    fork: str
    url: str
    good: str
    bad: str
    stage: str
    command: list[str]
    variant: str
    recipe: str

    def differences(self, other: "Question") -> str:
        """The names of what is not the same in the other."""
        names = [one.name for one in fields(self)]
        return ", ".join(name for name in names if getattr(self, name) != getattr(other, name))


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdict on one commit. `stage` says what gave it, `reason` why it is not good.

    `stage`: `fetch`, `build`, `smoke` or `run`. `log` is a path or empty.
    """

    commit: str
    verdict: Verdict
    stage: str
    reason: str
    log: str
    duration_s: float

    @property
    def headline(self) -> str:
        """Why it is not good, in one line; empty when it is."""
        return f"({self.stage}: {self.reason.splitlines()[0]})" if self.reason else ""


@dataclass(frozen=True, slots=True)
class State:
    """A question, what its refs meant when it was first asked, and the verdicts in their order.

    `answered`: it came to its end; what the refs mean is looked up when it is asked again.
    """

    question: Question
    good: str
    bad: str
    judged: list[Judged] = field(default_factory=list)
    answered: bool = False
    schema: Literal[1] = 1


def path(results: Path, fork: str) -> Path:
    """Where the state of the fork's bisect lies: one a fork."""
    return results / "build" / "bisect" / f"{fork}.json"


def load(file: Path) -> State | None:
    """The state in the file; None when there is none, or none of this schema."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(State).validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None


def save(state: State, file: Path) -> None:
    """Write the state; never a half-written file."""
    write_atomically(file, json.dumps(asdict(state), indent=2) + "\n")
