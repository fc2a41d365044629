"""Render, build, and what a machine needs for it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from builder.cli import console
from builder.cli.app import NO, Json, PinsFile, VariantName, app, load
from builder.common.errors import UsageError

if TYPE_CHECKING:
    from builder.model.pins import Receipt


@app.command()
def render(
    variants: Annotated[list[str] | None, typer.Argument(metavar="[VARIANT]...")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 with a diff if a file differs.")
    ] = False,
    stdout: Annotated[bool, typer.Option("--stdout", help="Print instead of writing.")] = False,
    pins_file: PinsFile = None,
) -> None:
    """Write the Dockerfile of each variant to dockerfiles/rendered/ beside pins.toml."""
    from builder.build import render as renderer
    from builder.build import rendered
    from builder.common import paths
    from builder.pins import load as pins

    everything, file = load(pins_file)
    names = [pins.variant(everything, name)[0] for name in variants or everything.variants]
    files = [renderer.render(everything, name) for name in names]
    folder = rendered.folder(paths.results(file))
    if stdout:
        console.say("\n".join(one.text for one in files).rstrip("\n"))
    elif check:
        difference = rendered.difference(files, folder, whole=not variants)
        if difference:
            console.say(difference)
            console.tell("the files differ from pins.toml and the templates: `builder render`")
            raise typer.Exit(NO)
        console.tell(f"{len(files)} files in {folder} are as rendered")
    else:
        written = rendered.write(files, folder)
        console.tell(f"{len(files)} files in {folder}, {written} of them changed")


@app.command()
def build(
    variant: VariantName = None,
    ref: Annotated[
        str | None, typer.Option(help="Branch, tag, short or full SHA; default: the pin.")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(metavar="DIR|ARCHIVE", exists=True, help="A tree from disk instead."),
    ] = None,
    source_of: Annotated[
        str | None,
        typer.Option("--source-of", metavar="IMAGE", help="The one that a published image has."),
    ] = None,
    base: Annotated[str | None, typer.Option(help="Another base of pins.toml.")] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="ROLE=IMAGE", help="A mirror: devel=IMAGE, runtime=IMAGE."),
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Every step anew.")] = False,
    tag: Annotated[str | None, typer.Option(help="Instead of turboquant:VARIANT.")] = None,
    builder: Annotated[
        str | None, typer.Option(help="A buildx builder; default: the engine's own.")
    ] = None,
    ccache_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A ccache to take along, and to leave there after it."),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="At most so many compilers at once."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
    json: Json = False,
    pins_file: PinsFile = None,
) -> None:
    """Build the image of a pinned or given commit, and write a receipt."""
    from builder.build import bases as base_images
    from builder.build import plan as plans
    from builder.build import receipts
    from builder.build import run as builds
    from builder.common import paths
    from builder.engine import client as engine
    from builder.pins import load as pins
    from builder.registry import login as registry_login

    everything, file = load(pins_file)
    if source_of:
        with registry_login.own_registry(everything.policy.release.repository):
            variant, source = _published_source(source_of, variant, source)
    request = builds.Request(
        variant=pins.variant(everything, variant)[0],
        ref=ref,
        source=source,
        base=base,
        sets=base_images.parse_sets(sets or []),
        no_cache=no_cache,
        tag=tag,
        builder=builder,
        ccache_dir=ccache_dir,
        jobs=jobs,
    )
    if dry_run:
        plan = builds.plan(engine.connect(), everything, request, paths.results(file))
        console.say(plans.to_json(plan) if json else plans.to_text(plan))
        return
    with console.progress() as progress:
        receipt = builds.build(everything, request, paths.results(file), progress)
    if json:
        console.say(receipts.to_json(receipt))
    else:
        show_receipt(receipt)


def _published_source(
    image: str, variant: str | None, source: Path | None
) -> tuple[str | None, Path]:
    """The variant that a published image's label names, and the source that goes with it."""
    from builder.model.labels import VARIANT
    from builder.registry.client import RegistryClient
    from builder.release import attach as attest
    from builder.release import published

    if source:
        raise UsageError("two sources are named", hint="--source or --source-of, not both")
    with console.progress() as progress, RegistryClient(published.repository_of(image)) as registry:
        _, manifest = published.locate(registry, image)
        named = variant or published.labels(registry, manifest).get(VARIANT)
        return named, attest.fetch_source(registry, manifest.digest, progress)


def show_receipt(receipt: "Receipt") -> None:
    """What was built, in seven lines."""
    cache = receipt.ccache
    compiled = "nothing compiled"
    if cache:
        compiled = (
            f"{cache.misses} compiled, {cache.hits} from ccache ({cache.hit_rate:.0%} hits)"
            + (f", {cache.uncacheable} uncacheable" if cache.uncacheable else "")
        )
    claimed = " (claimed by the source, not checked)" if receipt.commit_claimed else ""
    bases = ", ".join(sorted({image.origin for image in receipt.bases}))
    console.say(f"{receipt.image}  {receipt.image_id}")
    console.say(f"  commit    {receipt.commit}{claimed}, build {receipt.build_number}")
    console.say(f"  source    {receipt.source}")
    console.say(f"  bases     from {bases}")
    console.say(
        f"  size      {receipt.size_bytes / 1e6:.0f} MB, "
        f"{receipt.compressed_bytes / 1e6:.0f} MB compressed"
    )
    console.say(f"  time      {console.clock(receipt.duration_s)}, {compiled}")


@app.command()
def doctor(
    variant: VariantName = None,
    fix: Annotated[bool, typer.Option("--fix", help="Install what is missing (root).")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --fix: only say it.")] = False,
    json: Json = False,
    pins_file: PinsFile = None,
) -> None:
    """What this machine lacks to build and smoke a variant: exit 0 if nothing, 1 if something."""
    from builder.doctor import checks as doctors

    everything, _ = load(pins_file)
    if fix and dry_run:
        for action in doctors.plan_fix():
            console.tell(f"would: {action.text}")
    elif fix:
        with console.progress() as progress:
            doctors.fix(doctors.plan_fix(), progress)
    checks = doctors.diagnose(everything, variant or everything.policy.default_variant)
    if json:
        console.say(doctors.to_json(checks))
    else:
        console.table(
            [(one.name, one.status, one.found, one.fix) for one in checks],
            header=("check", "status", "found", "fix"),
        )
    if any(one.status == "fail" for one in checks):
        raise typer.Exit(NO)
