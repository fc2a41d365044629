"""What a KV type does to a model's answers: log-probabilities against those with f16 KV.

Each prompt asks for the likelihood of many tokens: of those that follow the prompt, and of those
that follow tokens which were decoded after it. The two are other kernels on a GPU, and only
decoding reads what decoding has written. A server whose log says turbo4 and whose answers are those
of f16 to the last digit has no turbo4.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TypeVar

from builder.llama.client import Answer, Server, post

LISTED = 512
"""Tokens whose likelihood is asked for: more than the scripted model's vocabulary has.

Of a real model's these are the likeliest; see `divergence` for the rest.
"""

DECODED = 8
"""Tokens decoded one by one after each prompt. Each is forced: an answer of its own choice would
lead two servers apart."""

LATE = 2
"""The last of them, whose answers count: by then a tenth of the cells that are read was written by
decoding. With all of these lost, or each written over the one before, the scripted model's answers
move by five times what a fair type of 4 bits does (9e-2 for 1.7e-2, computed in numpy); with V
doubled while decoding, by 3.6e-1."""

FORCED = "etaoinsrldcufpgwybvk"
"""The letters that are forced after a prompt, each at most once in `DECODED` tokens: a token of its
own in all vocabularies, and none that the scripted model's script goes on from. The prompts begin
at different ones. Were it one letter all along, cells in each other's place would not show."""

_BIAS, _STEP = 1000, 20
"""Added to the logit of the first letter before one is chosen, and how much less to each next one:
more than the model's own likes. Likelihoods are given without it."""

_ONCE = 2 * _BIAS
"""Taken from a letter's logit while it is among the last `DECODED` tokens."""

PROMPTS = (
    "The harbour was quiet that morning, and the boats lay still under fog.",
    "def area(width, height):\n    return width * height\n\nprint(area(3, 4)",
    "In 1969 two people walked on the moon for 2 hours and 31 minutes.",
    "Q: Which river flows through Vienna and Budapest?\nA: It is the river",
    "SELECT name, SUM(amount) FROM orders GROUP BY name LIMIT 10;",
    "Take two eggs, a cup of flour and half a litre of milk; whisk, then fry",
    "Der Zug nach Hamburg hat heute etwa zwanzig Minuten Verspätung",
    '{"id": 4711, "tags": ["red", "round"], "size": {"x": 12.5, "y": 8.25}}',
    "1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597,",
    "Dear Sir, thank you for your letter of 12 March. We regret that the part",
    "La lune se lève derrière les collines et la route devient blanche;",
    "A triangle with sides 3, 4 and 5 has a right angle, because 9 + 16 = 25.",
    "ERROR 2024-05-17 09:41:12 worker-3: connection reset by peer (attempt 4)",
    "There was once a fox that counted the hens every evening, one too few,",
    "for i in $(seq 1 20); do curl -s localhost:8080/health && break; done",
    "The patient, aged 54, reports a dull pain in the left shoulder since May,",
    "Water boils at 100 degrees at sea level, and on Everest already at 71",
    "To be fair, the second film is louder and longer, yet not half as good.",
    "x^2 - 5x + 6 = 0 factors into (x - 2)(x - 3) = 0, so x = 2 or x = 3;",
    "<ul><li>bread, 2 loaves</li><li>olives, 400 g</li></ul><p>Paid today",
)
"""Prose, code, numbers, three languages: 60 to 75 bytes each, the tokens of the scripted model.

None ends in h, m, O, K or a newline: what follows those is in the scripted model's script, and so
certain that no cache can move it.
"""

_Item = TypeVar("_Item")

