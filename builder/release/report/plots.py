"""Where the marks of the plots and of the strip of nights lie. Pure; SVG is made in the template.

Units are those of the drawings' own viewBox, which the page scales.
"""

import datetime
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from builder.release.record import Night

WIDTH, HEIGHT = 320, 120
LEFT, RIGHT, TOP, BOTTOM = 34, 8, 10, 20
CELL = 16
"""A night in the strip takes this much in both directions, its margin included."""

_DAYS_A_WEEK = 7


@dataclass(frozen=True, slots=True)
class Mark:
    """One night: its place, the words that tell it, and its outcome.

    In a plot `known` is False where the night has no such figure; the mark lies on the axis then.
    """

    x: float
    y: float
    words: str
    outcome: str
    known: bool = True


@dataclass(frozen=True, slots=True)
class Plot:
    """One figure over time, from 0 at `floor` to `most`; `latest` is the newest figure in words."""

    title: str
    latest: str
    most: str
    floor: float
    marks: list[Mark]
    first: str
    last: str

    @property
    def line(self) -> str:
        """The `points` of a polyline through the figures that are known."""
        return " ".join(f"{one.x:g},{one.y:g}" for one in self.marks if one.known)


@dataclass(frozen=True, slots=True)
class Strip:
    """The nights as a calendar: a column a week that begins on Monday, a row a day."""

    marks: list[Mark]
    width: int
    height: int = _DAYS_A_WEEK * CELL


@dataclass(frozen=True, slots=True)
class Window:
    """The days that a page shows."""

    first: datetime.date
    last: datetime.date

    def share(self, date: str) -> float:
        """Where a day lies between the first, 0, and the last, 1."""
        whole = (self.last - self.first).days
        return (day(date) - self.first).days / whole if whole else 0.5


def day(date: str) -> datetime.date:
    """The day of a YYYY-MM-DD. Raises ValueError."""
    return datetime.date.fromisoformat(date)


def plot(
    title: str,
    nights: Sequence[Night],
    window: Window,
    figure: Callable[[Night], float | None],
    unit: str,
) -> Plot:
    """A figure of every night, over the days of the window; `unit` stands behind each."""
    figures = [figure(one) for one in nights]
    known = [one for one in figures if one is not None]
    most = _round_up(max(known, default=0.0))
    marks = [
        Mark(
            x=round(LEFT + (WIDTH - LEFT - RIGHT) * window.share(night.date), 1),
            y=round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value or 0.0) / most, 1),
            words=f"{night.date}: {'no figure' if value is None else _words(value, unit)}",
            outcome=night.outcome,
            known=value is not None,
        )
        for night, value in zip(nights, figures, strict=True)
    ]
    return Plot(
        title=title,
        latest=_words(known[-1], unit) if known else "no figure yet",
        most=f"{most:g}",
        floor=HEIGHT - BOTTOM,
        marks=marks,
        first=window.first.isoformat(),
        last=window.last.isoformat(),
    )


def strip(nights: Sequence[Night], window: Window) -> Strip:
    """Every night of one variant at its day."""
    monday = window.first - datetime.timedelta(days=window.first.weekday())
    weeks = (window.last - monday).days // _DAYS_A_WEEK + 1
    marks = [
        Mark(
            x=(day(one.date) - monday).days // _DAYS_A_WEEK * CELL,
            y=day(one.date).weekday() * CELL,
            words=f"{one.date}: {one.outcome}" + (f" at {one.failed_step}" * bool(one.failed_step)),
            outcome=one.outcome,
        )
        for one in nights
    ]
    return Strip(marks, width=weeks * CELL)


def _round_up(value: float) -> float:
    """The next of 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8 times a power of ten; 1 for nothing."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(
        step * power for step in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if step * power >= value
    )


def _words(value: float, unit: str) -> str:
    return f"{value:.1f}".removesuffix(".0") + f" {unit}"
