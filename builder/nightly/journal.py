"""How far a night has come: a file beside the record, written after every step.

What it says is done is not done again: a night that was killed goes on behind it.
"""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from builder.bump.report import BumpReport
from builder.common.files import write_atomically
from builder.model.pins import Receipt, Requirement
from builder.release.record import NightStep


@dataclass(frozen=True, slots=True)
class Found:
    """What the steps that are done have found. `release` is the name that the candidate's has.

    `standing`: the floating tags stand for it already. `published`: the record has it already.
    `passed`: what the image that was built has proven.
    """

    commits_behind: int | None = None
    days_behind: int | None = None
    move: BumpReport | None = None
    release: str | None = None
    standing: bool = False
    published: bool = False
    receipt: Receipt | None = None
    audit: str = ""
    smoke: str = ""
    passed: list[Requirement] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Order:
    """What a night was asked for; the journal of another order is of no use to it.

    `pins` is the SHA-256 of pins.toml, `ref` empty for the fork's branch.
    """

    variant: str
    repository: str
    ref: str
    pinned: bool
    pins: str


@dataclass(frozen=True, slots=True)
class Journal:
    """One night of one variant, as far as it has come; `begun` is UTC, RFC 3339."""

    order: Order
    begun: str
    steps: list[NightStep] = field(default_factory=list)
    found: Found = field(default_factory=Found)
    schema: Literal[1] = 1

    def done(self, step: str) -> bool:
        """Whether this step has ended, well or not."""
        return any(one.name == step for one in self.steps)

    @property
    def failed(self) -> NightStep | None:
        """The step at which the candidate failed."""
        return next((one for one in self.steps if one.status == "failed"), None)

    def after(self, step: NightStep, found: Found) -> "Journal":
        """The same with one step more."""
        return replace(self, steps=[*self.steps, step], found=found)


def path(record: Path, variant: str) -> Path:
    """Where the journal of a variant lies."""
    return record.with_name(f"{record.name}-journals") / f"{variant}.json"


def load(file: Path) -> Journal | None:
    """The journal in the file; None when there is none, or none of this schema."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(Journal).validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None


def save(journal: Journal, file: Path) -> None:
    """Write the journal; never a half-written file."""
    from pydantic import TypeAdapter

    page = TypeAdapter(Journal).dump_python(journal, mode="json")
    write_atomically(file, json.dumps(page, indent=2) + "\n")
