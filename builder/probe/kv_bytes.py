"""What the KV cache weighs, in llama-server's log, against what its type would.

The log's line names the type that was asked for, whatever the cache holds; only its sizes are
those of what is there.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby

from builder.gguf_shape import KvLayer, KvShape
from builder.kv_size import Width, layer_bytes
from builder.model import Kv, KvType

_MIB = 1024 * 1024
_ROUNDING_MIB = 0.005
"""The log prints two decimals."""

_FLOAT32 = 1e-6
"""The log's sizes are computed in 32 bits: a share of the size."""

_CONTEXT = "constructing llama_context"
"""Each begins with this line: the one that serves, and before it any dry run of `--fit`."""

_LINE = re.compile(
    r"size = +[\d.]+ MiB \( *(?P<cells>\d+) cells, +(?P<layers>\d+) layers, "
    r"+\d+/(?P<streams>\d+) seqs\), "
    r"K \((?P<k_name>[^)]*)\): +(?P<k>[\d.]+) MiB, V \((?P<v_name>[^)]*)\): +(?P<v>[\d.]+) MiB"
)

_KV_CACHE = re.compile(r"\bllama_kv_cache(_\w+)?: +size = ")


@dataclass(frozen=True, slots=True)
class CacheSize:
    """A size line of the log. `cells` are for each of the `streams`; sizes are in MiB."""

    cells: int
    layers: int
    streams: int
    k_name: str
    k_mib: float
    v_name: str
    v_mib: float


@dataclass(frozen=True, slots=True)
class Mix:
    """So many layers of the type that was asked for, and so many of another."""

    asked: str
    asked_layers: int
    other: str
    other_layers: int

    def __str__(self) -> str:
        return f"{self.other_layers} layers of {self.other}, {self.asked_layers} of {self.asked}"


@dataclass(frozen=True, slots=True)
class Half:
    """What K or V of one cache is, by its size.

    `named` is the type that the log calls it, which is the one asked for, true or not. `types` are
    those whose size it has in every layer, none when no known type has; `mixes` those that fit when
    no single type does. `expected_mib` is what the type that was asked for would take. `unknown`
    says why nothing could be told; all else is empty then.
    """

    named: str = ""
    mib: float = 0.0
    expected_mib: float = 0.0
    types: tuple[str, ...] = ()
    mixes: tuple[Mix, ...] = ()
    unknown: str | None = None

    def held(self, asked: str) -> str:
        """What is in effect: a type, several of one size, "mixed", "another" or "unknown".

        Among types of one size, such as q4_0 and iq4_nl, the log's name decides.
        """
        if self.unknown is not None:
            return "unknown"
        for name in (self.named, asked):
            if name in self.types:
                return name
        if self.types:
            return " or ".join(self.types)
        return "mixed" if self.mixes else "another"


@dataclass(frozen=True, slots=True)
class CacheBytes:
    """One cache by its sizes. `windowed`: it is that of layers that look back a window."""

    windowed: bool
    layers: int
    cells: int
    streams: int
    k: Half
    v: Half


@dataclass(frozen=True, slots=True)
class Bytes:
    """All caches by their sizes, or why nothing could be told."""

    caches: tuple[CacheBytes, ...] = ()
    unknown: str | None = None


def size_lines(log: str) -> list[CacheSize]:
    """The size lines of the last context in a log: one, or two for a model with windows."""
    last = log.rpartition(_CONTEXT)[2]
    lines = (line for line in last.splitlines() if _KV_CACHE.search(line))
    found = [match for line in lines if (match := _LINE.search(line))]
    return [
        CacheSize(
            cells=int(match["cells"]),
            layers=int(match["layers"]),
            streams=int(match["streams"]),
            k_name=match["k_name"],
            k_mib=float(match["k"]),
            v_name=match["v_name"],
            v_mib=float(match["v"]),
        )
        for match in found
    ]


