"""Which type the KV cache has: what was asked for, what is in effect, and on what evidence.

Three pieces, independent of each other: what the cache weighs (`kv_bytes`), what the log says
(`kv_words`), and what the cache does to the answers (`kv_numbers`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from builder.llama.gguf import kv_held, memory
from builder.llama.gguf.shape import KvShape
from builder.model.finding import Finding, Status
from builder.model.pins import MAINLINE_KV_TYPES, Band, Kv, KvRules, KvType, Profile
from builder.smoke.probes import kv_bytes, kv_limits, kv_words
from builder.smoke.probes.kv_bytes import Bytes, CacheBytes, Half
from builder.smoke.probes.kv_limits import CONTROL, EIGHT_BITS
from builder.smoke.probes.kv_numbers import Numbers
from builder.smoke.probes.kv_words import Seen

PROBE = "kv"
FALLBACK = "q8_0"
"""What forks hold in place of a type that a CPU cannot run."""


@dataclass(frozen=True, slots=True)
class KvEvidence:
    """What is known of one run. `types` are those that the fork knows: see `kv_types`.

    `log` None: nobody saw it. `shape` is from the model's header. `numbers`: a text says why there
    are none, None that there was nothing to compare. `scripted`: the model is the one that the
    bands were measured with. `gpu`: the machine has one that the server may use. `rules` are those
    of the fork that are in force.
    """

    asked: Kv
    types: Mapping[str, KvType]
    profile: Profile
    log: str | None = None
    shape: KvShape | None = None
    numbers: Numbers | str | None = None
    scripted: bool = True
    gpu: bool = False
    rules: KvRules = kv_held.NO_RULES


@dataclass(frozen=True, slots=True)
class InEffect:
    """What one cache holds in K and in V.

    A type; "q4_0 or iq4_nl" where two weigh the same and neither was asked for; "mixed" for layers
    of two types; "another" for what no known type weighs; "unknown". `cache` is "window" for that
    of the layers that look back a window, where they have their own.
    """

    cache: Literal["full", "window"]
    layers: int
    k: str
    v: str


@dataclass(frozen=True, slots=True)
class KvVerdict:
    """The verdict, with the three pieces in words. `in_effect` is empty when it is not known."""

    asked: Kv
    in_effect: tuple[InEffect, ...]
    status: Status
    reason: str
    bytes: str
    words: str
    numbers: str

    @property
    def held(self) -> str:
        """What is in effect, as short as it is true: "q8_0", "K q4_0, V f16", or each cache's."""
        texts = [one.k if one.k == one.v else f"K {one.k}, V {one.v}" for one in self.in_effect]
        if len(set(texts)) <= 1:
            return texts[0] if texts else "unknown"
        named = zip(texts, self.in_effect, strict=True)
        return ", ".join(f"{text} ({one.cache} cache)" for text, one in named)

    @property
    def in_words(self) -> str:
        """What was asked for and what is in effect."""
        return f"{self.asked} asked, {self.held} in effect"


def finding(verdict: KvVerdict) -> Finding:
    """The verdict as a line of the table."""
    expected = f"K and V are held as {verdict.asked}"
    return Finding(PROBE, verdict.status, expected, f"{verdict.in_words}: {verdict.reason}")


def judge(evidence: KvEvidence) -> KvVerdict:
    """The verdict on one run.

    In effect as asked by bytes and numbers, and no line of the log against it: pass. q8_0 as the
    fork documents it for a machine without a GPU, and what its own rules put in the place of the
    type: unproven. A piece that is missing, or pieces that disagree: unproven. Anything else: fail.
    """
    weighed = kv_bytes.read(
        evidence.log, evidence.shape, evidence.asked, evidence.types, evidence.rules
    )
    said = kv_words.read(kv_bytes.without_others(evidence.log or "", evidence.shape))
    moved = _worse(evidence.numbers, _moved(evidence), _moved_by_decoding(evidence))
    status, why = _conclusion(evidence, weighed, said, moved)
    return KvVerdict(
        asked=evidence.asked,
        in_effect=tuple(_in_effect(cache, evidence.asked) for cache in weighed.caches),
        status=status,
        reason=why,
        bytes=_bytes_in_words(evidence, weighed),
        words=_words_in_words(evidence.log, said),
        numbers=moved.words,
    )


# --- What follows from the three pieces -----------------------------------------------------------


