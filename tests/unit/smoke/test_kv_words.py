"""What lines of a fork's log mean for the type of the KV cache."""

import re

import pytest

from builder.smoke.probes.kv_words import TABLE, Seen, read
from tests.support.kv_logs import real_log

LINES = [
    # As the sources have them, with values put in.
    (
        "llama_kv_cache: turbo KV cache falling back to q8_0 for CPU-bound layers (partial "
        "offload)",
        Seen("documented", "layers in host memory hold q8_0"),
    ),
    (
        "llama_kv_cache: layer 0 head_dim_k=576 > 512, falling back to f16 K (turbo FA limit)",
        Seen("change", "K is f16: 576 values a head are more than the fork's 512"),
    ),
    (
        "TCQ encode: FAILED to load codebook from /codebooks/cb3.bin",
        Seen("change", "the codebook /codebooks/cb3.bin is not used"),
    ),
    (
        "TCQ decode: FAILED to load 3-bit codebook from /codebooks/cb3.bin",
        Seen("change", "the codebook /codebooks/cb3.bin is not used"),
    ),
    (
        "llama_kv_cache: turbo head padding: 64 -> 128 per head",
        Seen("note", "heads are padded from 64 to 128 values"),
    ),
    (
        "turbo: sink token protection enabled, N=4",
        Seen("note", "the first 4 tokens are kept in f16 beside the cache"),
    ),
    (
        "llama_kv_cache: layer-adaptive mode 5 enabled",
        Seen("change", "TURBO_LAYER_ADAPTIVE=5 gives some layers another type"),
    ),
    (
        "llama_kv_cache: layer-adaptive mode 1 enabled (env)",
        Seen("change", "TURBO_LAYER_ADAPTIVE=1 gives some layers another type"),
    ),
    *(
        (line, Seen("note", "flash attention was turned on for it"))
        for line in (
            "llama_context: turbo KV cache requires Flash Attention — enabling automatically",
            "llama_init_from_model: turbo KV cache requires flash attention — enabling "
            "automatically",
            "llama_init_from_model: turbo cache types require flash_attn — enabling automatically",
        )
    ),
    (
        "llama_kv_cache: auto-asymmetric: GQA ratio 8:1 (n_head=8, n_head_kv=1) — upgrading K from "
        "turbo4 to q8_0 to prevent quality degradation. Disable with TURBO_AUTO_ASYMMETRIC=0",
        Seen("change", "K is q8_0 in place of turbo4: 8 query heads share each KV head"),
    ),
    (
        "llama_kv_cache: Boundary V auto-enabled for turbo2-V (opt-out: TURBO_LAYER_ADAPTIVE=0)",
        Seen("change", "V is q8_0 in the first two and the last two layers"),
    ),
    (
        "llama_kv_cache: Boundary V mode 7: first2+last2 V=q8_0, rest V=turbo2",
        Seen("change", "mode 7: first2+last2 V=q8_0, rest V=turbo2"),
    ),
    (
        "llama_kv_cache: V-only LA mode 6: last8 V=turbo4, rest V=turbo2",
        Seen("change", "mode 6: last8 V=turbo4, rest V=turbo2"),
    ),
    (
        "llama_kv_cache: turbo zero-padding K head_dim 192 -> 256 (cache 3072 -> 4096)",
        Seen("note", "heads of K are padded from 192 to 256 values"),
    ),
    (
        "llama_kv_cache: turbo KV cache requires head_dim divisible by 128, but this model has "
        "n_embd_head_k=64 — falling back to q8_0",
        Seen("change", "q8_0 in every layer: 64 values a head are no multiple of 128"),
    ),
    (
        "[turbo] attention sinks: first 4 positions at fp16 precision",
        Seen("note", "the first 4 tokens are kept in f16 beside the cache"),
    ),
    (
        "llama_init_from_model: K cache type turbo4 with block size 128 does not divide "
        "n_embd_head_k=64",
        Seen("refusal", "K cannot be turbo4: heads of 64 values, blocks of 128"),
    ),
    (
        "llama_init_from_model: V cache quantization requires flash_attn",
        Seen("refusal", "a quantised V needs flash attention"),
    ),
    (
        "quantized V cache was requested, but this requires Flash Attention",
        Seen("refusal", "a quantised V needs flash attention"),
    ),
    ("Unsupported cache type: turbo9", Seen("refusal", "the server knows no type turbo9")),
]


@pytest.mark.parametrize(("line", "meaning"), LINES, ids=[line[:60] for line, _ in LINES])
def test_a_line_has_one_meaning(line: str, meaning: Seen) -> None:
    assert read(f"another line\n{line}\nand another\n") == [meaning]


def test_every_line_of_the_table_is_tested() -> None:
    tested = [word for word in TABLE if any(re.search(word.pattern, line) for line, _ in LINES)]
    assert tested == list(TABLE)


def test_a_prefix_of_time_and_level_does_not_matter() -> None:
    assert [one.kind for one in read(f"0.00.053.450 W {LINES[0][0]}")] == ["documented"]


def test_a_meaning_is_said_once() -> None:
    assert len(read("\n".join([LINES[0][0]] * 3))) == 1


@pytest.mark.parametrize(
    "name", ["spiritbuun-turbo4", "spiritbuun-turbo4-fit", "spiritbuun-turbo4-window"]
)
def test_spiritbuun_on_a_cpu_says_that_it_falls_back(name: str) -> None:
    found = read(real_log(name))
    assert [one.kind for one in found] == ["documented"]


@pytest.mark.parametrize("name", ["mainline-q4_0", "mainline-q4_0-window"])
def test_mainline_has_nothing_to_say(name: str) -> None:
    assert read(real_log(name)) == []


def test_rotation_matrices_are_no_evidence() -> None:
    assert read("llama_kv_cache: TurboQuant rotation matrices initialized (128x128)") == []
