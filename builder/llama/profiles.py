"""A profile of pins.toml as one command line of a container, checked against what its image knows.

The smoke, `builder serve`, and the files that others start servers from all take it from here.
"""

import difflib
import itertools

from builder.common.errors import UsageError
from builder.common.suggest import suggestion
from builder.llama import container_paths
from builder.llama.flags import LOG_LEVEL, known_flags, lacking, log_levels, server_args
from builder.llama.printed import offered
from builder.model.pins import Kv, Pins, Profile, Variant

CORS = "--cors-origins"
_LOGS_PROMPTS = ("-v", "--verbose", "--log-verbose", "--verbose-prompt", "--log-prompts-dir")

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


def command(profile: Profile, kv: Kv, help_text: str, *, key: bool = False) -> list[str]:
    """What llama-server is told in a container: the model at container.MODEL, the profile's words.

    It listens where the image says, 0.0.0.0:8080 inside. `help_text` is what its `--help` prints;
    empty: all flags are taken as known. It logs down to info: prompts are logged further down.
    `key`: a file of API keys lies at KEY; without one pages of other origins than this machine's
    may not read answers, where the commit has a flag for that.
    """
    flags = known_flags(help_text)
    closed = [CORS, "localhost"] if not key and CORS in flags else []
    locked = ["--api-key-file", KEY] if key else []
    words = server_args(profile, kv, flags, log_levels(help_text).get("info"))
    return ["-m", container_paths.MODEL, *closed, *words, *locked]


def cautions(profile: Profile, help_text: str, *, key: bool) -> list[str]:
    """What a user must not miss of who may ask this server, and of what its log keeps.

    `help_text` empty: nothing is known of the commit. `key`: clients need an API key.
    """
    found = []
    if not key and help_text and CORS not in known_flags(help_text):
        found.append(
            "no API key, and this commit lets every web page that a browser on this machine opens "
            "ask the server (CORS *): --api-key-file FILE"
        )
    if said := _logs_prompts(profile, help_text):
        found.append(f"{said} in the profile's flags writes prompts and answers to the log")
    return found


def _logs_prompts(profile: Profile, help_text: str) -> str:
    """The profile's own words that make the server log what it is asked; empty: none."""
    # Commits that name no levels have debug at 1.
    debug = log_levels(help_text).get("debug", 1)
    for word, value in itertools.pairwise([*profile.flags, ""]):
        if word in _LOGS_PROMPTS:
            return word
        if word in LOG_LEVEL and value.isdecimal() and int(value) >= debug:
            return f"{word} {value}"
    return ""


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