def _conclusion(
    evidence: KvEvidence, weighed: Bytes, said: Sequence[Seen], moved: "_Moved"
) -> tuple[Status, str]:
    halves = _halves(weighed, evidence.asked)
    against = [one.means for one in said if one.kind in {"documented", "change", "refusal"}]
    if known := _known_change(evidence, halves, moved):
        return "unproven", f"{known}; nothing is proven of {evidence.asked}"
    if any(half.unknown is None and half.held(name) != name for half, name in halves):
        return "fail", "; ".join([_bytes_in_words(evidence, weighed), *against])
    if moved.kind in _WRONG:
        return "fail", "; ".join([moved.words, *against])
    missing = [weighed.unknown, *(half.unknown for half, _ in halves)]
    if moved.kind in _UNPROVEN:
        missing.append(moved.words)
    if reasons := list(dict.fromkeys(filter(None, missing))):
        return "unproven", "; ".join([*reasons, *against])
    if against:
        return "unproven", f"bytes and numbers fit, but the log says: {'; '.join(against)}"
    fits = _bytes_in_words(evidence, weighed) if weighed.by_name else "the bytes fit"
    return "pass", f"{fits}; {moved.words}"


def _known_change(evidence: KvEvidence, halves: Sequence[tuple[Half, str]], moved: "_Moved") -> str:
    """What the fork says of itself that explains the types held, which are not those asked for."""
    if _is_documented(evidence, halves, moved):
        return "the fork's fallback on a machine without a GPU"
    other = [half for half, name in halves if half.unknown is None and half.held(name) != name]
    if evidence.shape is None or not other or moved.kind in _WRONG:
        return ""
    if not all(half.ruled for half in other):
        return ""
    words = kv_held.departures(evidence.shape, evidence.asked, evidence.rules)
    return f"the fork's own rule: {'; '.join(words)}"


def _is_documented(
    evidence: KvEvidence,
    halves: Sequence[tuple[Half, str]],
    moved: "_Moved",
) -> bool:
    """Whether this is what the fork says it does without a GPU: q8_0 in both halves."""
    # Forks say it once, of whichever context comes first.
    said = kv_words.read(evidence.log or "")
    as_q8 = {"fallback", "nothing"} if evidence.scripted else {"unmeasured", "beyond", "nothing"}
    fork_type = {evidence.asked.k, evidence.asked.v} - set(MAINLINE_KV_TYPES)
    return (
        not evidence.gpu
        and bool(fork_type)
        and moved.kind in as_q8
        and any(one.kind == "documented" for one in said)
        and all(half.unknown is not None or half.held(FALLBACK) == FALLBACK for half, _ in halves)
    )


def _halves(weighed: Bytes, asked: Kv) -> list[tuple[Half, str]]:
    """K and V of every cache, each with the type that was asked for."""
    return [pair for cache in weighed.caches for pair in ((cache.k, asked.k), (cache.v, asked.v))]


# --- Numbers --------------------------------------------------------------------------------------

_Kind = Literal[
    "fits", "unmeasured", "nothing", "beyond", "noise", "fallback", "outside", "garbage"
]
_BEST_FIRST: tuple[_Kind, ...] = get_args(_Kind)
_WRONG: frozenset[_Kind] = frozenset({"noise", "fallback", "outside", "garbage"})
_UNPROVEN: frozenset[_Kind] = frozenset({"nothing", "beyond"})
"""Nothing can be told, or more than stands in for a band that nobody measured."""

_SILENCE = 1e-6
"""Nats: less is the rounding of the log-probabilities themselves. bf16 moves them by 8e-6."""

_GARBAGE_SHARE = 1 / 3
"""Of the way from one prompt's answer to another's.

The scripted model with no prompt but its last byte is at 0.8 of it, with the last 40 bytes at 0.34.
"""

_NOISE_ROOM = 5
"""So many times its noise, f16 is still no other type."""


@dataclass(frozen=True, slots=True)
class _Moved:
    """What the numbers say."""

    kind: _Kind
    words: str


