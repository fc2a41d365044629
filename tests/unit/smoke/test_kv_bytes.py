"""Which type a KV cache has, by what the log says that it weighs."""

from itertools import product

import pytest

from builder.llama.gguf.kv_types import kv_types
from builder.llama.gguf.shape import KvLayer, KvShape
from builder.model.pins import Kv, Pins
from builder.smoke.probes.kv_bytes import (
    CacheBytes,
    CacheSize,
    Mix,
    contexts,
    read,
    size_lines,
    without_others,
)
from tests.support.kv_logs import SCRIPTED, WINDOWS, line, made, real_log, weight

DENSE = KvShape("qwen3", (KvLayer(heads=8, k=128, v=128),) * 36)
UNEVEN = KvShape("qwen3", (KvLayer(heads=4, k=192, v=128),) * 24)
NARROW = KvShape("qwen2", (KvLayer(heads=2, k=64, v=64),) * 24)
DECI = KvShape("deci", tuple(KvLayer(heads=n, k=128, v=128) for n in (8, 0, 4, 8, 2, 8)))
SHAPES = {"scripted": SCRIPTED, "dense": DENSE, "uneven": UNEVEN, "narrow": NARROW, "deci": DECI}

FORKS = ("mainline", "spiritbuun", "thetom", "madreag")


def held(cache: CacheBytes, asked: Kv) -> tuple[str, str]:
    return cache.k.held(asked.k), cache.v.held(asked.v)


@pytest.mark.parametrize(
    ("fork", "shape"),
    # Madreag's fork holds q8_0 for heads that are no multiple of 128.
    sorted(set(product(FORKS, SHAPES)) - {("madreag", "narrow"), ("madreag", "uneven")}),
)
def test_a_cache_of_any_type_is_recognised_as_that(real_pins: Pins, fork: str, shape: str) -> None:
    types, rules = kv_types(real_pins, fork), real_pins.forks[fork].kv_rules
    for name in types:
        both, log = Kv(name, name), made(SHAPES[shape], Kv(name, name), types, Kv(name, name))
        (cache,) = read(log, SHAPES[shape], both, types, rules).caches
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


@pytest.mark.parametrize("held", [4.12, 8.5])
def test_a_dry_run_does_not_count(real_pins: Pins, held: float) -> None:
    text = real_log("spiritbuun-turbo4-fit").replace(
        "(turbo4):    8.50", f"(turbo4):    {held:.2f}", 2
    )
    assert [context.dry for context in contexts(text)] == [True, False]
    asked = Kv("turbo4", "turbo4")
    (cache,) = read(text, SCRIPTED, asked, kv_types(real_pins, "spiritbuun")).caches
    assert cache.k.mib == 8.5


def test_a_log_of_dry_runs_alone_tells_nothing(real_pins: Pins) -> None:
    text = real_log("spiritbuun-turbo4-fit")
    dry = text[: text.rindex("constructing llama_context")]
    found = read(dry, SCRIPTED, Kv("turbo4", "turbo4"), kv_types(real_pins, "spiritbuun"))
    assert (found.caches, found.unknown) == ((), "the log has caches of a dry run alone")


# --- Several contexts -----------------------------------------------------------------------------

CONTEXT = "llama_context: constructing llama_context\n"
HEAD = KvShape("head", (KvLayer(heads=2, k=128, v=128),))


@pytest.mark.parametrize("serving_first", [True, False])
@pytest.mark.parametrize("head", ["f16", "q8_0", "turbo4"])
def test_the_context_with_the_headers_layers_is_the_one_that_serves(
    real_pins: Pins, head: str, *, serving_first: bool
) -> None:
    types, asked, other = kv_types(real_pins, "spiritbuun"), Kv("turbo4", "turbo4"), Kv(head, head)
    texts = [CONTEXT + made(DENSE, asked, types, asked), CONTEXT + made(HEAD, other, types, other)]
    text = "".join(texts if serving_first else reversed(texts))
    (cache,) = read(text, DENSE, asked, types).caches
    assert (held(cache, asked), cache.layers) == (("turbo4", "turbo4"), 36)


