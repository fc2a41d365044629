"""What a GGUF's header says of the KV cache: which layers keep one, and how wide.

Facts are from llama.cpp: `llama_model::load_hparams` (llama-model.cpp, models/*.cpp) for what a
header means, `create_memory` for which caches there are, read at ggml-org 0c1e57098 and spiritbuun
1c4788192.
"""

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from builder.errors import UsageError

Value = int | float | bool | str | list[int] | list[float] | list[bool] | None
Header = Mapping[str, Value]
"""Keys and values. A list of texts reads as None: vocabularies are long, and say nothing here."""


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
    the model's own, which some builds keep a cache for and others do not. `unknown` says why the
    layers are not known; there are none then.
    """

    architecture: str
    layers: tuple[KvLayer, ...] = ()
    draft: tuple[KvLayer, ...] = ()
    unknown: str | None = None

    def cache(self, *, windowed: bool) -> tuple[KvLayer, ...]:
        """The layers of one of the two caches."""
        return tuple(layer for layer in self.layers if (layer.window > 0) == windowed)


def read(path: Path) -> KvShape:
    """The shape in a GGUF's header; of a model in several files, that of the first.

    Reads the header alone: 0.1 s for a vocabulary of 250,000, however large the file.
    Raises UsageError when the header cannot be read.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            keys = header(data)
    except (OSError, ValueError, LookupError, struct.error) as error:
        raise UsageError(f"the header of {path} cannot be read", why=str(error)) from error
    return shape(keys)


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
    return KvShape(
        architecture,
        layers=tuple(layers[index] for index in range(own) if attention[index]),
        draft=tuple(layers[own:]),
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


# --- The file format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md ------------------

_FORMATS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_TEXT, _LIST = 8, 9
_VERSIONS = (2, 3)
"""Version 1 counted in 32 bits; nothing has written it since 2023."""


def header(data: "bytes | mmap.mmap") -> Header:
    """The keys and values at the start of a GGUF.

    Raises ValueError, struct.error or LookupError when there is no header, or not a whole one.
    """
    magic, version = struct.unpack_from("<4sI", data)
    if magic != b"GGUF" or version not in _VERSIONS:
        raise ValueError(f"it begins with {magic!r}, version {version}")
    reader = _Reader(data, 16)
    count = reader.number("Q")
    return dict(reader.pair() for _ in range(count))


@dataclass(slots=True)
class _Reader:
    """A place in a GGUF, moving forward."""

    data: "bytes | mmap.mmap"
    at: int

    def pair(self) -> tuple[str, Value]:
        key = self.text()
        return key, self.value(self.number("I"))

    def number(self, code: str) -> int:
        (found,) = struct.unpack_from(f"<{code}", self.data, self.at)
        self.at += struct.calcsize(code)
        return int(found)

    def text(self) -> str:
        size = self.number("Q")
        found = self.data[self.at : self.at + size]
        if len(found) < size:
            raise ValueError("it is cut short")
        self.at += size
        return found.decode(errors="replace")

    def value(self, kind: int) -> Value:
        if kind == _TEXT:
            return self.text()
        if kind == _LIST:
            return self.list(self.number("I"), self.number("Q"))
        code = _FORMATS[kind]
        (found,) = struct.unpack_from(f"<{code}", self.data, self.at)
        self.at += struct.calcsize(code)
        return found  # type: ignore[no-any-return]

    def list(self, kind: int, count: int) -> Value:
        if kind == _TEXT:
            self._pass_texts(count)
            return None
        code = f"<{count}{_FORMATS[kind]}"
        found = list(struct.unpack_from(code, self.data, self.at))
        self.at += struct.calcsize(code)
        return found

    def _pass_texts(self, count: int) -> None:
        data, at = self.data, self.at
        unpack = struct.Struct("<Q").unpack_from
        for _ in range(count):
            at += 8 + unpack(data, at)[0]
        self.at = at
