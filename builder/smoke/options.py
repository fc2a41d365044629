"""What a user may say about a smoke: words of a command line → values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args
from urllib.parse import urlsplit

from builder.common.errors import UsageError
from builder.common.suggest import suggestion
from builder.model.pins import Kv, Requirement

MODEL = "scripted"
"""The name of the model that is served unless another is asked for."""

SMOKE_CAN_REQUIRE: tuple[Requirement, ...] = ("contract", "kv")


@dataclass(frozen=True, slots=True)
class Options:
    """None: what the target, its variant and the smoke's own profile say.

    `model` is a path or the name of a model that builder writes. `timeout_s` is how long a server
    may take to get ready, `answer_s` how long for an answer: None, as long as its tokens need.
    `api_key` is shown to the server.
    """

    variant: str | None = None
    profile: str | None = None
    kv: Kv | None = None
    model: str = MODEL
    env: Mapping[str, str] = field(default_factory=dict)
    require: frozenset[Requirement] = frozenset()
    timeout_s: float = 120.0
    answer_s: float | None = None
    api_key: str | None = field(default=None, repr=False)


def parse_kv(text: str) -> Kv:
    """`TYPE` for both halves of the cache, or `K:V`. Raises UsageError for anything else."""
    k, separator, v = text.partition(":")
    if not k or (separator and not v) or ":" in v:
        raise UsageError(f"--kv {text!r} is no type", hint="--kv turbo4, or K:V: --kv q8_0:turbo4")
    return Kv(k, v or k)


def require_url(text: str) -> str:
    """The base of a server's address. Raises UsageError: no scheme that HTTP has, or no host."""
    parts = urlsplit(text)
    try:
        whole = parts.scheme in {"http", "https"} and parts.hostname and (parts.port or True)
    except ValueError:  # a port that is none
        whole = False
    if not whole:
        hint = f"--url http://{text}" if "://" not in text else "--url http://127.0.0.1:8080"
        raise UsageError(f"--url {text!r} is no address of a server", hint=hint)
    return text


def parse_env(words: Sequence[str]) -> dict[str, str]:
    """`NAME=VALUE` pairs. Raises UsageError for a word that is none."""
    pairs = [word.partition("=") for word in words]
    for name, separator, _ in pairs:
        if not name or not separator:
            raise UsageError(f"--env {name!r} is no NAME=VALUE")
    return {name: value for name, _, value in pairs}


def parse_require(words: Sequence[str]) -> frozenset[Requirement]:
    """Names of what has to be proven. Raises UsageError for one that a smoke cannot prove."""
    for word in words:
        if word not in SMOKE_CAN_REQUIRE:
            hint = suggestion(word, SMOKE_CAN_REQUIRE)
            raise UsageError(f"--require {word!r}: a smoke proves no such thing", hint=hint)
    return frozenset(one for one in get_args(Requirement) if one in words)
