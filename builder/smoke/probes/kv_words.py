"""What llama-server's log says of the KV cache's type: every line of a fork that changes it.

Read in the forks' sources (src/llama-kv-cache.cpp, src/llama-context.cpp, ggml/src/ggml-cuda):
spiritbuun 1c4788192, TheTom 69d8e4be4, Madreag f94e70759.
"""

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["documented", "change", "refusal", "note"]
"""What a line means for the type that was asked for.

documented: q8_0 in its place where layers lie in host memory, as on a machine without a GPU;
change: another type, or other tables, in some layer; refusal: the server does not load;
note: the type stays.
"""


@dataclass(frozen=True, slots=True)
class Word:
    """A line that a fork logs. `means` may use the pattern's groups."""

    pattern: str
    kind: Kind
    means: str


@dataclass(frozen=True, slots=True)
class Seen:
    """A line of the table that was found in a log."""

    kind: Kind
    means: str


TABLE = (
    # spiritbuun
    Word(
        r"turbo KV cache falling back to q8_0 for CPU-bound layers",
        "documented",
        "layers in host memory hold q8_0",
    ),
    Word(
        r"head_dim_[kv]=(\d+) > 512, falling back to f16 ([KV])",
        "change",
        "{1} is f16: {0} values a head are more than the fork's 512",
    ),
    Word(r"FAILED to load (?:\S+ )?codebook from (\S+)", "change", "the codebook {0} is not used"),
    Word(r"turbo head padding: (\d+) -> (\d+)", "note", "heads are padded from {0} to {1} values"),
    Word(
        r"turbo: sink token protection enabled, N=(\d+)",
        "note",
        "the first {0} tokens are kept in f16 beside the cache",
    ),
    # spiritbuun, TheTom and Madreag
    Word(
        r"layer-adaptive mode (\d+) enabled",
        "change",
        "TURBO_LAYER_ADAPTIVE={0} gives some layers another type",
    ),
    Word(
        r"(?i)turbo (?:KV cache requires|cache types require) flash.attn?\w* — enabling",
        "note",
        "flash attention was turned on for it",
    ),
    # TheTom
    Word(
        r"auto-asymmetric: GQA ratio (\d+):1 .*upgrading K from (\S+) to q8_0",
        "change",
        "K is q8_0 in place of {1}: {0} query heads share each KV head",
    ),
    Word(
        r"Boundary V auto-enabled for turbo2-V",
        "change",
        "V is q8_0 in the first two and the last two layers",
    ),
    Word(r"(?:Boundary V|V-only LA) mode (\d): (.+)", "change", "mode {0}: {1}"),
    Word(
        r"turbo zero-padding ([KV]) head_dim (\d+) -> (\d+)",
        "note",
        "heads of {0} are padded from {1} to {2} values",
    ),
    # Madreag
    Word(
        r"turbo KV cache requires head_dim divisible by 128, .*n_embd_head_k=(\d+)",
        "change",
        "q8_0 in every layer: {0} values a head are no multiple of 128",
    ),
    Word(
        r"attention sinks: first (\d+) positions at fp16",
        "note",
        "the first {0} tokens are kept in f16 beside the cache",
    ),
    # llama.cpp
    Word(
        r"([KV]) cache type (\S+) with block size (\d+) does not divide n_embd_head_[kv]=(\d+)",
        "refusal",
        "{0} cannot be {1}: heads of {3} values, blocks of {2}",
    ),
    Word(
        r"V cache quantization requires flash_attn"
        r"|quantized V cache was requested, but this requires Flash Attention",
        "refusal",
        "a quantised V needs flash attention",
    ),
    Word(r"[Uu]nsupported cache type: (\S+)", "refusal", "the server knows no type {0}"),
)
"""Every line known. What the log says in a dry run counts as well: it warns only once."""


def read(log: str) -> list[Seen]:
    """The lines of the table that a log has, each meaning once, in the table's order."""
    found: dict[Seen, None] = {}
    for word in TABLE:
        for match in re.finditer(word.pattern, log):
            found[Seen(word.kind, word.means.format(*match.groups()).rstrip())] = None
    return list(found)
