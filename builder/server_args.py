"""A profile → the arguments of llama-server, as far as this commit knows them."""

import json
import re

from builder.model import Kv, Profile

_FLAG = re.compile(r"(?<![\w-])--?[a-zA-Z][\w-]*")


def known_flags(help_text: str) -> frozenset[str]:
    """Every flag that `llama-server --help` lists; empty when the text is no help."""
    lines = [line for line in help_text.splitlines() if line.startswith("-")]
    return frozenset(flag for line in lines for flag in _FLAG.findall(line))


def server_args(profile: Profile, kv: Kv, flags: frozenset[str]) -> list[str]:
    """The profile's arguments: slots, types, thinking, all layers on a GPU, a log that tells all.

    Address, port and model are the target's own matter. `flags` empty: all are taken as known.
    """
    missing = not_available(flags)
    optional = _optional(profile).items()
    return [
        *("--alias", profile.alias),
        # -c is divided among the slots.
        *("-c", str(profile.parallel * profile.slot_tokens), "-np", str(profile.parallel)),
        *("-ctk", kv.k, "-ctv", kv.v, "-fa", "on", "-ngl", "99"),
        # Library messages, KV sizes among them, lie above the default verbosity.
        *("-lv", "4"),
        *(word for flag, value in optional if flag not in missing for word in (flag, *value)),
    ]


def not_available(flags: frozenset[str]) -> list[str]:
    """The flags that `server_args` would pass and this commit lacks."""
    return [flag for flag in _optional(Profile("", 1, 1)) if flags and flag not in flags]


def _optional(profile: Profile) -> dict[str, tuple[str, ...]]:
    """Flags that some commits lack, with their values."""
    return {
        # A dry run for fitting prints the KV lines once more and uses up one-shot warnings.
        "--fit": ("off",),
        "--jinja": (),
        "--reasoning": ("on" if profile.thinking else "off",),
        "--chat-template-kwargs": (json.dumps({"enable_thinking": profile.thinking}),),
    }
