"""What a served profile will be, with all that can be known to be wrong before anything is stopped.

Looked at: the image and its --help, the model's header, the card, the file of API keys.
"""

import contextlib
import ipaddress
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from builder.common import paths
from builder.common.errors import UsageError
from builder.common.files import write_atomically
from builder.common.progress import Progress
from builder.engine import containers as container
from builder.engine import gpu_use
from builder.engine.containers import Launch
from builder.engine.image_target import ImageTarget
from builder.llama import api_keys, profiles
from builder.llama.container_paths import LOOPBACK
from builder.llama.flags import known_flags
from builder.llama.gguf import file as gguf_file
from builder.llama.gguf import memory
from builder.llama.placement import placement
from builder.model import tags
from builder.model.labels import VARIANT
from builder.model.pins import KvRules, Pins, Profile, logits
from builder.serve import advice as launch_advice
from builder.serve.containers import Spec

if TYPE_CHECKING:
    from docker import DockerClient

_OPEN = stat.S_IRGRP | stat.S_IROTH
_SPLIT = "-of-"


@dataclass(frozen=True, slots=True)
class Request:
    """What a user asks for. None: what the server that is replaced has, else the default.

    `memory` is the container's limit in bytes, `timeout_s` how long the server may take to load.
    `card` overrides what the driver says of the GPUs' memory together, in bytes.
    """

    profile: str
    model: Path | None = None
    image: str | None = None
    host: str | None = None
    port: int | None = None
    key_file: Path | None = None
    memory: int | None = None
    timeout_s: float = 600.0
    card: int | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """A profile that may be started: what it will be, how, and what its user must not miss."""

    name: str
    profile: Profile
    spec: Spec
    launch: Launch
    kv: str
    warnings: list[str] = field(default_factory=list)


def prepare(
    client: "DockerClient",
    pins: Pins,
    request: Request,
    before: Spec | None,
    progress: Progress,
) -> Ready:
    """Look at all that a start needs. `before` is what the server that is replaced was.

    Raises UsageError for what cannot be served, RefNotFoundError for an image that is not there,
    EngineError.
    """
    profile = profiles.find(pins, request.profile)
    image = request.image or (before.image if before else tags.local(pins.policy.default_variant))
    host = request.host or (before.host if before else LOOPBACK)
    key_file = request.key_file or (Path(before.key_file) if before and before.key_file else None)
    warnings = _check_access(host, key_file)
    model = _model(request, before)
    draft = model.parent / profile.draft if profile.draft else None
    if draft is not None and not draft.is_file():
        raise UsageError(f"profiles.{request.profile}.draft: there is no {draft}")
    image_id = container.image_id(client, image)
    labels = container.image_labels(client, image)
    variant = labels.get(VARIANT)
    kv = profiles.kv_of(profile, pins.variants.get(variant or ""))
    no_gpu = gpu_use.image_without_gpu(client, image_id, labels, pins, profile, env=profile.env)
    help_text = _help(client, image, image_id, progress, gpu=not no_gpu)
    profiles.require_known(request.profile, profile, kv, help_text, image)
    if key_file is not None:
        api_keys.require_readable(key_file, help_text, image)
    warnings += profiles.cautions(profile, help_text, key=key_file is not None)
    warnings += _advice(pins, request, kv_variant=variant, model=model, draft=draft, no_gpu=no_gpu)
    command = profiles.command(profile, kv, help_text, key=key_file is not None)
    port = request.port or profile.port
    spec = Spec(
        alias=profile.alias,
        image=image,
        image_id=image_id,
        model=str(model),
        model_stamp=_stamp(model),
        host=host,
        port=port,
        gpu=profile.gpu,
        arguments=tuple(command),
        env=profile.env,
        draft=str(draft) if draft else None,
        key_file=str(key_file.resolve()) if key_file else None,
        key_stamp=_stamp(key_file) if key_file else None,
        memory=request.memory or (before.memory if before else None),
    )
    launch = Launch(
        image=image_id,
        command=command,
        env=profile.env,
        model=model,
        port=port,
        host=host,
        draft=draft,
        secrets={profiles.KEY: key_file} if key_file else {},
        memory=spec.memory,
        gpu=not no_gpu,
        reach="published",
    )
    return Ready(request.profile, profile, spec, launch, str(kv), warnings)


