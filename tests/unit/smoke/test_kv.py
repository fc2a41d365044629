"""The verdict on the KV type in effect, from all that was seen of a run."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import pairwise

import pytest

from builder.llama.gguf.kv_types import kv_types
from builder.llama.gguf.shape import KvShape
from builder.model.pins import Band, Kv, KvType, Pins, Profile
from builder.smoke.probes.kv import InEffect, KvEvidence, KvVerdict, finding, judge
from builder.smoke.probes.kv_numbers import Distance, Numbers
from tests.support.kv_logs import SCRIPTED, WINDOWS, line, made, real_log, weight

PROFILE = Profile("a", parallel=2, slot_tokens=2048)

TURBO4, Q8, Q4, F16 = (Kv(name, name) for name in ("turbo4", "q8_0", "q4_0", "f16"))

# Mean KL and top-1 agreement as measured on mainline with the scripted model.
AS_F16 = (0.0, 1.0)
AS_BF16 = (8.4e-6, 1.0)
AS_Q8 = (9.7e-5, 1.0)
AS_Q4 = (1.8e-2, 0.8)
AS_K_ONLY_Q4 = (4.7e-3, 0.95)
AS_TURBO4_MIGHT = (1.5e-2, 0.85)
AS_GARBAGE = (2.5, 0.25)


def numbers(
    moved: tuple[float, float],
    noise: float = 0.0,
    unrelated: float = 3.1,
    *,
    decoding: tuple[float, float] | str | None = "alike",
) -> Numbers:
    """Numbers of prompts, and of decoding: by default the same."""
    found = Numbers(
        distance=Distance(*moved),
        noise=Distance(noise, 1.0),
        unrelated=Distance(unrelated, 0.0),
        prompts=20,
    )
    if decoding == "alike":
        return replace(found, decoding=found)
    if isinstance(decoding, tuple):
        return replace(found, decoding=replace(found, distance=Distance(*decoding)))
    return replace(found, decoding=decoding)


Run = Callable[..., KvEvidence]


@pytest.fixture
def run(real_pins: Pins) -> Run:
    """What is seen when `asked` is asked for and `held` is held; the log names what was asked."""

    def evidence(
        asked: Kv,
        held: Kv,
        moved: tuple[float, float],
        *,
        fork: str = "spiritbuun",
        said: str = "",
        named: Kv | None = None,
        **changes: object,
    ) -> KvEvidence:
        types = kv_types(real_pins, fork)
        log = f"constructing llama_context\n{said}\n{made(SCRIPTED, held, types, named or asked)}"
        whole = KvEvidence(asked, types, PROFILE, log, SCRIPTED, numbers(moved))
        return replace(whole, **changes)  # type: ignore[arg-type]

    return evidence


FALLS_BACK = "turbo KV cache falling back to q8_0 for CPU-bound layers (partial offload)"


# --- In effect as asked ---------------------------------------------------------------------------


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize(("asked", "moved"), [(Q4, AS_Q4), (Q8, AS_Q8), (F16, AS_F16)])
def test_in_effect_as_asked_passes(
    run: Run, asked: Kv, moved: tuple[float, float], *, gpu: bool
) -> None:
    verdict = judge(run(asked, asked, moved, gpu=gpu))
    assert verdict.status == "pass"
    assert verdict.in_effect == (InEffect("full", 8, asked.k, asked.v),)
    assert in_short(verdict) == f"{asked} asked, {asked} in effect, pass"


def in_short(verdict: KvVerdict) -> str:
    return f"{verdict.in_words}, {verdict.status}"


def test_the_three_pieces_are_said_in_words(run: Run) -> None:
    verdict = judge(run(Q4, Q4, AS_Q4))
    assert verdict.bytes == "K and V each 4.50 MiB (as q4_0) in 8 layers"
    assert verdict.words == "no line of the log tells of another type"
    assert verdict.numbers.startswith("KL 1.8e-02 against f16, top-1 80%, in q4_0's band")


def test_k_and_v_asked_apart_pass(run: Run) -> None:
    asked = Kv("q8_0", "q4_0")
    verdict = judge(run(asked, asked, (1.2e-2, 0.8)))
    assert (verdict.status, verdict.held) == ("pass", "K q8_0, V q4_0")


@pytest.mark.parametrize(
    ("asked", "moved"),
    [
        (Kv("q4_0", "f16"), AS_K_ONLY_Q4),
        (Kv("bf16", "f16"), (8.8e-6, 1.0)),
        (Kv("f16", "q4_0"), (1.1e-2, 0.8)),
        (Kv("q8_0", "f16"), (6.2e-5, 1.0)),
        (Kv("f16", "q8_0"), (5.1e-5, 1.0)),
        (Kv("q4_0", "q8_0"), (5.1e-3, 0.95)),
        (Kv("q5_0", "f16"), (1.3e-3, 0.95)),
        (Kv("f32", "f32"), AS_F16),
        (Kv("bf16", "bf16"), AS_BF16),
    ],
    ids=str,
)
def test_what_was_measured_of_a_type_passes_for_it(
    run: Run, asked: Kv, moved: tuple[float, float]
) -> None:
    assert judge(run(asked, asked, moved)).status == "pass"


@pytest.mark.parametrize("gpu", [False, True])
def test_a_type_whose_band_is_unmeasured_passes_and_says_so(run: Run, *, gpu: bool) -> None:
    verdict = judge(run(TURBO4, TURBO4, AS_TURBO4_MIGHT, gpu=gpu))
    assert (verdict.status, verdict.held) == ("pass", "turbo4")
    assert "turbo4's band is unmeasured" in verdict.reason


def test_a_measured_band_of_a_fork_is_used(run: Run) -> None:
    seen = run(TURBO4, TURBO4, AS_TURBO4_MIGHT)
    types = dict(seen.types)
    types["turbo4"] = replace(types["turbo4"], band=Band((1e-3, 1e-2), 0.5))
    verdict = judge(replace(seen, types=types))
    assert verdict.status == "fail"
    assert "not in turbo4's band of 1.0e-03 to 1.0e-02" in verdict.reason


def test_another_model_has_no_bands_and_the_words_say_so(run: Run) -> None:
    verdict = judge(run(Q4, Q4, (3e-2, 0.9), scripted=False))
    assert verdict.status == "pass"
    assert "this model has no measured bands" in verdict.reason


def test_a_fork_that_runs_the_type_on_a_cpu_passes(run: Run) -> None:
    asked = Kv("turbo3", "turbo3")
    verdict = judge(run(asked, asked, (5e-2, 0.7), fork="thetom"))
    assert verdict.status == "pass"


def test_the_slots_are_another_probes_question(run: Run) -> None:
    verdict = judge(run(Q4, Q4, AS_Q4, profile=replace(PROFILE, parallel=4)))
    assert verdict.status == "pass"
    assert verdict.bytes.endswith("in 8 layers (4096 cells, 4 slots of 2048 take 8192)")


# --- The fork's documented fallback ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape", "scripted"),
    [
        ("spiritbuun-turbo4", SCRIPTED, True),
        ("spiritbuun-turbo4-fit", SCRIPTED, True),
        ("spiritbuun-turbo4-window", WINDOWS, False),
    ],
)
def test_the_real_spiritbuun_on_a_cpu_is_unproven(
    real_pins: Pins, name: str, shape: KvShape, scripted: bool
) -> None:
    verdict = judge(
        KvEvidence(
            TURBO4,
            kv_types(real_pins, "spiritbuun"),
            PROFILE,
            real_log(name),
            shape,
            numbers((9.9e-5, 1.0)),
            scripted,
        )
    )
    assert in_short(verdict) == "turbo4 asked, q8_0 in effect, unproven"
    assert {(one.k, one.v) for one in verdict.in_effect} == {("q8_0", "q8_0")}
    assert verdict.reason == (
        "the fork's fallback on a machine without a GPU; nothing is proven of turbo4"
    )
    assert "cells" not in verdict.bytes


def test_the_fallback_takes_both_halves_with_it(run: Run) -> None:
    asked = Kv("f16", "turbo4")
    verdict = judge(run(asked, Q8, AS_Q8, said=FALLS_BACK))
    assert (verdict.status, verdict.held) == ("unproven", "q8_0")


@pytest.mark.parametrize("held", [Kv("q8_0", "f16"), Kv("q4_0", "q8_0")], ids=str)
def test_half_a_fallback_fails(run: Run, held: Kv) -> None:
    assert judge(run(TURBO4, held, AS_Q8, said=FALLS_BACK)).status == "fail"


def test_the_fallback_without_a_control_is_unproven(run: Run) -> None:
    verdict = judge(run(TURBO4, Q8, AS_Q8, said=FALLS_BACK, numbers=None))
    assert in_short(verdict) == "turbo4 asked, q8_0 in effect, unproven"


def test_with_a_gpu_the_fallback_fails(run: Run) -> None:
    verdict = judge(run(TURBO4, Q8, AS_Q8, said=FALLS_BACK, gpu=True))
    assert in_short(verdict) == "turbo4 asked, q8_0 in effect, fail"
    assert "layers in host memory hold q8_0" in verdict.reason


def test_q8_0_that_the_log_does_not_explain_fails(run: Run) -> None:
    verdict = judge(run(TURBO4, Q8, AS_Q8))
    assert in_short(verdict) == "turbo4 asked, q8_0 in effect, fail"


def test_a_type_of_llama_cpp_has_no_fallback(run: Run) -> None:
    assert judge(run(Q4, Q8, AS_Q8, said=FALLS_BACK)).status == "fail"


@pytest.mark.parametrize("moved", [AS_F16, AS_Q4, AS_GARBAGE, (math.inf, 0.0)])
def test_a_fallback_whose_numbers_are_not_q8_0s_fails(run: Run, moved: tuple[float, float]) -> None:
    assert judge(run(TURBO4, Q8, moved, said=FALLS_BACK)).status == "fail"


def test_a_partial_fallback_fails(run: Run, real_pins: Pins) -> None:
    types = kv_types(real_pins, "spiritbuun")
    one, other = (weight([(2, 128)], name, types[name]) for name in ("turbo4", "q8_0"))
    mixed = line((2 * one + 6 * other,) * 2, TURBO4, layers=8, cells=2048, streams=2)
    verdict = judge(run(TURBO4, Q8, AS_Q4, log=f"{FALLS_BACK}\n{mixed}"))
    assert in_short(verdict) == "turbo4 asked, mixed in effect, fail"
    assert "as 6 layers of q8_0, 2 of turbo4" in verdict.bytes


# --- Anything else --------------------------------------------------------------------------------


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("asked", [TURBO4, Q4, Q8], ids=str)
def test_a_flag_that_was_dropped_fails(run: Run, asked: Kv, *, gpu: bool) -> None:
    verdict = judge(run(asked, F16, AS_F16, named=F16, gpu=gpu))
    assert in_short(verdict) == f"{asked} asked, f16 in effect, fail"


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("asked", [TURBO4, Q4], ids=str)
def test_a_v_that_was_dropped_fails(run: Run, asked: Kv, *, gpu: bool) -> None:
    held = Kv(asked.k, "f16")
    verdict = judge(run(asked, held, AS_K_ONLY_Q4, named=held, gpu=gpu))
    assert in_short(verdict) == f"{asked} asked, K {asked}, V f16 in effect, fail"


@pytest.mark.parametrize("moved", [AS_K_ONLY_Q4, (6.0e-3, 0.9)])
def test_a_v_that_was_dropped_fails_by_numbers_alone(run: Run, moved: tuple[float, float]) -> None:
    assert judge(run(Q4, Q4, moved)).status == "fail"


def test_f16_asked_and_another_in_effect_fails(run: Run) -> None:
    verdict = judge(run(F16, Q8, AS_Q8, named=Q8))
    assert in_short(verdict) == "f16 asked, q8_0 in effect, fail"


def test_a_size_that_no_type_has_fails(run: Run) -> None:
    odd = line((999, 999), TURBO4, layers=8, cells=2048, streams=2)
    verdict = judge(run(TURBO4, TURBO4, AS_TURBO4_MIGHT, log=odd))
    assert in_short(verdict) == "turbo4 asked, another in effect, fail"
    assert "as no known type; turbo4 takes 4.12" in verdict.bytes


@pytest.mark.parametrize("asked", [TURBO4, Q4, Q8, F16], ids=str)
@pytest.mark.parametrize("scripted", [False, True])
@pytest.mark.parametrize("moved", [AS_GARBAGE, (math.inf, 0.0), (math.nan, 0.0)], ids=str)
def test_garbage_fails_whatever_the_bytes_say(
    run: Run, asked: Kv, moved: tuple[float, float], *, scripted: bool
) -> None:
    verdict = judge(run(asked, asked, moved, scripted=scripted))
    assert verdict.status == "fail"
    assert "garbage" in verdict.reason


@pytest.mark.parametrize("asked", [TURBO4, Q4, Q8], ids=str)
@pytest.mark.parametrize("scripted", [False, True])
def test_answers_of_f16_fail_whatever_the_bytes_say(run: Run, asked: Kv, *, scripted: bool) -> None:
    verdict = judge(run(asked, asked, AS_F16, scripted=scripted))
    assert verdict.status == "fail"
    assert "as if f16 had been asked for" in verdict.reason


@pytest.mark.parametrize("asked", [TURBO4, Q4], ids=str)
def test_answers_of_q8_0_fail_whatever_the_bytes_say(run: Run, asked: Kv) -> None:
    verdict = judge(run(asked, asked, AS_Q8))
    assert verdict.status == "fail"
    assert "q8_0 does" in verdict.reason


@pytest.mark.parametrize(
    ("asked", "moved"),
    [(Q8, AS_Q4), (Q8, AS_BF16), (Q4, (0.3, 0.6)), (Q4, (2e-2, 0.5)), (F16, AS_Q8)],
    ids=str,
)
def test_answers_outside_the_band_fail(run: Run, asked: Kv, moved: tuple[float, float]) -> None:
    assert judge(run(asked, asked, moved)).status == "fail"


@pytest.mark.parametrize(
    ("asked", "moved", "called"),
    [
        (Q4, AS_Q8, "as q8_0 does; not in q4_0's band"),
        (Kv("f32", "f32"), AS_Q8, "as q8_0 does; not in f32's band"),
        (Q8, AS_BF16, "top-1 100%, not in q8_0's band"),
        (Q4, AS_BF16, "top-1 100%, not in q4_0's band"),
        (Q8, (9.7e-5, 0.5), "top-1 50%, not in q8_0's band"),
        (Q4, (0.3, 0.6), "top-1 60%, not in q4_0's band"),
    ],
    ids=str,
)
def test_numbers_outside_the_band_are_called_what_they_are(
    run: Run, asked: Kv, moved: tuple[float, float], called: str
) -> None:
    assert called in judge(run(asked, asked, moved)).numbers


# --- What cannot be told --------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [TURBO4, Q4, F16], ids=str)
def test_without_a_log_and_a_control_nothing_is_proven(run: Run, asked: Kv) -> None:
    verdict = judge(run(asked, asked, AS_F16, log=None, numbers=None))
    assert in_short(verdict) == f"{asked} asked, unknown in effect, unproven"
    assert verdict.reason == ("the server's log was not seen; no control with f16 was run")
    assert verdict.in_effect == ()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"log": None}, "the server's log was not seen"),
        ({"shape": None}, "the model's header was not seen"),
        ({"shape": KvShape("mla", unknown="a latent")}, "does not tell the cache's shape"),
        ({"shape": WINDOWS}, "the log has 8 layers, the model's header 1 and 5"),
        ({"numbers": None}, "no control with f16 was run"),
        ({"numbers": "the control's /completion: 500"}, "the control's /completion: 500"),
        ({"numbers": numbers(AS_Q4, unrelated=0.0)}, "the control's own answers are garbage"),
        ({"numbers": numbers(AS_Q4, unrelated=math.inf)}, "the control's own answers"),
        ({"numbers": numbers(AS_Q4, noise=2e-2)}, "noise of 4.0e-02 hides"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_piece_that_is_missing_leaves_it_unproven(
    run: Run, changes: dict[str, object], why: str
) -> None:
    verdict = judge(run(Q4, Q4, AS_Q4, **changes))
    assert verdict.status == "unproven"
    assert why in verdict.reason


def test_noise_does_not_hide_what_is_above_it(run: Run) -> None:
    assert judge(run(Q4, Q4, AS_Q4, numbers=numbers(AS_Q4, noise=4e-3))).status == "pass"


@pytest.mark.parametrize("moved", [AS_F16, AS_Q8, AS_GARBAGE], ids=str)
def test_numbers_alone_can_fail(run: Run, moved: tuple[float, float]) -> None:
    assert judge(run(Q4, Q4, moved, log=None)).status == "fail"


def test_bytes_alone_can_fail(run: Run) -> None:
    assert judge(run(Q4, F16, AS_F16, numbers=None)).status == "fail"


def test_a_type_of_unknown_size_is_unproven(run: Run) -> None:
    asked = Kv("tq3_0", "tq3_0")
    verdict = judge(run(asked, Q8, (5e-2, 0.7), fork="aaryan-kapoor"))
    assert verdict.status == "unproven"
    assert "how many bytes tq3_0 takes is not known" in verdict.reason
    assert verdict.in_effect == (InEffect("full", 8, "unknown", "unknown"),)


@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        ("llama_kv_cache: layer-adaptive mode 5 enabled", "TURBO_LAYER_ADAPTIVE=5"),
        ("TCQ encode: FAILED to load codebook from /cb.bin", "the codebook /cb.bin is not used"),
        (FALLS_BACK, "layers in host memory hold q8_0"),
    ],
)
def test_a_log_against_bytes_and_numbers_leaves_it_unproven(
    run: Run, said: str, meaning: str
) -> None:
    verdict = judge(run(TURBO4, TURBO4, AS_TURBO4_MIGHT, said=said, gpu=True))
    assert in_short(verdict) == "turbo4 asked, turbo4 in effect, unproven"
    assert meaning in verdict.reason


def test_a_note_in_the_log_changes_nothing(run: Run) -> None:
    said = "llama_kv_cache: turbo head padding: 64 -> 128 per head"
    verdict = judge(run(TURBO4, TURBO4, AS_TURBO4_MIGHT, said=said))
    assert (verdict.status, verdict.words) == ("pass", "heads are padded from 64 to 128 values")


# --- Decoding -------------------------------------------------------------------------------------

AS_V_DOUBLED = (3.6e-1, 0.57)
"""What decoding with V doubled does: computed from the scripted model in numpy."""


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("asked", [Q4, Q8, F16], ids=str)
@pytest.mark.parametrize("decoding", [AS_V_DOUBLED, AS_GARBAGE, (math.inf, 0.0)], ids=str)
def test_no_type_passes_whose_decoding_is_another_caches(
    run: Run, asked: Kv, decoding: tuple[float, float], *, gpu: bool
) -> None:
    fair = {Q4: AS_Q4, Q8: AS_Q8, F16: AS_F16}[asked]
    seen = numbers(fair, decoding=decoding)
    verdict = judge(run(asked, asked, fair, numbers=seen, gpu=gpu))
    assert verdict.status == "fail"
    assert "decoding: " in verdict.reason


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("decoding", [AS_V_DOUBLED, AS_GARBAGE, AS_Q8, AS_F16], ids=str)
def test_a_fair_prompt_excuses_no_decoding_of_a_type_without_a_band(
    run: Run, decoding: tuple[float, float], *, gpu: bool
) -> None:
    seen = numbers(AS_TURBO4_MIGHT, decoding=decoding)
    assert judge(run(TURBO4, TURBO4, AS_TURBO4_MIGHT, numbers=seen, gpu=gpu)).status != "pass"


@pytest.mark.parametrize("decoding", [AS_V_DOUBLED, AS_F16, AS_Q8], ids=str)
def test_decoding_outside_the_measured_band_fails(run: Run, decoding: tuple[float, float]) -> None:
    verdict = judge(run(Q4, Q4, AS_Q4, numbers=numbers(AS_Q4, decoding=decoding)))
    assert verdict.status == "fail"
    assert verdict.reason.startswith("decoding: ")


def test_prompts_outside_the_band_fail_whatever_decoding_does(run: Run) -> None:
    verdict = judge(run(Q4, Q4, AS_Q8, numbers=numbers(AS_Q8, decoding=AS_Q4)))
    assert verdict.status == "fail"


def test_decoding_is_told_beside_the_prompts(run: Run) -> None:
    verdict = judge(run(Q4, Q4, AS_Q4, numbers=numbers(AS_Q4, decoding=(1.5e-2, 0.89))))
    assert verdict.status == "pass"
    assert verdict.numbers.endswith("; decoding: KL 1.5e-02, top-1 89%")


@pytest.mark.parametrize("asked", [TURBO4, Q4, F16], ids=str)
@pytest.mark.parametrize("decoding", [None, "the answers ended before"])
def test_on_a_gpu_decoding_that_was_not_read_is_unproven(
    run: Run, asked: Kv, decoding: str | None
) -> None:
    fair = {TURBO4: AS_TURBO4_MIGHT, Q4: AS_Q4, F16: AS_F16}[asked]
    seen = numbers(fair, decoding=decoding)
    verdict = judge(run(asked, asked, fair, numbers=seen, gpu=True))
    assert verdict.status == "unproven"
    assert f"decoding: not read: {decoding or 'nobody asked'}" in verdict.reason


def test_without_a_gpu_decoding_that_was_not_read_is_said(run: Run) -> None:
    seen = numbers(AS_Q4, decoding="the answers ended before")
    verdict = judge(run(Q4, Q4, AS_Q4, numbers=seen))
    assert verdict.status == "pass"
    assert "decoding was not read: the answers ended before" in verdict.reason


def test_the_fallback_excuses_no_decoding_that_is_not_q8_0s(run: Run) -> None:
    seen = numbers(AS_Q8, decoding=AS_V_DOUBLED)
    assert judge(run(TURBO4, Q8, AS_Q8, said=FALLS_BACK, numbers=seen)).status == "fail"


# --- More than one context, and a shape that is not known ----------------------------------------


def with_a_head(run: Run, held: Kv, head: Kv, said: str = "") -> KvEvidence:
    """As if a head for drafting had been given a context of its own, after the one that serves."""
    seen = run(TURBO4, held, AS_TURBO4_MIGHT, gpu=True)
    one_layer = replace(SCRIPTED, layers=SCRIPTED.layers[:1])
    size = made(one_layer, head, dict(seen.types), head)
    return replace(seen, log=f"{seen.log}constructing llama_context\n{said}\n{size}")


@pytest.mark.parametrize("head", [F16, Q8, TURBO4], ids=str)
def test_a_heads_own_context_is_not_judged(run: Run, head: Kv) -> None:
    verdict = judge(with_a_head(run, TURBO4, head))
    assert in_short(verdict) == "turbo4 asked, turbo4 in effect, pass"


@pytest.mark.parametrize("held", [F16, Q8], ids=str)
def test_a_heads_own_context_excuses_nothing(run: Run, held: Kv) -> None:
    assert judge(with_a_head(run, held, TURBO4)).status == "fail"


def test_what_is_said_of_a_heads_context_is_not_said_of_the_models(run: Run) -> None:
    assert judge(with_a_head(run, TURBO4, Q8, said=FALLS_BACK)).status == "pass"


def test_f16_passes_where_the_header_does_not_tell_the_shape(run: Run) -> None:
    shape = KvShape("new", unknown="which layers have attention is not known here")
    verdict = judge(run(F16, F16, AS_F16, shape=shape, scripted=False))
    assert in_short(verdict) == "f16 asked, f16 in effect, pass"
    assert "by the log's names alone: the header does not tell" in verdict.reason


@pytest.mark.parametrize(
    ("held", "moved", "status"),
    [(Q8, AS_F16, "fail"), (F16, AS_Q8, "fail"), (F16, AS_GARBAGE, "fail")],
)
def test_f16_by_name_alone_is_no_pass(
    run: Run, held: Kv, moved: tuple[float, float], status: str
) -> None:
    shape = KvShape("new", unknown="no rule for it")
    assert judge(run(F16, held, moved, named=held, shape=shape)).status == status


def test_f16_by_name_without_a_control_is_unproven(run: Run) -> None:
    shape = KvShape("new", unknown="no rule for it")
    assert judge(run(F16, F16, AS_F16, shape=shape, numbers=None)).status == "unproven"


@pytest.mark.parametrize("asked", [TURBO4, Q8, Kv("f16", "q8_0")], ids=str)
def test_of_another_type_a_shape_that_is_not_known_says_how_to_go_on(run: Run, asked: Kv) -> None:
    shape = KvShape("new", unknown="no rule for it")
    verdict = judge(run(asked, asked, AS_TURBO4_MIGHT, shape=shape, scripted=False))
    assert verdict.status == "unproven"
    assert "smoke without --model" in verdict.reason


# --- The verdict as a value -----------------------------------------------------------------------


def test_caches_that_differ_are_named(run: Run, real_pins: Pins) -> None:
    types = kv_types(real_pins, "spiritbuun")
    layer = weight([(1, 256)], "turbo4", types["turbo4"])
    other = weight([(1, 256)], "q8_0", types["q8_0"])
    log = line((layer, layer), TURBO4, layers=1, cells=2048, streams=2) + line(
        (5 * other, 5 * other), TURBO4, layers=5, cells=1024, streams=2
    )
    verdict = judge(run(TURBO4, TURBO4, AS_TURBO4_MIGHT, log=log, shape=WINDOWS))
    assert verdict.status == "fail"
    assert verdict.held == "turbo4 (full cache), q8_0 (window cache)"
    assert [(one.cache, one.layers) for one in verdict.in_effect] == [("full", 1), ("window", 5)]


def test_a_verdict_as_a_line_of_the_table(run: Run) -> None:
    found = finding(judge(run(TURBO4, Q8, AS_Q8, said=FALLS_BACK)))
    assert (found.probe, found.status) == ("kv", "unproven")
    assert found.expected == "K and V are held as turbo4"
    assert found.observed.startswith("turbo4 asked, q8_0 in effect: the fork's fallback")


def test_a_verdict_becomes_json(run: Run) -> None:
    verdict: KvVerdict = judge(run(Kv("q8_0", "q4_0"), Kv("q8_0", "q4_0"), (1.2e-2, 0.8)))
    found = json.loads(json.dumps(asdict(verdict)))
    assert found["asked"] == {"k": "q8_0", "v": "q4_0"}
    assert found["in_effect"] == [{"cache": "full", "layers": 8, "k": "q8_0", "v": "q4_0"}]


# --- The types of a fork --------------------------------------------------------------------------


def test_a_fork_has_llama_cpps_types_and_its_own(real_pins: Pins) -> None:
    found = kv_types(real_pins, "spiritbuun")
    assert (found["turbo4"].block_bytes, found["turbo4"].block_values) == (66, 128)
    assert found["q8_0"] == KvType(34, 32, real_pins.kv_bands["q8_0"])
    assert (found["f16"], found["q4_0"].block_bytes) == (KvType(2, 1), 18)


def test_the_same_name_is_another_type_in_another_fork(real_pins: Pins) -> None:
    sizes = {
        fork: kv_types(real_pins, fork)["turbo3"].block_bytes for fork in ("thetom", "madreag")
    }
    assert sizes == {"thetom": 50, "madreag": 14}


@pytest.mark.parametrize("fork", [None, "mainline", "nobody"])
def test_without_a_fork_there_are_llama_cpps_types_alone(real_pins: Pins, fork: str | None) -> None:
    assert "turbo4" not in kv_types(real_pins, fork)


def test_the_bands_tell_f16_q8_0_and_four_bits_apart(real_pins: Pins) -> None:
    order = [real_pins.kv_bands[name].kl for name in ("f32", "bf16", "q8_0", "q5_1")]
    assert all(one[1] <= after[0] for one, after in pairwise(order))
    assert real_pins.kv_bands["q8_0"].kl[1] * 10 < real_pins.kv_bands["q4_0"].kl[0]
