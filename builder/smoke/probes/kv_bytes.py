"""What the KV cache weighs, in llama-server's log, against what its type would.

The log's line names the type that was asked for, whatever the cache holds; only its sizes are
those of what is there.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from builder.llama.gguf.kv_held import NO_RULES, Held, hold, pad
from builder.llama.gguf.shape import KvLayer, KvShape
from builder.model.pins import Kv, KvRules, KvType

_MIB = 1024 * 1024
_ROUNDING_MIB = 0.005
"""The log prints two decimals."""

_FLOAT32 = 1e-6
"""The log's sizes are computed in 32 bits: a share of the size."""

_CONTEXT = "constructing llama_context"
"""Each context begins with this line: the one that serves, before it any dry run of `--fit`, and
before or after it those of a draft model or of the model's own heads for drafting."""

_NUMBER = r"\d+(?:\.\d+)?"
_LINE = re.compile(
    rf"size = +{_NUMBER} MiB \( *(?P<cells>\d+) cells, +(?P<layers>\d+) layers, "
    r"+\d+/(?P<streams>\d+) seqs\), "
    rf"K \((?P<k_name>[^)]*)\): +(?P<k>{_NUMBER}) MiB, "
    rf"V \((?P<v_name>[^)]*)\): +(?P<v>{_NUMBER}) MiB"
)

_KV_CACHE = re.compile(r"\bllama_kv_cache(_\w+)?: +size = ")
_BUFFER = re.compile(rf"\bllama_kv_cache(_\w+)?: .*KV buffer size = +(?P<mib>{_NUMBER}) MiB")

_ELSEWHERE = "smoke without --model: the shape of builder's own model is known"
_SAME = "f16"
"""The type that needs no proof by size where the shape is unknown: no fork puts another in its
place, so that the name in the log's size line is enough beside the numbers."""


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
    says why nothing could be told; all else is empty then. `ruled`: it is what the fork's own rules
    make of the type that was asked for, which in some layer is another one.
    """

    named: str = ""
    mib: float = 0.0
    expected_mib: float = 0.0
    types: tuple[str, ...] = ()
    mixes: tuple[Mix, ...] = ()
    unknown: str | None = None
    ruled: bool = False

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
    """All caches by their sizes, or why nothing could be told.

    `by_name` says why no size could be expected, where the names in the log were taken instead.
    """

    caches: tuple[CacheBytes, ...] = ()
    unknown: str | None = None
    by_name: str | None = None


@dataclass(frozen=True, slots=True)
class LogContext:
    """One llama_context of a log: its text, and the sizes of its caches.

    `dry`: it was built to be measured, as `--fit` does, and holds no memory.
    """

    text: str
    sizes: tuple[CacheSize, ...]
    dry: bool


def contexts(log: str) -> list[LogContext]:
    """The contexts of a log that have caches, in order."""
    texts = [f"{_CONTEXT}{text}" for text in log.split(_CONTEXT)[1:]] or [log]
    found = []
    for text in texts:
        if sizes := size_lines(text):
            buffers = [float(match["mib"]) for match in _BUFFER.finditer(text)]
            found.append(LogContext(text, tuple(sizes), bool(buffers) and not any(buffers)))
    return found


def size_lines(text: str) -> list[CacheSize]:
    """The size lines of one context: one, or two for a model with windows."""
    lines = (line for line in text.splitlines() if _KV_CACHE.search(line))
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
        for line in lines
        if (match := _LINE.search(line))
    ]


def without_others(log: str, shape: KvShape | None) -> str:
    """The log without how contexts were built that are not the model's, by its header.

    What such a context says of its cache's type, a draft's for example, is not about the one that
    serves. When no context is the model's, the whole log.
    """
    found = contexts(log)
    if shape is None or not any(_caches(shape, context.sizes) for context in found):
        return log
    for context in found:
        if _caches(shape, context.sizes) is None:
            # What follows the last size line may be about any context: it is kept.
            *_, last = (match for match in _LINE.finditer(context.text))
            log = log.replace(context.text, context.text[last.end() :], 1)
    return log


def read(
    log: str | None,
    shape: KvShape | None,
    asked: Kv,
    types: Mapping[str, KvType],
    rules: KvRules = NO_RULES,
) -> Bytes:
    """Every cache by its sizes.

    `types` are those that the fork knows, with their blocks' bytes, `rules` its own for them.
    Of several contexts, the last that has the layers of the model's header counts. Where two such
    hold different types it is not known which one serves.
    """
    if log is None:
        return Bytes(unknown="the server's log was not seen")
    found = contexts(log)
    if not found:
        return Bytes(unknown="the log has no line with the cache's size")
    if shape is None:
        return Bytes(unknown="the model's header was not seen")
    found = [context for context in found if not context.dry]
    if not found:
        return Bytes(unknown="the log has caches of a dry run alone")
    if shape.unknown is not None:
        return _by_name(found, shape.unknown, asked)
    return _by_size(found, _Question(shape, asked, types, rules))


Width = tuple[int, int]
"""KV heads of a layer, and values a head."""


@dataclass(frozen=True, slots=True)
class _Question:
    """What a server was asked to hold, of which model, and what its fork knows."""

    shape: KvShape
    asked: Kv
    types: Mapping[str, KvType]
    rules: KvRules

    def cell_bytes(self, widths: Sequence[Width], name: str) -> int | None:
        """Bytes of a cell over layers of one type; None: not known, or not for such heads."""
        return _total([pad(name, *width, self.rules) for width in widths], self.types)


def _total(halves: Sequence[Held], types: Mapping[str, KvType]) -> int | None:
    cells = [half.cell_bytes(types) for half in halves]
    return None if None in cells else sum(filter(None, cells))


def _by_size(found: Sequence[LogContext], question: _Question) -> Bytes:
    """What the contexts with the layers of the model's header hold, when they agree."""
    shape = question.shape
    fitting = [caches for context in found if (caches := _caches(shape, context.sizes))]
    if not fitting:
        return Bytes(unknown=_misfit(shape, found))
    weighed = [tuple(_weigh(*each, question) for each in caches) for caches in fitting]
    held = dict.fromkeys(_held(caches, question.asked) for caches in weighed)
    if len(held) > 1:
        return Bytes(unknown=f"contexts of the model's layers differ: {', then '.join(held)}")
    return Bytes(weighed[-1])


