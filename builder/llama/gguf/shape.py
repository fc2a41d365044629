"""What a GGUF's header says of the memory of a context: which layers keep what, and how wide.

Facts are from llama.cpp: `llama_model::load_hparams` (llama-model.cpp, models/*.cpp) for what a
header means, `create_memory` for which caches there are, read at ggml-org 0c1e57098 and spiritbuun
1c4788192.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

from builder.llama.gguf import file as gguf_file
from builder.llama.gguf.file import Header

MOST_LAYERS = 512
"""LLAMA_MAX_LAYERS: a header with more is refused, as llama.cpp does."""

MOST = 2**31 - 1
"""The largest number of a shape: llama.cpp holds them in 32 bits."""

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class KvLayer:
    """A layer that keeps keys and values: KV heads, values a head of K and of V.

    `window` is how many tokens it looks back, 0 for all. `index` is its place among the model's
    layers, and no part of its shape: layers at two places can be equal.
    """

    heads: int
    k: int
    v: int
    window: int = 0
    index: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class KvShape:
    """The layers with a KV cache, in order.

    Those that look back a window have a cache of their own. `draft` are layers for drafting behind
    the model's own, which some builds keep a cache for and others do not. `recurrent` counts a
    hybrid's layers that keep a state, and `state_values` are the f32 values that they keep for a
    sequence, all together. `unknown` says why the layers are not known; there are none then. No
    layers and nothing unknown: the model has no cache. `total` counts layers of any kind, and
    `queries` is how many query heads share a KV head in the first layer, rounded down: forks have
    rules by the two.
    """

    architecture: str
    layers: tuple[KvLayer, ...] = ()
    draft: tuple[KvLayer, ...] = ()
    recurrent: int = 0
    state_values: int = 0
    unknown: str | None = None
    total: int = field(default=0, compare=False)
    queries: int = field(default=1, compare=False)

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
    if not _NAME.fullmatch(architecture):
        return KvShape("unknown", unknown="the header gives no name of an architecture")
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
    """Which layers look back a window: all but every `period`th, the last or the `first` of each.

    `period` None: the header must say it for each. `window` holds where the header gives none.
    """

    period: int | None
    window: int = 0
    first: bool = False


_WINDOWED = {
    "afmoe": _Windowed(4),
    "cohere2": _Windowed(4),
    "cohere2moe": _Windowed(4, first=True),
    "exaone4": _Windowed(4),
    "exaone-moe": _Windowed(4),
    "gemma2": _Windowed(2, window=4096),
    "gemma3": _Windowed(6),
    "gemma3n": _Windowed(5),
    "gemma4": _Windowed(None),
    "gpt-oss": _Windowed(2),
    "granite-swa": _Windowed(None),
    "laguna": _Windowed(4, first=True),
    "llama4": _Windowed(4, window=8192),
    "maple": _Windowed(None),
    "mellum": _Windowed(4),
    "mimo2": _Windowed(None),
    "muse-glimmer": _Windowed(4),
    "olmo2": _Windowed(4),
    "plamo3": _Windowed(8),
    "smallthinker": _Windowed(4, first=True),
    "spark2-5": _Windowed(None),
    "step35": _Windowed(None),
}

_FIXED = {"llama4": 8192, "smallthinker": 4096}
"""Windows that are of this size whatever the header says, unless it says none."""

_EXAONE4_LAYERS = 64
"""EXAONE 4 has windows in its model of so many layers alone."""

_WINDOW_UNUSED = {"llama", "mistral3", "phi3", "phimoe", "qwen2", "qwen2moe", "qwen3", "qwen3moe"}
"""Architectures whose header may name a window that llama.cpp does not use."""

_INTERLEAVED = {"minimax-01": 8, "qwen3next": 4, "qwen35": 4, "qwen35moe": 4}
"""Hybrids where one layer of so many has attention, unless the header says otherwise."""

_RECURRENT = {"arwkv7", "mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7"}
"""No layer has attention, each keeps a state."""

_ZERO_HEADS = {
    "bailingmoe3",
    "granitehybrid",
    "jamba",
    "kimi-linear",
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

_CACHELESS = {
    "bert",
    "dream",
    "eurobert",
    "gemma-embedding",
    "jina-bert-v2",
    "jina-bert-v3",
    "llada",
    "llada-moe",
    "modern-bert",
    "neo-bert",
    "nomic-bert",
    "nomic-bert-moe",
    "rnd1",
    "wavtokenizer-dec",
}
"""Encoders and models that diffuse: `create_memory` makes none for them."""

_LATENT = ("attention.key_length_mla", "attention.value_length_mla")
"""Both: a layer keeps one latent in place of K and V (`is_mla` of llama-hparams.cpp)."""

_INDEXED = ("attention.indexer.head_count", "attention.indexer.key_length")
"""A second cache, of an indexer."""

_STATE = ("ssm.state_size", "ssm.conv_kernel", "wkv.head_size", "shortconv.l_cache", "kda.head_dim")


def _shape(architecture: str, keys: Header) -> KvShape:
    count = _number(keys, "block_count")
    if count is None:
        raise _NotKnownError("the header has no block_count")
    if not 1 <= count <= MOST_LAYERS:
        raise _NotKnownError(f"block_count is {count}, and llama.cpp takes 1 to {MOST_LAYERS}")
    if architecture in _CACHELESS:
        return KvShape(architecture)
    if architecture in _RECURRENT:
        states = count * _state_values(architecture, keys)
        return KvShape(architecture, recurrent=count, state_values=states, total=count)
    if any(_number(keys, key) for key in _INDEXED):
        raise _NotKnownError("it keeps an indexer's keys beside the cache")
    heads = _each(keys, "attention.head_count_kv", count) or _each(
        keys, "attention.head_count", count
    )
    if not heads:
        raise _NotKnownError("the header has no attention.head_count")
    attention = _with_attention(architecture, keys, heads)
    windows = _windows(architecture, keys, count)
    layers = [
        KvLayer(heads[index], *_head_size(keys, windowed=window > 0), window, index)
        for index, window in enumerate(windows)
    ]
    own = count - (_number(keys, "nextn_predict_layers") or 0)
    if own < 0:
        raise _NotKnownError("it has more layers for drafting than layers")
    recurrent = sum(_recurrent(architecture, keys, attention)[:own])
    return KvShape(
        architecture,
        layers=tuple(layers[index] for index in range(own) if attention[index]),
        draft=tuple(layers[own:]),
        recurrent=recurrent,
        state_values=recurrent * _state_values(architecture, keys) if recurrent else 0,
        total=count,
        queries=(_first(keys, "attention.head_count") or 0) // heads[0] if heads[0] else 1,
    )


def _with_attention(architecture: str, keys: Header, heads: list[int]) -> list[bool]:
    """Whether each layer keeps keys and values of its own."""
    count = len(heads)
    if architecture in _INTERLEAVED:
        return _interleaved(keys, heads, _INTERLEAVED[architecture])
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
    if architecture not in _INTERLEAVED.keys() | _ZERO_HEADS:
        return [False] * len(attention)
    feeds = [0] * len(attention)
    if architecture.startswith("nemotron_h"):
        # its feed-forward layers are layers of their own, without attention or state
        feeds = _each(keys, "feed_forward_length", len(attention)) or feeds
    return [not has and not feed for has, feed in zip(attention, feeds, strict=True)]


_SHIFTED = 2
"""Tokens that RWKV keeps beside its state, where the header does not say."""


def _state_values(architecture: str, keys: Header) -> int:
    """`n_embd_r` and `n_embd_s` of llama-hparams.cpp: f32 values a layer keeps for a sequence."""
    if architecture == "minimax-01":
        size = _number(keys, "attention.key_length") or _even_share(keys)
        return size * size * (_first(keys, "attention.head_count") or 0)
    width = _number(keys, "embedding_length") or 0
    kernel = _number(keys, "ssm.conv_kernel") or 0
    word = _number(keys, "wkv.head_size")
    if word:
        shifted = _number(keys, "token_shift_count")
        return width * ((_SHIFTED if shifted is None else shifted) + word)
    delta = _number(keys, "kda.head_dim")
    if delta:
        inner = (_first(keys, "attention.head_count") or 0) * delta
        return 3 * (kernel - 1 if kernel else 3) * inner + delta * inner
    short = _number(keys, "shortconv.l_cache")
    if short:
        return width * (short - 1)
    inner, state = _number(keys, "ssm.inner_size") or 0, _number(keys, "ssm.state_size") or 0
    groups = _number(keys, "ssm.group_count") or 0
    return max(0, kernel - 1) * (inner + 2 * groups * state) + state * inner


def _interleaved(keys: Header, heads: list[int], usual: int) -> list[bool]:
    recurrent = _each(keys, "attention.recurrent_layers", len(heads))
    if recurrent:
        return [not each for each in recurrent]
    if 0 in heads:
        return [each > 0 for each in heads]
    interval = _number(keys, "full_attention_interval") or usual
    return [(index + 1) % interval == 0 for index in range(len(heads))]


def _windows(architecture: str, keys: Header, count: int) -> list[int]:
    """How many tokens each layer looks back, 0 for all."""
    window = _number(keys, "attention.sliding_window")
    rule = _WINDOWED.get(architecture)
    if architecture == "lfm2":
        return [window or 0] * count
    if rule is None:
        if window and architecture not in _WINDOW_UNUSED:
            raise _NotKnownError("which of its layers look back a window is not known here")
        return [0] * count
    if architecture == "exaone4":
        window = (4096 if window is None else window) if count == _EXAONE4_LAYERS else 0
    window = rule.window if window is None else window
    window = _FIXED.get(architecture, window) if window else 0
    if isinstance(keys.get(_PATTERN), list):
        return [window if each else 0 for each in _each(keys, _PATTERN, count) or []]
    period = _number(keys, _PATTERN) or rule.period
    if period is None:
        raise _NotKnownError("the header does not say which layers look back a window")
    full = 0 if rule.first else period - 1
    return [0 if index % period == full else window for index in range(count)]


def _head_size(keys: Header, *, windowed: bool) -> tuple[int, int]:
    """Values a head of K and of V."""
    found = []
    for key in ("attention.key_length", "attention.value_length"):
        size = _number(keys, f"{key}_swa") if windowed else None
        found.append(size or _number(keys, key) or _even_share(keys))
    latent = all(_number(keys, key) for key in _LATENT)
    return found[0], 0 if latent else found[1]


def _even_share(keys: Header) -> int:
    width, first = _number(keys, "embedding_length"), _first(keys, "attention.head_count")
    if not width or not first:
        raise _NotKnownError("the header gives no size of a head")
    return width // first


def _first(keys: Header, key: str) -> int | None:
    """A number of the first layer: the header gives one for all, or a list."""
    found = _each(keys, key, 1)
    return found[0] if found else None


def _number(keys: Header, key: str) -> int | None:
    value = keys.get(key)
    return None if value is None or isinstance(value, list) else _checked(key, value)


def _each(keys: Header, key: str, count: int) -> list[int] | None:
    """A value for each layer: the header gives one for all, or a list. None: it gives none."""
    value = keys.get(key)
    if value is None:
        return None
    if not isinstance(value, list):
        return [_checked(key, value)] * count
    if len(value) < count:
        raise _NotKnownError(f"{key} has {len(value)} values for {count} layers")
    return [_checked(key, each) for each in value[:count]]


def _checked(key: str, value: object) -> int:
    """A number, or a yes or no as one. Raises _NotKnownError for what 32 bits do not hold."""
    if not isinstance(value, int) or not 0 <= value <= MOST:
        raise _NotKnownError(f"{key} is {str(value)[:32]!r}, which is impossible")
    return int(value)