def _moved(evidence: KvEvidence) -> _Moved:
    numbers = evidence.numbers
    if not isinstance(numbers, Numbers):
        return _Moved("nothing", numbers or f"no control with {CONTROL} was run")
    seen = f"KL {numbers.distance.kl:.1e} against {CONTROL}, top-1 {numbers.distance.top1:.0%}"
    ceiling = numbers.unrelated.kl * _GARBAGE_SHARE
    if not _SILENCE < ceiling < math.inf:
        return _Moved("nothing", "the control's own answers are garbage, or all the same")
    # Not ">=": what is no number is garbage too.
    if not numbers.distance.kl < ceiling:
        return _Moved("garbage", f"garbage: {seen}; {ceiling:.1e} is another prompt's answer")
    if evidence.asked == Kv(CONTROL, CONTROL):
        return _as_control(evidence, numbers, seen)
    return _as_asked(evidence, numbers, seen)


def _moved_by_decoding(evidence: KvEvidence) -> _Moved | None:
    """What the numbers after decoded tokens say. None: nothing that counts.

    On a GPU decoding is another kernel than reading a prompt, so that there it has to be seen.
    """
    if not isinstance(evidence.numbers, Numbers):
        return None
    decoding = evidence.numbers.decoding
    if isinstance(decoding, Numbers):
        return _moved(replace(evidence, numbers=decoding))
    return _Moved("nothing", f"not read: {decoding or 'nobody asked'}") if evidence.gpu else None


def _worse(numbers: Numbers | str | None, prompts: _Moved, decoding: _Moved | None) -> _Moved:
    """The worse of the two; in the words of both where they say the same."""
    after = numbers.decoding if isinstance(numbers, Numbers) else None
    if decoding is None:
        unread = "" if after is None else f"; decoding was not read: {after}"
        return _Moved(prompts.kind, prompts.words + unread)
    if prompts.kind == "fallback" and decoding.kind in {"fits", "unmeasured", "beyond"}:
        return _Moved("outside", f"{prompts.words}, but decoding: {decoding.words}")
    if _BEST_FIRST.index(decoding.kind) > _BEST_FIRST.index(prompts.kind):
        return _Moved(decoding.kind, f"decoding: {decoding.words}")
    if decoding.kind == prompts.kind and isinstance(after, Numbers):
        seen = f"KL {after.distance.kl:.1e}, top-1 {after.distance.top1:.0%}"
        return _Moved(prompts.kind, f"{prompts.words}; decoding: {seen}")
    return prompts


def _as_control(evidence: KvEvidence, numbers: Numbers, seen: str) -> _Moved:
    kl, limit = numbers.distance.kl, _limit(numbers)
    if limit > EIGHT_BITS.kl[1]:
        return _Moved("nothing", f"the control's noise of {limit:.1e} hides what any type does")
    if kl <= limit:
        return _Moved("fits", f"{seen}, within the control's own noise")
    fallback = _fallback_band(evidence)
    least = fallback.kl[0] if fallback and evidence.scripted else EIGHT_BITS.kl[1]
    if kl <= max(least, _NOISE_ROOM * limit):
        return _Moved("beyond", f"{seen}, above the control's own noise, less than a type does")
    return _Moved("outside", f"{seen}, above the control's own noise")


def _limit(numbers: Numbers) -> float:
    """How far noise alone may move answers, in nats."""
    return max(2 * numbers.noise.kl, _SILENCE)


def _as_asked(evidence: KvEvidence, numbers: Numbers, seen: str) -> _Moved:
    limit, kl = _limit(numbers), numbers.distance.kl
    known = kv_limits.measured(evidence.asked, evidence.types)
    band = known if evidence.scripted else None
    least = band.kl[0] if band else None
    if kl <= limit and limit > _SILENCE and (least is None or least < limit):
        return _Moved("nothing", f"the control's noise of {limit:.1e} hides what the type does")
    # A type that loses nothing, f32, is as good as f16 with any model.
    if kl <= limit and (known is None or known.kl[0] != 0):
        return _Moved("noise", f"{seen}, as if {CONTROL} had been asked for")
    if band is None:
        return _without_band(evidence, numbers, seen)
    return _in_band(evidence, numbers, band, seen)


def _in_band(evidence: KvEvidence, numbers: Numbers, band: Band, seen: str) -> _Moved:
    kl, limits = numbers.distance.kl, f"{evidence.asked}'s band of {_in_words(band)}"
    if _is_in(numbers, band):
        return _Moved("fits", f"{seen}, in {limits}{_against_prediction(evidence, numbers)}")
    other = _fallback_band(evidence)
    if other is not None and other != band and other.kl[0] <= kl <= other.kl[1]:
        return _Moved("fallback", f"{seen}, as {FALLBACK} does; not in {limits}")
    return _Moved("outside", f"{seen}, not in {limits}")


