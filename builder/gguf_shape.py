"""What a GGUF's header says of the memory of a context: which layers keep what, and how wide.

Facts are from llama.cpp: `llama_model::load_hparams` (llama-model.cpp, models/*.cpp) for what a
header means, `create_memory` for which caches there are, read at ggml-org 0c1e57098 and spiritbuun
1c4788192.
"""

from dataclasses import dataclass
from pathlib import Path

from builder import gguf_file
from builder.gguf_file import Header


@dataclass(frozen=True, slots=True)
class KvLayer:
    """A layer that keeps keys and values: KV heads, values a head of K and of V.

    `window` is how many tokens it looks back, 0 for all.
    """

    heads: int
    k: int
    v: int
    window: int = 0


@dataclass(frozen=True, slots=True)
class KvShape:
    """The layers with a KV cache, in order.

    Those that look back a window have a cache of their own. `draft` are layers for drafting behind
    the model's own, which some builds keep a cache for and others do not. `recurrent` counts a
    hybrid's layers that keep a state, and `state_values` are the f32 values that they keep for a
    sequence, all together. `unknown` says why the layers are not known; there are none then.
    """

    architecture: str
    layers: tuple[KvLayer, ...] = ()
    draft: tuple[KvLayer, ...] = ()
    recurrent: int = 0
    state_values: int = 0
    unknown: str | None = None

    def cache(self, *, windowed: bool) -> tuple[KvLayer, ...]:
        """The layers of one of the two caches."""
        return tuple(layer for layer in self.layers if (layer.window > 0) == windowed)


def read(path: Path) -> KvShape:
    """The shape in a GGUF's header; of a model in several files, that of the first.

    Reads the header alone: 0.1 s for a vocabulary of 250,000, however large the file.
    Raises UsageError when the header cannot be read.
    """
    return shape(gguf_file.read_keys(path))


def shape(keys: Header) -> KvShape:
    """The shape that a header's keys tell."""
    architecture = str(keys.get("general.architecture"))
    own = {
        key.removeprefix(f"{architecture}."): value
        for key, value in keys.items()
        if key.startswith(f"{architecture}.")
    }
    try:
        return _shape(architecture, own)
    except _NotKnownError as reason:
        return KvShape(architecture, unknown=f"{reason} (architecture {architecture})")


class _NotKnownError(Exception):
    """Why a header does not tell the shape."""


@dataclass(frozen=True, slots=True)
class _Windowed:
    """Which layers look back a window: all but every `period`th.

    `period` None: the header must say it for each. `window` holds where the header gives none.
    """

    period: int | None
    window: int = 0


_WINDOWED = {
    "afmoe": _Windowed(4),
    "cohere2": _Windowed(4),
    "exaone4": _Windowed(4),
    "exaone-moe": _Windowed(4),
    "gemma2": _Windowed(2, window=4096),
    "gemma3": _Windowed(6),
    "gemma3n": _Windowed(5),
    "gemma4": _Windowed(None),
    "gpt-oss": _Windowed(2),
    "llama4": _Windowed(4, window=8192),
    "mimo2": _Windowed(None),
    "olmo2": _Windowed(4),
    "plamo3": _Windowed(8),
    "step35": _Windowed(None),
}

_WINDOW_UNUSED = {"llama", "mistral3", "phi3", "phimoe", "qwen2", "qwen2moe", "qwen3", "qwen3moe"}
"""Architectures whose header may name a window that llama.cpp does not use."""

_EVERY_FOURTH = {"qwen3next", "qwen35", "qwen35moe"}
"""Hybrids where every fourth layer has attention, unless the header says otherwise."""

_ZERO_HEADS = {
    "granitehybrid",
    "jamba",
    "lfm2",
    "lfm2moe",
    "nemotron_h",
    "nemotron_h_moe",
    "plamo2",
}
"""Hybrids whose header gives no KV heads to layers without attention."""

_ALWAYS = {"falcon-h1"}
"""Hybrids where every layer has attention beside its state."""

_PATTERN = "attention.sliding_window_pattern"

_GEMMA3N_LAYERS = 20
"""Gemma 3n's layers from here on use the keys and values of layers before."""

_LATENT = ("attention.key_length_mla", "attention.kv_lora_rank", "attention.indexer.head_count")
_STATE = ("ssm.state_size", "ssm.conv_kernel", "wkv.head_size", "shortconv.l_cache", "kda.head_dim")


