"""What a fork holds in each layer when it is asked for types, and how many bytes that takes.

The rules of each fork lie in its row of pins.toml; llama.cpp has none but that blocks divide heads.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from builder.llama.gguf.shape import KvLayer, KvShape
from builder.model.pins import MAINLINE_KV_TYPES, Kv, KvRules, KvType

NO_RULES = KvRules()
_SAFE, _WIDE = "q8_0", "f16"


@dataclass(frozen=True, slots=True)
class Held:
    """K or V of one layer: its type, KV heads, and values a head with what pads them."""

    name: str
    heads: int
    size: int

    def cell_bytes(self, types: Mapping[str, KvType]) -> int | None:
        """Bytes of one cell; None: not known, or such heads cannot be of this type."""
        kind = types.get(self.name, KvType())
        if kind.block_bytes is None or kind.block_values is None:
            return None
        blocks, left = divmod(self.heads * self.size, kind.block_values)
        return None if left else blocks * kind.block_bytes


def in_force(rules: KvRules, env: Mapping[str, str]) -> KvRules:
    """The rules without those that the server's environment turns off."""

    def off(name: str | None) -> bool:
        return name is not None and env.get(name, "").startswith("0")

    return dataclasses.replace(
        rules,
        shared_k=None if rules.shared_k and off(rules.shared_k.off) else rules.shared_k,
        edge_v=None if rules.edge_v and off(rules.edge_v.off) else rules.edge_v,
    )


def hold(shape: KvShape, layer: KvLayer, asked: Kv, rules: KvRules = NO_RULES) -> tuple[Held, Held]:
    """K and V of one layer as the fork holds them."""
    kv = _types(shape, layer, asked, rules)
    return pad(kv.k, layer.heads, layer.k, rules), pad(kv.v, layer.heads, layer.v, rules)


def pad(name: str, heads: int, size: int, rules: KvRules = NO_RULES) -> Held:
    """Heads of a type as wide as the fork makes them."""
    return Held(name, heads, _padded(name, size, rules))


def departures(shape: KvShape, asked: Kv, rules: KvRules) -> list[str]:
    """Which rules give some layer another type than was asked for, in words; none: nothing does."""
    held = {_types(shape, layer, asked, rules) for layer in shape.layers}
    return list(_departures(shape, asked, rules)) if held - {asked} else []


def refusal(
    shape: KvShape, asked: Kv, types: Mapping[str, KvType], rules: KvRules = NO_RULES
) -> str:
    """Why the server refuses these types for these heads, or "".

    With flash attention, blocks have to divide heads: `llama_init_from_model`.
    """
    for name, sizes in (
        (asked.k, [layer.k for layer in shape.layers]),
        (asked.v, [layer.v for layer in shape.layers]),
    ):
        block = types.get(name, KvType()).block_values or 1
        for size in sizes:
            if (_padded(name, size, rules) if rules.pads_first else size) % block:
                return (
                    f"{name}: blocks of {block} values do not divide heads of {size}: "
                    "the server refuses it"
                )
    return ""


def _types(shape: KvShape, layer: KvLayer, asked: Kv, rules: KvRules) -> Kv:
    own = {name for name in (asked.k, asked.v) if _is_own(name)}
    if own and rules.whole_heads and layer.k % rules.whole_heads:
        return Kv(_SAFE, _SAFE)
    k, v = asked.k, asked.v
    shared, edge = rules.shared_k, rules.edge_v
    if shared and k in own and k == v and shape.queries >= shared.queries:
        k = _SAFE
    if edge and v == edge.kv_type and shape.total >= edge.least_layers:
        middle = edge.layers <= layer.index < shape.total - edge.layers
        v = v if middle else _SAFE
    if rules.widest_head:
        k = _WIDE if _is_own(k) and layer.k > rules.widest_head else k
        v = _WIDE if _is_own(v) and layer.v > rules.widest_head else v
    return Kv(k, v)


def _departures(shape: KvShape, asked: Kv, rules: KvRules) -> Iterator[str]:
    own = [name for name in (asked.k, asked.v) if _is_own(name)]
    whole = rules.whole_heads
    odd = _first(layer.k for layer in shape.layers if whole and layer.k % whole)
    if own and odd:
        yield (
            f"K and V are q8_0 where K has heads of {odd} values: {own[0]} takes a multiple of "
            f"{whole}"
        )
        return
    shared, edge = rules.shared_k, rules.edge_v
    if shared and asked.k == asked.v and own and shape.queries >= shared.queries:
        yield (
            f"K is q8_0 in place of {asked.k}: {shape.queries} query heads share each KV head"
            f"{_way_out(shared.off)}"
        )
    if edge and asked.v == edge.kv_type and shape.total >= edge.least_layers:
        yield (
            f"V is q8_0 in the first {edge.layers} and the last {edge.layers} layers"
            f"{_way_out(edge.off)}"
        )
    for half, sizes in (
        ("K", [layer.k for layer in shape.layers if _is_own(asked.k)]),
        ("V", [layer.v for layer in shape.layers if _is_own(asked.v)]),
    ):
        wide = _first(size for size in sizes if size > (rules.widest_head or size))
        if wide:
            yield f"{half} is f16: {wide} values a head are more than {rules.widest_head}"


def _way_out(off: str | None) -> str:
    return f" ({off}=0 turns that off)" if off else ""


def _first(sizes: Iterable[int]) -> int:
    return next(iter(sizes), 0)


def _is_own(name: str) -> bool:
    return name not in MAINLINE_KV_TYPES


def _padded(name: str, size: int, rules: KvRules) -> int:
    group = rules.pad_heads if rules.pad_heads and _is_own(name) else 1
    return -(-size // group) * group
