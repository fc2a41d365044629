"""Does the same question get the same answer."""

import math
from dataclasses import dataclass

from builder.llama.client import OK, Answer, Server, post, quoted
from builder.model.finding import Finding

PROBE = "determinism"
EXPECTED = "greedy output repeats, with prompt cache on and off"

TOKENS = 24
TIE = 0.05
"""Nats between the two likeliest tokens below which rounding may choose.

A prompt from the cache was computed in batches of another size, whose sums are rounded otherwise:
llama.cpp promises no equal bits there. For the same request twice it leaves no such room.
"""

_UNCACHED = 2
_UNUSED = (
    "the prompt cache was never seen in use (a sliding window or recurrent layers need a "
    "checkpoint to go back to, and a prompt this short may have none)"
)

PROMPTS = (
    "The harbour was quiet that morning, and the boats lay still under a thin grey fog. Then",
    "def area(width, height):\n    return width * height\n\nprint(area(3, 4)",
    "1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144,",
)


@dataclass(frozen=True, slots=True)
class _Run:
    """An answer: its text, and a margin in nats for each token, if the server gave any.

    `cached`: some of the prompt came from the cache. `fault`: there was no answer.
    """

    text: str = ""
    tokens: tuple[tuple[object, float], ...] = ()
    cached: bool = False
    fault: str = ""


def determinism(server: Server) -> Finding:
    """Whether greedy output repeats exactly, and is the same from the prompt cache.

    All requests go to slot 0: another slot may hold its cells in another order. A server that never
    took anything from its cache leaves the second question open.
    """
    ties, cached = 0, True
    for prompt in PROMPTS:
        runs: list[_Run] = []
        # The slot remembers the prompt in any case: the third finds it there.
        for cache in (False, False, True):
            runs.append(_ask(server, prompt, cache=cache))
            if fault := runs[-1].fault or _difference(runs):
                return Finding(PROBE, "fail", EXPECTED, f"{quoted(prompt, 20)}: {fault}")
        ties += runs[-1].text != runs[0].text
        cached = cached and runs[-1].cached
    seen = f"{len(PROMPTS)} prompts, {TOKENS} tokens each: the same twice with the cache off"
    if not cached:
        why = f"{seen}; {_UNUSED}"
        return Finding(PROBE, "unproven", EXPECTED, why)
    but = f", but for {ties} near ties" if ties else ""
    return Finding(PROBE, "pass", EXPECTED, f"{seen}, and from the cache{but}")


def _difference(runs: list[_Run]) -> str:
    """How the last of these runs differs from the first; the third came from the cache."""
    first, last = runs[0], runs[-1]
    cached = len(runs) > _UNCACHED
    if last.text == first.text or (cached and _tie(first, last)):
        return ""
    then = "with the cache" if cached else "then"
    return f"{quoted(first.text, 30)}, {then} {quoted(last.text, 30)}"


def _tie(one: _Run, other: _Run) -> bool:
    """Whether both part at a token that neither was sure of."""
    for (token, margin), (instead, other_margin) in zip(one.tokens, other.tokens, strict=False):
        if token != instead:
            return max(margin, other_margin) < TIE
    return False


def _ask(server: Server, prompt: str, *, cache: bool) -> _Run:
    body = {
        "prompt": prompt,
        "n_predict": TOKENS,
        "temperature": 0,
        "n_probs": 2,
        "cache_prompt": cache,
        "id_slot": 0,
    }
    answer = post(server, "/completion", body)
    text = answer.at("content")
    if answer.status != OK or not isinstance(text, str) or not text:
        return _Run(fault=str(answer))
    count = answer.at("timings", "cache_n")
    return _Run(text, _tokens(answer), isinstance(count, int) and count > 0)


def _tokens(answer: Answer) -> tuple[tuple[object, float], ...]:
    listed = answer.at("completion_probabilities")
    count = len(listed) if isinstance(listed, list) else 0
    steps = [("completion_probabilities", index) for index in range(count)]
    return tuple((answer.at(*step, "id"), _margin(answer, step)) for step in steps)


def _margin(answer: Answer, step: tuple[str, int]) -> float:
    """How much likelier the likeliest token was, in nats; infinite when nobody says."""
    first, second = (answer.at(*step, "top_logprobs", rank, "logprob") for rank in (0, 1))
    if isinstance(first, int | float) and isinstance(second, int | float):
        return float(first - second)
    return math.inf
