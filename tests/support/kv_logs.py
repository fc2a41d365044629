"""Logs of real servers, and size lines of made-up ones, for tests of the KV type in effect."""

from pathlib import Path

import numpy as np

from builder.llama.gguf.shape import KvLayer, KvShape
from builder.model.pins import MAINLINE_KV_TYPES, Kv, KvType

LOGS = Path(__file__).parents[1] / "samples" / "kv"

SCRIPTED = KvShape("llama", (KvLayer(heads=2, k=128, v=128),) * 8)
WINDOWS = KvShape(
    "gemma3",
    (KvLayer(heads=1, k=256, v=256, window=512),) * 5 + (KvLayer(heads=1, k=256, v=256),),
)


def real_log(name: str) -> str:
    """What a real server said of its contexts, on a machine without a GPU, at `-lv 4`."""
    return (LOGS / f"{name}.log").read_text(encoding="utf-8")


def weight(widths: list[tuple[int, int]], name: str, kind: KvType) -> int:
    """Bytes of a cell, as llama.cpp allocates it: forks pad heads to 128, and it does not."""
    assert kind.block_bytes
    assert kind.block_values
    group = 1 if name in MAINLINE_KV_TYPES else 128
    values = sum(heads * -(-size // group) * group for heads, size in widths)
    return values * kind.block_bytes // kind.block_values


def line(weights: tuple[int, int], names: Kv, *, layers: int, cells: int, streams: int) -> str:
    """A size line as llama-server prints it, 32-bit sizes and all."""
    k, v = (np.float32(each * cells * streams) / np.float32(1024 * 1024) for each in weights)
    return (
        f"llama_kv_cache: size = {k + v:7.2f} MiB ({cells:6d} cells, {layers:3d} layers, "
        f"{streams:2d}/{streams} seqs), K ({names.k}): {k:7.2f} MiB, V ({names.v}): {v:7.2f} MiB\n"
    )


def made(shape: KvShape, held: Kv, types: dict[str, KvType], asked: Kv) -> str:
    """The line of a cache that holds one type while another was asked for."""
    return line(
        (
            weight([(each.heads, each.k) for each in shape.layers], held.k, types[held.k]),
            weight([(each.heads, each.v) for each in shape.layers], held.v, types[held.v]),
        ),
        asked,
        layers=len(shape.layers),
        cells=2048,
        streams=2,
    )