Distribution = Mapping[int, float]
"""Token id → natural logarithm of its likelihood; NaN where the server had no number."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """What a server decoded after one prompt: token ids, and what it held likely after each."""

    tokens: tuple[int, ...] = ()
    distributions: tuple[Distribution, ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """A server's answer to every prompt, or the first fault in one.

    `distributions` are of the token that follows the prompt, `decoded` of those that follow then.
    """

    distributions: tuple[Distribution, ...] = ()
    fault: str | None = None
    decoded: tuple[Decoding, ...] = ()


@dataclass(frozen=True, slots=True)
class Distance:
    """How far answers lie from others.

    `kl` is the mean Kullback-Leibler divergence in nats a token, infinite when a value is no
    number; `top1` the share of prompts whose likeliest token is the same.
    """

    kl: float
    top1: float


@dataclass(frozen=True, slots=True)
class Numbers:
    """A server's answers against its f16 control's.

    `noise` is how far the control lies from itself, asked twice; `unrelated` how far from each
    other its answers to different prompts lie. `decoding` are the same numbers after decoded
    tokens; a text says why there are none, None that nobody asked.
    """

    distance: Distance
    noise: Distance
    unrelated: Distance
    prompts: int
    decoding: "Numbers | str | None" = None


def ask(server: Server, prompts: Sequence[str] = PROMPTS) -> Asked:
    """The answers to the prompts, one after the other.

    Together they would be computed in other batches, whose sums are rounded otherwise.
    """
    found, decoded = [], []
    for number, prompt in enumerate(prompts):
        first = number % len(FORCED)
        letters = FORCED[first:] + FORCED[:first]
        answer = post(server, "/completion", _request(prompt, letters))
        distribution = _distribution(answer, 0)
        if distribution is None:
            return Asked(fault=f"/completion gave no likelihoods: {answer}")
        found.append(distribution)
        decoded.append(_decoding(answer))
    return Asked(tuple(found), decoded=tuple(decoded))


def compare(asked: Asked, control: Asked, again: Asked) -> Numbers | str:
    """The numbers of a server's answers and its control's, or why there are none.

    `again` are the control's once more, or the first few of them. Raises ValueError when the
    server's answers and the control's are not as many.
    """
    for name, one in (("server", asked), ("control", control), ("control", again)):
        if one.fault is not None:
            return f"the {name}'s {one.fault}"
    return Numbers(
        distance=distance(control.distributions, asked.distributions),
        noise=distance(control.distributions[: len(again.distributions)], again.distributions),
        unrelated=distance(control.distributions, _rotated(control.distributions)),
        prompts=len(control.distributions),
        decoding=_after_decoding(asked.decoded, control.decoded, again.decoded),
    )


def _after_decoding(
    asked: Sequence[Decoding], control: Sequence[Decoding], again: Sequence[Decoding]
) -> Numbers | str:
    """The numbers of what follows decoded tokens, or why there are none."""
    moved = _late_distance(control, asked)
    noise = _late_distance(control[: len(again)], again)
    if isinstance(moved, str):
        return moved
    if isinstance(noise, str):
        return f"{noise}, the control asked twice"
    others = zip(control, _rotated(control), strict=True)
    return Numbers(
        distance=moved,
        noise=noise,
        unrelated=distance(*_late(others)),
        prompts=len(control),
    )


def _late_distance(reference: Sequence[Decoding], other: Sequence[Decoding]) -> Distance | str:
    """How far two servers are apart after the same decoded tokens, or why that is not known."""
    pairs = list(zip(reference, other, strict=True))
    alike = [_alike(one, another) for one, another in pairs]
    read = [
        value
        for (_, another), count in zip(pairs, alike, strict=True)
        for distribution in another.distributions[:count]
        for value in distribution.values()
    ]
    # Whatever was chosen after it: one value that is no number is garbage.
    if any(map(math.isnan, read)):
        return Distance(kl=math.inf, top1=0.0)
    if not pairs or min(alike) < DECODED:
        most = min(alike, default=0)
        return f"no {DECODED} tokens were decoded alike after each prompt, but {most} after one"
    return distance(*_late(pairs))


def _alike(one: Decoding, another: Decoding) -> int:
    """After how many decoded tokens both servers told what is likely, all tokens the same."""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(one.tokens, another.tokens, strict=False))
    return min(len(list(same)), len(one.distributions), len(another.distributions))


def _late(
    pairs: Iterable[tuple[Decoding, Decoding]],
) -> tuple[list[Distribution], list[Distribution]]:
    """The distributions that count, one server's and the other's."""
    reference, other = zip(*pairs, strict=True)
    return (
        [late for each in reference for late in each.distributions[-LATE:]],
        [late for each in other for late in each.distributions[-LATE:]],
    )


def _rotated(items: Sequence[_Item]) -> list[_Item]:
    """Each prompt's answer in the place of the one before."""
    return [*items[1:], *items[:1]]


