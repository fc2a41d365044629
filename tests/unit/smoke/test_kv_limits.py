"""What stands in for a band that nobody measured, and what noise leaves to be told."""

import math
from dataclasses import replace

import pytest

from builder.llama.gguf.kv_types import kv_types
from builder.model.pins import Band, Kv, KvType, Pins, Profile
from builder.smoke.probes import kv_limits
from builder.smoke.probes.kv import KvEvidence, KvVerdict, judge
from builder.smoke.probes.kv_numbers import Distance, Numbers
from tests.support.kv_logs import SCRIPTED, made

PROFILE = Profile("a", parallel=2, slot_tokens=2048)
TURBO4, Q8, F16, F32 = (Kv(name, name) for name in ("turbo4", "q8_0", "f16", "f32"))


class Judge:
    """The verdict on a cache that has the right size in the log, on a machine with a GPU."""

    def __init__(self, pins: Pins) -> None:
        self.pins = pins

    def __call__(
        self,
        asked: Kv,
        kl: float,
        top1: float,
        *,
        fork: str = "spiritbuun",
        noise: float = 0.0,
        unrelated: float = 3.15,
        types: dict[str, KvType] | None = None,
        scripted: bool = True,
    ) -> KvVerdict:
        types = types or kv_types(self.pins, fork)
        numbers = Numbers(
            distance=Distance(kl, top1),
            noise=Distance(noise, 1.0),
            unrelated=Distance(unrelated, 0.0),
            prompts=20,
        )
        numbers = replace(numbers, decoding=numbers)
        log = made(SCRIPTED, asked, types, asked)
        return judge(KvEvidence(asked, types, PROFILE, log, SCRIPTED, numbers, scripted, gpu=True))


@pytest.fixture
def verdict(real_pins: Pins) -> Judge:
    return Judge(real_pins)


# --- A type without a measured band ---------------------------------------------------------------

# Of the scripted model with a cache that has the right size, at a type of 4 bits: KL, top-1.
BROKEN = {
    "holds 3-bit values": (8.6e-2, 0.55),
    "holds 2-bit values": (2.9e-1, 0.6),
    "holds 1-bit values": (9.1e-1, 0.2),
    "K all zeros": (7.1e-1, 0.3),
    "V halved": (8.4e-1, 0.1),
    "V doubled": (9.2e-1, 0.3),
    "V zero in 1 layer of 8": (4.5e-1, 0.3),
    "V zero in 4 layers of 8": (1.04, 0.05),
    "last 8 tokens lost in V": (7.8e-2, 0.45),
    "last 32 tokens lost in V": (5.6e-1, 0.35),
}


@pytest.mark.parametrize("seen", BROKEN.values(), ids=BROKEN)
def test_a_broken_cache_is_unproven_with_its_figures(
    verdict: Judge, seen: tuple[float, float]
) -> None:
    found = verdict(TURBO4, *seen)
    assert found.status in {"unproven", "fail"}
    assert f"KL {seen[0]:.1e} against f16, top-1 {seen[1]:.0%}" in found.reason


def test_a_fair_type_passes_by_what_its_format_predicts(verdict: Judge) -> None:
    found = verdict(TURBO4, 2.2e-2, 0.8)
    assert found.status == "pass"
    assert "what turbo4's block format predicts, 7.6e-03 to 3.1e-02, top-1 from 70%" in found.reason
    assert "turbo4's band is unmeasured" in found.reason


@pytest.mark.parametrize(("kl", "top1"), [(2.2e-2, 0.65), (3.2e-2, 0.9), (4.8e-3, 0.85)])
def test_kl_and_top_1_both_count(verdict: Judge, kl: float, top1: float) -> None:
    found = verdict(TURBO4, kl, top1)
    assert found.status == "unproven"
    assert "not within what turbo4's block format predicts" in found.reason


@pytest.fixture
def without_prediction(real_pins: Pins) -> dict[str, KvType]:
    types = kv_types(real_pins, "spiritbuun")
    return {name: replace(kind, predicted=None) for name, kind in types.items()}


def test_without_a_prediction_the_measured_type_nearest_in_bits_counts(
    verdict: Judge, without_prediction: dict[str, KvType]
) -> None:
    assert verdict(TURBO4, 2.2e-2, 0.8, types=without_prediction).status == "pass"
    found = verdict(TURBO4, 5.6e-2, 0.8, types=without_prediction)
    assert found.status == "unproven"
    assert "what iq4_nl, the nearest in bits, does" in found.reason


