"""Headers of real models, and what their caches take in llama.cpp.

Bytes with f16 at 32768 tokens in one slot, worked out by hand from llama.cpp 0c1e57098
(llama-kv-cache*.cpp, models/*.cpp): layers that see everything, that look back a window, and the
state of the others.
"""

import pytest

from builder.llama.gguf import memory
from builder.llama.gguf.file import Contents, Tensor, Value
from builder.llama.gguf.kv_types import kv_types
from builder.llama.gguf.memory import Slots
from builder.llama.gguf.shape import shape
from builder.model.pins import Kv, Pins

F16, SLOTS = Kv("f16", "f16"), Slots(1, 32768)
MIB = 2**20


def heads(layers: int, query: int, kv: int | list[int], k: int, v: int) -> dict[str, Value]:
    return {
        "block_count": layers,
        "attention.head_count": query,
        "attention.head_count_kv": kv,
        "attention.key_length": k,
        "attention.value_length": v,
    }


def latent(layers: int, query: int, k: int, v: int) -> dict[str, Value]:
    """Multi-head latent attention: heads of K and V, and a latent of 512 beside 64 of position."""
    return heads(layers, query, 1, 576, 512) | {
        "attention.key_length_mla": k,
        "attention.value_length_mla": v,
        "attention.kv_lora_rank": 512,
        "rope.dimension_count": 64,
    }


def windowed(window: int, pattern: list[bool] | None = None, **swa: int) -> dict[str, Value]:
    found: dict[str, Value] = {"attention.sliding_window": window}
    if pattern:
        found["attention.sliding_window_pattern"] = pattern
    return found | {f"attention.{key}_swa": size for key, size in swa.items()}


def state(inner: int, size: int, groups: int = 0) -> dict[str, Value]:
    found: dict[str, Value] = {"ssm.conv_kernel": 4, "ssm.inner_size": inner}
    return found | {"ssm.state_size": size, "ssm.group_count": groups}


def one_in(count: int, layers: int, *, last: bool = True) -> list[bool]:
    """Which layers are not the one of so many that sees everything."""
    return [index % count != (count - 1 if last else 0) for index in range(layers)]


GEMMA4 = [2 if index % 6 == 5 else 8 for index in range(30)]
GRANITE = [8 if index in {5, 15, 25, 35} else 0 for index in range(40)]
JAMBA = [8 if index % 8 == 4 else 0 for index in range(32)]
KIMI = [1 if index in {3, 7, 11, 15, 19, 23, 26} else 0 for index in range(27)]
LFM2 = [8 if index in {2, 5, 8, 10, 12, 14} else 0 for index in range(16)]

