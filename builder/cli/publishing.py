"""Published names: publish, promote, rollback, and the releases that the record knows."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from builder.cli import console
from builder.cli import wiring as stages
from builder.cli.app import Json, PinsFile, app, load
from builder.common.errors import UsageError

if TYPE_CHECKING:
    from builder.release.cosign import Signer
    from builder.release.prune import Pruned
    from builder.release.publish import Plan
    from builder.release.record import Release

Record = Annotated[
    Path | None,
    typer.Option("--record", metavar="DIR", help="Default: build/record beside pins.toml."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
Force = Annotated[
    bool, typer.Option("--force", help="Also a floating tag that somebody else moved.")
]


Key = Annotated[
    Path | None,
    typer.Option("--key", metavar="FILE", help="Sign with cosign; its COSIGN_PASSWORD is needed."),
]
Keyless = Annotated[
    bool, typer.Option("--keyless", help="Sign by the identity of a GitHub Actions job.")
]


def signer(key: Path | None, *, keyless: bool) -> "Signer | None":
    """Who signs what is published; None: nobody. Raises UsageError, and EngineError without cosign.

    Asked before anything is built or pushed.
    """
    from builder.release import cosign

    if key and keyless:
        raise UsageError("who signs it?", hint="--key FILE or --keyless, not both")
    if not key and not keyless:
        return None
    found = cosign.Key(key) if key else cosign.Keyless()
    cosign.require(found)
    return found


def record_folder(record: Path | None, results: Path) -> Path:
    """Where the record lies."""
    return record or results / "build" / "record"


@app.command()
def publish(
    image: Annotated[str, typer.Argument(metavar="IMAGE|RECEIPT")],
    to: Annotated[
        str | None,
        typer.Option(metavar="REPOSITORY", help="host/name; default: policy.release.repository."),
    ] = None,
    candidate: Annotated[
        bool, typer.Option("--candidate", help="Leave the floating tags to `builder promote`.")
    ] = False,
    key: Key = None,
    keyless: Keyless = False,
    record: Record = None,
    force: Force = False,
    dry_run: DryRun = False,
    json: Json = False,
    pins_file: PinsFile = None,
) -> None:
    """Push an image by digest, prove what was pulled back, then name it: exit 1 if not proven."""
    from builder.common import paths
    from builder.release import publish as publishes

    everything, file = load(pins_file)
    results = paths.results(file)
    request = publishes.Request(
        what=image,
        repository=publishes.repository(to, everything),
        pins=everything,
        results=results,
        promote=not candidate,
        force=force,
    )
    folder = record_folder(record, results)
    signing = signer(key, keyless=keyless)
    if dry_run:
        _show_plan(publishes.plan(request, folder), json=json)
        return
    with console.progress() as progress:
        release = publishes.publish(request, stages.publishing(signing, results), folder, progress)
    _show(release, json=json)


@app.command()
def promote(
    release: Annotated[str, typer.Argument(metavar="RELEASE|VARIANT")],
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", metavar="TAG", help="Only this one; may be repeated."),
    ] = None,
    record: Record = None,
    force: Force = False,
    dry_run: DryRun = False,
    json: Json = False,
    pins_file: PinsFile = None,
) -> None:
    """Move a variant's floating tags to a release; a variant's name means its newest."""
    from builder.common import paths
    from builder.release import promote as promotes

    everything, file = load(pins_file)
    folder = record_folder(record, paths.results(file))
    request = promotes.Request(release, everything, tuple(tag or ()), force=force)
    if dry_run:
        _show_move(*promotes.plan(request, folder))
        return
    with console.progress() as progress:
        done = promotes.promote(request, folder, progress)
    _show(done, json=json)


@app.command()
def rollback(
    variant: Annotated[str | None, typer.Argument(metavar="[VARIANT]", show_default=False)] = None,
    to: Annotated[
        str | None, typer.Option(metavar="RELEASE", help="Default: the one promoted before.")
    ] = None,
    record: Record = None,
    force: Force = False,
    dry_run: DryRun = False,
    json: Json = False,
    pins_file: PinsFile = None,
) -> None:
    """Move a variant's floating tags back to the last good release, or to a named one."""
    from builder.common import paths
    from builder.pins import load as pins
    from builder.release import rollback as rollbacks

    everything, file = load(pins_file)
    folder = record_folder(record, paths.results(file))
    name = pins.variant(everything, variant)[0]
    request = rollbacks.Request(name, everything, to, force=force)
    if dry_run:
        _show_move(*rollbacks.plan(request, folder))
        return
    with console.progress() as progress:
        done = rollbacks.rollback(request, folder, progress)
    _show(done, json=json)
    rollbacks.told(folder, name)