def read(log: str | None, shape: KvShape | None, asked: Kv, types: Mapping[str, KvType]) -> Bytes:
    """Every cache by its sizes. `types` are those that the fork knows, with their blocks' bytes."""
    if log is None:
        return Bytes(unknown="the server's log was not seen")
    lines = size_lines(log)
    if not lines:
        return Bytes(unknown="the log has no line with the cache's size")
    if shape is None:
        return Bytes(unknown="the model's header was not seen")
    if shape.unknown is not None:
        return Bytes(unknown=f"the header does not tell the cache's shape: {shape.unknown}")
    caches = _caches(shape, lines)
    if caches is None:
        found = " and ".join(str(line.layers) for line in lines)
        expected = " and ".join(str(len(layers)) for _, layers in _expected(shape))
        return Bytes(unknown=f"the log has {found} layers, the model's header {expected}")
    return Bytes(tuple(_weigh(*each, asked, types) for each in caches))


def _expected(shape: KvShape) -> list[tuple[bool, tuple[KvLayer, ...]]]:
    """The caches that the header tells of: that of all layers without windows first."""
    full, windowed = shape.cache(windowed=False), shape.cache(windowed=True)
    return [(False, full), (True, windowed)] if windowed else [(False, full)]


def _caches(
    shape: KvShape, lines: list[CacheSize]
) -> list[tuple[bool, tuple[KvLayer, ...], CacheSize]] | None:
    """Each size line with its layers, or None when they do not belong together."""
    expected = _expected(shape)
    if len(expected) != len(lines):
        return None
    found = []
    for (windowed, layers), line in zip(expected, lines, strict=True):
        with_draft = layers if windowed else layers + shape.draft
        fitting = next((some for some in (layers, with_draft) if len(some) == line.layers), None)
        if fitting is None:
            return None
        found.append((windowed, fitting, line))
    return found


def _weigh(
    windowed: bool,
    layers: tuple[KvLayer, ...],
    line: CacheSize,
    asked: Kv,
    types: Mapping[str, KvType],
) -> CacheBytes:
    cells = line.cells * line.streams
    keys = [(layer.heads, layer.k) for layer in layers]
    values = [(layer.heads, layer.v) for layer in layers]
    return CacheBytes(
        windowed=windowed,
        layers=line.layers,
        cells=line.cells,
        streams=line.streams,
        k=_half(keys, cells, (line.k_name, line.k_mib), asked.k, types),
        v=_half(values, cells, (line.v_name, line.v_mib), asked.v, types),
    )


def _half(
    widths: list[Width],
    cells: int,
    printed: tuple[str, float],
    asked: str,
    types: Mapping[str, KvType],
) -> Half:
    named, mib = printed
    weights = {name: _bytes(widths, name, types[name]) for name in types}
    expected = weights.get(asked)
    if expected is None:
        return Half(unknown=f"how many bytes {asked} takes is not known")
    fitting = tuple(
        name
        for name, weight in weights.items()
        if weight is not None and _prints_as(weight * cells, mib)
    )
    if len({weights[name] for name in fitting}) > 1:
        return Half(unknown=f"{mib} MiB are too few to tell {' from '.join(fitting)}")
    return Half(
        named=named,
        mib=mib,
        expected_mib=expected * cells / _MIB,
        types=fitting,
        mixes=() if fitting else tuple(_mixes(widths, cells, mib, asked, types)),
    )


def _bytes(widths: list[Width], name: str, kind: KvType) -> int | None:
    """Bytes of a cell over all layers; None where they are not known, or cannot be of this type."""
    total = 0
    for width in widths:
        one = layer_bytes(width, name, kind)
        if one is None:
            return None
        total += one
    return total


def _mixes(
    widths: list[Width], cells: int, mib: float, asked: str, types: Mapping[str, KvType]
) -> list[Mix]:
    """Layers of the type asked for and of another that weigh as much, where all are of one width.

    q8_0 and f16 first: those are what forks fall back to.
    """
    if len(list(groupby(widths))) != 1:
        return []
    own = layer_bytes(widths[0], asked, types[asked])
    found = []
    for other in sorted(types, key=lambda name: (name not in {"q8_0", "f16"}, name)):
        another = layer_bytes(widths[0], other, types[other])
        if other == asked or own is None or another is None or own == another:
            continue
        found += [
            Mix(asked, len(widths) - count, other, count)
            for count in range(1, len(widths))
            if _prints_as((own * (len(widths) - count) + another * count) * cells, mib)
        ]
    return found


def _prints_as(weight: int, mib: float) -> bool:
    exact = weight / _MIB
    return abs(exact - mib) <= _ROUNDING_MIB + exact * _FLOAT32