def test_a_coarser_type_does_not_stand_in_for_a_finer_one(
    without_prediction: dict[str, KvType],
) -> None:
    types = without_prediction | {"turbo3": KvType(14, 32, Band((4.7e-2, 1.9e-1), 0.55))}
    limits = kv_limits.unmeasured(TURBO4, types)
    assert limits is not None
    assert limits.band.kl[1] == types["q4_0"].band.kl[1]  # type: ignore[union-attr]


def test_of_types_as_near_the_one_that_may_do_less_counts() -> None:
    types = {
        "asked": KvType(16, 32),
        "finer": KvType(18, 32, Band((0.0, 1e-2), 0.8)),
        "coarser": KvType(14, 32, Band((0.0, 1e-1), 0.5)),
    }
    limits = kv_limits.unmeasured(Kv("asked", "asked"), types)
    assert limits is not None
    assert limits.band == Band((0.0, 1e-2), 0.8)


@pytest.mark.parametrize("scripted", [True, False])
def test_where_nothing_can_stand_in_nothing_passes(verdict: Judge, *, scripted: bool) -> None:
    types = {"odd": KvType(66, 128), "f16": KvType(2, 1), "q8_0": KvType(34, 32)}
    found = verdict(Kv("odd", "odd"), 1e-2, 1.0, types=types, scripted=scripted)
    assert found.status == "unproven"
    assert "nothing can stand in for it" in found.reason


@pytest.mark.parametrize(
    ("asked", "kl", "status"),
    [
        # A quarter of what the type does in both is the least, all of it the most in V, half in K.
        (Kv("f16", "turbo4"), 1.8e-3, "unproven"),
        (Kv("f16", "turbo4"), 2e-3, "pass"),
        (Kv("f16", "turbo4"), 1.1e-2, "pass"),
        (Kv("f16", "turbo4"), 3e-2, "pass"),
        (Kv("f16", "turbo4"), 3.2e-2, "unproven"),
        (Kv("turbo4", "f16"), 1.8e-3, "unproven"),
        (Kv("turbo4", "f16"), 4.8e-3, "pass"),
        (Kv("turbo4", "f16"), 1.5e-2, "pass"),
        (Kv("turbo4", "f16"), 1.6e-2, "unproven"),
        (Kv("q8_0", "turbo4"), 1.1e-2, "pass"),
        (Kv("turbo3", "turbo4"), 1.1e-2, "unproven"),
        (Kv("turbo3", "turbo4"), 1.2e-2, "pass"),
        (Kv("turbo3", "turbo4"), 3.6e-2, "pass"),
        (Kv("turbo3", "turbo4"), 1e-1, "pass"),
        (Kv("turbo3", "turbo4"), 1.02e-1, "unproven"),
    ],
    ids=str,
)
def test_k_and_v_apart_have_limits_from_both(
    verdict: Judge, asked: Kv, kl: float, status: str
) -> None:
    assert verdict(asked, kl, 0.8).status == status


# --- A measured band and its prediction -----------------------------------------------------------


def test_a_measured_value_far_from_its_prediction_is_reported(
    verdict: Judge, real_pins: Pins
) -> None:
    types = kv_types(real_pins, "thetom")
    assert "predicts" not in verdict(TURBO4, 5.6e-2, 0.8, types=types).reason
    fair = replace(types["turbo4"], predicted=Band((7.6e-3, 3.1e-2), 0.7))
    found = verdict(TURBO4, 5.6e-2, 0.8, types=types | {"turbo4": fair})
    assert found.status == "pass"
    assert "far from what its block format predicts: 7.6e-03 to 3.1e-02" in found.reason


@pytest.mark.parametrize(
    ("fork", "name", "kl", "top1"),
    [
        ("thetom", "turbo4", 5.6e-2, 0.8),
        ("thetom", "turbo3", 9.4e-2, 0.75),
        ("madreag", "turbo3", 9.6e-2, 0.75),
        ("madreag", "turbo2", 2.5e-1, 0.6),
    ],
)
def test_what_was_measured_passes_and_fits_its_prediction(
    verdict: Judge, fork: str, name: str, kl: float, top1: float
) -> None:
    found = verdict(Kv(name, name), kl, top1, fork=fork)
    assert found.status == "pass"
    assert "predicts" not in found.reason


@pytest.mark.parametrize(
    ("fork", "name", "kl", "top1"),
    [
        ("thetom", "turbo4", 8.6e-2, 0.55),
        ("thetom", "turbo4", 9.5e-2, 0.7),
        ("thetom", "turbo3", 2.9e-1, 0.6),
        ("madreag", "turbo3", 2.5e-1, 0.6),
        ("madreag", "turbo2", 4.4e-1, 0.35),
    ],
)
def test_a_bit_less_is_not_in_the_measured_band(
    verdict: Judge, fork: str, name: str, kl: float, top1: float
) -> None:
    assert verdict(Kv(name, name), kl, top1, fork=fork).status == "fail"


