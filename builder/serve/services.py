"""Profiles of pins.toml as services that others start: what a compose file or a unit has to say."""

import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from builder.common.errors import UsageError
from builder.engine.file_access import COPY_BYTES, FileStatus, access_to
from builder.llama import api_keys, container_paths, profiles
from builder.llama import flags as server_args
from builder.model.pins import Pins, Profile, Variant
from builder.pins import load as pins

LOOPBACK = "127.0.0.1"
PREFIX = "turboquant"
"""What the names of services on the machine begin with."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked for beside the profiles' own words.

    `models`: profile → its GGUF. `help_text` is what the image's `--help` prints, empty where it is
    not on this machine; `labelled` the variant that its label names. `gpu` None: as the variant is
    built for one. `key_file` holds API keys, a line each.
    """

    image: str
    models: Mapping[str, Path]
    variant: str | None = None
    labelled: str | None = None
    help_text: str = ""
    gpu: bool | None = None
    host: str = LOOPBACK
    key_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Mount:
    """A file of the machine, read-only at a place inside the container."""

    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Service:
    """A container of llama-server. `user` None: the image's own; `groups` are added to it.

    `port` is the machine's, at `host`; inside it is container.SERVER_PORT.
    """

    profile: str
    image: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    host: str
    port: int
    gpu: bool
    holds: bool
    mounts: tuple[Mount, ...]
    user: str | None
    groups: tuple[int, ...]

    @property
    def name(self) -> str:
        """The unit's name, without its suffix."""
        return f"{PREFIX}-{self.profile}"

    @property
    def published(self) -> str:
        """`ADDRESS:PORT:PORT` as docker and podman take it."""
        address = f"[{self.host}]" if ":" in self.host else self.host
        return f"{address}:{self.port}:{container_paths.SERVER_PORT}"


def parse_models(words: Sequence[str], known: Mapping[str, Profile]) -> dict[str, Path]:
    """`PATH` for every profile that chats, `PROFILE=PATH` for one. Raises UsageError."""
    shared = [word for word in words if word.partition("=")[0] not in known]
    if len(shared) > 1:
        raise UsageError(
            f"two models for every profile: {shared[0]}, {shared[1]}",
            hint="name the profile: --model PROFILE=PATH",
        )
    every = {name: shared[0] for name, one in known.items() if shared and not one.embeddings}
    own = [word.partition("=") for word in words if word not in shared]
    models = every | {name: path for name, _, path in own}
    return {name: _file(path, "model") for name, path in models.items()}


def services(everything: Pins, names: Sequence[str], options: Options) -> list[Service]:
    """The named profiles as services, or all that have a model, in the order of pins.toml.

    Raises UsageError for a profile without a model or that the image cannot serve, for an address
    that others reach without a key, and for files that no one user can read.
    """
    _check_address(options)
    for name in names:
        profiles.find(everything, name)
        if name not in options.models:
            raise UsageError(f"no model for profile {name}", hint=f"--model {name}=PATH")
    chosen = names or list(options.models)
    if not chosen:
        raise UsageError("no model to serve", hint="--model PATH, or --model PROFILE=PATH")
    variant = _variant(everything, options)
    return [
        _service(name, everything.profiles[name], variant, options)
        for name in everything.profiles
        if name in chosen
    ]


def conflicting(one: Service, others: Sequence[Service]) -> list[Service]:
    """Those that cannot run while this one does: the card, or the port, is taken."""
    return [
        other
        for other in others
        if other.profile != one.profile and (other.port == one.port or (other.holds and one.holds))
    ]


def _service(name: str, profile: Profile, variant: Variant, options: Options) -> Service:
    kv = profiles.kv_of(profile, variant)
    profiles.require_known(name, profile, kv, options.help_text, options.image)
    model = options.models[name]
    mounts = [Mount(str(model), container_paths.MODEL)]
    if profile.draft is not None:
        draft = _file(str(model.parent / profile.draft), f"draft of profile {name}")
        mounts.append(Mount(str(draft), server_args.DRAFT))
    if options.key_file is not None:
        key = _file(str(options.key_file), "file of API keys")
        api_keys.read(key)
        api_keys.require_readable(key, options.help_text, options.image)
        mounts.append(Mount(str(key), profiles.KEY))
    user, groups = _reader([Path(one.source) for one in mounts])
    words = profiles.command(profile, kv, options.help_text, key=options.key_file is not None)
    card = bool(variant.architectures) if options.gpu is None else options.gpu
    return Service(
        profile=name,
        image=options.image,
        command=tuple(words),
        env=dict(profile.env),
        host=options.host,
        port=profile.port,
        gpu=card and profile.gpu != "none",
        holds=profile.gpu == "holds",
        mounts=tuple(mounts),
        user=user,
        groups=groups,
    )


def _variant(everything: Pins, options: Options) -> Variant:
    name = options.variant or options.labelled
    if options.variant is None and name not in everything.variants:
        name = None
    return pins.variant(everything, name)[1]


def _check_address(options: Options) -> None:
    try:
        address = ip_address(options.host)
    except ValueError as error:
        raise UsageError(f"--host {options.host!r} is no address") from error
    if not address.is_loopback and options.key_file is None:
        raise UsageError(
            f"whoever reaches {options.host} could use the server",
            why="an address other than the loopback's needs a key",
            hint="--api-key-file FILE, with a key a line",
        )


def _file(path: str, what: str) -> Path:
    found = Path(path).resolve()
    if not found.is_file():
        raise UsageError(f"{path} is no file", why=f"it is given as the {what}")
    return found


def _reader(files: Sequence[Path]) -> tuple[str | None, tuple[int, ...]]:
    """As whom a container reads files that are mounted, and with which groups added.

    Nothing can be copied in as the smoke does: who starts the container is not builder.
    """
    found = []
    for path in files:
        status = path.stat()
        one = FileStatus(COPY_BYTES + 1, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
        found.append(access_to(one, remapped=False))
    users = sorted({one.user for one in found if one.user})
    if len(users) > 1:
        raise UsageError(
            "no one user of a container can read all of these",
            why="\n".join(str(path) for path in files),
            hint="give them one owner, or `chmod o+r` what is no secret",
        )
    groups = sorted({group for one in found for group in one.groups})
    return (users[0] if users else None), tuple(groups)
