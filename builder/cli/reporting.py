"""The record for people: one static page."""

from pathlib import Path
from typing import Annotated

import typer

from builder.cli import console
from builder.cli.app import PinsFile, app, load


@app.command()
def report(
    record: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", exists=True, file_okay=False, help="Default: build/record by pins.toml."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", file_okay=False, help="For index.html; default: the record's."),
    ] = None,
    note: Annotated[str, typer.Option(metavar="TEXT", help="A line at the page's top.")] = "",
    pins_file: PinsFile = None,
) -> None:
    """Write the record of releases and nights as one HTML page that needs nothing beside it."""
    from builder.common import paths
    from builder.release import report as reports

    folder = record or paths.record(paths.results(load(pins_file)[1]))
    path, page = reports.write(folder, out or folder, note=note)
    console.say(
        f"{path}: {len(page.current)} current of {len(page.releases)} releases, "
        f"{len(page.variants)} variants with nights"
    )
