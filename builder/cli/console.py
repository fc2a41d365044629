"""The only place that prints: progress on stderr, answers on stdout."""

import io
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from builder.common.errors import BuilderError
from builder.common.printable import printable, printable_lines, without_commands
from builder.common.redaction import redacted

if TYPE_CHECKING:
    from rich.progress import Progress

_EVERY_S = 10.0
_SHORT = 24


class _Stream(io.TextIOWrapper):
    """An output stream that takes any text, and that a full disk does not stop.

    What the terminal's encoding lacks is written as `?`. After the first error everything is
    thrown away: the command goes on to its verdict.
    """

    lost: OSError | None = None

    @classmethod
    def of(cls, stream: io.TextIOWrapper) -> "_Stream":
        """Takes the place of another, which cannot be used any more."""
        encoding, lines, at_once = stream.encoding, stream.line_buffering, stream.write_through
        return cls(
            stream.detach(),
            encoding,
            errors="replace",
            line_buffering=lines,
            # stderr has this one: progress comes when it is told.
            write_through=at_once,
        )

    def write(self, text: str, /) -> int:
        with self._losing():
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        with self._losing():
            super().flush()

    @contextmanager
    def _losing(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            self.lost = self.lost or error
            # What is still buffered goes there too, now and at the interpreter's end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())


def prepare() -> None:
    """Have stdout and stderr take everything. One that the caller closed keeps nothing."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            sink = os.open(os.devnull, os.O_WRONLY)
            setattr(sys, name, os.fdopen(sink, "w", encoding="utf-8"))
        elif isinstance(stream, io.TextIOWrapper):
            setattr(sys, name, _Stream.of(stream))


def lost() -> OSError | None:
    """Why the answer, or a part of it, was not written; None when all of it was.

    Raises BrokenPipeError when its reader has gone.
    """
    sys.stdout.flush()
    return getattr(sys.stdout, "lost", None)


def say(text: str) -> None:
    """An answer, on stdout."""
    print(_of_job(_clean(text)))  # noqa: T201


def tell(text: str) -> None:
    """Something beside the answer, on stderr."""
    print(_of_job(_clean(text)), file=sys.stderr)  # noqa: T201


def _clean(text: str) -> str:
    """What may be shown: no login, and nothing that moves a terminal's cursor."""
    return printable_lines(redacted(text))


def _line(text: str) -> str:
    """The same in one line."""
    return _of_job(printable(redacted(text)))


def _of_job(text: str) -> str:
    """What a job of GitHub Actions may print: no workflow command is ours."""
    return without_commands(text) if os.environ.get("GITHUB_ACTIONS") == "true" else text


def summarise(markdown: str) -> None:
    """Markdown for the summary page of a GitHub job, or on stdout outside of one.

    https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands#adding-a-job-summary
    """
    page = os.environ.get("GITHUB_STEP_SUMMARY")
    if page is None:
        say(markdown)
        return
    try:
        with Path(page).open("a", encoding="utf-8") as file:
            file.write(f"{_clean(markdown)}\n")
    except OSError as error:
        # The verdict stands, on the job's page or not.
        tell(f"warning: no summary: GITHUB_STEP_SUMMARY {page}: {error.strerror}")


def complain(error: BuilderError) -> None:
    """What happened, why, and what to do next."""
    tell(f"error: {error.what}")
    for line in error.why.splitlines():
        tell(f"  {line}")
    if error.hint:
        tell(f"  → {error.hint}")


@contextmanager
def progress() -> "Iterator[Terminal | Lines]":
    """Progress for one command: a live line on a terminal, plain lines elsewhere."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn("line"),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True, highlight=False), transient=True) as live:
        yield Terminal(live)


class Lines:
    """A line a step, and one every ten seconds while it lasts: for logs."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._told = self._started

    def step(self, text: str) -> None:
        self._tell(text)

    def detail(self, text: str) -> None:
        if time.monotonic() - self._told >= _EVERY_S:
            self._tell(f"  {text}")

    def warn(self, text: str) -> None:
        self._tell(f"warning: {text}")

    def _tell(self, text: str) -> None:
        self._told = time.monotonic()
        tell(f"[{clock(self._told - self._started)}] {text}")


class Terminal:
    """The current step in a live line with its age; steps done stay above it."""

    def __init__(self, live: "Progress") -> None:
        self._live = live
        self._task = live.add_task("")
        self._step = ""
        self._begun = time.monotonic()

    def step(self, text: str) -> None:
        if self._step:
            self._print(f"  {clock(time.monotonic() - self._begun)} {self._step}")
        self._step, self._begun = text, time.monotonic()
        self._live.reset(self._task)
        self._show(text)

    def detail(self, text: str) -> None:
        name = self._step if len(self._step) <= _SHORT else f"{self._step[: _SHORT - 1]}…"
        self._show(f"{name}: {text}")

    def warn(self, text: str) -> None:
        self._print(f"  warning: {text}")

    def _print(self, text: str) -> None:
        self._live.console.print(_line(text), markup=False, overflow="ellipsis", no_wrap=True)

    def _show(self, text: str) -> None:
        # One line, or the next refresh would leave the rest of it behind.
        room = max(20, self._live.console.width - 12)
        self._live.update(self._task, description=_line(text)[:room])


def clock(seconds: float) -> str:
    """Seconds as m:ss."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def table(rows: list[tuple[str, ...]], header: tuple[str, ...]) -> None:
    """A table on stdout, as wide as the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    view = Table(box=None, pad_edge=False, header_style="bold")
    for name in header:
        # A path wider than its column goes on in the next line: nothing is left out.
        view.add_column(name, overflow="fold")
    styles = {
        "pass": "green",
        "ok": "green",
        "fail": "bold red",
        "warn": "yellow",
        "unproven": "yellow",
    }
    for row in rows:
        view.add_row(*(Text(_clean(cell), style=styles.get(cell, "")) for cell in row))
    # A log has no width of its own; rich would take 80.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    # A cell is folded, and a line may begin within it.
    with console.capture() as shown:
        console.print(view)
    print(_of_job(shown.get()), end="")  # noqa: T201
