"""How far a KV type may move the answers: by its measured band, or else by what stands in for it.

The limits are those of the scripted model. Another model's follow from them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from builder.model.pins import Band, Kv, KvType

CONTROL = "f16"
"""The type of both halves of the control's cache."""

EIGHT_BITS = Band(kl=(0.0, 1e-2), top1=0.8)
"""What 8 bits a value may do to a model that was never measured, in nats: no finer type has less.

Published of q8_0: 6.7e-3 and 97 % (Qwen3.6-35B-A3B, defilantech/LLMKube#601).
"""

_LESS_TOP1, _LEAST_TOP1 = 0.1, 0.5
"""A model that was never measured may agree with itself on fewer prompts, but on half of them."""

_MODEL_ROOM = 3.0
"""So many times what it does to the scripted model, a type may do to one that was never measured.

q4_0 and q5_1 do 2.3 times as much to scripted-swa (3.9e-2 and 7.7e-3; top-1 70 % and 80 %).
"""

_MOST_KL = 0.5
"""Nats that no type may do to a model that was never measured. Keys that are all zero do 0.7."""

_LEAST_SHARE, _MOST_K_SHARE = 1 / 4, 1 / 2
"""Of what a type does in both halves: the least it does in one, and the most it does in K alone.

Measured with q4_0: 0.3 in K alone, 0.6 in V alone. Types of 4 bits and less do 0.25 to 0.35 in K.
"""


@dataclass(frozen=True, slots=True)
class Limits:
    """A band that nobody measured, and in words what it is taken from."""

    band: Band
    source: str


def measured(asked: Kv, types: Mapping[str, KvType]) -> Band | None:
    """The measured band of K and V together; None where that of one of them is not known."""
    return _together(asked, lambda name: types[name].band if name in types else None)


def predicted(asked: Kv, types: Mapping[str, KvType]) -> Band | None:
    """The band that the block formats predict, with measured ones for types without a prediction.

    None where neither is known, or nothing is predicted.
    """
    if all(name not in types or types[name].predicted is None for name in (asked.k, asked.v)):
        return None
    return _together(asked, lambda name: types[name].predicted or types[name].band)


def unmeasured(asked: Kv, types: Mapping[str, KvType]) -> Limits | None:
    """The limits where a half's band was not measured; None where nothing can stand in for it.

    In its place: the band that the type's published block format predicts. Without that, no more
    than the measured type that is nearest in bits a value; of two as near, the one with less.
    """
    bands = {name: _stand_in(name, types) for name in {asked.k, asked.v} - {CONTROL}}
    if any(limits is None for limits in bands.values()):
        return None
    found = {name: limits for name, limits in bands.items() if limits is not None}
    band = _together(asked, lambda name: found[name].band)
    sources = dict.fromkeys(limits.source for limits in found.values() if limits.source)
    return None if band is None else Limits(band, " and ".join(sources))


def of_another_model(asked: Kv, types: Mapping[str, KvType]) -> Limits | None:
    """The limits for a model other than the scripted one; None where nothing can stand in.

    Threefold those of the scripted model, so types keep its ratios; never less than EIGHT_BITS,
    and never more than half a nat. Top-1 is a tenth less.
    """
    scripted = unmeasured(asked, types)
    if scripted is None:
        return None
    kl, top1 = scripted.band.kl[1] * _MODEL_ROOM, scripted.band.top1
    return Limits(
        Band(
            kl=(0.0, min(_MOST_KL, max(EIGHT_BITS.kl[1], kl))),
            top1=max(_LEAST_TOP1, min(EIGHT_BITS.top1, top1 - _LESS_TOP1)),
        ),
        "what the scripted model allows",
    )


def _together(asked: Kv, band_of: Callable[[str], Band | None]) -> Band | None:
    """The band of K and V from that of each, where both are known."""
    k, v = (
        Band(kl=(0.0, 0.0), top1=1.0) if name == CONTROL else band_of(name)
        for name in (asked.k, asked.v)
    )
    if k is None or v is None:
        return None
    if asked.k == asked.v:
        return k
    low = max(k.kl[0], v.kl[0]) * _LEAST_SHARE
    return Band(kl=(low, k.kl[1] * _MOST_K_SHARE + v.kl[1]), top1=min(k.top1, v.top1))


def _stand_in(name: str, types: Mapping[str, KvType]) -> Limits | None:
    """The measured band of a type, which needs no words, or what stands in for it."""
    kind = types.get(name, KvType())
    if kind.band is not None:
        return Limits(kind.band, "")
    if kind.predicted is not None:
        return Limits(kind.predicted, f"what {name}'s block format predicts")
    bits = _bits(kind)
    if bits is None:
        return None
    near = [
        (abs(other_bits - bits), other.band.kl[1], other_name, other.band)
        for other_name, other in types.items()
        if other.band is not None and (other_bits := _bits(other)) is not None
    ]
    if not near:
        return None
    _, high, nearest, band = min(near, key=lambda each: each[:3])
    return Limits(
        Band(kl=(0.0, high), top1=band.top1), f"what {nearest}, the nearest in bits, does"
    )


def _bits(kind: KvType) -> float | None:
    """Bits a value, with the block's own scales."""
    if kind.block_bytes is None or kind.block_values is None:
        return None
    return kind.block_bytes * 8 / kind.block_values