def _shape(architecture: str, keys: Header) -> KvShape:
    if any(_number(keys, key) for key in _LATENT):
        raise _NotKnownError("it keeps a latent in place of keys and values")
    count = _number(keys, "block_count")
    if not count:
        raise _NotKnownError("the header has no block_count")
    heads = _each(keys, "attention.head_count_kv", count) or _each(
        keys, "attention.head_count", count
    )
    if not heads:
        raise _NotKnownError("the header has no attention.head_count")
    attention = _with_attention(architecture, keys, heads)
    windows = _windows(architecture, keys, count)
    layers = [
        KvLayer(heads[index], *_head_size(keys, windowed=windows[index] > 0), windows[index])
        for index in range(count)
    ]
    own = count - (_number(keys, "nextn_predict_layers") or 0)
    recurrent = sum(_recurrent(architecture, keys, attention)[:own])
    return KvShape(
        architecture,
        layers=tuple(layers[index] for index in range(own) if attention[index]),
        draft=tuple(layers[own:]),
        recurrent=recurrent,
        state_values=recurrent * _state_values(keys) if recurrent else 0,
    )


def _with_attention(architecture: str, keys: Header, heads: list[int]) -> list[bool]:
    """Whether each layer keeps keys and values of its own."""
    count = len(heads)
    if architecture in _EVERY_FOURTH:
        return _interleaved(keys, heads)
    if architecture in _ZERO_HEADS:
        return [each > 0 for each in heads]
    if architecture not in _ALWAYS and any(_number(keys, key) for key in _STATE):
        raise _NotKnownError("which of its layers have attention is not known here")
    own = count - (_number(keys, "attention.shared_kv_layers") or 0)
    if architecture == "gemma3n":
        own = _GEMMA3N_LAYERS
    return [index < own for index in range(count)]


def _recurrent(architecture: str, keys: Header, attention: list[bool]) -> list[bool]:
    """Whether each layer keeps a recurrent state."""
    if architecture in _ALWAYS:
        return [True] * len(attention)
    if architecture not in _EVERY_FOURTH | _ZERO_HEADS:
        return [False] * len(attention)
    feeds = [0] * len(attention)
    if architecture.startswith("nemotron_h"):
        # its feed-forward layers are layers of their own, without attention or state
        feeds = _each(keys, "feed_forward_length", len(attention)) or feeds
    return [not has and not feed for has, feed in zip(attention, feeds, strict=True)]


def _state_values(keys: Header) -> int:
    """`n_embd_r` and `n_embd_s` of llama-hparams.cpp: f32 values a layer keeps for a sequence."""
    width = _number(keys, "embedding_length") or 0
    short = _number(keys, "shortconv.l_cache")
    if short:
        return width * (short - 1)
    inner, state = _number(keys, "ssm.inner_size") or 0, _number(keys, "ssm.state_size") or 0
    groups = _number(keys, "ssm.group_count") or 0
    convolution = max(0, (_number(keys, "ssm.conv_kernel") or 0) - 1)
    return convolution * (inner + 2 * groups * state) + state * inner


def _interleaved(keys: Header, heads: list[int]) -> list[bool]:
    recurrent = _each(keys, "attention.recurrent_layers", len(heads))
    if recurrent:
        return [not each for each in recurrent]
    if 0 in heads:
        return [each > 0 for each in heads]
    interval = _number(keys, "full_attention_interval") or 4
    return [(index + 1) % interval == 0 for index in range(len(heads))]


def _windows(architecture: str, keys: Header, count: int) -> list[int]:
    """How many tokens each layer looks back, 0 for all."""
    window = _number(keys, "attention.sliding_window")
    rule = _WINDOWED.get(architecture)
    if rule is None:
        if window and architecture not in _WINDOW_UNUSED:
            raise _NotKnownError("which of its layers look back a window is not known here")
        return [0] * count
    if architecture == "llama4" and window != 0:
        window = rule.window
    window = rule.window if window is None else window
    if isinstance(keys.get(_PATTERN), list):
        return [window if each else 0 for each in _each(keys, _PATTERN, count) or []]
    period = _number(keys, _PATTERN) or rule.period
    if period is None:
        raise _NotKnownError("the header does not say which layers look back a window")
    return [0 if (index + 1) % period == 0 else window for index in range(count)]


def _head_size(keys: Header, *, windowed: bool) -> tuple[int, int]:
    """Values a head of K and of V."""
    found = []
    for key in ("attention.key_length", "attention.value_length"):
        size = _number(keys, f"{key}_swa") if windowed else None
        found.append(size or _number(keys, key) or _even_share(keys))
    return found[0], found[1]


def _even_share(keys: Header) -> int:
    width = _number(keys, "embedding_length")
    heads = keys.get("attention.head_count")
    first = heads[0] if isinstance(heads, list) and heads else heads
    if not width or not isinstance(first, int) or not first:
        raise _NotKnownError("the header gives no size of a head")
    return width // first


def _number(keys: Header, key: str) -> int | None:
    value = keys.get(key)
    return value if isinstance(value, int) else None


def _each(keys: Header, key: str, count: int) -> list[int] | None:
    """A value for each layer: the header gives one for all, or a list. None: it gives none."""
    value = keys.get(key)
    if isinstance(value, list):
        if len(value) < count:
            raise _NotKnownError(f"{key} has {len(value)} values for {count} layers")
        return [int(each) for each in value[:count]]
    return [value] * count if isinstance(value, int) else None