def distance(reference: Sequence[Distribution], other: Sequence[Distribution]) -> Distance:
    """The mean over prompts of how far `other` is from `reference`.

    Raises ValueError when they are not as many.
    """
    pairs = list(zip(reference, other, strict=True))
    return Distance(
        kl=sum(divergence(p, q) for p, q in pairs) / len(pairs),
        top1=sum(_likeliest(p) == _likeliest(q) for p, q in pairs) / len(pairs),
    )


def divergence(p: Distribution, q: Distribution) -> float:
    """KL(p ‖ q) in nats. Infinite when a value is no number.

    Exact when both list the whole vocabulary, else a lower bound: a token that `q` does not list is
    no likelier there than the least that it lists, and all that is left counts as one token.
    """
    if any(math.isnan(value) for value in (*p.values(), *q.values())):
        return math.inf
    common = [token for token in p if token in q]
    missing = [token for token in p if token not in q]
    total = sum(math.exp(p[token]) * (p[token] - q[token]) for token in common)
    least, left = min(q.values()), _rest(q, common)
    as_one = _relative(_rest(p, common), left)
    apart = sum(math.exp(p[token]) * (p[token] - least) for token in missing)
    return max(0.0, total + max(as_one, apart + _relative(_rest(p, list(p)), left)))


_LEAST = 1e-5
"""Likelihood below which what is left is the rounding of what is listed."""


def _rest(distribution: Distribution, listed: Sequence[int]) -> float:
    return max(_LEAST, 1.0 - math.fsum(math.exp(distribution[token]) for token in listed))


def _relative(share: float, other: float) -> float:
    return share * math.log(share / other)


def _likeliest(distribution: Distribution) -> int:
    return max(distribution, key=lambda token: distribution[token])


def _request(prompt: str, letters: str) -> dict[str, object]:
    return {
        "prompt": prompt,
        "n_predict": 1 + DECODED,
        "n_probs": LISTED,
        "temperature": 0,
        "logit_bias": [[one, _BIAS - _STEP * place] for place, one in enumerate(letters)],
        "presence_penalty": _ONCE,
        "repeat_last_n": DECODED,
        "cache_prompt": False,
    }


def _decoding(answer: Answer) -> Decoding:
    """What was decoded, as far as the answer tells."""
    tokens: list[int] = []
    distributions: list[Distribution] = []
    for index in range(DECODED):
        token = answer.at("completion_probabilities", index, "id")
        distribution = _distribution(answer, index + 1)
        if not isinstance(token, int) or distribution is None:
            break
        tokens.append(token)
        distributions.append(distribution)
    return Decoding(tuple(tokens), tuple(distributions))


def _distribution(answer: Answer, index: int) -> Distribution | None:
    """What the answer tells of the token at this place, None when it tells nothing."""
    listed = answer.at("completion_probabilities", index, "top_logprobs")
    if answer.status != 200 or not isinstance(listed, list) or not listed:  # noqa: PLR2004
        return None
    found: dict[int, float] = {}
    for entry in listed:
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), int):
            return None
        found[entry["id"]] = _logprob(entry.get("logprob"))
    return found


_LOWEST = -3.5e38
"""Nats: below what llama-server writes for a likelihood of zero, the lowest number of 32 bits."""


def _logprob(value: object) -> float:
    """NaN for what is no logarithm of a likelihood. JSON has no NaN: llama-server writes null."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value <= _LEAST:
        return math.nan
    return float(max(value, _LOWEST))
