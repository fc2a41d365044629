"""The judge judged: the scripted model is computed with good caches and bent ones.

Good ones pass as what they are; of the bent ones, which have the right size in the log, none does.
What 20 prompts cannot see is at the end.
"""

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from builder.llama.gguf.kv_types import kv_types
from builder.llama.gguf.scripted import LAYERS
from builder.model.pins import Kv, Pins, Profile
from builder.smoke.probes.kv import KvEvidence, KvVerdict, judge
from builder.smoke.probes.kv_numbers import Numbers
from tests.support.kv_formats import (
    FOUR_BITS,
    FOUR_BITS_NARROW,
    ONE_BIT,
    PUBLISHED,
    THREE_BITS,
    TWO_BITS,
    Pair,
    even_steps,
    in_layers,
    q4_0,
    q8_0,
    turned,
)
from tests.support.kv_logs import SCRIPTED, made
from tests.support.kv_simulator import Array, Bend, Place, Simulator, exact, simulator

PROFILE = Profile("a", parallel=2, slot_tokens=2048)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Simulator:
    return simulator(tmp_path_factory.mktemp("model"))


def verdict(pins: Pins, fork: str, name: str, numbers: Numbers) -> KvVerdict:
    """On a machine with a GPU, the size in the log being right."""
    asked, types = Kv(name, name), kv_types(pins, fork)
    log = made(SCRIPTED, asked, types, asked)
    return judge(KvEvidence(asked, types, PROFILE, log, SCRIPTED, numbers, gpu=True))


# --- The simulator computes what servers were seen to do ------------------------------------------


@pytest.mark.parametrize(
    ("pair", "kl"),
    [
        ((q8_0, q8_0), (6e-5, 9.9e-5)),
        ((q4_0, q4_0), (1.4e-2, 1.8e-2)),
        ((turned(q4_0), turned(q4_0)), (1.4e-2, 2.1e-2)),
        ((q4_0, exact), (4.7e-3, 6.0e-3)),
        ((exact, q4_0), (1.0e-2, 1.15e-2)),
        # TheTom's on a CPU: 5.6e-2, and 3.6e-2 with K as q8_0.
        ((FOUR_BITS_NARROW, FOUR_BITS_NARROW), (5.0e-2, 6.2e-2)),
        ((q8_0, FOUR_BITS_NARROW), (3.3e-2, 3.9e-2)),
        ((THREE_BITS, THREE_BITS), (9.0e-2, 1.0e-1)),
        ((TWO_BITS, TWO_BITS), (2.3e-1, 2.7e-1)),
    ],
)
def test_the_simulator_moves_answers_as_servers_do(
    model: Simulator, pair: Pair, kl: tuple[float, float]
) -> None:
    assert kl[0] < model.numbers(*pair).distance.kl < kl[1]


def test_another_prompts_answer_is_as_far_as_on_a_server(model: Simulator) -> None:
    assert model.numbers().distance.kl == 0
    assert 3.0 < model.numbers().unrelated.kl < 3.3


# --- Predictions ----------------------------------------------------------------------------------


def _room(kl: float) -> tuple[float, float]:
    """Times the divergence, and less top-1: as pins.toml says."""
    if kl < 0.05:
        return 2.0, 0.2
    return (1.5, 0.2) if kl < 0.3 else (1.2, 0.05)


@pytest.mark.parametrize(("fork", "name"), PUBLISHED, ids="-".join)
def test_pins_have_what_the_published_format_predicts_and_it_passes(
    model: Simulator, real_pins: Pins, fork: str, name: str
) -> None:
    numbers = model.numbers(*PUBLISHED[fork, name])
    kl, top1 = numbers.distance.kl, numbers.distance.top1
    predicted = real_pins.forks[fork].kv_types[name].predicted
    assert predicted is not None
    room, less = _room(kl)
    assert predicted.kl == pytest.approx((kl / 2, kl * room), rel=0.05)
    assert predicted.top1 == pytest.approx(top1 - less, abs=0.051)
    assert verdict(real_pins, fork, name, numbers).status == "pass"


def test_every_type_with_a_known_block_is_predicted(real_pins: Pins) -> None:
    missing = [
        (fork, name)
        for fork, row in real_pins.forks.items()
        for name, kind in row.kv_types.items()
        if kind.block_bytes is not None and kind.predicted is None
    ]
    assert missing == []


# --- Good caches pass -----------------------------------------------------------------------------

GOOD: Mapping[str, tuple[str, str, Pair]] = {
    "q8_0": ("mainline", "q8_0", (q8_0, q8_0)),
    "q4_0": ("mainline", "q4_0", (q4_0, q4_0)),
    "q4_0, turned": ("mainline", "q4_0", (turned(q4_0), turned(q4_0))),
    "even steps as turbo4": ("spiritbuun", "turbo4", (turned(even_steps(4)),) * 2),
    "even steps as turbo3": ("spiritbuun", "turbo3", (turned(even_steps(3)),) * 2),
}


