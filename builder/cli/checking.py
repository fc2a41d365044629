"""What an image or a server really is: smoke, audit, and all of it at once."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from builder.cli import console
from builder.cli.app import NO, Json, PinsFile, app, load, verdict_stands
from builder.cli.building import show_receipt
from builder.common.errors import UsageError

if TYPE_CHECKING:
    from builder.audit.reproduce import Reproduction
    from builder.audit.run import AuditReport
    from builder.smoke.report import SmokeReport


@app.command()
def smoke(
    image: Annotated[str | None, typer.Argument(metavar="[IMAGE]", show_default=False)] = None,
    url: Annotated[str | None, typer.Option(help="A server that runs already.")] = None,
    binary: Annotated[
        Path | None,
        typer.Option(metavar="PATH", exists=True, dir_okay=False, help="A llama-server program."),
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="A profile of pins.toml; default: 2 slots of 1,024 tokens.")
    ] = None,
    model: Annotated[
        str, typer.Option(metavar="PATH", help="A GGUF, or one that builder writes: scripted, …")
    ] = "scripted",
    kv: Annotated[
        str | None, typer.Option(metavar="TYPE|K:V", help="Default: the variant's smoke_kv.")
    ] = None,
    variant: Annotated[str | None, typer.Option(help="Default: the one the label names.")] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(metavar="contract|kv", help="Exit 1 if it is not proven; may be repeated."),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="For the server; may be repeated."),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds that a server may take to load.")] = 120.0,
    answer_timeout: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            metavar="SECONDS",
            help="Seconds that an answer may take.  [default: what its tokens need]",
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The server's API key, on the first line."),
    ] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="JUnit XML too.")] = None,
    github_summary: Annotated[
        bool, typer.Option("--github-summary", help="Markdown too, for $GITHUB_STEP_SUMMARY.")
    ] = False,
    json: Json = False,
    pins_file: PinsFile = None,
) -> None:
    """Start the target's server, ask it, stop it: exit 0 if no probe failed, 1 if one did."""
    from builder.common import paths
    from builder.engine import client as engine
    from builder.llama import api_keys
    from builder.smoke import options as smoke_options
    from builder.smoke import report as smoke_report
    from builder.smoke import run as smokes

    everything, file = load(pins_file)
    options = smoke_options.Options(
        variant=variant,
        profile=profile,
        kv=smoke_options.parse_kv(kv) if kv else None,
        model=model,
        env=smoke_options.parse_env(env or []),
        require=smoke_options.parse_require(require or []),
        timeout_s=timeout,
        answer_s=answer_timeout,
        api_key=api_keys.read(api_key_file)[0] if api_key_file else None,
    )
    if [image, url, binary].count(None) != 2:  # noqa: PLR2004
        raise UsageError("name one target", hint="an image, --url URL or --binary PATH")
    if url:
        smoke_options.require_url(url)
    results = paths.results(file)
    with console.progress() as progress:
        if url:
            report = smokes.smoke_url(url, everything, options, progress)
        elif binary:
            report = smokes.smoke_binary(binary, everything, options, results, progress)
        else:
            client = engine.connect()
            report = smokes.smoke_image(client, image or "", everything, options, results, progress)
    if json:
        console.say(smoke_report.to_json(report))
    else:
        show_smoke(report)
    if github_summary:
        console.summarise(smoke_report.to_markdown(report))
    with verdict_stands(NO if not report.passed else 0):
        if junit:
            smoke_report.write_junit(report, junit)


def show_smoke(report: "SmokeReport") -> None:
    """The verdict and its probes."""
    console.say(report.headline)
    console.table(
        [(one.probe, one.status, one.expected, one.observed) for one in report.findings],
        header=("probe", "verdict", "expected", "observed"),
    )
    if report.not_available:
        console.tell(f"not available at this commit: {', '.join(report.not_available)}")
    if report.log:
        console.tell(f"the servers' logs: {report.log}")


@app.command()
def audit(
    image: Annotated[str, typer.Argument(metavar="IMAGE")],
    variant: Annotated[
        str | None, typer.Option(metavar="NAME", help="Default: the one the label names.")
    ] = None,
    reproduce: Annotated[
        bool, typer.Option("--reproduce", help="Build it twice and compare; a VARIANT will do.")
    ] = False,
    ref: Annotated[str | None, typer.Option(help="To reproduce a variant: as in build.")] = None,
    source: Annotated[
        Path | None,
        typer.Option(metavar="DIR|ARCHIVE", exists=True, help="The tree to reproduce."),
    ] = None,
    base: Annotated[str | None, typer.Option(help="To reproduce a variant: as in build.")] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="ROLE=IMAGE", help="As in build.")
    ] = None,
    builder: Annotated[str | None, typer.Option(help="As in build.")] = None,
    json: Json = False,
    pins_file: PinsFile = None,
) -> None:
    """Look into an image without serving from it: exit 0 if no rule failed, 1 if one did."""
    from builder.audit import reproduce as again
    from builder.audit import run as audits
    from builder.build import bases as base_images
    from builder.build import run as builds
    from builder.common import paths
    from builder.engine import client as engine

    if any((ref, source, base, sets, builder)) and not reproduce:
        why = "--ref, --source, --base, --set and --builder say what is built"
        raise UsageError("an audit builds nothing", why=why, hint="add --reproduce")
    everything, file = load(pins_file)
    mirrors = base_images.parse_sets(sets or [])
    given = builds.Request(variant or "", ref, source, base, mirrors, builder=builder)
    results = paths.results(file)
    report, found = None, None
    with console.progress() as progress:
        if reproduce:
            wanted, base_digest = again.asked(image, given, everything, results)
        if not reproduce or image not in everything.variants:
            report = audits.audit(
                engine.connect(),
                image,
                everything,
                results=results,
                variant=variant,
                progress=progress,
            )
        if reproduce:
            found = again.reproduce(everything, wanted, results, progress, base_digest=base_digest)
    if found and json:
        console.say(again.to_json(found, report))
    elif report and json:
        console.say(audits.to_json(report))
    else:
        if report:
            _show_audit(report)
        if found:
            _show_reproduction(found)
    if (report and not report.passed) or (found and not found.passed):
        raise typer.Exit(NO)


def _show_reproduction(found: "Reproduction") -> None:
    from builder.audit import reproduce

    console.say(found.headline)
    if found.files:
        console.table(reproduce.rows(found), header=reproduce.HEADER)
    if found.files_differing > len(found.files):
        console.say(f"and {found.files_differing - len(found.files)} files more")
    for one in found.config:
        console.say(f"{one.place}: {one.first}, then {one.second}")
    for note in found.notes:
        console.say(f"note: {note}")
    console.tell(f"the logs: {', '.join(found.logs)}")


def _show_audit(report: "AuditReport") -> None:
    console.say(report.headline)
    console.table(
        [(one.probe, one.status, one.expected, one.observed) for one in report.findings],
        header=("rule", "verdict", "expected", "observed"),
    )
    console.say("the largest files")
    for file in report.largest:
        console.say(f"{file.size_bytes / 1e6:8.1f} MB  {file.path}")


@app.command(name="try")
def try_(pins_file: PinsFile = None) -> None:
    """Set up, build and smoke mainline-cpu: no GPU, git host or image hub needed (root)."""
    from builder.cli import try_ as trial
    from builder.common import paths

    everything, file = load(pins_file)
    with console.progress() as progress:
        receipt, report = trial.run(everything, paths.results(file), progress)
    show_receipt(receipt)
    show_smoke(report)
    console.say(trial.next_steps(everything, report))
    if not report.passed:
        raise typer.Exit(NO)
