"""A profile → the arguments of llama-server, as far as this commit knows them."""

import json
import re

from builder.model.pins import Kv, Profile

DRAFT = "/models/draft.gguf"
"""Where a draft model lies inside the container."""

KEYS_FLAGS = {
    "alias": ("-a", "--alias"),
    "slot_tokens": ("-c", "--ctx-size"),
    "parallel": ("-np", "--parallel"),
    "kv": ("-ctk", "--cache-type-k", "-ctv", "--cache-type-v"),
    "thinking": ("-rea", "--reasoning", "--chat-template-kwargs"),
    "kv_unified": ("-kvu", "--kv-unified", "-no-kvu", "--no-kv-unified"),
    "slot_prompt_similarity": ("-sps", "--slot-prompt-similarity"),
    "cache_ram": ("-cram", "--cache-ram"),
    "cache_idle_slots": ("--cache-idle-slots", "--no-cache-idle-slots"),
    "embeddings": ("--embedding", "--embeddings"),
    "draft": ("-md", "--model-draft", "--spec-draft-model"),
    "port": ("--port",),
}
"""What a profile says with a key of its own, in the spellings of llama-server."""

EVERY_LAYER = "999"
"""What -ngl says for all layers: models have up to 512, and the word `all` is younger than some
forks."""

OPTIONS_FLAGS = {
    "--host": ("--host",),
    "--model": ("-m", "--model", "-mu", "--model-url", "-hf", "-hfr", "--hf-repo"),
    "--api-key-file": ("--api-key", "--api-key-file", "-hft", "--hf-token"),
}
"""What the commands that start a server have an option for: no profile says it."""

TELLS_ALL = 4
"""The level at which every commit logs the KV cache's sizes, which lie above info in some.

Some also log each request and each answer there: for servers that only builder asks.
"""

LOG_LEVEL = ("-lv", "--verbosity", "--log-verbosity")
_LEVELS = re.compile(r"^-lv,.*(?:\n(?!-).*)*", re.MULTILINE)
_NAMED = re.compile(r"- (\d+): ([a-z]+)")

_FLAG = re.compile(r"(?<![\w-])--?[a-zA-Z][\w-]*")


def known_flags(help_text: str) -> frozenset[str]:
    """Every flag that `llama-server --help` lists; empty when the text is no help."""
    lines = [line for line in help_text.splitlines() if line.startswith("-")]
    return frozenset(flag for line in lines for flag in _FLAG.findall(line))


def log_levels(help_text: str) -> dict[str, int]:
    """The names that this commit's `--help` gives to levels of its log, with their numbers.

    Empty where it names none. At debug it writes each request and each answer down.
    """
    section = _LEVELS.search(help_text)
    named = _NAMED.findall(section[0]) if section else []
    return {name: int(number) for number, name in named}


def server_args(
    profile: Profile, kv: Kv, flags: frozenset[str], level: int | None = TELLS_ALL
) -> list[str]:
    """The profile's arguments: slots, types, thinking, layers on a GPU, how much is logged.

    Address, port and model are the target's own matter. `flags` empty: all are taken as known.
    `level` is what the log goes down to; None: the server's default.
    The profile's own words come last: of two that say the same llama-server takes the later one.
    """
    missing = not_available(flags)
    optional = _optional(profile).items()
    return [
        *("--alias", profile.alias),
        # -c is divided among the slots.
        *("-c", str(profile.context), "-np", str(profile.parallel)),
        *("-ctk", kv.k, "-ctv", kv.v, "-fa", "on"),
        *("-ngl", "0" if profile.gpu == "none" else EVERY_LAYER),
        *(() if level is None else (LOG_LEVEL[0], str(level))),
        *(word for flag, value in optional if flag not in missing for word in (flag, *value)),
        *(word for flag, value in _chosen(profile).values() for word in (flag, *value)),
        *profile.flags,
    ]


def not_available(flags: frozenset[str]) -> list[str]:
    """The flags that `server_args` would pass, can do without, and this commit lacks."""
    return [flag for flag in _optional(Profile("", 1, 1)) if flags and flag not in flags]


def lacking(profile: Profile, flags: frozenset[str]) -> list[tuple[str, str]]:
    """What the profile asks for and this commit lacks: the key of the profile, and the flag.

    Nothing is taken as lacking when `flags` is empty.
    """
    asked = [(key, flag) for key, (flag, _) in _chosen(profile).items()]
    asked += [("flags", word) for word in profile.flags if _FLAG.fullmatch(word)]
    if not profile.embeddings:
        # Either of the two does.
        ways = ("--reasoning", "--chat-template-kwargs")
        asked += [("thinking", ways[0])] if not flags & set(ways) else []
    return [(key, flag) for key, flag in asked if flags and flag not in flags]


def _optional(profile: Profile) -> dict[str, tuple[str, ...]]:
    """Flags that some commits lack, with their values."""
    # A dry run for fitting prints the KV lines once more and uses up one-shot warnings.
    always: dict[str, tuple[str, ...]] = {"--fit": ("off",)}
    if profile.embeddings:
        return always
    return always | {
        "--jinja": (),
        "--reasoning": ("on" if profile.thinking else "off",),
        "--chat-template-kwargs": (json.dumps({"enable_thinking": bool(profile.thinking)}),),
    }


def _chosen(profile: Profile) -> dict[str, tuple[str, tuple[str, ...]]]:
    """What the profile says beyond the least: its key → the flag, with values."""
    chosen: dict[str, tuple[str, tuple[str, ...]]] = {}
    if profile.kv_unified is not None:
        chosen["kv_unified"] = ("--kv-unified" if profile.kv_unified else "--no-kv-unified", ())
    if profile.slot_prompt_similarity is not None:
        similarity = str(profile.slot_prompt_similarity)
        chosen["slot_prompt_similarity"] = ("--slot-prompt-similarity", (similarity,))
    if profile.cache_ram is not None:
        chosen["cache_ram"] = ("--cache-ram", (str(profile.cache_ram),))
    if profile.cache_idle_slots is not None:
        kept = profile.cache_idle_slots
        chosen["cache_idle_slots"] = ("--cache-idle-slots" if kept else "--no-cache-idle-slots", ())
    if profile.embeddings:
        # A text is computed in one batch: a longer one than that would be refused.
        batch = str(profile.slot_tokens)
        chosen["embeddings"] = ("--embeddings", ("-b", batch, "-ub", batch))
    if profile.draft is not None:
        chosen["draft"] = ("--model-draft", (DRAFT,))
    return chosen