@pytest.mark.parametrize(("fork", "name", "pair"), GOOD.values(), ids=GOOD)
def test_a_fair_cache_passes(
    model: Simulator, real_pins: Pins, fork: str, name: str, pair: Pair
) -> None:
    found = verdict(real_pins, fork, name, model.numbers(*pair))
    assert found.status == "pass", found.numbers


# --- Bent ones do not -----------------------------------------------------------------------------

FAIR = FOUR_BITS


def zero(values: Array, place: Place) -> Array:  # noqa: ARG001
    return np.zeros_like(values)


def changed(change: Callable[[Array], Array]) -> Bend:
    """A fair cache whose values were changed."""
    return lambda values, place: change(FAIR(values, place))


def times(factor: float) -> Bend:
    return changed(lambda values: values * np.float32(factor))


def without(tokens: Callable[[int], slice]) -> Bend:
    """A fair cache that lost the cells which `tokens` names, from each prompt's length."""

    def bent(values: Array, place: Place) -> Array:
        left = FAIR(values, place).copy()
        for prompt, count in enumerate(place.tokens):
            left[prompt, :count][tokens(count)] = 0
        return left

    return bent


def last(count: int) -> Bend:
    return without(lambda length: slice(length - count, None))


def first(count: int) -> Bend:
    return without(lambda length: slice(0, count))  # noqa: ARG005


def every(step: int) -> Bend:
    return without(lambda length: slice(0, None, step))  # noqa: ARG005


def some_zero(axis_values: tuple[object, ...]) -> Bend:
    """A fair cache with zeros where the index says."""

    def change(values: Array) -> Array:
        left = values.copy()
        left[axis_values] = 0  # type: ignore[index]
        return left

    return changed(change)


def dims(count: int) -> Bend:
    return some_zero((..., slice(0, count)))


def stale(values: Array, place: Place) -> Array:
    """Every other token's cell is its predecessor's."""
    kept = FAIR(values, place)
    return np.repeat(kept[:, ::2], 2, axis=1)[:, : kept.shape[1]]


def noisy(share: float) -> Bend:
    def bent(values: Array, place: Place) -> Array:
        random = np.random.default_rng(place.layer).normal(size=values.shape)
        spread = np.float32(share * values.std())
        return FAIR(values, place) + random.astype(np.float32) * spread

    return bent


def clipped(spreads: float) -> Bend:
    def bent(values: Array, place: Place) -> Array:
        most = spreads * values.std()
        return np.clip(FAIR(values, place), -most, most)

    return bent


swapped = changed(lambda values: values[:, :, ::-1])
shifted = changed(lambda values: np.roll(values, 1, axis=1))
turned_once_more = turned(lambda values, place: FAIR(values, place)[..., ::-1])
one_head = some_zero((slice(None), slice(None), 0))

GROSS: Mapping[str, Pair] = {
    "K zero": (zero, FAIR),
    "V zero": (FAIR, zero),
    "K zero in 4 layers": (in_layers(range(4), zero, FAIR), FAIR),
    "V zero in 1 layer": (FAIR, in_layers((3,), zero, FAIR)),
    "V zero in 4 layers": (FAIR, in_layers(range(4), zero, FAIR)),
    "V halved": (FAIR, times(0.5)),
    "V doubled": (FAIR, times(2)),
    "V negative": (FAIR, times(-1)),
    "K halved": (times(0.5), FAIR),
    "K doubled": (times(2), FAIR),
    "V without its last 32 tokens": (FAIR, last(32)),
    "V without its first token": (FAIR, first(1)),
    "K without its first 32 tokens": (first(32), FAIR),
    "V without every 8th token": (FAIR, every(8)),
    "V of the other head": (FAIR, swapped),
    "K of the other head": (swapped, FAIR),
    "V zero in 1 head of 2": (FAIR, one_head),
    "K zero in 1 head of 2": (one_head, FAIR),
    "V of the token before": (FAIR, shifted),
    "both of the token before": (shifted, shifted),
    "V without 16 of 128 values": (FAIR, dims(16)),
    "K without half of the values": (dims(64), FAIR),
    "V turned back wrongly": (FAIR, turned_once_more),
    "K turned back wrongly": (turned_once_more, FAIR),
    "cells written every other token": (stale, stale),
    "half noise": (noisy(0.5), noisy(0.5)),
    "clipped at the spread": (clipped(1), clipped(1)),
    "1 bit": (ONE_BIT, ONE_BIT),
}
"""What no type of 3 bits or more does."""