@app.command()
def releases(
    variant: Annotated[str | None, typer.Argument(metavar="[VARIANT]", show_default=False)] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete old ones in the registry.")
    ] = False,
    keep: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="The newest N of a variant stay.")
    ] = None,
    keep_days: Annotated[
        int | None, typer.Option(min=1, metavar="DAYS", help="What is younger stays.")
    ] = None,
    record: Record = None,
    dry_run: DryRun = False,
    json: Json = False,
    pins_file: PinsFile = None,
) -> None:
    """The releases of the record with what each has proven; --prune deletes old ones."""
    from builder.common import paths
    from builder.registry import login as registry_login
    from builder.release import list as lists
    from builder.release import prune as retention

    if not prune and (keep or keep_days or dry_run):
        raise UsageError("--keep, --keep-days and --dry-run go with --prune")
    if prune and variant:
        raise UsageError("--prune is for every variant of the record", hint="leave it out")
    everything, file = load(pins_file)
    folder = record_folder(record, paths.results(file))
    if prune:
        request = retention.Request(keep, keep_days, dry_run=dry_run)
        own = registry_login.own_registry(everything.policy.release.repository)
        with own, console.progress() as progress:
            pruned = retention.prune(request, folder, progress)
        _show_pruned(pruned, json=json)
        return
    listed = lists.releases(folder, variant)
    if json:
        console.say(lists.to_json(listed))
    else:
        console.table(lists.rows(listed), header=lists.HEADER)


def _show(release: "Release", *, json: bool) -> None:
    from builder.release import record as records

    if json:
        console.say(records.to_json(release))
        return
    console.say(f"{release.repository}:{release.name}")
    console.say(f"digest      {release.digest}")
    console.say(f"proven      {', '.join(release.proven) or 'nothing'}")
    console.say(f"not proven  {', '.join(release.not_proven) or 'nothing'}")
    console.say(f"GPU         {release.gpu or 'none: nothing here was ever on one'}")
    for event in release.events:
        before = f", before it {event.previous}" if event.previous else ""
        console.say(f"{event.at}  {event.what} {event.tag or ''}{before} {event.note}".rstrip())


def _show_plan(plan: "Plan", *, json: bool) -> None:
    from json import dumps

    if json:
        console.say(dumps({**dataclasses.asdict(plan), "schema": 1}, indent=2))
        return
    console.say(f"{plan.repository}:{plan.name}")
    console.say(f"required    {', '.join(plan.required) or 'nothing'}")
    console.say(f"it is now   {plan.digest or 'nothing'}")
    console.say(f"proven      {'already, by the record' if plan.proven else 'to be proven'}")
    for tag, digest in plan.floating.items():
        console.say(f"would move  {tag}, now {digest or 'nothing'}")


def _show_move(release: "Release", moved: tuple[str, ...]) -> None:
    for tag in moved:
        console.say(f"would move {tag} to {release.name} ({release.digest})")


def _show_pruned(pruned: "Pruned", *, json: bool) -> None:
    from json import dumps

    if json:
        console.say(dumps(dataclasses.asdict(pruned), indent=2))
        return
    for name in pruned.deleted:
        console.say(f"{'would delete' if pruned.dry_run else 'deleted'}  {name}")
    for one in pruned.kept:
        console.say(f"stays  {one.name}: {one.why}")
    console.say(f"{pruned.young} are not old")
