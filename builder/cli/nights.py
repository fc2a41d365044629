"""Images by night: nightly, and the matrix of its workflow."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from builder.cli import console
from builder.cli import wiring as stages
from builder.cli.app import Json, PinsFile, app, load
from builder.cli.publishing import DryRun, Key, Keyless, Record, record_folder, signer
from builder.common.errors import UsageError

if TYPE_CHECKING:
    from builder.nightly.journal import Found
    from builder.nightly.night import Case
    from builder.nightly.nights import NightsReport

Variants = Annotated[
    list[str] | None,
    typer.Argument(metavar="[VARIANT]...", help="Default: policy.nightly of pins.toml."),
]


@app.command()
def nightly(
    variants: Variants = None,
    ref: Annotated[
        str | None, typer.Option(help="Another commit of the fork's branch than its newest.")
    ] = None,
    pinned: Annotated[bool, typer.Option("--pinned", help="The pin, and no newer commit.")] = False,
    to: Annotated[
        str | None,
        typer.Option(metavar="REPOSITORY", help="Default: policy.release.repository."),
    ] = None,
    record: Record = None,
    record_branch: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Take the record from this branch, and push it there."),
    ] = None,
    ccache_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="As in build, for every variant.")
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Forget how far an earlier run came.")
    ] = False,
    key: Key = None,
    keyless: Keyless = False,
    dry_run: DryRun = False,
    github_summary: Annotated[
        bool, typer.Option("--github-summary", help="Markdown too, for $GITHUB_STEP_SUMMARY.")
    ] = False,
    json: Json = False,
    pins_file: PinsFile = None,
) -> None:
    """Build, prove, publish and promote each fork's newest commit: exit 1 if a candidate failed."""
    from builder.common import paths
    from builder.git import github
    from builder.nightly import issue as night_issue
    from builder.nightly import night, nights
    from builder.registry import login as registry_login
    from builder.release import publish

    if ref and pinned:
        raise UsageError("--ref and --pinned name two commits", hint="leave one of them out")
    everything, file = load(pins_file)
    names = nights.chosen(everything, [name for name in variants or [] if name])
    if ref and len({everything.variants[name].fork for name in names}) > 1:
        raise UsageError("--ref goes with one fork", hint="name variants of one fork")
    repository = publish.repository(to, everything)
    signing = signer(key, keyless=keyless)
    host = github.from_environment()
    folder = record_folder(record, paths.results(file))
    text = file.read_bytes().decode()
    with registry_login.own_registry(repository), console.progress() as progress:
        branch = stages.record_branch(file, record_branch, folder, host, progress)
        cases = [
            night.Case(
                file,
                text,
                everything,
                night.Request(name, repository, ref, pinned, ccache_dir, restart),
                folder,
                stages.nightly(host, signing, paths.results(file)),
            )
            for name in names
        ]
        if dry_run:
            plans, report = nights.plan(cases, progress)
        else:
            plans, report = [], nights.run(cases, stages.ending(host, branch), progress)
    if github_summary and not dry_run:
        not_judged = [(one.variant, one.what) for one in report.not_judged]
        console.summarise(night_issue.summary(report.nights, not_judged))
    if json:
        told = nights.plan_to_json(plans, report) if dry_run else nights.to_json(report)
        console.say(told)
    else:
        for case, found in plans:
            _show_plan(case, found)
        _show(report)
    if report.exit_code:
        raise typer.Exit(report.exit_code)


def _show_plan(case: "Case", found: "Found") -> None:
    variant, commit = case.request.variant, found.move.new.commit if found.move else ""
    console.say(f"{variant}: {commit[:9]} as {case.request.repository}:{found.release}")
    if found.standing:
        console.say("  nothing to do: it stands, or was promoted before and left")
    elif found.published:
        console.say("  promote, bump; it was published before")
    else:
        console.say("  build, audit, smoke, publish, promote, bump")


def _show(report: "NightsReport") -> None:
    for night in report.nights:
        commit = f" at {night.commit[:9]}" if night.commit else ""
        what = f"{night.failed_step} failed" if night.outcome == "failed" else night.outcome
        console.say(f"{night.variant}: {what}{commit}")
        for step in night.steps:
            detail = step.detail.replace("\n", "\n              ")
            console.say(f"  {step.status:8}{step.name:11}{detail}")
            if step.status == "failed" and step.log:
                console.say(f"{'':21}the log: {step.log}")
    for lost in report.not_judged:
        console.say(f"{lost.variant}: not judged: {lost.what}")
        for line in [*lost.why.splitlines(), *([f"→ {lost.hint}"] if lost.hint else [])]:
            console.say(f"  {line}")
    for where in report.told:
        console.tell(where)


@app.command()
def matrix(
    variants: Variants = None,
    gpu_runner: Annotated[
        str | None, typer.Option(metavar="LABEL", help="Runs the variants with CUDA.")
    ] = None,
    json: Json = False,
    pins_file: PinsFile = None,
) -> None:
    """The nightly's variants and their machines; as JSON a matrix of GitHub's, on one line."""
    from builder.nightly import matrix as jobs
    from builder.nightly import nights

    everything, _ = load(pins_file)
    names = nights.chosen(everything, [name for name in variants or [] if name])
    found = jobs.jobs(everything, names, gpu_runner)
    if json:
        console.say(jobs.to_json(found))
    else:
        rows: list[tuple[str, ...]] = [
            (one.variant, one.fork, one.runner, "yes" if one.gpu else "no") for one in found
        ]
        console.table(rows, header=("variant", "fork", "runner", "GPU"))
