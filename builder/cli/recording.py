"""The record itself: made again from the registry."""

from typing import TYPE_CHECKING, Annotated

import typer

from builder.cli import console
from builder.cli import wiring as stages
from builder.cli.app import Json, PinsFile, app, load
from builder.cli.publishing import DryRun, Record, record_folder

if TYPE_CHECKING:
    from builder.verify.rebuild import Rebuilt

group = typer.Typer(no_args_is_help=True, help="The record of releases and nights.")
app.add_typer(group, name="record")


@group.callback()
def _group() -> None:
    """Keep the word `rebuild` needed, with one command as with several."""


@group.command()
def rebuild(
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="REPOSITORY", help="Default: policy.release.repository."),
    ] = None,
    record: Record = None,
    record_branch: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Take the record from this branch, and push it there."),
    ] = None,
    dry_run: DryRun = False,
    json: Json = False,
    pins_file: PinsFile = None,
) -> None:
    """Add to the record what the registry's images say of themselves; nothing is pushed there."""
    from builder.common import paths
    from builder.git import github
    from builder.release import publish
    from builder.verify import rebuild as rebuilds

    everything, file = load(pins_file)
    repository = publish.repository(to, everything)
    folder = record_folder(record, paths.results(file))
    with console.progress() as progress:
        host = github.from_environment()
        keep = stages.record_branch(file, record_branch, folder, host, progress)
        made = rebuilds.rebuild(repository, everything, folder, progress, dry_run=dry_run)
        if not dry_run:
            keep(progress)
    if json:
        console.say(rebuilds.to_json(made))
    else:
        _show(made)
    if made.exit_code:
        raise typer.Exit(made.exit_code)


def _show(made: "Rebuilt") -> None:
    would = "would add" if made.dry_run else "added"
    for one in made.added:
        console.say(f"{would}  {one.name}, proven: {', '.join(one.proven) or 'nothing'}")
    for tag, name in made.floating.items():
        console.say(f"{'would note' if made.dry_run else 'noted'}  {tag} stands for {name}")
    for left in made.left:
        console.say(f"left  {left.tag}: {left.why}")
    for lost in made.not_judged:
        console.say(f"not judged  {lost.tag}: {lost.why}")
    console.say(f"{len(made.known)} releases were in the record already")
    if made.added:
        console.say(f"not known: {'; '.join(made.unknown)}")