def _check_access(host: str, key_file: Path | None) -> list[str]:
    """Who may reach the server: nobody from elsewhere without a key."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError as error:
        raise UsageError(
            f"--host {host!r} is no address", hint="127.0.0.1, 0.0.0.0 for every network, or ::1"
        ) from error
    if key_file is None and not address.is_loopback:
        raise UsageError(
            f"--host {host} lets other machines ask this server, and there is no API key",
            hint="--api-key-file FILE; (umask 077; openssl rand -hex 32 > FILE) writes one",
        )
    if key_file is None:
        return []
    api_keys.read(key_file)
    if key_file.stat().st_mode & _OPEN:
        return [f"{key_file} may be read by other users: `chmod 600 {key_file}`"]
    return []


def _model(request: Request, before: Spec | None) -> Path:
    """The model's file. Raises UsageError: none is named, it is no GGUF, or not all of one."""
    model = request.model or (Path(before.model) if before else None)
    if model is None:
        raise UsageError("no model is named", hint=f"builder serve {request.profile} --model PATH")
    if not model.is_file():
        raise UsageError(f"there is no model {model}", hint="--model PATH names a .gguf file")
    model = model.resolve()
    if model.suffix == ".gguf" and _SPLIT in model.stem:
        raise UsageError(
            f"{model.name} is one of several files, and a container gets one",
            hint="`llama-gguf-split --merge FIRST OUTPUT` makes one of them",
        )
    return model


def _stamp(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns


def _help(
    client: "DockerClient", image: str, image_id: str, progress: Progress, *, gpu: bool
) -> str:
    """What `--help` prints, kept by the image's ID: an image never says another thing."""
    kept = paths.cache() / "help" / f"{image_id.removeprefix('sha256:')}.txt"
    if kept.is_file():
        return kept.read_text(encoding="utf-8")
    progress.step(f"read --help of {image}")
    text = ImageTarget(image, image_id, client, {}, gpu=gpu).output("--help")
    if known_flags(text):
        with contextlib.suppress(OSError):  # what is not kept is read again
            write_atomically(kept, text)
    return text


def _advice(
    pins: Pins,
    request: Request,
    *,
    kv_variant: str | None,
    model: Path,
    draft: Path | None,
    no_gpu: str,
) -> list[str]:
    """Warnings about model and card. `no_gpu` is why it runs on no GPU, empty when it does.

    Raises UsageError for what the figures rule out.
    """
    from builder.engine import facts as doctor_facts
    from builder.llama.gguf.kv_types import kv_types

    profile = profiles.find(pins, request.profile)
    known = pins.variants.get(kv_variant or "")
    contents = gguf_file.read(model)
    held = sum(tensor.size_bytes for tensor in contents.tensors)
    if held > model.stat().st_size:
        raise UsageError(
            f"the model {model} is cut short",
            why=f"its tensors take {held} bytes, the file has {model.stat().st_size}",
            hint="download or copy it again",
        )
    card = request.card or (0 if no_gpu else sum(doctor_facts.gpus_memory()))
    plan = launch_advice.Plan(
        name=request.profile,
        profile=profile,
        kv=profiles.kv_of(profile, known),
        types=kv_types(pins, known.fork if known else None),
        rules=pins.forks[known.fork].kv_rules if known else KvRules(),
        model=memory.model(contents),
        card=card or None,
        draft=draft.stat().st_size if draft else 0,
        all_quants=launch_advice.all_quants(pins, kv_variant),
        logits=logits(pins, kv_variant),
    )
    warnings = launch_advice.advise(plan)
    if no_gpu and not placement(profile).off:
        warnings.append(f"{no_gpu}: the model runs on the CPU")
    return warnings
