"""Which type a KV cache has, by what the log says that it weighs."""

from itertools import product

import pytest

from builder.gguf_shape import KvLayer, KvShape
from builder.model import Kv, Pins
from builder.probe.kv import kv_types
from builder.probe.kv_bytes import CacheBytes, CacheSize, Mix, read, size_lines
from tests.kv_logs import SCRIPTED, WINDOWS, line, made, real_log, weight

DENSE = KvShape("qwen3", (KvLayer(heads=8, k=128, v=128),) * 36)
UNEVEN = KvShape("qwen3", (KvLayer(heads=4, k=192, v=128),) * 24)
NARROW = KvShape("qwen2", (KvLayer(heads=2, k=64, v=64),) * 24)
DECI = KvShape("deci", tuple(KvLayer(heads=n, k=128, v=128) for n in (8, 0, 4, 8, 2, 8)))
SHAPES = {"scripted": SCRIPTED, "dense": DENSE, "uneven": UNEVEN, "narrow": NARROW, "deci": DECI}

FORKS = ("mainline", "spiritbuun", "thetom", "madreag")


def held(cache: CacheBytes, asked: Kv) -> tuple[str, str]:
    return cache.k.held(asked.k), cache.v.held(asked.v)


@pytest.mark.parametrize("fork", FORKS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_cache_of_any_type_is_recognised_as_that(real_pins: Pins, fork: str, shape: str) -> None:
    types = kv_types(real_pins, fork)
    for name in types:
        both = Kv(name, name)
        (cache,) = read(made(SHAPES[shape], both, types, both), SHAPES[shape], both, types).caches
        assert held(cache, both) == (name, name)


@pytest.mark.parametrize("fork", FORKS)
@pytest.mark.parametrize("shape", ["scripted", "dense"])
def test_no_type_passes_for_another_of_other_size(real_pins: Pins, fork: str, shape: str) -> None:
    types = kv_types(real_pins, fork)
    for asked, other in product(types, types):
        sizes = {weight([(1, 128)], name, types[name]) for name in (asked, other)}
        if len(sizes) == 1:
            continue
        text = made(SHAPES[shape], Kv(other, other), types, Kv(asked, asked))
        (cache,) = read(text, SHAPES[shape], Kv(asked, asked), types).caches
        assert asked not in held(cache, Kv(asked, asked))
        assert other in cache.k.types


def test_k_and_v_are_told_apart(real_pins: Pins) -> None:
    types = kv_types(real_pins, "spiritbuun")
    asked = Kv("q8_0", "turbo4")
    (cache,) = read(made(DENSE, asked, types, asked), DENSE, asked, types).caches
    assert held(cache, asked) == ("q8_0", "turbo4")


def test_a_v_that_was_dropped_is_seen(real_pins: Pins) -> None:
    types = kv_types(real_pins, "spiritbuun")
    asked = Kv("turbo4", "turbo4")
    text = made(SCRIPTED, Kv("turbo4", "f16"), types, Kv("turbo4", "f16"))
    (cache,) = read(text, SCRIPTED, asked, types).caches
    assert held(cache, asked) == ("turbo4", "f16")


@pytest.mark.parametrize("count", range(1, 8))
@pytest.mark.parametrize("other", ["q8_0", "f16"])
def test_layers_of_two_types_are_mixed(real_pins: Pins, count: int, other: str) -> None:
    types = kv_types(real_pins, "spiritbuun")
    one = {name: weight([(2, 128)], name, types[name]) for name in ("turbo4", other)}
    total = one[other] * count + one["turbo4"] * (8 - count)
    asked = Kv("turbo4", "turbo4")
    text = line((total, 8 * one["turbo4"]), asked, layers=8, cells=2048, streams=2)
    (cache,) = read(text, SCRIPTED, asked, types).caches
    assert held(cache, asked) == ("mixed", "turbo4")
    assert cache.k.mixes[0] == Mix("turbo4", 8 - count, other, count)


def test_a_mix_in_words() -> None:
    assert str(Mix("turbo4", 2, "q8_0", 6)) == "6 layers of q8_0, 2 of turbo4"


def test_layers_of_different_width_are_not_taken_for_a_mix(real_pins: Pins) -> None:
    types = kv_types(real_pins, "spiritbuun")
    asked = Kv("turbo4", "turbo4")
    # Three layers as wide as the first of q8_0, three of turbo4: the others are narrower.
    wide = 8 * (136 + 66) * 3
    text = line((wide, wide), asked, layers=6, cells=2048, streams=2)
    (cache,) = read(text, DECI, asked, types).caches
    assert held(cache, asked) == ("another", "another")


def test_a_size_that_no_type_has_is_another(real_pins: Pins) -> None:
    types = kv_types(real_pins, "mainline")
    asked = Kv("q4_0", "q4_0")
    text = line((100, 100), asked, layers=8, cells=2048, streams=2)
    (cache,) = read(text, SCRIPTED, asked, types).caches
    assert held(cache, asked) == ("another", "another")


@pytest.mark.parametrize(
    ("named", "found"), [("q4_0", "q4_0"), ("iq4_nl", "iq4_nl"), ("?", "q4_0")]
)
def test_of_types_of_one_size_the_log_names_one(real_pins: Pins, named: str, found: str) -> None:
    types = kv_types(real_pins, "mainline")
    text = made(SCRIPTED, Kv("q4_0", "q4_0"), types, Kv(named, named))
    (cache,) = read(text, SCRIPTED, Kv("q4_0", "q4_0"), types).caches
    assert cache.k.held("q4_0") == found


def test_types_of_one_size_that_nobody_names_are_both_said(real_pins: Pins) -> None:
    types = kv_types(real_pins, "mainline")
    text = made(SCRIPTED, Kv("q4_0", "q4_0"), types, Kv("q8_0", "q8_0"))
    (cache,) = read(text, SCRIPTED, Kv("q8_0", "q8_0"), types).caches
    assert cache.k.held("q8_0") == "q4_0 or iq4_nl"


def test_a_cache_too_small_to_tell_types_apart_is_unknown(real_pins: Pins) -> None:
    types = kv_types(real_pins, "mainline")
    asked = Kv("q4_0", "q4_0")
    text = line((144, 144), asked, layers=1, cells=16, streams=1)
    tiny = KvShape("llama", (KvLayer(heads=1, k=256, v=256),))
    (cache,) = read(text, tiny, asked, types).caches
    assert held(cache, asked) == ("unknown", "unknown")
    assert "too few to tell" in (cache.k.unknown or "")


def test_a_type_of_unknown_size_is_unknown(real_pins: Pins) -> None:
    types = kv_types(real_pins, "aaryan-kapoor")
    asked = Kv("tq3_0", "q8_0")
    text = made(SCRIPTED, Kv("q8_0", "q8_0"), types, asked)
    (cache,) = read(text, SCRIPTED, asked, types).caches
    assert held(cache, asked) == ("unknown", "q8_0")


# --- Logs of real runs ----------------------------------------------------------------------------


def test_mainline_prefixes_its_lines_with_time_and_level() -> None:
    assert size_lines(real_log("mainline-q4_0")) == [
        CacheSize(2048, 8, 2, "q4_0", 4.5, "q4_0", 4.5)
    ]


def test_q4_0_on_mainline(real_pins: Pins) -> None:
    asked = Kv("q4_0", "q4_0")
    types = kv_types(real_pins, "mainline")
    (cache,) = read(real_log("mainline-q4_0"), SCRIPTED, asked, types).caches
    assert held(cache, asked) == ("q4_0", "q4_0")
    assert (cache.layers, cache.cells, cache.streams) == (8, 2048, 2)


def test_q4_0_on_mainline_in_two_caches(real_pins: Pins) -> None:
    asked = Kv("q4_0", "q4_0")
    types = kv_types(real_pins, "mainline")
    full, windowed = read(real_log("mainline-q4_0-window"), WINDOWS, asked, types).caches
    assert (full.windowed, full.layers, windowed.windowed, windowed.layers) == (False, 1, True, 5)
    assert held(full, asked) == held(windowed, asked) == ("q4_0", "q4_0")


@pytest.mark.parametrize(
    ("name", "shape", "caches"),
    [
        ("spiritbuun-turbo4", SCRIPTED, 1),
        ("spiritbuun-turbo4-fit", SCRIPTED, 1),
        ("spiritbuun-turbo4-window", WINDOWS, 2),
    ],
)
def test_what_spiritbuun_calls_turbo4_on_a_cpu_is_q8_0(
    real_pins: Pins, name: str, shape: KvShape, caches: int
) -> None:
    asked = Kv("turbo4", "turbo4")
    found = read(real_log(name), shape, asked, kv_types(real_pins, "spiritbuun"))
    assert [held(cache, asked) for cache in found.caches] == [("q8_0", "q8_0")] * caches
    assert found.caches[0].k.named == "turbo4"


def test_a_dry_run_does_not_count() -> None:
    text = real_log("spiritbuun-turbo4-fit")
    dry, real = "K (turbo4):    8.50", "K (turbo4):    4.12"
    assert [one.k_mib for one in size_lines(text.replace(dry, real, 1))] == [8.5]


# --- What cannot be told --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shape", "why"),
    [
        (None, SCRIPTED, "log was not seen"),
        ("", SCRIPTED, "no line with the cache's size"),
        ("llama_context: constructing llama_context\n", SCRIPTED, "no line with"),
        (real_log("mainline-q4_0"), None, "header was not seen"),
        (real_log("mainline-q4_0"), KvShape("mla", unknown="a latent"), "does not tell"),
        (real_log("mainline-q4_0"), DENSE, "the log has 8 layers, the model's header 36"),
        (real_log("mainline-q4_0"), WINDOWS, "the log has 8 layers, the model's header 1 and 5"),
        (
            real_log("mainline-q4_0-window"),
            SCRIPTED,
            "the log has 1 and 5 layers, the model's header 8",
        ),
    ],
)
def test_what_cannot_be_told_is_said(
    real_pins: Pins, text: str | None, shape: KvShape | None, why: str
) -> None:
    found = read(text, shape, Kv("q4_0", "q4_0"), kv_types(real_pins, "mainline"))
    assert found.caches == ()
    assert why in (found.unknown or "")


def test_a_cache_may_have_the_layers_for_drafting_or_not(real_pins: Pins) -> None:
    types, asked = kv_types(real_pins, "mainline"), Kv("q8_0", "q8_0")
    layer = KvLayer(heads=2, k=128, v=128)
    drafting = KvShape("glm4moe", layers=(layer,) * 7, draft=(layer,))
    for layers in (7, 8):
        text = made(KvShape("glm4moe", (layer,) * layers), asked, types, asked)
        (cache,) = read(text, drafting, asked, types).caches
        assert held(cache, asked) == ("q8_0", "q8_0")


def test_another_memory_of_a_hybrid_is_no_kv_cache() -> None:
    other = real_log("mainline-q4_0").replace("llama_kv_cache:", "llama_memory_recurrent:")
    assert size_lines(other) == []
