"""A profile against the model and the card it is to run on: what cannot work, and what costs.

Pure. Sizes are bytes, contexts tokens of a slot.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from builder.common.errors import UsageError
from builder.llama.gguf import kv_held, memory
from builder.llama.gguf.fit import RESERVE
from builder.llama.gguf.memory import Model
from builder.llama.placement import EXPERTS, placement
from builder.llama.slots import launch_slots
from builder.model.pins import Kv, KvRules, KvType, Logits, Pins, Profile

AGENT = 32768
"""What an agent's slot uses: the Agent SDK's prompts run from 10k to 27k tokens."""

_GIB = 1024**3
_STEP = 256
_ALL_QUANTS = "GGML_CUDA_FA_ALL_QUANTS"
_STRETCHED = ("--rope-scaling", "--rope-scale", "--rope-freq-scale", "--yarn-orig-ctx")


@dataclass(frozen=True, slots=True)
class Plan:
    """A profile by its name, and what it meets: the KV types of a fork, its rules for them.

    `model` None: its header tells no shape. `card` is the memory of all GPUs together, None where
    none is known or the profile uses none. `draft` is the size of the draft model's file.
    `all_quants`: whether the image was built for K and V of two types, None when nobody knows.
    `logits` is for which tokens its server reserves them.
    """

    name: str
    profile: Profile
    kv: Kv
    types: Mapping[str, KvType]
    model: Model
    rules: KvRules = kv_held.NO_RULES
    card: int | None = None
    draft: int = 0
    all_quants: bool | None = None
    logits: Logits = "batch"


def advise(plan: Plan) -> list[str]:
    """What to be warned of, each with its place.

    Raises UsageError for what the figures rule out: a card that is too small, K and V of two types
    on an image that was not built for it.
    """
    _require_card(plan)
    return [
        f"profiles.{plan.name}.{text}"
        for told in (_mixed, _native, _heads, _experts)
        for text in told(plan)
    ]


def all_quants(pins: Pins, variant: str | None) -> bool | None:
    """Whether a variant's build takes K and V of two types on a GPU; None: no such variant."""
    known = pins.variants.get(variant or "")
    if known is None:
        return None
    if not known.architectures:
        return True  # a CPU computes any pair
    said = {**pins.forks[known.fork].options, **known.options}.get(_ALL_QUANTS, True)
    return str(said).upper() in {"TRUE", "ON", "1", "YES"}


def need(plan: Plan, tokens: int, *, experts: bool) -> int | None:
    """What slots of so many tokens take of the card; None where the KV types' bytes are not known.

    Counted as the profile places it: experts and a cache that it leaves to the CPU take nothing.
    `experts`: with those of a mixture on the card all the same.
    """
    model, placed = plan.model, placement(plan.profile)
    slots = launch_slots(plan.profile, tokens, plan.logits)
    kv = memory.kv_need(model.shape, plan.kv, plan.types, slots, _rules(plan))
    if kv is None or model.shape.unknown:
        return None
    weights = model.weights.card - (0 if experts else sum(model.weights.experts[: placed.experts]))
    cache = 0 if placed.kv else kv.total + memory.state_bytes(model.shape, slots)
    return weights + plan.draft + cache + memory.compute_bytes(model, slots) + RESERVE


def _rules(plan: Plan) -> KvRules:
    return kv_held.in_force(plan.rules, plan.profile.env)


def _says(plan: Plan, *flags: str) -> bool:
    return any(flag in plan.profile.flags for flag in flags)


def _require_card(plan: Plan) -> None:
    placed = placement(plan.profile)
    wanted = need(plan, plan.profile.slot_tokens, experts=False)
    # Whoever places layers or tensors by hand knows what they do, and the figures do not.
    if plan.card is None or wanted is None or placed.off or placed.tensors:
        return
    shape = plan.model.shape
    if placed.layers is not None and placed.layers < max(shape.total, len(shape.layers)):
        return
    if wanted > plan.card:
        weights = plan.model.weights.card - sum(plan.model.weights.experts[: placed.experts])
        slots = f"{plan.profile.parallel} × {plan.profile.slot_tokens} tokens"
        raise UsageError(
            f"profile {plan.name} takes {_gib(wanted)} of a card of {_gib(plan.card)}",
            why=f"{_gib(weights)} of weights; KV {plan.kv} for {slots} and buffers take "
            f"{_gib(wanted - weights - RESERVE)}, {_gib(RESERVE)} is kept for CUDA",
            hint="`builder fit --model PATH` says which KV types, contexts and slots fit",
        )


def _mixed(plan: Plan) -> Iterator[str]:
    if plan.kv.k == plan.kv.v or plan.profile.gpu == "none" or plan.all_quants:
        return
    text = f"K is {plan.kv.k} and V {plan.kv.v}, which takes a build with {_ALL_QUANTS}=ON"
    if plan.all_quants is False:
        raise UsageError(
            f"profiles.{plan.name}.kv: {text}",
            why="this image's variant turns it off",
            hint="one type for both, or another image",
        )
    yield f"kv: {text}; no label of the image tells whether it is one"


def _native(plan: Plan) -> Iterator[str]:
    native, asked = plan.model.native, plan.profile.slot_tokens
    if native and asked > native and not _says(plan, *_STRETCHED):
        yield (
            f"slot_tokens: {asked} is past the {native} tokens that the model was trained for, and "
            f"answers get worse there; write {native}, or a --rope-scaling in flags"
        )


def _heads(plan: Plan) -> Iterator[str]:
    shape, rules = plan.model.shape, _rules(plan)
    if why := kv_held.refusal(shape, plan.kv, plan.types, rules):
        # The rules are those of the fork's pin, and the image may be of another commit.
        yield f"kv: {why}"
    yield from (f"kv: {what}" for what in kv_held.departures(shape, plan.kv, rules))


def _experts(plan: Plan) -> Iterator[str]:
    """Experts that left the card for a context that no agent fills."""
    if not _says(plan, *EXPERTS):
        return
    experts = sum(plan.model.weights.experts)
    if not experts:
        yield "flags: -cmoe and -ncmoe change nothing: the model has no experts"
        return
    asked = plan.profile.slot_tokens
    bought, enough = need(plan, asked, experts=False), need(plan, AGENT, experts=False)
    if asked <= AGENT or bought is None or enough is None:
        return
    text = (
        f"flags: up to {_gib(experts)} of experts run on the CPU, many times slower, and "
        f"{asked} tokens a slot take {_gib(bought - enough)} more than the {AGENT} that an agent "
        "uses"
    )
    if plan.card is None:
        yield f"{text}; `builder fit` says what fits without"
    elif longest := _longest(plan, plan.card):
        yield f"{text}; {longest} tokens a slot fit this card with every expert on it"


def _longest(plan: Plan, card: int) -> int:
    """The longest context that fits with all experts on the card, from AGENT on; 0 for none."""
    fitting = [
        tokens
        for tokens in range(AGENT, plan.profile.slot_tokens + 1, _STEP)
        if (need(plan, tokens, experts=True) or 0) <= card
    ]
    return max(fitting, default=0)


def _gib(size: int) -> str:
    return f"{size / _GIB:.2f} GiB"