FINE: Mapping[str, Pair] = {
    "3 bits": (THREE_BITS, THREE_BITS),
    "3 bits in V": (FAIR, THREE_BITS),
    "2 bits": (TWO_BITS, TWO_BITS),
    "1 bit in one layer": (in_layers((2,), ONE_BIT, FAIR), FAIR),
    "K zero in 1 layer": (in_layers((3,), zero, FAIR), FAIR),
    "V a tenth too small": (FAIR, times(0.9)),
    "V a tenth too large": (FAIR, times(1.1)),
    "K a fifth too small": (times(0.8), FAIR),
    "V without its last 8 tokens": (FAIR, last(8)),
    "K without its last 16 tokens": (last(16), FAIR),
    "both without their last 8 tokens": (last(8), last(8)),
    "K without every 8th token": (every(8), FAIR),
    "V without 1 of 128 values": (FAIR, dims(1)),
    "K without 8 of 128 values": (dims(8), FAIR),
    "a fifth of noise": (noisy(0.2), noisy(0.2)),
    "clipped at twice the spread": (clipped(2), clipped(2)),
}
"""What a type of fewer bits may do, and none of 4."""

FOUR = (("spiritbuun", "turbo4"), ("mainline", "q4_0"))
COARSE = (("thetom", "turbo4"), ("spiritbuun", "turbo3"), ("madreag", "turbo3"))


def test_there_are_at_least_forty_bends() -> None:
    assert len(GROSS | FINE) >= 40


@pytest.mark.parametrize("bend", GROSS | FINE)
def test_a_bent_cache_never_passes(model: Simulator, real_pins: Pins, bend: str) -> None:
    numbers = model.numbers(*(GROSS | FINE)[bend])
    asked = FOUR + COARSE if bend in GROSS else FOUR
    passed = [
        one for one in asked if verdict(real_pins, *one, numbers).status not in {"fail", "unproven"}
    ]
    assert passed == [], numbers.distance


@pytest.mark.parametrize("asked", [("thetom", "turbo3"), ("spiritbuun", "turbo3")], ids="-".join)
def test_a_layer_that_lost_its_values_is_no_type_of_three_bits(
    model: Simulator, real_pins: Pins, asked: tuple[str, str]
) -> None:
    v = in_layers((LAYERS - 1,), zero, THREE_BITS)
    assert verdict(real_pins, *asked, model.numbers(THREE_BITS, v)).status != "pass"


# --- Decoding -------------------------------------------------------------------------------------


def test_a_fair_cache_passes_after_decoded_letters(model: Simulator, real_pins: Pins) -> None:
    for name, fair in {"q4_0": q4_0, "turbo2": TWO_BITS}.items():
        found = verdict(real_pins, "spiritbuun", name, model.decoding(fair, fair))
        assert found.status == "pass", found.numbers


def test_decoded_tokens_all_written_into_one_cell_do_not_pass(
    model: Simulator, real_pins: Pins
) -> None:
    numbers = model.decoding(FAIR, FAIR, one_cell=True)
    for asked in FOUR:
        found = verdict(real_pins, *asked, numbers)
        assert found.status != "pass", found.numbers
        assert "decoding" in found.numbers


# --- What 20 prompts cannot see -------------------------------------------------------------------


def with_offset(spreads: float) -> Bend:
    """The same added to every key of a head: attention is what it was."""
    return changed(lambda values: values + np.float32(spreads) * values.std())


UNSEEN: Mapping[str, tuple[tuple[str, str], Pair]] = {
    "keys with an offset, as any type": (("mainline", "q4_0"), (with_offset(0.3), FAIR)),
    "the last token lost, as a type of 4 bits": (("spiritbuun", "turbo4"), (FAIR, last(1))),
    "keys a tenth too small, as a type of 4 bits": (("spiritbuun", "turbo4"), (times(0.9), FAIR)),
    "finer values, 16 tokens of them lost, as one of 2 bits": (
        ("spiritbuun", "turbo2"),
        (FAIR, last(16)),
    ),
    "decoded tokens in one cell, as a type of 3 bits": (
        ("spiritbuun", "turbo3"),
        (THREE_BITS, THREE_BITS),
    ),
}
"""Bends that pass: what they do is no more than what the type asked for does. In README.md too."""


@pytest.mark.parametrize("bend", UNSEEN)
def test_what_is_known_to_pass(model: Simulator, real_pins: Pins, bend: str) -> None:
    asked, pair = UNSEEN[bend]
    numbers = model.decoding(*pair, one_cell=True) if "one cell" in bend else model.numbers(*pair)
    assert verdict(real_pins, *asked, numbers).status == "pass", numbers
