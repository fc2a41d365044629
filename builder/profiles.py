"""A profile of pins.toml as one command line of a container, checked against what its image knows.

The smoke, `builder serve`, and the files that others start servers from all take it from here.
"""

import difflib

from builder import container
from builder.errors import UsageError
from builder.model import Kv, Pins, Profile, Variant
from builder.pins_problems import suggestion
from builder.rule.printed import offered
from builder.server_args import known_flags, lacking, server_args

KEY = "/run/api-key"
"""Where the file of API keys lies inside the container."""


def find(pins: Pins, name: str) -> Profile:
    """The profile of this name. Raises UsageError with the nearest name."""
    if name not in pins.profiles:
        raise UsageError(f"unknown profile {name!r}", hint=suggestion(name, pins.profiles))
    return pins.profiles[name]


def kv_of(profile: Profile, variant: Variant | None) -> Kv:
    """The KV types to ask for: the profile's, an embedder's f16, else those of the variant's smoke.

    Raises UsageError when neither says any.
    """
    if profile.kv is not None:
        return profile.kv
    if profile.embeddings:
        return Kv("f16", "f16")
    if variant is None:
        raise UsageError(
            "no KV type to ask for",
            why="the profile names none, and no label of the image names a variant of pins.toml",
            hint="give the profile `kv`, or name the variant",
        )
    return Kv(variant.smoke_kv, variant.smoke_kv)


def command(profile: Profile, kv: Kv, flags: frozenset[str], *, key: bool = False) -> list[str]:
    """What llama-server is told in a container: the model at container.MODEL, the profile's words.

    It listens where the image says, 0.0.0.0:8080 inside. `flags` are those that `--help` lists,
    empty: all are taken as known. `key`: a file of API keys lies at KEY.
    """
    locked = ["--api-key-file", KEY] if key else []
    return ["-m", container.MODEL, *server_args(profile, kv, flags), *locked]


def require_flags(name: str, profile: Profile, flags: frozenset[str], image: str) -> None:
    """Raises UsageError that lists every flag of the profile which `--help` does not.

    `flags` empty: nothing is known, and nothing is refused.
    """
    _refuse(name, image, _unknown_flags(name, profile, flags))


def require_known(name: str, profile: Profile, kv: Kv, help_text: str, image: str) -> None:
    """The same for flags and KV types, against the text that `--help` prints."""
    unknown_types = [
        f"profiles.{name}.kv: {half.upper()} as {wanted}: this commit offers {', '.join(types)}"
        for half, types in offered(help_text).items()
        if (wanted := kv.k if half == "k" else kv.v) not in types
    ]
    _refuse(name, image, _unknown_flags(name, profile, known_flags(help_text)) + unknown_types)


def _unknown_flags(name: str, profile: Profile, flags: frozenset[str]) -> list[str]:
    return [
        f"profiles.{name}.{key}: {flag} is no flag of this commit; {suggestion(flag, close)}"
        if (close := difflib.get_close_matches(flag, flags, n=1))
        else f"profiles.{name}.{key}: {flag} is no flag of this commit"
        for key, flag in lacking(profile, flags)
    ]


def _refuse(name: str, image: str, found: list[str]) -> None:
    if found:
        raise UsageError(
            f"{image} cannot serve profile {name} as it is written",
            why="\n".join(found),
            hint="take it out of the profile, or name an image of a commit that has it; "
            f"`docker run --rm {image} --help` lists what this one has",
        )
