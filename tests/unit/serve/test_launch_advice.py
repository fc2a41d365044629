"""Profiles against models and cards: what is refused, and what is warned of."""

import dataclasses

import pytest

from builder.common.errors import UsageError
from builder.llama.gguf.memory import Model, Weights
from builder.llama.gguf.shape import KvLayer, KvShape
from builder.llama.slots import launch_slots
from builder.model.pins import Kv, KvRules, KvType, Pins, Profile, SharedK
from builder.serve import advice as launch_advice
from builder.serve.advice import Plan

GIB = 1024**3
F16 = Kv("f16", "f16")
TYPES = {"f16": KvType(2, 1), "q8_0": KvType(34, 32), "turbo4": KvType(66, 128)}

# 16 GiB of weights; 48 layers of 4 KV heads of 128: 96 KiB of f16 cache a token.
MODEL = Model(
    weights=Weights(card=16 * GIB, host=GIB // 2),
    shape=KvShape("qwen3", layers=(KvLayer(4, 128, 128),) * 48),
    native=40960,
    vocabulary=151936,
    width=2048,
    feed=6144,
)
MIXTURE = dataclasses.replace(
    MODEL, weights=Weights(card=16 * GIB, host=GIB // 2, experts=(GIB // 4,) * 48)
)
PROFILE = Profile("a", parallel=1, slot_tokens=32768, thinking=False)
PLAN = Plan("x", PROFILE, F16, TYPES, MODEL, card=24 * GIB, all_quants=True)


def plan(kv: Kv = F16, model: Model = MODEL, card: int | None = 24 * GIB, **profile) -> Plan:
    changed = dataclasses.replace(PROFILE, **profile)
    return dataclasses.replace(PLAN, profile=changed, kv=kv, model=model, card=card)


def test_what_fits_and_is_common_is_not_warned_of():
    assert launch_advice.advise(PLAN) == []


def test_more_than_the_card_is_refused_with_the_sum():
    with pytest.raises(UsageError) as caught:
        launch_advice.advise(plan(parallel=3))
    # 16 of weights, 3 × 32768 × 96 KiB = 9 of cache, 0.75 kept, and buffers.
    assert caught.value.what.startswith("profile x takes 26.")
    assert caught.value.what.endswith("of a card of 24.00 GiB")
    assert "16.00 GiB of weights; KV f16 for 3 × 32768 tokens" in caught.value.why
    assert "builder fit" in caught.value.hint


def test_what_takes_the_whole_card_fits():
    exactly = launch_advice.need(PLAN, 32768, experts=True)
    assert exactly is not None
    assert launch_advice.advise(dataclasses.replace(PLAN, card=exactly)) == []
    with pytest.raises(UsageError) as caught:
        launch_advice.advise(dataclasses.replace(PLAN, card=exactly - 1))
    # 3 of cache and 0.29 of buffers.
    assert "and buffers take 3.29 GiB, 0.75 GiB is kept" in caught.value.why


def test_a_draft_model_takes_of_the_card_too():
    with pytest.raises(UsageError, match="of a card of"):
        launch_advice.advise(dataclasses.replace(PLAN, draft=5 * GIB))


@pytest.mark.parametrize(
    "flags", [["-ngl", "20"], ["-ot", "exps=CPU"], ["--device", "none"], ["-ngl", "0"]]
)
def test_layers_that_are_placed_by_hand_are_not_summed_up(flags: list[str]):
    assert launch_advice.advise(plan(parallel=3, flags=flags)) == []


@pytest.mark.parametrize("layers", ["48", "999", "all"])
def test_all_layers_placed_by_hand_are_summed_up(layers: str):
    with pytest.raises(UsageError, match="of a card of"):
        launch_advice.advise(plan(parallel=3, flags=["-ngl", layers]))


def test_a_cache_in_the_machines_memory_takes_nothing_of_the_card():
    without = plan(parallel=3, flags=["--no-kv-offload"])
    assert launch_advice.advise(without) == []
    with pytest.raises(UsageError, match=r"takes 17\.\d+ GiB"):
        launch_advice.advise(dataclasses.replace(without, card=16 * GIB))


def test_experts_that_stay_on_the_cpu_take_nothing_of_the_card():
    few = plan(model=MIXTURE, card=17 * GIB, flags=["-ncmoe", "8"])
    with pytest.raises(UsageError, match=r"takes 18\.\d+ GiB of a card of 17") as caught:
        launch_advice.advise(few)
    assert caught.value.why.startswith("14.00 GiB of weights; KV f16 for 1 × 32768 tokens")
    assert launch_advice.advise(plan(model=MIXTURE, card=17 * GIB, flags=["-ncmoe", "24"])) == []


WINDOWED = dataclasses.replace(
    MODEL,
    shape=KvShape(
        "gemma3", tuple(KvLayer(4, 128, 128, 0 if index % 6 == 5 else 1024) for index in range(48))
    ),
)


def test_swa_full_takes_a_whole_context_for_windows():
    def cache(**profile) -> int:
        found = launch_advice.need(plan(model=WINDOWED, **profile), 32768, experts=True)
        assert found is not None
        return found

    # 40 layers of 2 KiB a token: 32768 cells in place of 1024 + 512.
    assert cache(flags=["--swa-full"]) - cache() == 40 * 2048 * (32768 - 1536)
    # One cache for both slots keeps 2 × 1024 + 512 cells, two have 2 × (1024 + 512).
    unified, apart = cache(parallel=2, kv_unified=True), cache(parallel=2, kv_unified=False)
    assert apart - unified == 40 * 2048 * 512


def test_a_larger_micro_batch_takes_a_larger_buffer_and_larger_windows():
    small = launch_advice.need(plan(model=WINDOWED), 32768, experts=True)
    large = launch_advice.need(plan(model=WINDOWED, flags=["-ub", "2048"]), 32768, experts=True)
    assert small is not None
    assert large is not None
    logits = 4 * (MODEL.vocabulary + MODEL.width)
    assert large - small == 40 * 2048 * 1536 + logits * 1536


@pytest.mark.parametrize(
    ("profile", "ubatch"),
    [
        ({}, 512),
        ({"flags": ["-ub", "1024"]}, 1024),
        ({"flags": ["-ub", "64", "--ubatch-size", "128"]}, 128),
        ({"flags": ["-b", "256"]}, 256),
        ({"flags": ["-ub", "4096"]}, 2048),
        ({"embeddings": True, "slot_tokens": 8192}, 8192),
    ],
)
def test_how_many_tokens_are_computed_at_once(profile: dict[str, object], ubatch: int):
    changed = dataclasses.replace(PROFILE, **profile)  # type: ignore[arg-type]
    assert launch_slots(changed, 32768, "batch").ubatch == ubatch


def test_logits_of_slots_alone_take_less():
    wordy = dataclasses.replace(MODEL, vocabulary=262_144)
    every = launch_advice.need(plan(model=wordy), 32768, experts=True)
    few = dataclasses.replace(plan(model=wordy), logits="slots")
    assert every is not None
    assert every - (launch_advice.need(few, 32768, experts=True) or 0) > 300 * 2**20


@pytest.mark.parametrize(
    ("profile", "outputs"),
    [({"parallel": 3}, 3), ({"embeddings": True}, None), ({"draft": "small.gguf"}, None)],
)
def test_for_which_tokens_logits_are_reserved(profile: dict[str, object], outputs: int | None):
    changed = dataclasses.replace(PROFILE, **profile)  # type: ignore[arg-type]
    assert launch_slots(changed, 32768, "slots").outputs == outputs
    assert launch_slots(changed, 32768, "batch").outputs is None


def test_without_a_card_nothing_is_too_large():
    assert launch_advice.advise(plan(parallel=3, card=None)) == []


def test_a_context_past_the_native_one_is_warned_of():
    (told,) = launch_advice.advise(plan(slot_tokens=65536))
    assert told.startswith("profiles.x.slot_tokens: 65536 is past the 40960 tokens")
    stretched = plan(slot_tokens=65536, flags=["--rope-scaling", "yarn"])
    assert launch_advice.advise(stretched) == []


def test_two_types_take_a_build_for_them():
    mixed = plan(Kv("q8_0", "turbo4"))
    assert launch_advice.advise(mixed) == []
    with pytest.raises(UsageError, match=r"profiles\.x\.kv: K is q8_0 and V turbo4"):
        launch_advice.advise(dataclasses.replace(mixed, all_quants=False))
    (told,) = launch_advice.advise(dataclasses.replace(mixed, all_quants=None))
    assert told.endswith("no label of the image tells whether it is one")


def test_heads_that_a_type_does_not_suit_are_warned_of():
    shape = KvShape("llama", layers=(KvLayer(8, 64, 64),) * 16)
    narrow = plan(Kv("turbo4", "turbo4"), dataclasses.replace(MODEL, shape=shape))
    assert launch_advice.advise(narrow) == [
        "profiles.x.kv: turbo4: blocks of 128 values do not divide heads of 64: "
        "the server refuses it"
    ]
    padded = KvRules(pad_heads=128, pads_first=True)
    assert launch_advice.advise(dataclasses.replace(narrow, rules=padded)) == []


def test_a_type_that_the_forks_rules_replace_is_warned_of_and_weighed_as_held():
    shape = dataclasses.replace(MODEL.shape, queries=8)
    shared = plan(Kv("turbo4", "turbo4"), dataclasses.replace(MODEL, shape=shape))
    rules = KvRules(shared_k=SharedK(queries=6, off="KEEP_K"))
    ruled = dataclasses.replace(shared, rules=rules)
    assert launch_advice.advise(ruled) == [
        "profiles.x.kv: K is q8_0 in place of turbo4: 8 query heads share each KV head "
        "(KEEP_K=0 turns that off)"
    ]
    more = launch_advice.need(ruled, 32768, experts=True)
    less = launch_advice.need(shared, 32768, experts=True)
    assert (more or 0) > (less or 0) > 0
    kept = dataclasses.replace(ruled.profile, env={"KEEP_K": "0"})
    assert launch_advice.advise(dataclasses.replace(ruled, profile=kept)) == []


def test_experts_on_the_cpu_for_a_context_that_nobody_uses_are_warned_of_with_figures():
    roomy = dataclasses.replace(MIXTURE, native=262144)
    (told,) = launch_advice.advise(plan(model=roomy, slot_tokens=131072, flags=["-cmoe"]))
    # 98304 tokens × 96 KiB = 9 GiB and a mask.
    assert "up to 12.00 GiB of experts run on the CPU" in told
    assert "131072 tokens a slot take 9." in told
    longest = int(told.rsplit("; ", 1)[1].split()[0])
    assert launch_advice.need(PLAN, longest, experts=True) <= 24 * GIB
    assert launch_advice.need(PLAN, longest + 256, experts=True) > 24 * GIB


def test_experts_on_the_cpu_for_what_an_agent_uses_are_fine():
    assert launch_advice.advise(plan(model=MIXTURE, flags=["-cmoe"])) == []


def test_experts_on_the_cpu_of_a_model_without_any_are_told():
    (told,) = launch_advice.advise(plan(flags=["-ncmoe", "8"]))
    assert told.endswith("the model has no experts")


def test_whether_a_build_takes_two_types_is_told_by_its_variant(real_pins: Pins):
    assert launch_advice.all_quants(real_pins, "spiritbuun-cuda12-sm86") is True
    assert launch_advice.all_quants(real_pins, "mainline-cpu") is True
    assert launch_advice.all_quants(real_pins, "unknown") is None
    variant = real_pins.variants["spiritbuun-cuda12-sm86"]
    off = dataclasses.replace(variant, options={"GGML_CUDA_FA_ALL_QUANTS": False})
    changed = dataclasses.replace(real_pins, variants={"lean": off})
    assert launch_advice.all_quants(changed, "lean") is False
