"""The KV types of a fork."""

from builder.model.pins import MAINLINE_KV_TYPES, KvType, Pins


def kv_types(pins: Pins, fork: str | None) -> dict[str, KvType]:
    """The KV types of a fork, its own after llama.cpp's. None: llama.cpp's alone."""
    import gguf

    found = {}
    for name in MAINLINE_KV_TYPES:
        values, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name.upper()]]
        found[name] = KvType(size, values, pins.kv_bands.get(name))
    return found | (pins.forks[fork].kv_types if fork in pins.forks else {})
