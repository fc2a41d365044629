"""The shape of the KV cache, from the header of a GGUF."""

import os
import time
from pathlib import Path

import gguf
import pytest

from builder.common.errors import UsageError
from builder.llama.gguf.file import Value
from builder.llama.gguf.scripted import scripted_model
from builder.llama.gguf.shape import KvLayer, KvShape, read, shape

PLAIN: dict[str, Value] = {"block_count": 4, "embedding_length": 512, "attention.head_count": 8}


def of(architecture: str, **changes: Value) -> KvShape:
    """The shape of a plain header with these keys besides; `__` stands for a dot."""
    keys = PLAIN | {key.replace("__", "."): value for key, value in changes.items()}
    own = {f"{architecture}.{key}": value for key, value in keys.items() if value is not None}
    return shape(own | {"general.architecture": architecture})


def windows(found: KvShape) -> list[int]:
    return [layer.window for layer in found.layers]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A header with a vocabulary of 250,000, and 20 GB of nothing after it."""
    path = tmp_path_factory.mktemp("large") / "large.gguf"
    writer = gguf.GGUFWriter(path, arch="qwen3")
    writer.add_block_count(2)
    writer.add_embedding_length(256)
    writer.add_head_count(4)
    writer.add_token_list([f"token {number}" for number in range(250_000)])
    writer.add_token_merges([f"{number} {number}" for number in range(250_000)])
    writer.add_head_count_kv(2)
    writer.add_key_length(96)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    os.truncate(path, 20_000_000_000)
    return path


def test_the_scripted_model(tmp_path: Path) -> None:
    found = read(scripted_model(tmp_path))
    assert found == KvShape("llama", (KvLayer(heads=2, k=128, v=128),) * 8)


def test_the_scripted_model_with_windows(tmp_path: Path) -> None:
    found = read(scripted_model(tmp_path, "scripted-swa"))
    assert found.cache(windowed=True) == (KvLayer(heads=1, k=256, v=256, window=512),) * 5
    assert found.cache(windowed=False) == (KvLayer(heads=1, k=256, v=256),)


def test_keys_after_a_long_vocabulary_are_read(large: Path) -> None:
    assert read(large).layers == (KvLayer(heads=2, k=96, v=64),) * 2


def test_a_large_file_is_read_in_half_a_second_of_processor_time(large: Path) -> None:
    started = time.process_time()
    read(large)
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GGUF",
        b"\x80\x02}q\x00pickle of somebody",
        b"GGUF\x01\x00\x00\x00" + bytes(64),
        b"GGUF\x00\x00\x00\x03" + bytes(64),
        b"GGUF\x03\x00\x00\x00" + bytes(8) + b"\x01" + bytes(7) + b"\xff" * 8,
        b"GGUF\x03\x00\x00\x00" + bytes(8) + b"\x01" + bytes(15) + b"\x63\x00\x00\x00" + bytes(8),
    ],
    ids=["empty", "short", "no gguf", "version 1", "other order", "cut in a key", "unknown kind"],
)
def test_a_file_without_a_header_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=str(path)):
        read(path)


def test_a_header_that_is_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = scripted_model(tmp_path).read_bytes()
    path = tmp_path / "cut.gguf"
    for size in range(30, 2000, 61):
        path.write_bytes(whole[:size])
        with pytest.raises(UsageError):
            read(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read(tmp_path / "none.gguf")


def test_without_other_keys_each_head_has_an_even_share() -> None:
    assert of("qwen3").layers == (KvLayer(heads=8, k=64, v=64),) * 4


def test_k_and_v_may_be_of_different_width() -> None:
    found = of("qwen3", attention__key_length=192, attention__value_length=128)
    assert (found.layers[0].k, found.layers[0].v) == (192, 128)


def test_kv_heads_may_differ_by_layer() -> None:
    found = of("deci", attention__head_count_kv=[8, 0, 2, 4])
    assert [layer.heads for layer in found.layers] == [8, 0, 2, 4]


def test_a_list_that_is_too_short_tells_nothing() -> None:
    found = of("deci", attention__head_count_kv=[8, 2])
    assert "2 values for 4 layers" in (found.unknown or "")


@pytest.mark.parametrize(
    ("architecture", "count", "full"),
    [
        ("gemma2", 4, [1, 3]),
        ("gemma3", 14, [5, 11]),
        ("gpt-oss", 4, [1, 3]),
        ("cohere2", 8, [3, 7]),
        ("plamo3", 8, [7]),
    ],
)
def test_every_so_many_layers_look_back_all_the_way(
    architecture: str, count: int, full: list[int]
) -> None:
    found = of(architecture, block_count=count, attention__sliding_window=128)
    assert [i for i, window in enumerate(windows(found)) if not window] == full
    assert set(windows(found)) == {0, 128}


def test_the_header_says_how_often() -> None:
    found = of("gemma3", attention__sliding_window=64, attention__sliding_window_pattern=2)
    assert windows(found) == [64, 0, 64, 0]


def test_the_header_says_which() -> None:
    pattern = [True, False, False, True]
    found = of("gemma4", attention__sliding_window=64, attention__sliding_window_pattern=pattern)
    assert windows(found) == [64, 0, 0, 64]


def test_layers_with_a_window_may_have_heads_of_another_width() -> None:
    found = of(
        "gemma4",
        attention__sliding_window=64,
        attention__sliding_window_pattern=[True, False, True, False],
        attention__key_length=512,
        attention__key_length_swa=256,
    )
    assert [layer.k for layer in found.layers] == [256, 512, 256, 512]


def test_no_window_in_the_header_means_none() -> None:
    assert windows(of("gemma3")) == [0] * 4


def test_gemma2_has_its_window_unsaid() -> None:
    assert windows(of("gemma2")) == [4096, 0, 4096, 0]


@pytest.mark.parametrize(("said", "used"), [(None, 8192), (4096, 8192), (0, 0)])
def test_llama4_has_its_own_window_or_none(said: int | None, used: int) -> None:
    assert windows(of("llama4", attention__sliding_window=said)) == [used, used, used, 0]


@pytest.mark.parametrize(
    ("layers", "said", "used"), [(64, None, 4096), (64, 2048, 2048), (30, 2048, 0), (30, None, 0)]
)
def test_exaone4_has_windows_in_its_large_model_alone(
    layers: int, said: int | None, used: int
) -> None:
    found = of("exaone4", block_count=layers, attention__sliding_window=said)
    assert windows(found)[:4] == [used, used, used, 0]


def test_smallthinker_has_its_own_window_or_none() -> None:
    assert windows(of("smallthinker", attention__sliding_window=1024)) == [0, 4096, 4096, 4096]
    assert windows(of("smallthinker")) == [0] * 4


def test_every_attention_layer_of_lfm2_has_the_window_that_it_names() -> None:
    heads = [0, 2, 0, 2]
    found = of("lfm2", attention__sliding_window=256, attention__head_count_kv=heads)
    assert windows(found) == [256, 256]


def test_phi3_does_not_use_the_window_it_names() -> None:
    assert windows(of("phi3", attention__sliding_window=2048)) == [0] * 4


def test_the_first_of_four_layers_of_laguna_looks_back_all_the_way() -> None:
    found = of("laguna", block_count=8, attention__sliding_window=512)
    assert windows(found) == [0, 512, 512, 512] * 2


def test_without_a_window_every_layer_of_laguna_does() -> None:
    assert windows(of("laguna")) == [0] * 4


def test_a_latent_stands_for_k_and_v_where_both_lengths_are_named() -> None:
    lengths: dict[str, Value] = {"attention__key_length": 576, "attention__value_length": 512}
    one = of("deepseek2", attention__key_length_mla=192, **lengths)
    both = of(
        "deepseek2", attention__key_length_mla=192, attention__value_length_mla=128, **lengths
    )
    assert {(layer.k, layer.v) for layer in one.layers} == {(576, 512)}
    assert {(layer.k, layer.v) for layer in both.layers} == {(576, 0)}


@pytest.mark.parametrize("architecture", ["bert", "modern-bert", "gemma-embedding", "llada-moe"])
def test_encoders_and_what_diffuses_have_no_cache(architecture: str) -> None:
    assert of(architecture, attention__sliding_window=128) == KvShape(architecture)


def test_every_eighth_layer_of_minimax_has_attention_and_the_others_a_state() -> None:
    found = of("minimax-01", block_count=16, attention__key_length=128)
    assert (len(found.layers), found.recurrent) == (2, 14)
    assert found.state_values == 14 * 128 * 128 * 8


@pytest.mark.parametrize("architecture", ["qwen3next", "qwen35", "qwen35moe"])
def test_every_fourth_layer_of_qwens_hybrids_has_attention(architecture: str) -> None:
    found = of(architecture, block_count=12, ssm__state_size=128)
    assert len(found.layers) == 3


def test_the_header_of_a_hybrid_says_how_often() -> None:
    found = of("qwen35", block_count=12, full_attention_interval=3)
    assert len(found.layers) == 4


def test_the_header_of_a_hybrid_says_which() -> None:
    found = of("qwen35", attention__recurrent_layers=[False, True, True, False])
    assert len(found.layers) == 2


def test_no_kv_heads_mean_no_attention_in_a_hybrid() -> None:
    found = of("granitehybrid", attention__head_count_kv=[0, 4, 0, 0], ssm__state_size=128)
    assert [layer.heads for layer in found.layers] == [4]


def test_every_layer_of_falcon_h1_has_attention() -> None:
    assert len(of("falcon-h1", ssm__state_size=128).layers) == 4


def test_layers_have_their_place_and_kv_heads_the_query_heads_that_share_them() -> None:
    found = of("qwen35", block_count=12, attention__head_count=28, attention__head_count_kv=4)
    assert [layer.index for layer in found.layers] == [3, 7, 11]
    assert (found.total, found.queries) == (12, 7)


def test_a_first_layer_without_kv_heads_shares_none() -> None:
    found = of("granitehybrid", attention__head_count_kv=[0, 4, 0, 0])
    assert found.queries == 1


def test_layers_for_drafting_are_apart() -> None:
    found = of("glm4moe", nextn_predict_layers=1)
    assert (len(found.layers), len(found.draft)) == (3, 1)


def test_layers_that_share_the_cache_of_others_have_none() -> None:
    assert len(of("gemma3n", block_count=30, attention__sliding_window=512).layers) == 20
    found = of(
        "gemma4",
        attention__shared_kv_layers=1,
        attention__sliding_window=512,
        attention__sliding_window_pattern=[True, True, True, False],
    )
    assert len(found.layers) == 3


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (of("deepseek32", attention__indexer__head_count=64), "an indexer's keys"),
        (of("qwen3", block_count=513), "llama.cpp takes 1 to 512"),
        (of("qwen3", block_count=-1), "block_count is '-1'"),
        (of("qwen3", attention__head_count_kv=2**63), "which is impossible"),
        (of("qwen3", attention__head_count_kv=[1.5] * 4), "which is impossible"),
        (of("qwen3", nextn_predict_layers=5), "more layers for drafting"),
        (of("a\x1b[31m"), "no name of an architecture"),
        (of("mamba3", ssm__state_size=128), "which of its layers have attention"),
        (of("tomorrow", attention__sliding_window=128), "which of its layers look back a window"),
        (of("gemma4", attention__sliding_window=128), "does not say which layers"),
        (of("qwen3", block_count=None), "no block_count"),
        (of("qwen3", attention__head_count=None), "no attention.head_count"),
        (of("qwen3", embedding_length=None), "no size of a head"),
        (shape({}), "no block_count"),
    ],
)
def test_a_shape_that_the_header_does_not_tell_is_not_guessed(found: KvShape, why: str) -> None:
    assert why in (found.unknown or "")
    assert found.layers == ()