def _by_name(found: Sequence[LogContext], why: str, asked: Kv) -> Bytes:
    """What a cache is called, which proves f16 alone; any other type only its size would."""
    why = f"the header does not tell the cache's shape: {why}"
    if asked != Kv(_SAME, _SAME):
        return Bytes(unknown=f"{why}; {_ELSEWHERE}")
    named = {Kv(size.k_name, size.v_name) for context in found for size in context.sizes}
    if len(named) > 1:
        return Bytes(unknown=f"{why}, and the log names {', '.join(sorted(map(str, named)))}")
    return Bytes(
        by_name=why,
        caches=tuple(
            CacheBytes(
                windowed=index > 0,
                layers=size.layers,
                cells=size.cells,
                streams=size.streams,
                k=Half(size.k_name, size.k_mib, size.k_mib, (size.k_name,)),
                v=Half(size.v_name, size.v_mib, size.v_mib, (size.v_name,)),
            )
            for index, size in enumerate(found[-1].sizes)
        ),
    )


def _misfit(shape: KvShape, found: Sequence[LogContext]) -> str:
    counts = [" and ".join(str(size.layers) for size in context.sizes) for context in found]
    expected = " and ".join(str(len(layers)) for _, layers in _expected(shape))
    logged = ", then ".join(dict.fromkeys(counts))
    return f"the log has {logged} layers, the model's header {expected}"


def _held(caches: tuple[CacheBytes, ...], asked: Kv) -> str:
    """What all caches of a context hold."""
    return " and ".join(f"K {each.k.held(asked.k)}, V {each.v.held(asked.v)}" for each in caches)


def _expected(shape: KvShape) -> list[tuple[bool, tuple[KvLayer, ...]]]:
    """The caches that the header tells of: that of all layers without windows first."""
    full, windowed = shape.cache(windowed=False), shape.cache(windowed=True)
    return [(False, full), (True, windowed)] if windowed else [(False, full)]


def _caches(
    shape: KvShape, lines: Sequence[CacheSize]
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
    windowed: bool, layers: tuple[KvLayer, ...], line: CacheSize, question: _Question
) -> CacheBytes:
    cells, asked = line.cells * line.streams, question.asked
    ruled = [hold(question.shape, layer, asked, question.rules) for layer in layers]
    keys = [(layer.heads, layer.k) for layer in layers]
    values = [(layer.heads, layer.v) for layer in layers]
    k = _half(keys, cells, (line.k_name, line.k_mib), asked.k, question)
    v = _half(values, cells, (line.v_name, line.v_mib), asked.v, question)
    return CacheBytes(
        windowed=windowed,
        layers=line.layers,
        cells=line.cells,
        streams=line.streams,
        k=replace(k, ruled=_is_ruled(k, [one for one, _ in ruled], asked.k, cells, question)),
        v=replace(v, ruled=_is_ruled(v, [one for _, one in ruled], asked.v, cells, question)),
    )


def _is_ruled(
    half: Half, ruled: Sequence[Held], asked: str, cells: int, question: _Question
) -> bool:
    """Whether a half weighs what the fork's rules give it, and they change the type somewhere."""
    weight = _total(ruled, question.types)
    changed = any(one.name != asked for one in ruled)
    return changed and weight is not None and _prints_as(weight * cells, half.mib)


def _half(
    widths: list[Width], cells: int, printed: tuple[str, float], asked: str, question: _Question
) -> Half:
    named, mib = printed
    weights = {name: question.cell_bytes(widths, name) for name in question.types}
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
        mixes=() if fitting else tuple(_mixes(widths, cells, mib, asked, question)),
    )


def _mixes(
    widths: list[Width], cells: int, mib: float, asked: str, question: _Question
) -> list[Mix]:
    """Layers of the type asked for and of another that weigh as much, where all are of one width.

    q8_0 and f16 first: those are what forks fall back to.
    """
    if len(list(groupby(widths))) != 1:
        return []
    own = question.cell_bytes(widths[:1], asked)
    found = []
    for other in sorted(question.types, key=lambda name: (name not in {"q8_0", "f16"}, name)):
        another = question.cell_bytes(widths[:1], other)
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
