"""Servers that stay: start a profile, swap it for another, list, stop."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from builder.cli import console
from builder.cli.app import Json, PinsFile, app, load

if TYPE_CHECKING:
    from builder.serve.containers import Stack
    from builder.serve.plan import Request

Name = Annotated[str, typer.Argument(metavar="PROFILE")]
Image = Annotated[str | None, typer.Option(help="Default: the default variant's.")]
Host = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Default: 127.0.0.1; wider needs a key.")
]
Port = Annotated[
    int | None, typer.Option(metavar="N", min=1, max=65535, help="Default: the profile's.")
]
KeyFile = Annotated[
    Path | None, typer.Option(metavar="FILE", exists=True, dir_okay=False, help="A key a line.")
]
Memory = Annotated[
    str | None, typer.Option(metavar="24G", help="What the container may take; default: no limit.")
]
Timeout = Annotated[float, typer.Option(help="Seconds that the server may take to load.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")]


@app.command()
def serve(
    profile: Name,
    model: Annotated[
        Path | None, typer.Option(metavar="PATH", help="The GGUF; default: what it had.")
    ] = None,
    image: Image = None,
    host: Host = None,
    port: Port = None,
    api_key_file: KeyFile = None,
    memory: Memory = None,
    timeout: Timeout = 600.0,
    dry_run: DryRun = False,
    json: Json = False,
    pins_file: PinsFile = None,
) -> None:
    """Start a server of a profile and leave it running: exit 1 if it does not come up."""
    asked = _request(profile, model, image, host, port, api_key_file, memory, timeout)
    _start(asked, pins_file, swapping=False, dry_run=dry_run, json=json)


@app.command()
def swap(
    profile: Name,
    model: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Default: the one that is served.")
    ] = None,
    image: Image = None,
    host: Host = None,
    port: Port = None,
    api_key_file: KeyFile = None,
    memory: Memory = None,
    timeout: Timeout = 600.0,
    dry_run: DryRun = False,
    json: Json = False,
    pins_file: PinsFile = None,
) -> None:
    """Start a profile in place of the one that holds the GPU, which is back if that fails."""
    asked = _request(profile, model, image, host, port, api_key_file, memory, timeout)
    _start(asked, pins_file, swapping=True, dry_run=dry_run, json=json)


def _request(
    profile: str,
    model: Path | None,
    image: str | None,
    host: str | None,
    port: int | None,
    key_file: Path | None,
    memory: str | None,
    timeout_s: float,
) -> "Request":
    from builder.llama.gguf.fit import parse_size
    from builder.serve.plan import Request

    size = parse_size(memory, "--memory") if memory else None
    return Request(profile, model, image, host, port, key_file, size, timeout_s)


def _start(
    request: "Request", pins_file: Path | None, *, swapping: bool, dry_run: bool, json: bool
) -> None:
    from builder.common import paths
    from builder.serve import report as serve_report
    from builder.serve import run as serves

    everything, file = load(pins_file)
    stack = _stack()
    with console.progress() as progress:
        if dry_run:
            plan = serves.plan(stack, everything, request, progress)
        else:
            bring = serves.swap if swapping else serves.serve
            up = bring(stack, everything, request, paths.results(file), progress)
    if dry_run:
        for text in plan.starts.warnings:
            console.tell(f"warning: {text}")
        if plan.stops and not swapping and not plan.already:
            console.tell(f"refused: {', '.join(plan.stops)} is in its way; `builder swap`")
        console.say(serve_report.plan_to_json(plan) if json else serve_report.plan_text(plan))
        return
    console.say(serve_report.to_json(up) if json else serve_report.text(up))


@app.command()
def ps(json: Json = False) -> None:
    """Which profiles are served, and how each is."""
    from builder.serve import report as serve_report
    from builder.serve import run as serves

    stack = _stack()
    _remove_left(stack)
    rows = serves.ps(stack)
    if json:
        console.say(serve_report.rows_to_json(rows))
    elif rows:
        console.table(serve_report.table(rows), header=serve_report.HEADER)
    else:
        console.tell("nothing is served")


@app.command()
def stop(
    profile: Annotated[str | None, typer.Argument(metavar="[PROFILE]", show_default=False)] = None,
    every: Annotated[bool, typer.Option("--all", help="All that are served.")] = False,
    pins_file: PinsFile = None,
) -> None:
    """Stop a profile's server and remove its container; without a name, the only one there is."""
    from builder.common import paths
    from builder.common.errors import UsageError
    from builder.serve import run as serves

    if profile and every:
        raise UsageError("a profile and --all: name one of the two")
    _, file = load(pins_file)
    stack = _stack()
    _remove_left(stack)
    with console.progress() as progress:
        names = serves.stop(
            stack, profile, everything=every, results=paths.results(file), progress=progress
        )
    console.say(f"stopped {', '.join(names)}" if names else "nothing was served")


def _remove_left(stack: "Stack") -> None:
    """Remove what killed builders left on the engine and this machine, and say so."""
    from builder.engine import leftovers

    with console.progress() as progress:
        left = leftovers.remove(stack.client, progress)
    leftovers.end_programs()
    for name in left.unknown:
        console.tell(f"{name} is another builder's; if that one is gone: `docker rm -f {name}`")


def _stack() -> "Stack":
    from builder.serve import containers as served

    return served.connect()
