"""Whether what somebody published is what it says it is."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from builder.cli import console
from builder.cli.app import NO, Json, PinsFile, app, load
from builder.common.errors import UsageError

if TYPE_CHECKING:
    from builder.release.cosign import Signer


@app.command()
def verify(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="host/name:tag or …@digest.")],
    key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", exists=True, dir_okay=False, help="The signer's public key."),
    ] = None,
    identity: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Signed keyless: the workflow's address and ref."),
    ] = None,
    record: Annotated[
        str | None, typer.Option(metavar="DIR|URL", help="The record of releases.")
    ] = None,
    json: Json = False,
    pins_file: PinsFile = None,
) -> None:
    """Whether a published image is what it says it is: exit 0 if it is, 1 if not or not proven."""
    from builder.release.record_source import RecordSource
    from builder.verify import run as verifies

    everything, _ = load(pins_file)
    with console.progress() as progress:
        made = verifies.verify(
            image,
            everything,
            progress,
            signer=_signer(key, identity),
            records=RecordSource(record) if record else None,
        )
    if json:
        console.say(verifies.to_json(made))
    else:
        console.say(made.headline)
        console.table(
            [(one.probe, one.status, one.expected, one.observed) for one in made.findings],
            header=("claim", "verdict", "expected", "observed"),
        )
    if not made.passed:
        raise typer.Exit(NO)


def _signer(key: Path | None, identity: str | None) -> "Signer | None":
    from builder.release import cosign

    if key and identity:
        raise UsageError("who signed it?", hint="--key FILE or --identity URL, not both")
    if key:
        cosign.require_public(cosign.Key(key))
        return cosign.Key(key)
    return cosign.Keyless(identity) if identity else None
