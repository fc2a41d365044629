"""Small GGUFs of the shapes that models come in, all weights alike: for their sizes alone."""

from collections.abc import Callable, Iterator
from pathlib import Path

import gguf
import numpy as np

WIDTH, VOCABULARY = 512, 2048

Tensors = Iterator[tuple[str, tuple[int, ...]]]
"""Names and sizes, as numpy counts them; those with one size are f32, others f16."""


def write(path: Path, shape: str) -> Path:
    """Write the model of that shape under `path` and return its path."""
    architecture, layers, keys, tensors = SHAPES[shape]
    file = path / f"{shape}.gguf"
    writer = gguf.GGUFWriter(file, arch=architecture)
    vocabulary = WORDS.get(shape, VOCABULARY)
    writer.add_vocab_size(vocabulary)
    writer.add_context_length(32768)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(layers)
    writer.add_layer_norm_rms_eps(1e-5)
    words = [chr(0x4E00 + number) for number in range(vocabulary)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(words)
    writer.add_token_types([int(gguf.TokenType.NORMAL)] * vocabulary)
    writer.add_token_merges([f"{words[0]} {words[1]}"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    keys(writer)
    norm = "token_embd_norm" if architecture == "lfm2" else "output_norm"
    _add(writer, "token_embd", (vocabulary, WIDTH))
    _add(writer, norm, (WIDTH,))
    for layer in range(layers):
        for name, sizes in tensors(layer):
            _add(writer, f"blk.{layer}.{name}", sizes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _add(writer: gguf.GGUFWriter, name: str, sizes: tuple[int, ...]) -> None:
    plain = len(sizes) == 1 or "conv" in name or "gate_inp" in name
    suffix = "" if name.endswith((".ssm_a", ".bias")) else ".weight"
    writer.add_tensor(f"{name}{suffix}", np.full(sizes, 0.01, "<f4" if plain else "<f2"))


def _attention(heads: int, kv_heads: int, size: int, *, norms: bool = True) -> Tensors:
    yield "attn_norm", (WIDTH,)
    yield "attn_q", (heads * size, WIDTH)
    yield "attn_k", (kv_heads * size, WIDTH)
    yield "attn_v", (kv_heads * size, WIDTH)
    yield "attn_output", (WIDTH, heads * size)
    if norms:
        yield "attn_q_norm", (size,)
        yield "attn_k_norm", (size,)


def _feed_forward(width: int = 4 * WIDTH) -> Tensors:
    yield "ffn_norm", (WIDTH,)
    yield "ffn_gate", (width, WIDTH)
    yield "ffn_up", (width, WIDTH)
    yield "ffn_down", (WIDTH, width)


def _experts(count: int, width: int) -> Tensors:
    yield "ffn_gate_inp", (count, WIDTH)
    yield "ffn_gate_exps", (count, width, WIDTH)
    yield "ffn_up_exps", (count, width, WIDTH)
    yield "ffn_down_exps", (count, WIDTH, width)


def _heads(
    writer: gguf.GGUFWriter, heads: int, kv_heads: int | list[int], size: int, *, feed: int
) -> None:
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_feed_forward_length(feed)


def _dense_keys(writer: gguf.GGUFWriter) -> None:
    _heads(writer, 4, 4, 128, feed=4 * WIDTH)


def _dense(_layer: int) -> Tensors:
    yield from _attention(4, 4, 128, norms=False)
    yield from _feed_forward()


def _grouped_keys(writer: gguf.GGUFWriter) -> None:
    _heads(writer, 8, 2, 128, feed=4 * WIDTH)


def _grouped(_layer: int) -> Tensors:
    yield from _attention(8, 2, 128)
    yield from _feed_forward()


def _wide_keys(writer: gguf.GGUFWriter) -> None:
    _heads(writer, 4, 1, 256, feed=4 * WIDTH)


def _wide(_layer: int) -> Tensors:
    yield from _attention(4, 1, 256)
    yield from _feed_forward()


def _window_keys(writer: gguf.GGUFWriter) -> None:
    _heads(writer, 4, 2, 128, feed=4 * WIDTH)
    writer.add_sliding_window(1024)


def _window(_layer: int) -> Tensors:
    yield from _attention(4, 2, 128)
    yield from _feed_forward()
    yield "post_attention_norm", (WIDTH,)
    yield "post_ffw_norm", (WIDTH,)


def _experts_keys(writer: gguf.GGUFWriter) -> None:
    _heads(writer, 4, 2, 128, feed=WIDTH)
    writer.add_expert_count(16)
    writer.add_expert_used_count(4)
    writer.add_expert_feed_forward_length(256)


def _mixture(_layer: int) -> Tensors:
    yield from _attention(4, 2, 128)
    yield "ffn_norm", (WIDTH,)
    yield from _experts(16, 256)


_STATE, _GROUPS, _INNER, _KERNEL = 128, 2, 512, 4


def _hybrid_keys(writer: gguf.GGUFWriter) -> None:
    _experts_keys(writer)
    writer.add_rope_dimension_sections([11, 11, 10, 0])
    writer.add_expert_shared_feed_forward_length(256)
    writer.add_ssm_conv_kernel(_KERNEL)
    writer.add_ssm_inner_size(_INNER)
    writer.add_ssm_state_size(_STATE)
    writer.add_ssm_time_step_rank(_INNER // _STATE)
    writer.add_ssm_group_count(_GROUPS)


def _hybrid(layer: int) -> Tensors:
    """qwen35moe: every fourth layer attends, the others keep a gated delta net's state."""
    if (layer + 1) % 4 == 0:
        for name, sizes in _attention(4, 2, 128):
            yield name, (2 * sizes[0], *sizes[1:]) if name == "attn_q" else sizes
    else:
        values, channels = _INNER // _STATE, _INNER + 2 * _GROUPS * _STATE
        yield "attn_norm", (WIDTH,)
        yield "attn_qkv", (channels, WIDTH)
        yield "attn_gate", (_INNER, WIDTH)
        yield "ssm_conv1d", (channels, _KERNEL)
        yield "ssm_dt.bias", (values,)
        yield "ssm_a", (values,)
        yield "ssm_beta", (values, WIDTH)
        yield "ssm_alpha", (values, WIDTH)
        yield "ssm_norm", (_STATE,)
        yield "ssm_out", (WIDTH, _INNER)
    yield "post_attention_norm", (WIDTH,)
    yield from _experts(16, 256)
    yield "ffn_gate_inp_shexp", (WIDTH,)
    yield "ffn_gate_shexp", (256, WIDTH)
    yield "ffn_up_shexp", (256, WIDTH)
    yield "ffn_down_shexp", (WIDTH, 256)


def _convolution_keys(writer: gguf.GGUFWriter) -> None:
    _heads(writer, 4, [0, 0, 2, 0, 0, 2], 128, feed=4 * WIDTH)
    writer.add_shortconv_l_cache(3)


def _convolution(layer: int) -> Tensors:
    """lfm2: two of six layers attend, the others keep a short convolution's state."""
    if layer in {2, 5}:
        yield from _attention(4, 2, 128)
    else:
        yield "attn_norm", (WIDTH,)
        yield "shortconv.conv", (WIDTH, 3)
        yield "shortconv.in_proj", (3 * WIDTH, WIDTH)
        yield "shortconv.out_proj", (WIDTH, WIDTH)
    yield from _feed_forward()


def _latent_keys(writer: gguf.GGUFWriter) -> None:
    writer.add_head_count(4)
    writer.add_head_count_kv(1)
    writer.add_key_length(512 + 64)
    writer.add_value_length(512)
    writer.add_key_length_mla(192)
    writer.add_value_length_mla(128)
    writer.add_q_lora_rank(256)
    writer.add_kv_lora_rank(512)
    writer.add_rope_dimension_count(64)
    writer.add_feed_forward_length(4 * WIDTH)
    writer.add_leading_dense_block_count(4)
    writer.add_expert_feed_forward_length(256)
    writer.add_expert_shared_count(1)
    writer.add_expert_weights_scale(1.0)


def _latent(_layer: int) -> Tensors:
    """deepseek2: a latent of 512 and 64 of position stand for K and V of four heads."""
    yield "attn_norm", (WIDTH,)
    yield "attn_q_a", (256, WIDTH)
    yield "attn_q_a_norm", (256,)
    yield "attn_q_b", (4 * 192, 256)
    yield "attn_kv_a_mqa", (512 + 64, WIDTH)
    yield "attn_kv_a_norm", (512,)
    yield "attn_k_b", (4, 512, 128)
    yield "attn_v_b", (4, 128, 512)
    yield "attn_output", (WIDTH, 4 * 128)
    yield from _feed_forward()


def _full_first_keys(writer: gguf.GGUFWriter) -> None:
    _heads(writer, 4, 2, 128, feed=4 * WIDTH)
    writer.add_sliding_window(512)
    writer.add_leading_dense_block_count(8)
    writer.add_expert_feed_forward_length(256)


def _full_first(_layer: int) -> Tensors:
    """laguna: the first of four layers sees everything."""
    yield from _attention(4, 2, 128)
    yield "attn_gate", (4, WIDTH)
    yield from _feed_forward()


def _lightning_keys(writer: gguf.GGUFWriter) -> None:
    _heads(writer, 4, 2, 128, feed=256)
    writer.add_residual_scale(1.0)
    writer.add_expert_count(16)
    writer.add_expert_used_count(4)


def _lightning(layer: int) -> Tensors:
    """minimax-01: every eighth layer attends, the others keep the state of lightning attention."""
    if (layer + 1) % 8 == 0:
        yield from _attention(4, 2, 128, norms=False)
    else:
        yield "attn_norm", (WIDTH,)
        yield "attn_norm_2", (4 * 128,)
        yield "attn_qkv", (3 * 4 * 128, WIDTH)
        yield "attn_gate", (4 * 128, WIDTH)
        yield "attn_output", (WIDTH, 4 * 128)
    yield "ffn_norm", (WIDTH,)
    yield from _experts(16, 256)


SHAPES: dict[str, tuple[str, int, Callable[[gguf.GGUFWriter], None], Callable[[int], Tensors]]] = {
    "dense": ("llama", 4, _dense_keys, _dense),
    "grouped": ("qwen3", 4, _grouped_keys, _grouped),
    "head-256": ("qwen3", 4, _wide_keys, _wide),
    "window": ("gemma3", 6, _window_keys, _window),
    "experts": ("qwen3moe", 4, _experts_keys, _mixture),
    "hybrid": ("qwen35moe", 8, _hybrid_keys, _hybrid),
    "vocabulary": ("llama", 4, _dense_keys, _dense),
    "latent": ("deepseek2", 4, _latent_keys, _latent),
    "full-first": ("laguna", 8, _full_first_keys, _full_first),
    "lightning": ("minimax-01", 8, _lightning_keys, _lightning),
    "convolution": ("lfm2", 6, _convolution_keys, _convolution),
}
"""Architecture, layers, keys and a layer's tensors of each."""

WORDS = {"vocabulary": 20480}
"""The size of a vocabulary, where it is not VOCABULARY."""
