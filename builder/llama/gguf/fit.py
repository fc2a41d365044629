"""Which KV types, contexts and slots of a model fit a card, told from its header."""

import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from builder.common.errors import UsageError
from builder.llama.gguf import file as gguf_file
from builder.llama.gguf import kv_held, memory
from builder.llama.gguf.kv_types import kv_types
from builder.llama.gguf.memory import KvNeed, Model, Slots, Weights
from builder.model.pins import Kv, KvRules, KvType, Logits, Pins, logits

GIB = 1024**3

RESERVE = GIB * 3 // 4
"""Kept for CUDA's own context, cuBLAS and a desktop. An assumption: no card was at hand."""

_CONTEXTS = (4096, 8192, 16384, 32768, 65536, 131072, 262144)
_AGENT = 32768
"""Tokens of a slot that serves an agent, where nothing else is asked for: facts of the Agent SDK,
whose prompts run from 10k to 27k tokens."""

_STEP, _SLOTS = 256, 256
"""Contexts go by so many tokens; more slots than that nobody looks for."""

_SHOWN = ("f16", "q8_0", "q4_0")
"""Of llama.cpp's own types, those that people weigh a fork's against."""

_SIZE = re.compile(r"(?P<number>\d+(\.\d+)?) ?((?P<unit>[mg])(i?b)?)?", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked. `vram` is the card's memory and `reserve` what of it is kept, in bytes.

    `vram` None: no card is known, and nothing is said to fit. `ctx` None: every usual context.
    """

    model: Path
    vram: int | None
    reserve: int = RESERVE
    kv: Kv | None = None
    parallel: int = 1
    ctx: int | None = None


@dataclass(frozen=True, slots=True)
class Need:
    """What one choice takes of the card; `fits` is None when no card is known.

    `full` and `window` are the KV of layers that see everything and of those that look back a
    window, `recurrent` the state of the others; `total` has the weights and the reserve too.
    """

    context: int
    full: int
    window: int
    recurrent: int
    compute: int
    total: int
    fits: bool | None


@dataclass(frozen=True, slots=True)
class Layers:
    """How many layers see everything, look back a window, keep a recurrent state."""

    full: int
    window: int
    recurrent: int

    def __str__(self) -> str:
        kinds = ((self.full, "full"), (self.window, "window"), (self.recurrent, "recurrent"))
        return ", ".join(f"{count} {kind}" for count, kind in kinds if count)


@dataclass(frozen=True, slots=True)
class Row:
    """A KV type: its bytes a token of one slot, needs by context, and the largest that fit.

    `largest` is the longest context of the slots that were asked for, `slots` how many slots of
    `slot_context` tokens; None without a card. `refused` says why the type does not suit the model,
    `held` what the fork holds in its place in some or all layers.
    """

    kv: str
    token_bytes: int
    needs: list[Need]
    largest: int | None
    slots: int | None
    flags: str
    refused: str = ""
    held: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Fit:
    """The answer. All sizes in bytes, contexts in tokens of one slot."""

    model: str
    variant: str
    architecture: str
    native: int
    parallel: int
    slot_context: int
    vram: int | None
    reserve: int
    weights: Weights
    layers: Layers
    rows: list[Row]
    unknown: list[str]
    notes: list[str]
    schema: int = 1

    @property
    def fits(self) -> bool:
        """Whether what was asked for, or anything of the table, fits; without a card it may."""
        return _anything_fits(self.rows)


def fit(request: Request, pins: Pins, variant: str) -> Fit:
    """Weigh a model by its header. Raises UsageError: no model, or its shape is not known."""
    found = memory.model(gguf_file.read(request.model))
    if found.shape.unknown is not None:
        raise UsageError(
            f"{request.model.name}: what its context takes is not known", why=found.shape.unknown
        )
    fork = pins.variants[variant].fork
    types, rules = kv_types(pins, fork), pins.forks[fork].kv_rules
    asked = [Kv(name, name) for name in [*_SHOWN, *pins.forks[fork].kv_types]]
    if request.kv:
        _check_known(request.kv, types, variant)
        asked = [request.kv]
    weighing = _Weighing(found, request, types, rules, logits(pins, variant))
    rows = [weighing.row(kv) for kv in asked if weighing.kv(kv, weighing.slots(1, 256)) is not None]
    return Fit(
        model=request.model.name,
        variant=variant,
        architecture=found.shape.architecture,
        native=found.native,
        parallel=request.parallel,
        slot_context=weighing.slot_context,
        vram=request.vram,
        reserve=request.reserve,
        weights=found.weights,
        layers=Layers(
            full=len(found.shape.cache(windowed=False)),
            window=len(found.shape.cache(windowed=True)),
            recurrent=found.shape.recurrent,
        ),
        rows=rows,
        unknown=[str(kv) for kv in asked if weighing.kv(kv, weighing.slots(1, 256)) is None],
        notes=list(_notes(weighing, rows)),
    )


def _check_known(kv: Kv, types: Mapping[str, KvType], variant: str) -> None:
    for name in (kv.k, kv.v):
        if name not in types:
            raise UsageError(
                f"--kv: the fork of {variant} has no type {name!r}",
                hint=f"one of {', '.join(types)}; another fork: --variant NAME",
            )


@dataclass(frozen=True, slots=True)
class _Weighing:
    """One model on one card."""

    model: Model
    request: Request
    types: Mapping[str, KvType]
    rules: KvRules
    logits: Logits

    def slots(self, count: int, tokens: int) -> Slots:
        return Slots(count, tokens, outputs=count if self.logits == "slots" else None)

    @property
    def longest(self) -> int:
        """The longest context that is thought of: the model's own, unless more is asked for."""
        return max(self.model.native or _CONTEXTS[-1], self.request.ctx or 0)

    @property
    def slot_context(self) -> int:
        return self.request.ctx or min(_AGENT, self.longest)

    @property
    def contexts(self) -> list[int]:
        if self.request.ctx:
            return [self.request.ctx]
        return [each for each in _CONTEXTS if each <= self.longest] or [self.longest]

    def kv(self, kv: Kv, slots: Slots) -> KvNeed | None:
        return memory.kv_need(self.model.shape, kv, self.types, slots, self.rules)

    def need(self, kv: Kv, slots: Slots) -> Need:
        caches = self.kv(kv, slots) or KvNeed(0, 0)
        state = memory.state_bytes(self.model.shape, slots)
        compute = memory.compute_bytes(self.model, slots)
        total = caches.total + state + compute + self.model.weights.card + self.request.reserve
        card = self.request.vram
        fits = None if card is None else total <= card
        return Need(slots.tokens, caches.full, caches.window, state, compute, total, fits)

    def row(self, kv: Kv) -> Row:
        parallel = self.request.parallel
        refused = kv_held.refusal(self.model.shape, kv, self.types, self.rules)
        largest = slots = None
        if self.request.vram is not None and not refused:
            largest = _STEP * _most(
                self.longest // _STEP, lambda n: self.need(kv, self.slots(parallel, n * _STEP)).fits
            )
            slots = _most(_SLOTS, lambda n: self.need(kv, self.slots(n, self.slot_context)).fits)
        return Row(
            kv=str(kv),
            token_bytes=self._token_bytes(kv),
            needs=[self.need(kv, self.slots(parallel, tokens)) for tokens in self.contexts],
            largest=largest,
            slots=slots,
            flags="" if refused or largest == 0 else self._flags(kv, largest),
            refused=refused,
            held=self._held(kv) if not refused else [],
        )

    def _token_bytes(self, kv: Kv) -> int:
        """What one more token takes where every window is full."""
        far = 2 * max([self.longest, *(layer.window + _STEP for layer in self.model.shape.layers)])
        more, less = self.kv(kv, self.slots(1, far + _STEP)), self.kv(kv, self.slots(1, far))
        return (more.total - less.total) // _STEP if more and less else 0

    def _held(self, kv: Kv) -> list[str]:
        return [f"{kv}: {what}" for what in kv_held.departures(self.model.shape, kv, self.rules)]

    def _flags(self, kv: Kv, largest: int | None) -> str:
        parallel = self.request.parallel
        tokens = self.slot_context if largest is None else min(self.slot_context, largest)
        return f"-ngl 999 -fa on -ctk {kv.k} -ctv {kv.v} -np {parallel} -c {parallel * tokens}"


def _most(limit: int, fits: Callable[[int], bool | None]) -> int:
    """The largest number up to `limit` that fits; what fits, fits with less too."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low


def _notes(weighing: _Weighing, rows: list[Row]) -> Iterator[str]:
    model, request = weighing.model, weighing.request
    if request.ctx and model.native and request.ctx > model.native:
        yield f"{request.ctx} tokens are more than the {model.native} it was trained for"
    yield from dict.fromkeys(row.refused for row in rows if row.refused)
    for row in rows:
        yield from row.held
    if not model.shape.layers and not model.shape.recurrent:
        yield f"models of architecture {model.shape.architecture} keep no KV cache"
    if request.kv and request.kv.k != request.kv.v:
        yield "K and V differ: it takes a build with GGML_CUDA_FA_ALL_QUANTS"
    if model.weights.draft:
        yield f"{_gib(model.weights.draft)} of layers for drafting are not counted"
    if model.weights.experts and not _anything_fits(rows):
        yield from _experts_elsewhere(weighing, rows)


def _anything_fits(rows: list[Row]) -> bool:
    return any(need.fits is not False for row in rows if not row.refused for need in row.needs)


def _experts_elsewhere(weighing: _Weighing, rows: list[Row]) -> Iterator[str]:
    """How many layers' experts would have to go to the CPU for the least of all choices."""
    needs = [need.total for row in rows if not row.refused for need in row.needs]
    missing = min(needs, default=0) - (weighing.request.vram or 0)
    freed = 0
    for number, size in enumerate(weighing.model.weights.experts, 1):
        freed += size
        if freed >= missing:
            yield f"-ncmoe {number} leaves {_gib(freed)} of experts to the CPU: fits, and is slower"
            return


def parse_size(text: str, option: str) -> int:
    """Bytes of `24G`, `24`, `24GiB`, `0.5g` or `800M`, in units of 1024; without one it is GiB.

    Raises UsageError.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"{option}: {text!r} is no size", hint=f"such as {option} 24G")
    return int(float(found["number"]) * (GIB // 1024 if found["unit"] in {"M", "m"} else GIB))


def to_json(found: Fit) -> str:
    """The answer as indented JSON."""
    return json.dumps(dataclasses.asdict(found) | {"fits": found.fits}, indent=2)


def headline(found: Fit) -> str:
    """What the model is, and what of the card is left for contexts."""
    weights = f"{_gib(found.weights.card)} of weights on the card"
    if found.weights.host:
        weights += f", {_gib(found.weights.host)} in the machine's memory"
    text = f"{found.model}: {found.architecture}, {weights}"
    if found.native:
        text += f"; trained for {found.native} tokens"
    text += f"; layers: {found.layers}"
    if found.vram is None:
        return f"{text}\nno card is known: name its memory with --vram 24G to see what fits"
    left = found.vram - found.reserve - found.weights.card
    return f"{text}\n{_gib(found.vram)} card, {_gib(found.reserve)} kept: {_gib(left)} left"


def table(found: Fit) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    """Rows and header: what each KV type takes of the card in all, and what fits."""
    contexts = [need.context for need in found.rows[0].needs] if found.rows else []
    each = "" if found.parallel == 1 else f"{found.parallel} × "
    header = ("KV", "a token", *(f"{each}{_tokens(one)}" for one in contexts))
    if found.vram is not None:
        header += ("largest", f"slots of {_tokens(found.slot_context)}")
    return [_cells(row, found) for row in found.rows], header


def _cells(row: Row, found: Fit) -> tuple[str, ...]:
    marks = {True: " fits", False: " no", None: ""}
    needs = tuple(
        "refused" if row.refused else f"{need.total / GIB:.1f}{marks[need.fits]}"
        for need in row.needs
    )
    cells = (row.kv, f"{row.token_bytes / 1024:.1f} KiB", *needs)
    if found.vram is None:
        return cells
    return (*cells, str(row.largest or "-"), str(row.slots or "-"))


def _tokens(count: int) -> str:
    return f"{count // 1024}k" if count % 1024 == 0 else str(count)


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB"