MODELS: dict[str, tuple[str, dict[str, Value], tuple[int, int, int]]] = {
    "gemma3-27b": (
        "gemma3",
        heads(62, 32, 16, 128, 128) | windowed(1024),
        (2560 * MIB, 624 * MIB, 0),
    ),
    "gemma3n-e4b": (
        "gemma3n",
        heads(35, 8, 2, 256, 256) | windowed(512, one_in(5, 35)),
        (256 * MIB, 32 * MIB, 0),
    ),
    "gemma4-26b-a4b": (
        "gemma4",
        heads(30, 16, GEMMA4, 512, 512)
        | windowed(1024, one_in(6, 30), key_length=256, value_length=256),
        (640 * MIB, 300 * MIB, 0),
    ),
    "gemma4-e2b": (
        "gemma4",
        heads(35, 8, 1, 512, 512)
        | windowed(512, one_in(5, 35), key_length=256, value_length=256)
        | {"attention.shared_kv_layers": 20},
        (192 * MIB, 12 * MIB, 0),
    ),
    "deepseek-v3": ("deepseek2", latent(61, 128, 192, 128), (2196 * MIB, 0, 0)),
    "glm47-flash": ("deepseek2", latent(47, 20, 256, 256), (1692 * MIB, 0, 0)),
    # Converted before llama.cpp kept a latent: plain K and V, though the header names its rank.
    "deepseek-v2-lite of 2024": (
        "deepseek2",
        heads(27, 16, 16, 192, 128) | {"attention.kv_lora_rank": 512},
        (8640 * MIB, 0, 0),
    ),
    "qwen3next-80b": (
        "qwen3next",
        heads(48, 16, 2, 256, 256) | state(4096, 128, 16),
        (768 * MIB, 0, 79_036_416),
    ),
    "gpt-oss-20b": (
        "gpt-oss",
        heads(24, 64, 8, 64, 64) | windowed(128),
        (768 * MIB, 18 * MIB, 0),
    ),
    "llama4-scout": ("llama4", heads(48, 40, 8, 128, 128), (1536 * MIB, 1224 * MIB, 0)),
    "granite4-h-small": (
        "granitehybrid",
        heads(40, 32, GRANITE, 128, 128) | state(8192, 128, 1),
        (512 * MIB, 0, 154_644_480),
    ),
    "phi3-mini": ("phi3", heads(32, 32, 32, 96, 96) | windowed(2047), (12288 * MIB, 0, 0)),
    "falcon-h1-34b": (
        "falcon-h1",
        heads(72, 20, 4, 128, 128) | state(6144, 256, 2),
        (4608 * MIB, 0, 459_177_984),
    ),
    "glm45-air": (
        "glm4moe",
        heads(47, 96, 8, 128, 128) | {"nextn_predict_layers": 1},
        (5888 * MIB, 0, 0),
    ),
    "bge-large": ("bert", {"block_count": 24, "attention.head_count": 16}, (0, 0, 0)),
    "nomic-embed": ("nomic-bert", {"block_count": 12, "attention.head_count": 12}, (0, 0, 0)),
    "embeddinggemma": ("gemma-embedding", heads(24, 3, 1, 256, 256) | windowed(512), (0, 0, 0)),
    "dream-7b": ("dream", heads(28, 28, 4, 128, 128), (0, 0, 0)),
    "minimax-m1": ("minimax-01", heads(80, 64, 8, 128, 128), (1280 * MIB, 0, 280 * MIB)),
    "olmo3-7b": (
        "olmo2",
        heads(32, 32, 32, 128, 128) | windowed(4096, one_in(4, 32)),
        (4096 * MIB, 1728 * MIB, 0),
    ),
    "lfm2-1.2b": (
        "lfm2",
        heads(16, 32, LFM2, 64, 64) | {"embedding_length": 2048, "shortconv.l_cache": 3},
        (384 * MIB, 0, 163_840),
    ),
    "exaone4-32b": (
        "exaone4",
        heads(64, 40, 8, 128, 128) | windowed(4096, one_in(4, 64)),
        (2048 * MIB, 864 * MIB, 0),
    ),
    "exaone4-1.2b": ("exaone4", heads(30, 32, 8, 64, 64), (1920 * MIB, 0, 0)),
    "qwen35-27b-mtp": (
        "qwen35",
        heads(65, 24, 4, 256, 256) | state(6144, 128, 16) | {"nextn_predict_layers": 1},
        (2048 * MIB, 0, 156_893_184),
    ),
    "jamba-mini": (
        "jamba",
        heads(32, 32, JAMBA, 128, 128) | state(8192, 16),
        (512 * MIB, 0, 17_432_576),
    ),
    "laguna-xs2": (
        "laguna",
        heads(40, 48, 8, 128, 128) | windowed(512),
        (1280 * MIB, 120 * MIB, 0),
    ),
    "kimi-linear-48b": (
        "kimi-linear",
        latent(27, 32, 192, 128)
        | {"attention.head_count_kv": KIMI, "kda.head_dim": 128, "ssm.conv_kernel": 4},
        (252 * MIB, 0, 20 * (3 * 3 * 4096 + 128 * 4096) * 4),
    ),
    "mamba-2.8b": (
        "mamba",
        {"block_count": 64, "attention.head_count": 0} | state(5120, 16),
        (0, 0, 64 * (3 * 5120 + 16 * 5120) * 4),
    ),
    "rwkv6-7b": (
        "rwkv6",
        {"block_count": 32, "embedding_length": 4096, "wkv.head_size": 64},
        (0, 0, 32 * (2 * 4096 + 64 * 4096) * 4),
    ),
    # Whatever the header says, the window is of 4096 tokens.
    "smallthinker-21b": (
        "smallthinker",
        heads(52, 28, 4, 128, 128) | windowed(1024),
        (13 * 64 * MIB, 39 * 9 * MIB, 0),
    ),
    "llama31-405b": ("llama", heads(126, 128, 8, 128, 128), (16128 * MIB, 0, 0)),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_real_model_keeps_what_llama_cpp_keeps(real_pins: Pins, name: str) -> None:
    architecture, keys, right = MODELS[name]
    own = {f"{architecture}.{key}": value for key, value in keys.items()}
    found = shape(own | {"general.architecture": architecture})
    assert found.unknown is None
    types = kv_types(real_pins, "mainline")
    need = memory.kv_need(found, F16, types, SLOTS)
    assert need is not None
    assert (need.full, need.window, memory.state_bytes(found, SLOTS)) == right


def test_an_embedding_without_dimensions_has_no_vocabulary() -> None:
    keys = {"general.architecture": "llama", "llama.block_count": 2}
    found = memory.model(Contents(keys, (Tensor("token_embd.weight", (), 4),)))
    assert found.vocabulary == 0