def test_of_contexts_that_are_alike_the_last_counts(real_pins: Pins) -> None:
    types, asked = kv_types(real_pins, "spiritbuun"), Kv("turbo4", "turbo4")
    once = CONTEXT + made(SCRIPTED, asked, types, asked)
    shorter = CONTEXT + line((528 * 2, 528 * 2), asked, layers=8, cells=512, streams=2)
    (cache,) = read(once + shorter, SCRIPTED, asked, types).caches
    assert (held(cache, asked), cache.cells) == (("turbo4", "turbo4"), 512)


@pytest.mark.parametrize("other", [Kv("f16", "f16"), Kv("turbo4", "f16"), Kv("q8_0", "turbo4")])
def test_which_of_two_contexts_that_differ_serves_is_not_known(real_pins: Pins, other: Kv) -> None:
    types, asked = kv_types(real_pins, "spiritbuun"), Kv("turbo4", "turbo4")
    texts = [CONTEXT + made(SCRIPTED, each, types, asked) for each in (asked, other)]
    for text in (texts[0] + texts[1], texts[1] + texts[0]):
        found = read(text, SCRIPTED, asked, types)
        assert found.caches == ()
        assert "contexts of the model's layers differ" in (found.unknown or "")


def test_contexts_of_other_models_alone_are_named(real_pins: Pins) -> None:
    types, asked = kv_types(real_pins, "mainline"), Kv("q8_0", "q8_0")
    text = "".join(CONTEXT + made(each, asked, types, asked) for each in (NARROW, HEAD))
    assert read(text, DENSE, asked, types).unknown == (
        "the log has 24, then 1 layers, the model's header 36"
    )


def test_what_another_context_said_while_it_was_built_is_left_out(real_pins: Pins) -> None:
    types, asked = kv_types(real_pins, "mainline"), Kv("q8_0", "q8_0")
    own, other = (made(each, asked, types, asked) for each in (DENSE, HEAD))
    text = f"begin\n{CONTEXT}own\n{own}{CONTEXT}other\n{other}end\n"
    kept = without_others(text, DENSE).splitlines()
    assert [word for word in ("begin", "own", "other", "end") if word in kept] == [
        "begin",
        "own",
        "end",
    ]
    assert without_others(text, NARROW) == without_others(text, None) == text


# --- What cannot be told --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shape", "why"),
    [
        (None, SCRIPTED, "log was not seen"),
        ("", SCRIPTED, "no line with the cache's size"),
        ("llama_context: constructing llama_context\n", SCRIPTED, "no line with"),
        (real_log("mainline-q4_0"), None, "header was not seen"),
        (real_log("mainline-q4_0"), KvShape("mla", unknown="a latent"), "does not tell"),
        (real_log("mainline-q4_0"), KvShape("mla", unknown="a latent"), "smoke without --model"),
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


# --- A shape that the header does not tell --------------------------------------------------------


@pytest.mark.parametrize("named", ["f16", "q8_0"])
def test_f16_is_told_by_name_where_no_size_can_be_expected(real_pins: Pins, named: str) -> None:
    types, asked = kv_types(real_pins, "mainline"), Kv("f16", "f16")
    text = made(DENSE, Kv(named, named), types, Kv(named, named))
    found = read(text, KvShape("new", unknown="no rule for it"), asked, types)
    assert held(found.caches[0], asked) == (named, named)
    assert "no rule for it" in (found.by_name or "")


@pytest.mark.parametrize("asked", [Kv("q8_0", "q8_0"), Kv("f16", "q8_0"), Kv("q8_0", "f16")])
def test_no_other_type_is_told_by_name(real_pins: Pins, asked: Kv) -> None:
    types = kv_types(real_pins, "mainline")
    found = read(made(DENSE, asked, types, asked), KvShape("new", unknown="no rule"), asked, types)
    assert found.caches == ()


def test_f16_is_not_told_by_name_when_contexts_differ(real_pins: Pins) -> None:
    types, asked = kv_types(real_pins, "mainline"), Kv("f16", "f16")
    other = Kv("q8_0", "q8_0")
    text = CONTEXT + made(DENSE, asked, types, asked) + CONTEXT + made(HEAD, other, types, other)
    found = read(text, KvShape("new", unknown="no rule"), asked, types)
    assert (found.caches, "names f16, q8_0" in (found.unknown or "")) == ((), True)
