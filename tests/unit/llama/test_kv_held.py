"""What forks hold in place of their own types, by the rules in pins.toml, and what is said of it.

MiB of K and V at 32768 tokens in one slot, worked out from the forks' sources at their pins
(src/llama-kv-cache.cpp, src/llama-context.cpp).
"""

import dataclasses

import pytest

from builder.llama.gguf import kv_held, memory
from builder.llama.gguf.kv_types import kv_types
from builder.llama.gguf.memory import Slots
from builder.llama.gguf.shape import KvLayer, KvShape
from builder.model.pins import Kv, Pins, Profile
from builder.smoke.probes.kv import KvEvidence, judge
from tests.support.kv_logs import line

MIB = 2**20
PROFILE = Profile("smoke", parallel=1, slot_tokens=2048, thinking=False)


def shape(layers: int, query: int, heads: int, size: int, *, window: int = 0) -> KvShape:
    """A model of layers alike; with a window, every other layer looks back so far."""
    made = [
        KvLayer(heads, size, size, window if index % 2 == 0 else 0, index)
        for index in range(layers)
    ]
    return KvShape("made", tuple(made), total=layers, queries=query // heads)


SHAPES = {
    "qwen3-30b-a3b": shape(48, 32, 4, 128),
    "qwen25-7b": shape(28, 28, 4, 128),
    "mistral-7b": shape(32, 32, 8, 128),
    "gpt-oss-20b": shape(24, 64, 8, 64, window=128),
}
HELD = [
    ("qwen3-30b-a3b", "thetom", "turbo4", 1224),
    ("qwen3-30b-a3b", "thetom", "turbo3", 1116),
    ("qwen3-30b-a3b", "thetom", "turbo2", 1071),
    ("qwen3-30b-a3b", "spiritbuun", "turbo4", 792),
    ("qwen3-30b-a3b", "spiritbuun", "turbo3", 672),
    ("qwen3-30b-a3b", "spiritbuun", "turbo2", 480),
    ("qwen25-7b", "thetom", "turbo4", 714),
    ("qwen25-7b", "thetom", "turbo3", 651),
    ("qwen25-7b", "thetom", "turbo2", 646),
    ("qwen25-7b", "spiritbuun", "turbo4", 462),
    ("qwen25-7b", "spiritbuun", "turbo3", 392),
    ("qwen25-7b", "spiritbuun", "turbo2", 280),
    ("mistral-7b", "thetom", "turbo4", 1088),
    ("mistral-7b", "thetom", "turbo3", 800),
    ("mistral-7b", "thetom", "turbo2", 646),
    ("mistral-7b", "spiritbuun", "turbo4", 1056),
    ("mistral-7b", "spiritbuun", "turbo3", 896),
    ("mistral-7b", "spiritbuun", "turbo2", 640),
    ("gpt-oss-20b", "thetom", "turbo4", 418),
    ("gpt-oss-20b", "thetom", "turbo3", 362),
    ("gpt-oss-20b", "thetom", "turbo2", 331),
    ("gpt-oss-20b", "spiritbuun", "turbo4", "refused"),
    ("gpt-oss-20b", "spiritbuun", "turbo3", 344),
    ("gpt-oss-20b", "spiritbuun", "turbo2", 246),
]


@pytest.mark.parametrize(("model", "fork", "name", "right"), HELD)
def test_a_fork_holds_what_its_source_says(
    real_pins: Pins, model: str, fork: str, name: str, right: int | str
) -> None:
    types, rules, kv = kv_types(real_pins, fork), real_pins.forks[fork].kv_rules, Kv(name, name)
    found = memory.kv_need(SHAPES[model], kv, types, Slots(1, 32768), rules)
    refused = kv_held.refusal(SHAPES[model], kv, types, rules)
    assert found is not None
    assert ("refused" if refused else round(found.total / MIB)) == right


@pytest.mark.parametrize("queries", [5, 6])
def test_thetoms_k_is_q8_0_from_six_query_heads_a_kv_head_on(real_pins: Pins, queries: int) -> None:
    rules = real_pins.forks["thetom"].kv_rules
    model = shape(32, queries * 4, 4, 128)
    k, v = kv_held.hold(model, model.layers[0], Kv("turbo4", "turbo4"), rules)
    assert (k.name, v.name) == ("q8_0" if queries == 6 else "turbo4", "turbo4")


@pytest.mark.parametrize(
    "asked", [Kv("turbo4", "turbo3"), Kv("turbo4", "q8_0"), Kv("q4_0", "q4_0")]
)
def test_that_rule_is_for_k_and_v_of_one_turbo_type(real_pins: Pins, asked: Kv) -> None:
    rules = real_pins.forks["thetom"].kv_rules
    assert kv_held.departures(SHAPES["qwen25-7b"], asked, rules) == []


@pytest.mark.parametrize(("layers", "safe"), [(7, []), (8, [0, 1, 6, 7]), (40, [0, 1, 38, 39])])
def test_thetoms_turbo2_keeps_v_of_the_edges_in_q8_0(
    real_pins: Pins, layers: int, safe: list[int]
) -> None:
    rules, model = real_pins.forks["thetom"].kv_rules, shape(layers, 8, 4, 128)
    held = [kv_held.hold(model, each, Kv("f16", "turbo2"), rules) for each in model.layers]
    assert [index for index, (_, v) in enumerate(held) if v.name == "q8_0"] == safe
    assert bool(kv_held.departures(model, Kv("f16", "turbo2"), rules)) == bool(safe)


def test_edges_are_those_of_the_model_where_few_layers_attend(real_pins: Pins) -> None:
    rules = real_pins.forks["thetom"].kv_rules
    layers = tuple(KvLayer(2, 256, 256, index=index) for index in range(3, 48, 4))
    hybrid = KvShape("qwen3next", layers, total=48, queries=8)
    held = [kv_held.hold(hybrid, each, Kv("q8_0", "turbo2"), rules)[1].name for each in layers]
    assert held == ["turbo2"] * 11 + ["q8_0"]


def test_what_the_environment_turns_off_is_no_rule(real_pins: Pins) -> None:
    rules, model = real_pins.forks["thetom"].kv_rules, SHAPES["qwen25-7b"]
    asked = Kv("turbo2", "turbo2")
    assert len(kv_held.departures(model, asked, rules)) == 2
    env = {"TURBO_AUTO_ASYMMETRIC": "0", "TURBO_LAYER_ADAPTIVE": "0"}
    assert kv_held.departures(model, asked, kv_held.in_force(rules, env)) == []
    assert kv_held.in_force(rules, {"TURBO_AUTO_ASYMMETRIC": "1"}) == rules


def test_spiritbuuns_heads_of_more_than_512_values_are_f16(real_pins: Pins) -> None:
    rules, model = real_pins.forks["spiritbuun"].kv_rules, shape(8, 8, 8, 640)
    k, _ = kv_held.hold(model, model.layers[0], Kv("turbo3", "turbo3"), rules)
    assert k.name == "f16"
    wide = shape(8, 8, 8, 512)
    k, v = kv_held.hold(wide, wide.layers[0], Kv("turbo3", "turbo3"), rules)
    assert (k.name, v.name) == ("turbo3", "turbo3")
    assert kv_held.departures(model, Kv("turbo3", "q8_0"), rules) == [
        "K is f16: 640 values a head are more than 512"
    ]


@pytest.mark.parametrize(("size", "held"), [(128, "turbo3"), (192, "q8_0"), (64, "q8_0")])
def test_madreags_heads_that_are_no_multiple_of_128_are_q8_0(
    real_pins: Pins, size: int, held: str
) -> None:
    rules, model = real_pins.forks["madreag"].kv_rules, shape(8, 8, 8, size)
    k, v = kv_held.hold(model, model.layers[0], Kv("f16", "turbo3"), rules)
    assert (k.name, v.name) == (("f16", held) if held == "turbo3" else (held, held))


@pytest.mark.parametrize("name", ["q8_0", "q4_0", "iq4_nl"])
def test_llama_cpps_own_blocks_have_to_divide_heads_too(real_pins: Pins, name: str) -> None:
    types = kv_types(real_pins, "mainline")
    refused = kv_held.refusal(shape(32, 32, 32, 80), Kv("f16", name), types)
    assert (
        refused == f"{name}: blocks of 32 values do not divide heads of 80: the server refuses it"
    )
    assert kv_held.refusal(shape(32, 32, 32, 96), Kv(name, name), types) == ""


def verdict(pins: Pins, model: KvShape, asked: Kv, log: str, **changes: object):
    types, rules = kv_types(pins, "thetom"), pins.forks["thetom"].kv_rules
    evidence = KvEvidence(asked, types, PROFILE, log, model, gpu=True, rules=rules)
    return judge(dataclasses.replace(evidence, **changes))  # type: ignore[arg-type]


def log_of(model: KvShape, held: list[Kv], asked: Kv, pins: Pins) -> str:
    """The size line of a cache whose layers hold these types, one after the other."""
    types, cells = kv_types(pins, "thetom"), [0, 0]
    for layer, kv in zip(model.layers, held, strict=True):
        for half, name in enumerate((kv.k, kv.v)):
            cells[half] += kv_held.pad(name, layer.heads, layer.k).cell_bytes(types) or 0
    return line((cells[0], cells[1]), asked, layers=len(held), cells=2048, streams=1)


def test_smoke_names_the_rule_that_replaced_k(real_pins: Pins) -> None:
    asked, model = Kv("turbo4", "turbo4"), SHAPES["qwen25-7b"]
    found = verdict(
        real_pins, model, asked, log_of(model, [Kv("q8_0", "turbo4")] * 28, asked, real_pins)
    )
    assert (found.status, found.held) == ("unproven", "K q8_0, V turbo4")
    assert found.reason == (
        "the fork's own rule: K is q8_0 in place of turbo4: 7 query heads share each KV head "
        "(TURBO_AUTO_ASYMMETRIC=0 turns that off); nothing is proven of turbo4"
    )


def test_smoke_names_the_rule_that_replaced_v_in_four_layers(real_pins: Pins) -> None:
    asked, model = Kv("turbo2", "turbo2"), SHAPES["mistral-7b"]
    edge, middle = Kv("turbo2", "q8_0"), Kv("turbo2", "turbo2")
    held = [edge] * 2 + [middle] * 28 + [edge] * 2
    found = verdict(real_pins, model, asked, log_of(model, held, asked, real_pins))
    assert (found.status, found.held) == ("unproven", "K turbo2, V mixed")
    assert "V is q8_0 in the first 2 and the last 2 layers (TURBO_LAYER_ADAPTIVE=0" in found.reason


@pytest.mark.parametrize(
    "held",
    [Kv("f16", "turbo4"), Kv("q8_0", "q8_0"), Kv("q8_0", "f16")],
)
def test_what_no_rule_says_fails_as_before(real_pins: Pins, held: Kv) -> None:
    asked, model = Kv("turbo4", "turbo4"), SHAPES["qwen25-7b"]
    log = log_of(model, [held] * 28, asked, real_pins)
    assert verdict(real_pins, model, asked, log).status == "fail"


def test_a_rule_that_the_environment_turned_off_explains_nothing(real_pins: Pins) -> None:
    asked, model = Kv("turbo4", "turbo4"), SHAPES["qwen25-7b"]
    log = log_of(model, [Kv("q8_0", "turbo4")] * 28, asked, real_pins)
    rules = kv_held.in_force(real_pins.forks["thetom"].kv_rules, {"TURBO_AUTO_ASYMMETRIC": "0"})
    assert verdict(real_pins, model, asked, log, rules=rules).status == "fail"


def test_what_the_rule_makes_can_be_asked_for(real_pins: Pins) -> None:
    asked, model = Kv("q8_0", "turbo4"), SHAPES["qwen25-7b"]
    found = verdict(real_pins, model, asked, log_of(model, [asked] * 28, asked, real_pins))
    assert found.held == "K q8_0, V turbo4"
    assert "rule" not in found.reason
