"""What leads clients to a server that `builder` started, and what those clients offer a model."""

import os
from pathlib import Path
from typing import Annotated

import typer

from builder.cli import console
from builder.cli.app import NO, Json, PinsFile, app, load
from builder.common.errors import UsageError
from builder.model.pins import OPUS


@app.command()
def env(
    profiles: Annotated[
        list[str] | None, typer.Argument(metavar="[PROFILE]...", show_default=False)
    ] = None,
    shell: Annotated[bool, typer.Option("--shell", help="For `eval`; the default.")] = False,
    dotenv: Annotated[bool, typer.Option("--dotenv", help="For a .env file.")] = False,
    json: Json = False,
    clear: Annotated[bool, typer.Option("--clear", help="Only take away what was set.")] = False,
    pins_file: PinsFile = None,
) -> None:
    """Print the variables that lead Anthropic's and OpenAI's clients to a served profile."""
    from builder.agents import environment as client_env

    names = profiles or []
    if [shell, dotenv, json, clear].count(True) > 1:
        raise UsageError("name one of --shell, --dotenv, --json and --clear")
    if clear and names:
        raise UsageError("--clear takes no profile", why="it clears what any of them has set")
    if not names and not clear:
        raise UsageError("name a profile", hint="`builder env haiku`, or --clear")
    values, unset = _route(names, pins_file)
    if json:
        console.say(client_env.to_json(values, unset))
    elif dotenv:
        console.say(client_env.to_dotenv(values, unset))
    else:
        console.say(client_env.to_shell(values, unset))


def _route(names: list[str], pins_file: Path | None) -> tuple[dict[str, str], tuple[str, ...]]:
    """What to set and what to unset for these profiles; for none and for opus all is unset."""
    from builder.agents import environment as client_env
    from builder.agents import servers as client_servers

    if OPUS in names and len(names) > 1:
        raise UsageError("opus stands alone", why="it clears what the other profiles set")
    if not names or OPUS in names:
        return {}, client_env.NAMES
    everything, _ = load(pins_file)
    servers = [client_servers.find(everything, name) for name in names]
    values = client_env.routed(servers)
    for warning in client_servers.warnings(servers, os.environ):
        console.tell(f"warning: {warning}")
    return values, client_env.aside(values)


@app.command()
def tools(json: Json = False) -> None:
    """Compare what the installed Agent SDK offers a model with the ban list: exit 1 on drift."""
    from builder.agents import tools as verb

    with console.progress() as progress:
        found = verb.report(progress)
    console.say(verb.to_json(found) if json else verb.to_text(found))
    if not found.passed:
        raise typer.Exit(NO)
