"""Profiles as files that others start servers from: compose, systemd, quadlet."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from builder.cli import console
from builder.cli.app import PinsFile, app, load
from builder.common.errors import EngineError, RefNotFoundError, UsageError

if TYPE_CHECKING:
    from builder.model.pins import Pins
    from builder.serve.services import Service

Names = Annotated[list[str] | None, typer.Argument(metavar="[PROFILE…]", show_default=False)]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="[PROFILE=]PATH",
        help="The GGUF of every profile that chats, or of one; may be repeated.",
    ),
]
Image = Annotated[
    str | None, typer.Option(metavar="IMAGE", help="Default: turboquant:<default variant>.")
]
VariantOption = Annotated[
    str | None, typer.Option("--variant", help="Default: what the image's label says.")
]
Gpu = Annotated[
    bool | None, typer.Option("--gpu/--no-gpu", help="Default: as the variant is built for one.")
]
Host = Annotated[str, typer.Option(metavar="ADDRESS", help="Wider than the loopback needs a key.")]
KeyFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="API keys, a line each; needed beyond the loopback."),
]


@app.command()
def compose(
    profiles: Names = None,
    model: Models = None,
    image: Image = None,
    variant: VariantOption = None,
    gpu: Gpu = None,
    host: Host = "127.0.0.1",
    api_key_file: KeyFile = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Default: stdout.")] = None,
    pins_file: PinsFile = None,
) -> None:
    """Write profiles as a compose file: one service each, one up at a time."""
    from builder.serve import compose as composes

    found = _services(profiles, model, image, variant, gpu, host, api_key_file, pins_file)
    text = composes.to_yaml(found)
    if out is None:
        console.say(text.removesuffix("\n"))
        return
    _write({out: text})
    console.say(f"{out}: {', '.join(one.profile for one in found)}")


@app.command()
def unit(
    kind: Annotated[str, typer.Option("--format", metavar="systemd|quadlet")],
    profiles: Names = None,
    model: Models = None,
    image: Image = None,
    variant: VariantOption = None,
    gpu: Gpu = None,
    host: Host = "127.0.0.1",
    api_key_file: KeyFile = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", exists=True, file_okay=False, help="Default: stdout."),
    ] = None,
    pins_file: PinsFile = None,
) -> None:
    """Write profiles as units of systemd: those of docker, or podman's quadlets."""
    from builder.serve import systemd as units

    if kind not in {"systemd", "quadlet"}:
        raise UsageError(f"--format {kind!r} is neither systemd nor quadlet")
    found = _services(profiles, model, image, variant, gpu, host, api_key_file, pins_file)
    texts = units.files(found, "quadlet" if kind == "quadlet" else "systemd")
    registry = found[0].image.rpartition("/")[0]
    if kind == "quadlet" and not registry:
        console.tell(
            "warning: podman has none of docker's images: --image HOST/NAME:TAG says which"
        )
    if out is None:
        console.say("\n".join(f"# {name}\n{text}" for name, text in texts.items()))
        return
    _write({out / name: text for name, text in texts.items()})
    for name in texts:
        console.say(str(out / name))


def _write(texts: dict[Path, str]) -> None:
    from builder.common.files import replace_files

    try:
        replace_files({path: text.encode() for path, text in texts.items()})
    except OSError as error:
        raise UsageError("--out cannot be written", why=str(error)) from error


def _services(
    names: list[str] | None,
    models: list[str] | None,
    image: str | None,
    variant: str | None,
    gpu: bool | None,
    host: str,
    key_file: Path | None,
    pins_file: Path | None,
) -> "list[Service]":
    from builder.llama import profiles
    from builder.model import tags
    from builder.serve import services

    everything, _ = load(pins_file)
    wanted = image or tags.local(variant or everything.policy.default_variant)
    labelled, help_text = _asked(wanted, everything, variant)
    options = services.Options(
        image=wanted,
        models=services.parse_models(models or [], everything.profiles),
        variant=variant,
        labelled=labelled,
        help_text=help_text,
        gpu=gpu,
        host=host,
        key_file=key_file,
    )
    found = services.services(everything, names or [], options)
    chosen = [everything.profiles[one.profile] for one in found]
    told = [profiles.cautions(one, help_text, key=key_file is not None) for one in chosen]
    for text in dict.fromkeys(text for texts in told for text in texts):
        console.tell(f"warning: {text}")
    return found


def _asked(image: str, pins: "Pins", variant: str | None) -> tuple[str | None, str]:
    """The variant that the image's label names, and what its `--help` prints.

    Nothing of either where the image is not on this machine's engine: that is told, for it may be
    another machine that serves.
    """
    from builder.engine import client as engine
    from builder.engine import containers as container
    from builder.engine import gpu_use
    from builder.engine.image_target import ImageTarget
    from builder.model.labels import VARIANT

    try:
        client = engine.connect()
        image_id = container.image_id(client, image)
    except (EngineError, RefNotFoundError) as error:
        console.tell(f"warning: the profiles are not checked against {image}: {error.what}")
        return None, ""
    labels = container.image_labels(client, image)
    gpu = gpu_use.built_for_gpu(labels, pins, variant) is not False
    target = ImageTarget(image, image_id, client, {}, gpu=gpu)
    return labels.get(VARIANT), target.output("--help")
