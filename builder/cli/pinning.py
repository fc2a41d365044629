"""Living with a fork that moves: freshness, bump, bisect."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from builder.cli import console
from builder.cli import wiring as stages
from builder.cli.app import Json, PinsFile, app, load, verdict_stands
from builder.common.errors import UsageError

if TYPE_CHECKING:
    from builder.freshness.report import Report as FreshnessReport


@app.command()
def freshness(
    forks: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FORK]...", help="Default: the default variant's."),
    ] = None,
    whole: Annotated[
        bool, typer.Option("--all", help="Every fork, base, source and published image.")
    ] = False,
    github_summary: Annotated[
        bool, typer.Option("--github-summary", help="Markdown too, for $GITHUB_STEP_SUMMARY.")
    ] = False,
    badge: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON for a badge of shields.io too.")
    ] = None,
    json: Json = False,
    pins_file: PinsFile = None,
) -> None:
    """How far pins are behind: exit 0 fresh, 1 stale, 6 if one could not be judged."""
    from builder.freshness import look as looks
    from builder.freshness import report as freshness_report
    from builder.git import github

    everything, _ = load(pins_file)
    names = looks.chosen(everything, forks or [], whole=whole)
    with console.progress() as progress:
        host = github.from_environment()
        report = looks.look(everything, names, host, progress, whole=whole)
    if json:
        console.say(freshness_report.to_json(report))
    else:
        _show_freshness(report)
    if github_summary:
        console.summarise(freshness_report.to_markdown(report))
    with verdict_stands(report.exit_code):
        if badge:
            freshness_report.write_badge(report, badge)


def _show_freshness(report: "FreshnessReport") -> None:
    from builder.freshness import report as freshness_report

    console.say(report.headline)
    console.table(freshness_report.rows(report), header=freshness_report.HEADER)
    for rows, header in (
        (freshness_report.part_rows(report), freshness_report.PART_HEADER),
        (freshness_report.group_rows(report), freshness_report.GROUP_HEADER),
    ):
        if rows:
            console.say("")
            console.table(rows, header=header)
    for what in report.not_asked:
        console.tell(f"not asked: {what}")


@app.command()
def bump(
    fork: Annotated[
        str | None,
        typer.Argument(metavar="[FORK|BASE|all]", help="Default: the default variant's fork."),
    ] = None,
    to: Annotated[
        str | None, typer.Option(metavar="REF", help="Default: the fork's branch.")
    ] = None,
    build_it: Annotated[
        bool, typer.Option("--build", help="With --smoke: move only what builds and passes.")
    ] = False,
    smoke_it: Annotated[
        bool, typer.Option("--smoke", help="With --build: audit and smoke the image.")
    ] = False,
    variant: Annotated[
        str | None, typer.Option(metavar="NAME", help="What --build builds.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the diff.")] = False,
    pr_body: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Markdown for a pull request.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also backwards, or to what is not on the branch.")
    ] = False,
    json: Json = False,
    pins_file: PinsFile = None,
) -> None:
    """Move a pin, and the Dockerfiles with it: exit 1 if it is refused or fails a stage."""
    from builder.bump import all as bump_all
    from builder.bump import fork as bumps
    from builder.bump import report as bump_report

    if build_it != smoke_it:
        raise UsageError("--build and --smoke go together", hint="give both, or neither")
    if dry_run and (build_it or pr_body):
        raise UsageError("--dry-run builds and writes nothing: leave out the other options")
    if variant and not build_it:
        raise UsageError("--variant says what is built", hint="add --build --smoke")
    _, file = load(pins_file)
    request = bumps.Request(fork, to, variant, dry_run=dry_run, force=force, pr_body=pr_body)
    with console.progress() as progress:
        report = bump_all.bump_any(file, request, stages.proving() if build_it else None, progress)
    moves = report.moves if isinstance(report, bump_report.AllReport) else [report]
    if json:
        console.say(bump_report.to_json(report))
    else:
        for move in moves:
            if dry_run and move.diff:
                console.say(move.diff)
        console.say(bump_report.to_text(report))
    if isinstance(report, bump_report.AllReport) and report.exit_code:
        raise typer.Exit(report.exit_code)


@app.command()
def bisect(
    fork: Annotated[str, typer.Argument(metavar="FORK")],
    good: Annotated[str, typer.Option(metavar="REF", help="A commit at which it worked.")],
    bad: Annotated[str, typer.Option(metavar="REF", help="A later one at which it fails.")],
    stage: Annotated[
        str | None, typer.Option(metavar="build|smoke|probe:NAME", help="Default: build.")
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(metavar="COMMAND", help="Judges the tree, or the {image}, as git bisect run."),
    ] = None,
    variant: Annotated[
        str | None, typer.Option(metavar="NAME", help="What is built; default: as for bump.")
    ] = None,
    max_builds: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Commits to judge in this run.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(metavar="3h|90m", help="No step begins after this time.")
    ] = None,
    enter_merges: Annotated[
        bool, typer.Option("--enter-merges", help="Look into a merge that is the answer.")
    ] = False,
    check_ends: Annotated[
        bool, typer.Option("--check-ends", help="Judge --bad and --good first.")
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Forget the verdicts of an earlier run.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the commits.")] = False,
    issue: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Markdown for an issue of the fork.")
    ] = None,
    json: Json = False,
    pins_file: PinsFile = None,
) -> None:
    """The first commit of a fork at which a stage fails: exit 0 if found, 1 if not."""
    from builder.bisect import judge as bisect_judges
    from builder.bisect import report as bisect_report
    from builder.bisect import run as bisects
    from builder.common import paths

    if run and stage:
        raise UsageError("--run judges in place of a stage", hint="leave --stage out")
    everything, file = load(pins_file)
    request = bisects.Request(
        fork=fork,
        good=good,
        bad=bad,
        stage=bisect_judges.parse_stage(stage or "build"),
        command=bisect_judges.parse_command(run) if run is not None else (),
        variant=variant,
        max_builds=max_builds,
        budget_s=bisects.parse_budget(budget) if budget else None,
        enter_merges=enter_merges,
        check_ends=check_ends,
        restart=restart,
        dry_run=dry_run,
    )
    with console.progress() as progress:
        report = bisects.bisect(
            everything, request, stages.bisecting(), paths.results(file), progress
        )
    if issue and report.issue:
        bisect_report.write_issue(report, issue)
    elif issue:
        console.tell(f"{issue} is not written: no commit is known to be bad")
    console.say(bisect_report.to_json(report) if json else bisect_report.to_text(report))
    if report.exit_code:
        raise typer.Exit(report.exit_code)