def _against_prediction(evidence: KvEvidence, numbers: Numbers) -> str:
    """A remark when the answers are in the measured band, and not in the predicted one."""
    band = kv_limits.predicted(evidence.asked, evidence.types)
    if band is None or _is_in(numbers, band):
        return ""
    return f"; far from what its block format predicts: {_in_words(band)}"


def _without_band(evidence: KvEvidence, numbers: Numbers, seen: str) -> _Moved:
    asked, types = evidence.asked, evidence.types
    other = _fallback_band(evidence) if evidence.scripted else None
    if other is not None and numbers.distance.kl <= other.kl[1]:
        return _Moved("fallback", f"{seen}, no more than {FALLBACK} does")
    if evidence.scripted:
        unknown, limits = f"{asked}'s band is unmeasured", kv_limits.unmeasured(asked, types)
    else:
        unknown = "this model has no measured bands"
        limits = kv_limits.of_another_model(asked, types)
    if limits is None:
        return _Moved("beyond", f"{seen}; {unknown}, and nothing can stand in for it")
    allowed = f"{limits.source}, {_in_words(limits.band)}; {unknown}"
    if _is_in(numbers, limits.band):
        return _Moved("unmeasured", f"{seen}, within {allowed}")
    return _Moved("beyond", f"{seen}, not within {allowed}")


def _is_in(numbers: Numbers, band: Band) -> bool:
    low, high = band.kl
    return low <= numbers.distance.kl <= high and numbers.distance.top1 >= band.top1


def _in_words(band: Band) -> str:
    return f"{band.kl[0]:.1e} to {band.kl[1]:.1e}, top-1 from {band.top1:.0%}"


def _fallback_band(evidence: KvEvidence) -> Band | None:
    return evidence.types[FALLBACK].band if FALLBACK in evidence.types else None


# --- Words ----------------------------------------------------------------------------------------


def _in_effect(cache: CacheBytes, asked: Kv) -> InEffect:
    return InEffect(
        cache="window" if cache.windowed else "full",
        layers=cache.layers,
        k=cache.k.held(asked.k),
        v=cache.v.held(asked.v),
    )


def _bytes_in_words(evidence: KvEvidence, weighed: Bytes) -> str:
    if weighed.unknown is not None:
        return weighed.unknown
    parts = []
    for cache in weighed.caches:
        name = "window cache: " if cache.windowed else ""
        k = _half_in_words(cache.k, evidence.asked.k)
        v = _half_in_words(cache.v, evidence.asked.v)
        both = f"K and V each {k}" if k == v else f"K {k}, V {v}"
        parts.append(f"{name}{both} in {_layers(cache.layers)}{_slots(evidence.profile, cache)}")
    if weighed.by_name is not None:
        parts.append(f"by the log's names alone: {weighed.by_name}")
    return "; ".join(parts)


def _layers(count: int) -> str:
    return "1 layer" if count == 1 else f"{count} layers"


def _half_in_words(half: Half, asked: str) -> str:
    if half.unknown is not None:
        return f"unknown ({half.unknown})"
    held = half.held(asked)
    if held == asked:
        return f"{half.mib:.2f} MiB (as {asked})"
    if asked in half.types:
        return f"{half.mib:.2f} MiB (as {asked}, but the log names {held})"
    what = f"as {held}"
    if held == "mixed":
        what = f"as {half.mixes[0]}"
    if held == "another":
        what = "as no known type"
    return f"{half.mib:.2f} MiB ({what}; {asked} takes {half.expected_mib:.2f})"


def _slots(profile: Profile, cache: CacheBytes) -> str:
    """A remark when the cache has not the cells that the profile's slots need.

    Which is another probe's question: the type is told by the cells that there are.
    """
    cells = cache.cells * cache.streams
    apart = profile.parallel * memory.padded(profile.slot_tokens)
    together = memory.padded(profile.parallel * profile.slot_tokens)
    if cache.windowed or cells in {apart, together}:
        return ""
    return f" ({cells} cells, {profile.parallel} slots of {profile.slot_tokens} take {apart})"


def _words_in_words(log: str | None, said: Sequence[Seen]) -> str:
    if log is None:
        return "the server's log was not seen"
    return "; ".join(one.means for one in said) or "no line of the log tells of another type"
