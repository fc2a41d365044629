"""What fits a card."""

from pathlib import Path
from typing import Annotated

import typer

from builder.cli import console
from builder.cli.app import NO, Json, PinsFile, app, load


@app.command()
def fit(
    model: Annotated[
        Path,
        typer.Option(metavar="PATH", exists=True, dir_okay=False, help="A GGUF, or its header."),
    ],
    vram: Annotated[
        str | None, typer.Option(metavar="24G", help="The card's memory; default: this machine's.")
    ] = None,
    kv: Annotated[
        str | None, typer.Option(metavar="TYPE|K:V", help="Default: the fork's types, and f16.")
    ] = None,
    parallel: Annotated[int, typer.Option(min=1, metavar="N", help="Slots.")] = 1,
    ctx: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Tokens of a slot; default: a table.")
    ] = None,
    reserve: Annotated[
        str, typer.Option(metavar="SIZE", help="Kept for CUDA and a desktop.")
    ] = "0.75G",
    variant: Annotated[str | None, typer.Option(help="Whose KV types; default: the pins'.")] = None,
    json: Json = False,
    pins_file: PinsFile = None,
) -> None:
    """Which KV types, contexts and slots fit a card: exit 1 if what is asked for does not."""
    from builder.engine import facts as doctor_facts
    from builder.llama.gguf import fit as fits
    from builder.pins import load as pins
    from builder.smoke import options as smoke_options

    everything, _ = load(pins_file)
    request = fits.Request(
        model=model,
        vram=fits.parse_size(vram, "--vram") if vram else doctor_facts.gpu_memory(),
        reserve=fits.parse_size(reserve, "--reserve"),
        kv=smoke_options.parse_kv(kv) if kv else None,
        parallel=parallel,
        ctx=ctx,
    )
    found = fits.fit(request, everything, pins.variant(everything, variant)[0])
    if json:
        console.say(fits.to_json(found))
    else:
        console.say(fits.headline(found))
        console.table(*fits.table(found))
        for row in found.rows:
            if row.flags and (kv or row.kv == everything.variants[found.variant].smoke_kv):
                console.say(f"flags: {row.flags}")
        for name in found.unknown:
            console.tell(f"{name}: how many bytes it takes is not known")
        for note in found.notes:
            console.tell(f"note: {note}")
    if not found.fits:
        raise typer.Exit(NO)
