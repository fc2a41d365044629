"""The command line: parse, call one verb, show what it found."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from builder import __version__, console, signals
from builder.errors import BuilderError, UsageError

if TYPE_CHECKING:
    from builder.audit import AuditReport
    from builder.bisect_judges import Stages as BisectStages
    from builder.bump import Stages
    from builder.freshness_report import Report as FreshnessReport
    from builder.model import Pins, Receipt
    from builder.reproduce import Reproduction
    from builder.smoke_report import SmokeReport

NO = 1
"""Exit code: the command worked, and the answer is no."""
BUG = 3
INTERRUPTED = 130


class _InterruptedError(BuilderError):
    exit_code = INTERRUPTED


class _Group(TyperGroup):
    """Ctrl-C is 130 here, not the 1 that means "no"."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 -- typer vendors click's types
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise _InterruptedError("interrupted") from error


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


def main() -> None:
    """Run the command line and exit with the documented code."""
    try:
        # SIGTERM and SIGHUP go the same way out: containers are removed and buildx is told.
        with signals.interrupting():
            app()
    except BuilderError as error:
        console.complain(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # the reader of our output has gone, as `| head` does
        sys.stderr.close()
        sys.exit(NO)
    except Exception:
        import traceback

        traceback.print_exc()
        console.tell("error: this is a bug in builder: please report the lines above")
        sys.exit(BUG)


def _load(pins_file: Path | None) -> "tuple[Pins, Path]":
    from builder import paths, pins

    found = pins_file or pins.find(Path.cwd()) or paths.INSTALLATION / pins.FILE_NAME
    return pins.load(found), found


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="The version, and exit.")] = False,
) -> None:
    if version:
        console.say(f"builder {__version__}")
        raise typer.Exit


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
    from builder import paths, pins, rendered
    from builder import render as renderer

    everything, file = _load(pins_file)
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
        typer.Option(metavar="DIR", exists=True, file_okay=False, help="A tree from disk instead."),
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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
    json: Json = False,
    pins_file: PinsFile = None,
) -> None:
    """Build the image of a pinned or given commit, and write a receipt."""
    from builder import base_images, engine, paths, pins
    from builder import build as builds
    from builder import plan as plans
    from builder import receipt as receipts

    everything, file = _load(pins_file)
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
        _show_receipt(receipt)


def _show_receipt(receipt: "Receipt") -> None:
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
def smoke(
    image: Annotated[str | None, typer.Argument(metavar="[IMAGE]", show_default=False)] = None,
    url: Annotated[str | None, typer.Option(help="A server that runs already.")] = None,
    binary: Annotated[
        Path | None,
        typer.Option(metavar="PATH", exists=True, dir_okay=False, help="A llama-server program."),
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="A profile of pins.toml; default: 2 slots of 2,048 tokens.")
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
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="JUnit XML too.")] = None,
    github_summary: Annotated[
        bool, typer.Option("--github-summary", help="Markdown too, for $GITHUB_STEP_SUMMARY.")
    ] = False,
    json: Json = False,
    pins_file: PinsFile = None,
) -> None:
    """Start the target's server, ask it, stop it: exit 0 if no probe failed, 1 if one did."""
    from builder import engine, paths, smoke_options, smoke_report
    from builder import smoke as smokes

    everything, file = _load(pins_file)
    options = smoke_options.Options(
        variant=variant,
        profile=profile,
        kv=smoke_options.parse_kv(kv) if kv else None,
        model=model,
        env=smoke_options.parse_env(env or []),
        require=smoke_options.parse_require(require or []),
        timeout_s=timeout,
    )
    if [image, url, binary].count(None) != 2:  # noqa: PLR2004
        raise UsageError("name one target", hint="an image, --url URL or --binary PATH")
    results = paths.results(file)
    with console.progress() as progress:
        if url:
            report = smokes.smoke_url(url, everything, options, progress)
        elif binary:
            report = smokes.smoke_binary(binary, everything, options, results, progress)
        else:
            client = engine.connect()
            report = smokes.smoke_image(client, image or "", everything, options, results, progress)
    if junit:
        smoke_report.write_junit(report, junit)
    if github_summary:
        console.summarise(smoke_report.to_markdown(report))
    if json:
        console.say(smoke_report.to_json(report))
    else:
        _show_smoke(report)
    if not report.passed:
        raise typer.Exit(NO)


