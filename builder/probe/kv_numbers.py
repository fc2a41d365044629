"""What a KV type does to a model's answers: log-probabilities against those with f16 KV.

Each prompt asks for one token and the likelihood of many. A server whose log says turbo4 and whose
answers are those of f16 to the last digit has no turbo4.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from builder.probe.server import Answer, Server, post

LISTED = 512
"""Tokens whose likelihood is asked for: more than the scripted model's vocabulary has.

Of a real model's these are the likeliest; see `divergence` for the rest.
"""

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

Distribution = Mapping[int, float]
"""Token id → natural logarithm of its likelihood; NaN where the server had no number."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A server's answer to every prompt, or the first fault in one."""

    distributions: tuple[Distribution, ...] = ()
    fault: str | None = None


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
    other its answers to different prompts lie.
    """

    distance: Distance
    noise: Distance
    unrelated: Distance
    prompts: int


def ask(server: Server, prompts: Sequence[str] = PROMPTS) -> Asked:
    """The answers to the prompts, one after the other.

    Together they would be computed in other batches, whose sums are rounded otherwise.
    """
    found = []
    for prompt in prompts:
        answer = post(server, "/completion", _request(prompt))
        distribution = _distribution(answer)
        if distribution is None:
            return Asked(fault=f"/completion gave no likelihoods: {answer}")
        found.append(distribution)
    return Asked(tuple(found))


def compare(asked: Asked, control: Asked, again: Asked) -> Numbers | str:
    """The numbers of a server's answers and its control's, or why there are none.

    `again` are the control's once more, or the first few of them. Raises ValueError when the
    server's answers and the control's are not as many.
    """
    for name, one in (("server", asked), ("control", control), ("control", again)):
        if one.fault is not None:
            return f"the {name}'s {one.fault}"
    reference = control.distributions
    others = [after for _, after in pairwise((*reference, reference[0]))]
    return Numbers(
        distance=distance(reference, asked.distributions),
        noise=distance(reference[: len(again.distributions)], again.distributions),
        unrelated=distance(reference, others),
        prompts=len(reference),
    )


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


def _request(prompt: str) -> dict[str, object]:
    return {
        "prompt": prompt,
        "n_predict": 1,
        "n_probs": LISTED,
        "temperature": 0,
        "cache_prompt": False,
    }


def _distribution(answer: Answer) -> Distribution | None:
    listed = answer.at("completion_probabilities", 0, "top_logprobs")
    if answer.status != 200 or not isinstance(listed, list) or not listed:  # noqa: PLR2004
        return None
    found: dict[int, float] = {}
    for entry in listed:
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), int):
            return None
        value = entry.get("logprob")
        # JSON has no NaN: llama-server writes null.
        found[entry["id"]] = float(value) if isinstance(value, int | float) else math.nan
    return found
