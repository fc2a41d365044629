"""KV types as their forks publish them: what a cache gives back of what was written into it."""

from collections.abc import Mapping

import numpy as np

from builder.llama.gguf import scripted as model
from tests.support.kv_simulator import Array, Bend, Place

GROUP = 128
"""Values that are turned together, and share a norm."""


def half(x: Array) -> Array:
    """Rounded as f16 holds it."""
    return x.astype(np.float16).astype(np.float32)


def _hadamard() -> Array:
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < GROUP:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return (matrix / np.sqrt(GROUP)).astype(np.float32)


_SIGNS = np.random.default_rng(42).choice(np.array([-1, 1], np.float32), (2, GROUP))
_TURN = (_SIGNS[0][:, None] * _hadamard() * _SIGNS[1]).astype(np.float32)


def turned(bend: Bend) -> Bend:
    """A bend of values that a Hadamard transform has spread out before, and turns back after."""

    def bent(values: Array, place: Place) -> Array:
        spread = (values.reshape(-1, GROUP) @ _TURN).reshape(values.shape)
        return (bend(spread, place).reshape(-1, GROUP) @ _TURN.T).reshape(values.shape)

    return bent


def turbo(*upper: float, zero: bool = False) -> Bend:
    """A turbo type with these levels and their negatives: ggml-turbo-quant.c of TheTom 69d8e4be4.

    Every group of 128 values is brought to length 1 and turned; each value becomes the nearest
    level; the stored norm gives the group its own length back.
    """
    middle = [0.0] if zero else []
    levels = np.array([*(-level for level in reversed(upper)), *middle, *upper], np.float32)
    between = (levels[1:] + levels[:-1]) / 2

    def rounded(values: Array, place: Place) -> Array:  # noqa: ARG001
        groups = values.reshape(-1, GROUP)
        norms = np.linalg.norm(groups, axis=1, keepdims=True)
        unit = groups / norms
        # Several times as fast as a search in so few.
        above = np.zeros(unit.shape, np.uint8)
        for border in between:
            above += unit >= border
        nearest = levels[above]
        kept = half(norms / np.linalg.norm(nearest, axis=1, keepdims=True))
        return (nearest * kept).reshape(values.shape)

    return turned(rounded)


def q8_0(values: Array, place: Place) -> Array:  # noqa: ARG001
    """llama.cpp's q8_0: blocks of 32 values with one scale."""
    blocks = values.reshape(-1, 32)
    scale = half(np.abs(blocks).max(axis=1, keepdims=True) / 127)
    return (np.round(blocks / np.where(scale > 0, scale, 1)) * scale).reshape(values.shape)


def q4_0(values: Array, place: Place) -> Array:  # noqa: ARG001
    """llama.cpp's q4_0: the value furthest from 0 becomes -8."""
    blocks = values.reshape(-1, 32)
    furthest = np.take_along_axis(blocks, np.abs(blocks).argmax(1, keepdims=True), 1)
    scale = half(furthest / -8)
    steps = np.clip(np.floor(blocks / np.where(scale != 0, scale, 1) + 8.5), 0, 15) - 8
    return (steps * scale).reshape(values.shape)


def even_steps(bits: int, block: int = 32) -> Bend:
    """A plain type of so many bits: even steps between a block's extremes."""

    def rounded(values: Array, place: Place) -> Array:  # noqa: ARG001
        blocks = values.reshape(-1, block)
        most = np.abs(blocks).max(axis=1, keepdims=True)
        step = 2 * most / (2**bits - 1)
        found = np.round((blocks + most) / np.where(step > 0, step, 1)) * step - most
        return found.reshape(values.shape).astype(np.float32)

    return rounded


def in_layers(layers: range | tuple[int, ...], bend: Bend, other: Bend) -> Bend:
    """One bend in these layers, another in all others."""
    return lambda values, place: (bend if place.layer in layers else other)(values, place)


# Levels of ggml-turbo-quant.c and turbo-quant*.cuh, at the pinned commits. The Lloyd-Max levels of
# 4 bits for what the transform leaves, a normal distribution of 1/128, end at 2.73 times its
# spread, spiritbuun's do; those of TheTom and Madreag end at 1.97 times.
FOUR_BITS = turbo(0.011353, 0.034311, 0.058069, 0.083317, 0.111065, 0.143047, 0.182907, 0.241556)
FOUR_BITS_NARROW = turbo(
    0.006938, 0.020989, 0.035597, 0.051262, 0.068756, 0.089527, 0.117195, 0.173926
)
THREE_BITS = turbo(0.021460, 0.065717, 0.117832, 0.190685)
TWO_BITS = turbo(0.039994, 0.133462)
THREE_LEVELS = turbo(0.107632, zero=True)
ONE_BIT = turbo(0.070711)

_EDGES = (0, 1, model.LAYERS - 2, model.LAYERS - 1)

Pair = tuple[Bend, Bend]
"""What K and V are."""


def _both(bend: Bend) -> Pair:
    return bend, bend


PUBLISHED: Mapping[tuple[str, str], Pair] = {
    ("spiritbuun", "turbo4"): _both(FOUR_BITS),
    ("spiritbuun", "turbo3"): _both(THREE_BITS),
    ("spiritbuun", "turbo2"): _both(TWO_BITS),
    ("thetom", "turbo4"): _both(FOUR_BITS_NARROW),
    ("thetom", "turbo3"): _both(THREE_BITS),
    # Its own rule: V stays q8_0 in the first two and the last two layers.
    ("thetom", "turbo2"): (TWO_BITS, in_layers(_EDGES, q8_0, TWO_BITS)),
    ("madreag", "turbo4"): _both(FOUR_BITS_NARROW),
    ("madreag", "turbo3"): _both(THREE_BITS),
    ("madreag", "turbo2"): _both(TWO_BITS),
    ("madreag", "turbo1.5"): _both(THREE_LEVELS),
}
"""By fork and type. spiritbuun's tcq types are not here: a search through 512 states a value."""
