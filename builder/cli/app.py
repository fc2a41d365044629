"""What every command shares: the app it registers on, common options, pins.toml."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from builder import __version__
from builder.cli import console
from builder.common.errors import BuilderError, FileError

if TYPE_CHECKING:
    from builder.model.pins import Pins

NO = 1
"""Exit code: the command worked, and the answer is no."""


class InterruptedByUserError(BuilderError):
    """Ctrl-C or SIGTERM."""

    exit_code = 130


class _Group(TyperGroup):
    """Ctrl-C is 130 here, not the 1 that means "no"."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 -- typer vendors click's types
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise InterruptedByUserError("interrupted") from error


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Builds images of llama-server from TurboQuant forks, and proves what they do.",
)

PinsFile = Annotated[
    Path | None,
    typer.Option("--pins", metavar="FILE", help="Default: pins.toml here or in a folder above."),
]
Json = Annotated[bool, typer.Option("--json", help="The result as JSON on stdout.")]
VariantName = Annotated[str | None, typer.Argument(metavar="[VARIANT]", show_default=False)]


@contextmanager
def verdict_stands(exit_code: int) -> Iterator[None]:
    """Ends the command with its verdict's exit code, after files that are written beside it.

    One that cannot be written costs a line, and exit code 2 where the verdict has 0.
    """
    try:
        yield
    except OSError as error:
        unwritten = FileError.of(error)
        if unwritten is None:
            raise
        console.complain(unwritten)
        exit_code = exit_code or unwritten.exit_code
    if exit_code:
        raise typer.Exit(exit_code)


def load(pins_file: Path | None) -> "tuple[Pins, Path]":
    """Return pins.toml and the path it was found at."""
    from builder.common import paths
    from builder.pins import load as pins

    found = pins_file or pins.find(Path.cwd()) or paths.INSTALLATION / pins.FILE_NAME
    return pins.load(found), found


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="The version, and exit.")] = False,
) -> None:
    if version:
        console.say(f"builder {__version__}")
        raise typer.Exit