def _show_smoke(report: "SmokeReport") -> None:
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
    from builder import bump as bumps
    from builder import bump_all, bump_report

    if build_it != smoke_it:
        raise UsageError("--build and --smoke go together", hint="give both, or neither")
    if dry_run and (build_it or pr_body):
        raise UsageError("--dry-run builds and writes nothing: leave out the other options")
    if variant and not build_it:
        raise UsageError("--variant says what is built", hint="add --build --smoke")
    _, file = _load(pins_file)
    request = bumps.Request(fork, to, variant, dry_run=dry_run, force=force, pr_body=pr_body)
    with console.progress() as progress:
        report = bump_all.bump_any(file, request, _stages() if build_it else None, progress)
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


def _stages() -> "Stages":
    from builder import audit as audits
    from builder import build as builds
    from builder import engine
    from builder import smoke as smokes
    from builder.bump import Stages

    return Stages(
        build=builds.build,
        audit=lambda pins, receipt, results, progress: audits.audit(
            engine.connect(),
            receipt.image,
            pins,
            results=results,
            variant=receipt.variant,
            progress=progress,
        ),
        smoke=lambda pins, receipt, options, results, progress: smokes.smoke_image(
            engine.connect(), receipt.image, pins, options, results, progress
        ),
    )


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
    from builder import bisect as bisects
    from builder import bisect_judges, bisect_report, paths

    if run and stage:
        raise UsageError("--run judges in place of a stage", hint="leave --stage out")
    everything, file = _load(pins_file)
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
            everything, request, _bisect_stages(), paths.results(file), progress
        )
    if issue and report.issue:
        bisect_report.write_issue(report, issue)
    elif issue:
        console.tell(f"{issue} is not written: no commit is known to be bad")
    console.say(bisect_report.to_json(report) if json else bisect_report.to_text(report))
    if report.exit_code:
        raise typer.Exit(report.exit_code)


def _bisect_stages() -> "BisectStages":
    from builder import bisect_judges, engine

    proving = _stages()
    return bisect_judges.Stages(
        build=proving.build,
        smoke=proving.smoke,
        untag=lambda tag: engine.untag(engine.connect(), tag),
    )


@app.command()
def doctor(
    variant: VariantName = None,
    fix: Annotated[bool, typer.Option("--fix", help="Install what is missing (root).")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --fix: only say it.")] = False,
    json: Json = False,
    pins_file: PinsFile = None,
) -> None:
    """What this machine lacks to build and smoke a variant: exit 0 if nothing, 1 if something."""
    from builder import doctor as doctors

    everything, _ = _load(pins_file)
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
        typer.Option(metavar="DIR", exists=True, file_okay=False, help="The tree to reproduce."),
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
    from builder import audit as audits
    from builder import base_images, engine, paths
    from builder import build as builds
    from builder import reproduce as again

    if any((ref, source, base, sets, builder)) and not reproduce:
        why = "--ref, --source, --base, --set and --builder say what is built"
        raise UsageError("an audit builds nothing", why=why, hint="add --reproduce")
    everything, file = _load(pins_file)
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
    from builder import reproduce

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
    from builder import freshness as looks
    from builder import freshness_report, github

    everything, _ = _load(pins_file)
    names = looks.chosen(everything, forks or [], whole=whole)
    with console.progress() as progress:
        host = github.from_environment()
        report = looks.look(everything, names, host, progress, whole=whole)
    if badge:
        freshness_report.write_badge(report, badge)
    if github_summary:
        console.summarise(freshness_report.to_markdown(report))
    if json:
        console.say(freshness_report.to_json(report))
    else:
        _show_freshness(report)
    if report.exit_code:
        raise typer.Exit(report.exit_code)


def _show_freshness(report: "FreshnessReport") -> None:
    from builder import freshness_report

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


@app.command(name="try")
def try_(pins_file: PinsFile = None) -> None:
    """Set up, build and smoke mainline-cpu: no GPU, git host or image hub needed (root)."""
    from builder import paths, trial

    everything, file = _load(pins_file)
    with console.progress() as progress:
        receipt, report = trial.run(everything, paths.results(file), progress)
    _show_receipt(receipt)
    _show_smoke(report)
    console.say(trial.next_steps(everything, report))
    if not report.passed:
        raise typer.Exit(NO)