# --- Another model --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        # 8 bits and finer: 1e-2 needs no measuring.
        ("q8_0", 1e-2),
        ("bf16", 1e-2),
        # The others: three times what the scripted model allows, so their ratios stay.
        ("q5_1", 3e-2),
        ("q4_0", 9e-2),
        ("turbo4", 9.3e-2),
        ("turbo3", 0.42),
        # Half a nat is the most.
        ("turbo2", 0.5),
    ],
)
def test_limits_of_another_model_follow_from_the_scripted_ones(
    verdict: Judge, name: str, limit: float
) -> None:
    asked = Kv(name, name)
    for kl, status in ((limit * 0.99, "pass"), (limit * 1.01, "unproven")):
        found = verdict(asked, kl, 0.9, unrelated=9.0, scripted=False)
        assert found.status == status
        assert "this model has no measured bands" in found.reason


@pytest.mark.parametrize(
    ("name", "top1"), [("q8_0", 0.8), ("bf16", 0.8), ("q4_0", 0.6), ("turbo2", 0.5)]
)
def test_another_model_has_to_agree_with_itself(verdict: Judge, name: str, top1: float) -> None:
    asked = Kv(name, name)
    for share, status in ((top1, "pass"), (top1 - 0.05, "unproven")):
        assert verdict(asked, 9e-3, share, unrelated=9.0, scripted=False).status == status


@pytest.mark.parametrize(
    ("name", "kl", "top1"),
    [("q8_0", 1.5e-4, 1.0), ("q5_1", 7.7e-3, 0.8), ("q4_0", 3.9e-2, 0.7), ("iq4_nl", 3.5e-2, 0.75)],
)
def test_what_was_measured_with_scripted_swa_passes(
    verdict: Judge, name: str, kl: float, top1: float
) -> None:
    assert verdict(Kv(name, name), kl, top1, unrelated=2.9, scripted=False).status == "pass"


def test_eight_bits_that_do_what_they_cannot_are_unproven(verdict: Judge) -> None:
    found = verdict(Q8, 2.9, 0.05, unrelated=9.0, scripted=False)
    assert found.status == "unproven"
    assert "KL 2.9e+00 against f16, top-1 5%" in found.reason


# --- Noise ----------------------------------------------------------------------------------------


def test_within_the_noise_and_no_band_to_tell_is_unproven(verdict: Judge) -> None:
    for asked, scripted in ((Q8, False), (Q8, True), (TURBO4, True)):
        found = verdict(asked, 3e-4, 1.0, noise=2e-4, scripted=scripted)
        assert found.status == "unproven"
        assert "the control's noise of 4.0e-04 hides" in found.reason


def test_within_the_noise_and_far_below_the_band_is_a_flag_that_was_dropped(verdict: Judge) -> None:
    found = verdict(Kv("q4_0", "q4_0"), 3e-4, 1.0, noise=2e-4)
    assert found.status == "fail"
    assert "as if f16 had been asked for" in found.reason


@pytest.mark.parametrize("scripted", [True, False])
def test_f32_loses_nothing_with_any_model(verdict: Judge, *, scripted: bool) -> None:
    assert verdict(F32, 0.0, 1.0, scripted=scripted).status == "pass"


@pytest.mark.parametrize(
    ("kl", "noise", "scripted", "status"),
    [
        (0.0, 0.0, True, "pass"),
        (4e-4, 2e-4, True, "pass"),
        (5e-4, 2e-4, True, "unproven"),
        (2.1e-3, 2e-4, True, "fail"),
        (3e-5, 0.0, True, "unproven"),
        (8e-5, 0.0, True, "fail"),
        (5e-3, 0.0, False, "unproven"),
        (2e-2, 0.0, False, "fail"),
        (math.nan, 0.0, True, "fail"),
    ],
)
def test_f16_above_the_noise_is_unproven_up_to_what_a_type_does(
    verdict: Judge, kl: float, noise: float, scripted: bool, status: str
) -> None:
    assert verdict(F16, kl, 1.0, noise=noise, scripted=scripted).status == status


@pytest.mark.parametrize("scripted", [True, False])
@pytest.mark.parametrize("kl", [0.0, 3e-2, 0.3])
def test_f16_is_not_told_from_what_eight_bits_do_by_a_control_that_wanders(
    verdict: Judge, kl: float, *, scripted: bool
) -> None:
    found = verdict(F16, kl, 0.5, noise=0.2, scripted=scripted)
    assert found.status == "unproven"
    assert "noise of 4.0e-01 hides" in found.reason
