"""The environment variables that lead a client to a local server, and the ways to write them down.

Where the names are from:

- https://code.claude.com/docs/en/env-vars and https://code.claude.com/docs/en/model-config, for the
  Claude Agent SDK, which hands its environment to its command-line program. Seen to be obeyed in
  claude-agent-sdk 0.2.186 (program 2.1.329), through a recording server.
- `anthropic` 2.11 (`_client.py`) and `openai` 3.52 (`lib/_client_auth.py`) of PyPI. `openai` reads
  no variable for the model; OPENAI_MODEL is what programs use by custom.
"""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from builder.common.errors import UsageError
from builder.model.pins import OPUS

MODEL_OF_TIER = {
    "haiku": "ANTHROPIC_DEFAULT_HAIKU_MODEL",
    "sonnet": "ANTHROPIC_DEFAULT_SONNET_MODEL",
    OPUS: "ANTHROPIC_DEFAULT_OPUS_MODEL",
}

ANTHROPIC = (
    "ANTHROPIC_BASE_URL",
    "ANTHROPIC_AUTH_TOKEN",
    "ANTHROPIC_MODEL",
    *MODEL_OF_TIER.values(),
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
    "DISABLE_TELEMETRY",
)
"""The eight that the Agent SDK's program reads; the `anthropic` package reads the first two."""

OPENAI = ("OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_MODEL")

NAMES = (*ANTHROPIC, *OPENAI)
"""All that a route to a local server sets."""

ANTHROPIC_ASIDE = (
    # Sent beside the token by the program, and by `anthropic` in its place.
    "ANTHROPIC_API_KEY",
    "CLAUDE_CODE_OAUTH_TOKEN",
    # Sent to whatever server there is; may carry a gateway's key.
    "ANTHROPIC_CUSTOM_HEADERS",
    # Each leads past the base URL.
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_VERTEX",
    "CLAUDE_CODE_USE_FOUNDRY",
    "CLAUDE_CODE_USE_ANTHROPIC_AWS",
    "CLAUDE_CODE_USE_ANTHROPIC_GOOGLE_CLOUD",
    "CLAUDE_CODE_USE_MANTLE",
    # Names of models that the local server does not have.
    "ANTHROPIC_SMALL_FAST_MODEL",
    "ANTHROPIC_DEFAULT_FABLE_MODEL",
    "CLAUDE_CODE_SUBAGENT_MODEL",
)
OPENAI_ASIDE = ("OPENAI_CUSTOM_HEADERS",)
ASIDE = (*ANTHROPIC_ASIDE, *OPENAI_ASIDE)
"""What must not be there while calls go to a local server: secrets of others, and other ways."""

TOKEN = "local"  # noqa: S105 -- a server on the loopback asks for none, and clients want one
"""What stands for a key where the server wants none."""

_BARE = re.compile(r"[\w./:@%+,=-]*")
_DISPUTED = re.compile(r"['\"\\`$\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Server:
    """A server to be led to. `url` is without a slash at its end; `tier` names the profile."""

    tier: str
    url: str
    alias: str
    token: str = field(default=TOKEN, repr=False)
    embeddings: bool = False


def routed(servers: list[Server]) -> dict[str, str]:
    """The variables that lead to these servers.

    A tier that is among them has its own model name, every other the first one's, so that no call
    of the SDK asks for a model that is not there. Anthropic's clients have one address and OpenAI's
    one: an embedder is reached through OpenAI's, and leaves Anthropic's alone.

    Raises UsageError when servers of different addresses would have to share one.
    """
    talkers = [one for one in servers if not one.embeddings]
    embedders = [one for one in servers if one.embeddings]
    return {**_anthropic(talkers), **_openai(embedders or talkers)}


def aside(values: Mapping[str, str]) -> tuple[str, ...]:
    """The names that must not be there while these variables hold."""
    anthropic = ANTHROPIC_ASIDE if ANTHROPIC[0] in values else ()
    openai = OPENAI_ASIDE if OPENAI[0] in values else ()
    return (*anthropic, *openai)


def _anthropic(servers: list[Server]) -> dict[str, str]:
    if not servers:
        return {}
    first = _one_address(servers, "ANTHROPIC_BASE_URL")
    named = {one.tier: one.alias for one in servers}
    return {
        "ANTHROPIC_BASE_URL": first.url,
        "ANTHROPIC_AUTH_TOKEN": first.token,
        "ANTHROPIC_MODEL": first.alias,
        **{name: named.get(tier, first.alias) for tier, name in MODEL_OF_TIER.items()},
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_TELEMETRY": "1",
    }


def _openai(servers: list[Server]) -> dict[str, str]:
    first = _one_address(servers, "OPENAI_BASE_URL")
    return {
        "OPENAI_BASE_URL": f"{first.url}/v1",
        "OPENAI_API_KEY": first.token,
        "OPENAI_MODEL": first.alias,
    }


def _one_address(servers: list[Server], name: str) -> Server:
    first = servers[0]
    for other in servers[1:]:
        if other.url != first.url:
            raise UsageError(
                f"one {name} cannot lead to both {first.tier} and {other.tier}",
                why=f"{first.tier} is at {first.url}, {other.tier} at {other.url}",
                hint=f"`builder env {first.tier}`, and `builder env {other.tier}` for its own",
            )
    return first


def to_shell(values: Mapping[str, str], unset: tuple[str, ...]) -> str:
    """Lines for `eval` in any POSIX shell."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
    return "\n".join([*(f"unset {name}" for name in unset), *lines])


def to_dotenv(values: Mapping[str, str], unset: tuple[str, ...]) -> str:
    """Lines for a .env file: of python-dotenv, compose, `docker run --env-file`, or a shell.

    Such a file cannot unset. The names to be unset are empty in it, which clients take for not set;
    `anthropic` takes an empty base URL at its word, so a file that only unsets is refused.

    Raises UsageError for that, and for a value that these readers would read in different ways.
    """
    if not values:
        raise UsageError("a .env file cannot unset", hint="--shell, or take the lines out of it")
    lines = [f"{name}={_dotenv_value(name, value)}" for name, value in values.items()]
    return "\n".join([*(f"{name}=" for name in unset), *lines])


def _dotenv_value(name: str, value: str) -> str:
    if _BARE.fullmatch(value):
        return value
    if _DISPUTED.search(value):
        raise UsageError(
            f"{name} cannot be written to a .env file",
            why="it has a quote, a backslash, a dollar or a control character, which readers of "
            "such files take in different ways",
            hint="--shell or --json; or another alias in pins.toml",
        )
    return f"'{value}'"


def to_json(values: Mapping[str, str], unset: tuple[str, ...]) -> str:
    """`schema` 1; `set`: names with their values; `unset`: names."""
    return json.dumps({"schema": 1, "set": dict(values), "unset": list(unset)}, indent=2)
