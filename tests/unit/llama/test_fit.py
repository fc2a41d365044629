"""What fits a card, told from a header."""

import dataclasses
import json
import os
from pathlib import Path

import gguf
import numpy as np
import pytest

from builder.common.errors import UsageError
from builder.llama.gguf import file as gguf_file
from builder.llama.gguf import fit as fits
from builder.llama.gguf import memory
from builder.llama.gguf.file import Contents
from builder.llama.gguf.fit import GIB, Fit, Request, Row, parse_size
from builder.llama.gguf.memory import KvNeed, Model, Slots, Weights
from builder.llama.gguf.shape import KvLayer, KvShape
from builder.model.pins import Kv, Pins
from tests.conftest import builder
from tests.support import shapes

TURBO4 = Kv("turbo4", "turbo4")
Q4_K_BYTES, Q4_K_VALUES = 144, 256


def big_header(path: Path, *, layers: int = 40, head: int = 128, next_layers: int = 0) -> Path:
    """The header of a 30B mixture of experts in Q4_K, and none of its 17 GB."""
    writer = gguf.GGUFWriter(path, arch="qwen3moe")
    writer.add_block_count(layers + next_layers)
    writer.add_context_length(262144)
    writer.add_embedding_length(2048)
    writer.add_head_count(32)
    writer.add_head_count_kv(4)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_expert_feed_forward_length(768)
    writer.add_expert_used_count(8)
    if next_layers:
        writer.add_nextn_predict_layers(next_layers)
    described = {"token_embd": (151936, 2048), "output": (151936, 2048)}
    for layer in range(layers + next_layers):
        described[f"blk.{layer}.attn_q"] = (32 * head, 2048)
        for part in ("gate", "up", "down"):
            described[f"blk.{layer}.ffn_{part}_exps"] = (128, 768, 2048)
    for name, sizes in described.items():
        count = int(np.prod(sizes))
        writer.add_tensor_info(
            f"{name}.weight",
            sizes,
            np.dtype(np.float32),
            count // Q4_K_VALUES * Q4_K_BYTES,
            raw_dtype=gguf.GGMLQuantizationType.Q4_K,
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    return path


def asked(path: Path, pins: Pins, **changes: object) -> Fit:
    request = dataclasses.replace(Request(path, vram=24 * GIB), **changes)  # type: ignore[arg-type]
    return fits.fit(request, pins, "spiritbuun-cuda12-sm86")


def row(found: Fit, kv: str) -> Row:
    return next(one for one in found.rows if one.kv == kv)


@pytest.fixture
def big(tmp_path: Path) -> Path:
    return big_header(tmp_path / "big.gguf")


def test_the_header_alone_weighs_the_model(big: Path):
    matrix = 151936 * 2048 * Q4_K_BYTES // Q4_K_VALUES
    layer = (32 * 128 * 2048 + 3 * 128 * 768 * 2048) * Q4_K_BYTES // Q4_K_VALUES
    weights = memory.model(gguf_file.read(big)).weights
    assert (weights.card, weights.host) == (matrix + 40 * layer, matrix)


def test_what_follows_the_header_changes_nothing(tmp_path: Path):
    whole = shapes.write(tmp_path, "grouped")
    tensors = gguf_file.read(whole).tensors
    os.truncate(whole, whole.stat().st_size - sum(each.size_bytes for each in tensors))
    assert gguf_file.read(whole).tensors == tensors


def test_a_cut_header_is_no_model(big: Path):
    os.truncate(big, big.stat().st_size // 2)
    with pytest.raises(UsageError, match=r"the header of .* cannot be read"):
        gguf_file.read(big)


def test_a_type_that_only_a_fork_knows_is_weighed_by_its_place(tmp_path: Path):
    writer = gguf.GGUFWriter(tmp_path / "own.gguf", arch="llama")
    writer.add_tensor("first.weight", np.zeros(64, "<f4"))
    writer.add_tensor("last.weight", np.zeros(128, "<f4"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    content = (tmp_path / "own.gguf").read_bytes()
    f32 = (128).to_bytes(8, "little") + (0).to_bytes(4, "little")
    own = (128).to_bytes(8, "little") + (4711).to_bytes(4, "little")
    (tmp_path / "own.gguf").write_bytes(content.replace(f32, own))
    sizes = [each.size_bytes for each in gguf_file.read(tmp_path / "own.gguf").tensors]
    assert sizes == [256, 512]


def test_a_model_in_two_files_is_weighed_whole(tmp_path: Path):
    first = big_header(tmp_path / "m-00001-of-00002.gguf", layers=1)
    big_header(tmp_path / "m-00002-of-00002.gguf", layers=1)
    alone = gguf_file.read(big_header(tmp_path / "one.gguf", layers=1)).tensors
    assert gguf_file.read(first).tensors == alone + alone


def test_a_file_of_several_that_is_missing_is_named(tmp_path: Path):
    first = big_header(tmp_path / "m-00001-of-00002.gguf", layers=1)
    with pytest.raises(UsageError) as error:
        gguf_file.read(first)
    assert "m-00002-of-00002.gguf" in error.value.why


def test_an_output_that_is_the_input_is_in_both_places(tmp_path: Path):
    weights = memory.model(gguf_file.read(shapes.write(tmp_path, "grouped"))).weights
    assert weights.tied == weights.host == shapes.VOCABULARY * shapes.WIDTH * 2
    assert weights.without_card == weights.card


def test_layers_for_drafting_are_not_counted(tmp_path: Path):
    plain = memory.model(gguf_file.read(big_header(tmp_path / "a.gguf", layers=2))).weights
    more = memory.model(
        gguf_file.read(big_header(tmp_path / "b.gguf", layers=2, next_layers=1))
    ).weights
    query = 32 * 128 * 2048 * Q4_K_BYTES // Q4_K_VALUES
    assert (more.card, more.draft) == (plain.card, plain.experts[0] + query)


def test_a_window_does_not_grow_with_the_context(tmp_path: Path, real_pins: Pins):
    found = asked(shapes.write(tmp_path, "window"), real_pins)
    # One layer of six sees everything: K and V of 2 heads of 128 values, 2 bytes each.
    assert row(found, "f16").token_bytes == 2 * 2 * 128 * 2


def test_kv_is_told_by_the_kind_of_layer(tmp_path: Path, real_pins: Pins):
    need = row(asked(shapes.write(tmp_path, "window"), real_pins, ctx=8192), "f16").needs[0]
    # One layer of 8192 cells, five of 1024 + 512: 2 KV heads of 128 values, K and V, 2 bytes each.
    assert (need.full, need.window, need.recurrent) == (8192 * 1024, 5 * 1536 * 1024, 0)


def test_a_recurrent_state_does_not_grow(tmp_path: Path, real_pins: Pins):
    needs = row(asked(shapes.write(tmp_path, "hybrid"), real_pins), "f16").needs
    # Six layers: 3 × (512 + 2 × 2 × 128) of convolution and 128 × 512 of state, 4 bytes each.
    assert {need.recurrent for need in needs} == {6 * (3 * 1024 + 128 * 512) * 4}


def test_the_largest_context_is_the_last_that_fits(big: Path, real_pins: Pins):
    found = asked(big, real_pins, vram=18 * GIB)
    largest = row(found, "f16").largest
    assert largest

    def fits_with(tokens: int) -> bool:
        return row(asked(big, real_pins, vram=18 * GIB, ctx=tokens), "f16").needs[0].fits is True

    assert (fits_with(largest), fits_with(largest + 256)) == (True, False)


def test_turbo4_gives_a_longer_context_than_f16(big: Path, real_pins: Pins):
    found = asked(big, real_pins, vram=18 * GIB)
    assert (row(found, "turbo4").largest or 0) > 3 * (row(found, "f16").largest or 0)


def test_a_build_that_reserves_logits_of_slots_alone_takes_less(tmp_path: Path, real_pins: Pins):
    # gemma3-4b at 131072 tokens: mainline 0c1e57098 logged a compute buffer of 203 MiB.
    layers = tuple(KvLayer(4, 256, 256, 0 if each % 6 == 5 else 1024) for each in range(34))
    shape = KvShape("gemma3", layers)
    gemma = Model(Weights(0, 0), shape, 131072, vocabulary=262144, width=2560, feed=10240)
    few = memory.compute_bytes(gemma, Slots(1, 131072, outputs=1))
    every = memory.compute_bytes(gemma, Slots(1, 131072))
    assert few == pytest.approx(203 * 2**20, rel=0.05)
    assert every == pytest.approx(517 * 2**20, rel=0.01)
    head = big_header(tmp_path / "big.gguf")
    computed = {
        variant: fits.fit(Request(head, vram=None, ctx=4096), real_pins, variant).rows[0].needs[0]
        for variant in ("mainline-cpu", "mainline-cuda12-sm86", "spiritbuun-cuda12-sm86")
    }
    assert computed["mainline-cpu"].compute < computed["mainline-cuda12-sm86"].compute
    assert computed["mainline-cuda12-sm86"].compute == computed["spiritbuun-cuda12-sm86"].compute


@pytest.mark.parametrize(
    ("keys", "feed"),
    [
        ({"feed_forward_length": 2048}, 2048),
        ({"feed_forward_length": 6144, "expert_feed_forward_length": 256}, 4 * 256),
        ({"expert_feed_forward_length": 256, "expert_shared_feed_forward_length": 512}, 1536),
        ({"feed_forward_length": 256, "expert_count": 16}, 4 * 256),
        (
            {
                "feed_forward_length": 6144,
                "expert_feed_forward_length": 256,
                "leading_dense_block_count": 1,
            },
            6144,
        ),
    ],
    ids=["dense", "experts", "a shared one", "experts as wide as the header's", "dense first"],
)
def test_the_widest_layer_sizes_the_buffer(keys: dict[str, int], feed: int):
    own = {f"x.{key}": value for key, value in (keys | {"expert_used_count": 4}).items()}
    found = memory.model(Contents(own | {"general.architecture": "x"}, ()))
    assert found.feed == feed


def test_slots_add_up(big: Path, real_pins: Pins):
    model = memory.model(gguf_file.read(big))
    types = real_pins.forks["spiritbuun"].kv_types
    one = memory.kv_need(model.shape, TURBO4, types, Slots(1, 8192))
    # 40 layers, K and V of 4 heads of 128 values in blocks of 66 bytes.
    assert one == KvNeed(full=40 * 2 * 4 * 66 * 8192, window=0)
    assert memory.kv_need(model.shape, TURBO4, types, Slots(3, 8192)) == KvNeed(3 * one.full, 0)


def test_the_flags_serve_what_fits(big: Path, real_pins: Pins):
    found = asked(big, real_pins, kv=TURBO4, parallel=2)
    assert found.rows[0].flags == "-ngl 999 -fa on -ctk turbo4 -ctv turbo4 -np 2 -c 65536"


def test_heads_that_turbo_cannot_take_are_refused(tmp_path: Path, real_pins: Pins):
    found = asked(big_header(tmp_path / "narrow.gguf", head=64), real_pins)
    refused = "turbo4: blocks of 128 values do not divide heads of 64: the server refuses it"
    assert row(found, "turbo4").refused == refused
    assert row(found, "turbo4").flags == ""
    assert refused in found.notes
    assert not row(found, "q8_0").refused
    assert not row(found, "turbo3").refused


def test_experts_that_could_go_to_the_cpu_are_counted(big: Path, real_pins: Pins):
    found = asked(big, real_pins, vram=12 * GIB)
    assert not found.fits
    least = min(need.total for one in found.rows for need in one.needs) - 12 * GIB
    layers = -(-least // found.weights.experts[0])
    assert [note.split(" leaves ")[0] for note in found.notes] == [f"-ncmoe {layers}"]


def test_without_a_card_nothing_is_said_to_fit(big: Path, real_pins: Pins):
    needs = asked(big, real_pins, vram=None).rows[0].needs
    assert {need.fits for need in needs} == {None}


def test_more_than_it_was_trained_for_is_told(big: Path, real_pins: Pins):
    found = asked(big, real_pins, ctx=300_000)
    assert found.notes == ["300000 tokens are more than the 262144 it was trained for"]


def test_what_does_not_fit_is_exit_1(big: Path):
    result = builder("fit", "--model", big, "--vram", "16G", "--kv", "f16", "--ctx", "262144")
    assert result.returncode == 1


def test_what_fits_is_exit_0_and_json_has_it(big: Path):
    result = builder("fit", "--model", big, "--vram", "24G", "--kv", "turbo4", "--json")
    told = json.loads(result.stdout)
    assert (result.returncode, told["schema"], told["fits"]) == (0, 1, True)


@pytest.mark.parametrize("option", [("--vram", "24 apples"), ("--kv", "turbo5"), ("--ctx", "0")])
def test_a_wrong_option_is_exit_2(big: Path, option: tuple[str, str]):
    assert builder("fit", "--model", big, *option).returncode == 2


@pytest.mark.parametrize(
    ("text", "size"),
    [
        *((text, 24 * 2**30) for text in ("24", "24G", "24g", "24GB", "24GiB", "24 gib", "24.0")),
        *((text, 512 * 2**20) for text in ("512M", "512mib", "0.5", "0.5g")),
    ],
)
def test_a_size_is_written_as_people_write_it(text: str, size: int) -> None:
    assert parse_size(text, "--vram") == size


@pytest.mark.parametrize("text", ["", "G", "24T", "24X", "-1", "1e3", "24 G B", "٢٤"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--vram: .* is no size"):
        parse_size(text, "--vram")
