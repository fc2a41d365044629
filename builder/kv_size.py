"""How many bytes keys and values take in a cache."""

from builder.model import MAINLINE_KV_TYPES, KvType

GROUP = 128
"""Forks pad each head to a multiple of so many values: their transforms work on such groups."""

Width = tuple[int, int]
"""Heads, and values a head."""


def layer_bytes(width: Width, name: str, kind: KvType) -> int | None:
    """Bytes of a cell of one layer's K or V; None: not known, or it cannot be of this type."""
    heads, size = width
    if kind.block_bytes is None or kind.block_values is None:
        return None
    padded = size if name in MAINLINE_KV_TYPES else -(-size // GROUP) * GROUP
    blocks, left = divmod(heads * padded, kind.block_values)
    return None if left else blocks * kind.block_bytes
