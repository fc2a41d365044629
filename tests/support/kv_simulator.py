"""The scripted model in numpy, with a KV cache that can be bent: what a verdict must say of it.

It answers the prompts of `kv_numbers` as llama-server does: q8_0 moves its answers by 6.7e-5 nats
here and by 6.4e-5 on the server; q4_0 by 1.5e-2 here, 1.6e-2 there; another prompt's answer is 3.15
nats away in both.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from builder.llama.gguf import scripted as model
from builder.smoke.probes.kv_numbers import (
    DECODED,
    FORCED,
    LATE,
    PROMPTS,
    Distance,
    Distribution,
    Numbers,
    distance,
)

Array = NDArray[np.float32]

EPSILON = 1e-5
"""Of the norms, as the model's header has it."""


@dataclass(frozen=True)
class Place:
    """What a bend may know of the values it gets: the layer, and each prompt's count of tokens.

    `values` have prompts, tokens, heads and values of a head as their axes. Prompts shorter than
    the longest are filled up behind their last token.
    """

    layer: int
    tokens: tuple[int, ...]


Bend = Callable[[Array, Place], Array]
"""What a cache gives back of the keys or values that were written into it."""


def exact(values: Array, place: Place) -> Array:  # noqa: ARG001
    """f16: what the control holds."""
    return values.astype(np.float16).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Simulator:
    """The scripted model. `reference` are the control's answers."""

    weights: dict[str, Array]
    reference: tuple[Distribution, ...]

    @cache  # noqa: B019 - there is one simulator
    def numbers(self, k: Bend = exact, v: Bend = exact) -> Numbers:
        """The numbers of a server whose cache bends keys and values so, also when it decodes."""
        found = Numbers(
            distance=distance(self.reference, answers(self.weights, k, v)),
            noise=Distance(0.0, 1.0),
            unrelated=distance(self.reference, [*self.reference[1:], self.reference[0]]),
            prompts=len(PROMPTS),
        )
        # As far apart as after prompts: seen on the server with every type of llama.cpp.
        return replace(found, decoding=found)

    @cache  # noqa: B019
    def decoding(self, k: Bend, v: Bend, *, one_cell: bool = False) -> Numbers:
        """The numbers after decoded letters of a server whose cache bends keys and values so."""
        moved = answers(self.weights, k, v, DECODED, one_cell=one_cell)
        control = self.decoded
        unrelated = distance(control, [*control[LATE:], *control[:LATE]])
        found = Numbers(distance(control, moved), Distance(0.0, 1.0), unrelated, len(PROMPTS))
        return replace(self.numbers(k, v), decoding=found)

    @cached_property
    def decoded(self) -> tuple[Distribution, ...]:
        """The control's answers after decoded letters."""
        return answers(self.weights, exact, exact, DECODED)


@cache
def simulator(folder: Path) -> Simulator:
    """The simulator of the scripted model, which is written under `folder`."""
    reader = gguf.GGUFReader(model.scripted_model(folder))
    weights = {
        tensor.name: np.asarray(tensor.data, np.float32).reshape(
            [int(length) for length in reversed(tensor.shape)]
        )
        for tensor in reader.tensors
    }
    return Simulator(weights, answers(weights, exact, exact))


def answers(
    weights: dict[str, Array], k: Bend, v: Bend, decoded: int = 0, *, one_cell: bool = False
) -> tuple[Distribution, ...]:
    """The likelihood of every token after each prompt, or the last ones of so many decoded letters.

    `one_cell`: each decoded token is written over the one before.
    """
    tokens, counts = _tokens(decoded)
    x = weights["token_embd.weight"][tokens]
    for layer in range(model.LAYERS):
        part = {
            name.removeprefix(f"blk.{layer}."): weight
            for name, weight in weights.items()
            if name.startswith(f"blk.{layer}.")
        }
        seen = _seen(counts, x.shape[1], decoded if one_cell else 0)
        x = x + _attention(part, _norm(x), (k, v), Place(layer, counts), seen)
        x = x + _feed_forward(part, _norm(x))
    rows = np.arange(len(counts))[:, None]
    ends = np.array(counts)[:, None] - np.arange(LATE if decoded else 1)[None, ::-1] - 1
    last = x[rows, ends].reshape(-1, x.shape[-1])
    logits = (_norm(last) @ weights["output.weight"].T).astype(np.float64)
    logits -= np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    return tuple({token: float(value) for token, value in enumerate(row)} for row in logits)


def _seen(counts: tuple[int, ...], longest: int, hidden: int) -> Array:
    """What is added to scores: nothing for cells that a token sees, minus infinity for others.

    Of the last `hidden` tokens of each prompt, none sees another one.
    """
    ahead = np.triu(np.full((longest, longest), -np.inf, np.float32), 1)
    all_ = np.repeat(ahead[None], len(counts), axis=0)
    for prompt, count in enumerate(counts):
        for token in range(count - hidden, count):
            all_[prompt, token, count - hidden : token] = -np.inf
    return all_[:, None, None]


def _tokens(decoded: int = 0) -> tuple[NDArray[np.int64], tuple[int, ...]]:
    """The prompts' tokens: a byte each, but for an empty line, which is one."""
    newlines = 256
    ids = []
    for number, prompt in enumerate(PROMPTS):
        letters = (FORCED * 3)[number : number + decoded]
        parts = [list(part) for part in prompt.encode().split(b"\n\n")]
        joined = parts[0]
        for part in parts[1:]:
            joined = [*joined, newlines, *part]
        ids.append([*joined, *letters.encode()])
    longest = max(map(len, ids))
    filled = np.array([one + [0] * (longest - len(one)) for one in ids])
    return filled, tuple(map(len, ids))


def _norm(x: Array) -> Array:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(EPSILON))


def _attention(
    part: dict[str, Array], h: Array, bends: tuple[Bend, Bend], place: Place, seen: Array
) -> Array:
    k_bend, v_bend = bends
    q = _turned(_heads(h @ part["attn_q.weight"].T, model.HEADS))
    k = k_bend(_turned(_heads(h @ part["attn_k.weight"].T, model.KV_HEADS)), place)
    v = v_bend(_heads(h @ part["attn_v.weight"].T, model.KV_HEADS), place)
    # Prompts, KV heads, the query heads that share one, tokens, values of a head.
    shared = model.HEADS // model.KV_HEADS
    q, k, v = (np.ascontiguousarray(each.transpose(0, 2, 1, 3)) for each in (q, k, v))
    q = q.reshape(len(q), model.KV_HEADS, shared, *q.shape[2:])
    scores = q @ k[:, :, None].swapaxes(-1, -2) * np.float32(1 / math.sqrt(model.HEAD_DIM))
    scores += seen
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    out = (weights @ v[:, :, None]).reshape(len(q), model.HEADS, -1, model.HEAD_DIM)
    return out.transpose(0, 2, 1, 3).reshape(*h.shape[:2], -1) @ part["attn_output.weight"].T


def _feed_forward(part: dict[str, Array], h: Array) -> Array:
    gate, up = h @ part["ffn_gate.weight"].T, h @ part["ffn_up.weight"].T
    with np.errstate(over="ignore"):
        return (gate / (1 + np.exp(-gate)) * up) @ part["ffn_down.weight"].T


def _heads(x: Array, heads: int) -> Array:
    return x.reshape(*x.shape[:2], heads, -1)


def _turned(x: Array) -> Array:
    """Rotary positions, of neighbouring pairs as the arch `llama` has them."""
    half = model.HEAD_DIM // 2
    frequencies = model.ROPE_BASE ** (-np.arange(half) / half)
    angles = np.outer(np.arange(x.shape[1]), frequencies)
    cos, sin = (f(angles)[None, :, None, :].astype(np.float32) for f in (np.cos, np.sin))
    even, odd = x[..., 0::2], x[..., 1::2]
    out = np.empty_like(x)
    out[..., 0::2] = even * cos - odd * sin
    out[..., 1::2] = even * sin + odd * cos
    return out
