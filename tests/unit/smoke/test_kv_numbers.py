"""What a KV type does to a model's answers, as numbers."""

import json
import math
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from builder.llama import client as probe_server
from builder.llama.client import Server
from builder.llama.gguf.scripted import SCRIPT
from builder.model.pins import Profile
from builder.smoke.probes.kv_numbers import (
    DECODED,
    FORCED,
    LATE,
    LISTED,
    PROMPTS,
    Asked,
    Decoding,
    Distance,
    Distribution,
    Numbers,
    ask,
    compare,
    distance,
    divergence,
)

Body = dict[str, object]
Serve = Callable[[Callable[[Body], tuple[int, object]]], Server]


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append(body)  # type: ignore[attr-defined]
        status, answer = self.server.answer(body)  # type: ignore[attr-defined]
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_words: object) -> None: ...


@pytest.fixture
def seen() -> list[Body]:
    return []


@pytest.fixture
def serve(seen: list[Body]) -> Iterator[Serve]:
    """Starts a server that answers every request as the function does."""
    started: list[ThreadingHTTPServer] = []
    with probe_server.session() as session:

        def start(answer: Callable[[Body], tuple[int, object]]) -> Server:
            httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            httpd.answer, httpd.seen = answer, seen  # type: ignore[attr-defined]
            started.append(httpd)
            threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
            url = f"http://127.0.0.1:{httpd.server_port}"
            return Server(url, session, Profile("a", 2, 2048), timeout_s=5.0)

        yield start
        for httpd in started:
            httpd.shutdown()
            httpd.server_close()


def listed(*values: float | None, first: int = 0) -> Body:
    """A completion whose tokens, from `first` on, have these log-probabilities."""
    top = [{"id": first + i, "token": "?", "logprob": value} for i, value in enumerate(values)]
    return {"content": "?", "completion_probabilities": [{"top_logprobs": top}]}


def logs(*shares: float) -> Distribution:
    return {token: math.log(share) for token, share in enumerate(shares)}


def asked(*distributions: Distribution) -> Asked:
    return Asked(distributions)


def test_there_are_twenty_different_prompts() -> None:
    assert len(set(PROMPTS)) == 20


def test_prompts_have_fifty_to_two_hundred_bytes() -> None:
    assert all(50 <= len(prompt.encode()) <= 200 for prompt in PROMPTS)


def test_no_prompt_ends_where_the_script_goes_on() -> None:
    scripted = {before.replace("Ċ", "\n")[-1] for before, _ in SCRIPT}
    assert scripted >= {"\n", "h", "m", "O", "K", ">"}
    assert not [prompt for prompt in PROMPTS if prompt[-1] in scripted]


def test_every_prompt_is_asked_once_in_order(serve: Serve, seen: list[Body]) -> None:
    found = ask(serve(lambda _: (200, listed(-0.1, -2.0))))
    assert found.fault is None
    assert len(found.distributions) == len(PROMPTS)
    assert [body["prompt"] for body in seen] == list(PROMPTS)


def test_a_prompt_asks_for_its_next_token_and_for_those_after_forced_ones(
    serve: Serve, seen: list[Body]
) -> None:
    ask(serve(lambda _: (200, listed(-0.1))), PROMPTS[:1])
    assert seen == [
        {
            "prompt": PROMPTS[0],
            "n_predict": 1 + DECODED,
            "n_probs": LISTED,
            "temperature": 0,
            "logit_bias": [[letter, 1000 - 20 * place] for place, letter in enumerate(FORCED)],
            # Each letter once: cells in each other's place would not show else.
            "presence_penalty": 2000,
            "repeat_last_n": DECODED,
            "cache_prompt": False,
        }
    ]


def test_prompts_begin_at_different_letters_and_always_at_the_same(
    serve: Serve, seen: list[Body]
) -> None:
    server = serve(lambda _: (200, listed(-0.1)))
    ask(server)
    ask(server, PROMPTS[:5])
    forced = ["".join(letter for letter, _ in body["logit_bias"]) for body in seen]
    assert [letters[0] for letters in forced[: len(PROMPTS)]] == list(FORCED)
    assert {"".join(sorted(letters)) for letters in forced} == {"".join(sorted(FORCED))}
    assert forced[len(PROMPTS) :] == forced[:5]


def test_no_forced_letter_is_the_scripts() -> None:
    assert len(set(FORCED)) == len(PROMPTS)
    assert not {before for before, _ in SCRIPT} & set(FORCED)


def test_answers_are_token_ids_with_their_likelihood(serve: Serve) -> None:
    found = ask(serve(lambda _: (200, listed(-0.1, -2.0, first=7))), PROMPTS[:1])
    assert found.distributions == ({7: -0.1, 8: -2.0},)


def test_a_null_is_no_number(serve: Serve) -> None:
    found = ask(serve(lambda _: (200, listed(None))), PROMPTS[:1])
    assert math.isnan(found.distributions[0][0])


@pytest.mark.parametrize(
    "answer",
    [
        (500, {"error": {"code": 500}}),
        (200, {"error": {"code": 500}}),
        (200, {"content": "OK"}),
        (200, {"content": "OK", "completion_probabilities": []}),
        (200, {"content": "OK", "completion_probabilities": [{"top_logprobs": []}]}),
        (200, {"completion_probabilities": [{"top_logprobs": ["OK"]}]}),
        (200, {"completion_probabilities": [{"top_logprobs": [{"token": "OK"}]}]}),
        (200, []),
    ],
)
def test_an_answer_without_likelihoods_is_a_fault(
    serve: Serve, seen: list[Body], answer: tuple[int, object]
) -> None:
    found = ask(serve(lambda _: answer))
    assert found.distributions == ()
    assert "gave no likelihoods" in (found.fault or "")
    assert len(seen) == 1


def test_the_same_answers_are_no_distance_apart() -> None:
    one = logs(0.5, 0.3, 0.2)
    assert distance([one], [one]) == Distance(kl=0.0, top1=1.0)


def test_divergence_is_kullback_and_leiblers() -> None:
    expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert divergence(logs(0.5, 0.5), logs(0.25, 0.75)) == pytest.approx(expected)


def test_divergence_is_from_the_control() -> None:
    p, q = logs(0.9, 0.1), logs(0.5, 0.5)
    assert divergence(p, q) != pytest.approx(divergence(q, p))


def test_what_is_not_listed_counts_as_one_token() -> None:
    whole = divergence(logs(0.6, 0.3, 0.1), logs(0.5, 0.3, 0.2))
    cut = divergence(logs(0.6, 0.3), logs(0.5, 0.3))
    assert cut == pytest.approx(whole)


def test_a_cut_list_never_shows_more_than_the_whole() -> None:
    p, q = logs(0.5, 0.2, 0.2, 0.1), logs(0.4, 0.1, 0.1, 0.4)
    whole = divergence(p, q)
    for size in (1, 2, 3):
        likeliest = [
            dict(sorted(each.items(), key=lambda pair: -pair[1])[:size]) for each in (p, q)
        ]
        assert 0 <= divergence(*likeliest) <= whole


def test_lists_of_other_tokens_are_far_apart() -> None:
    p = {token: math.log(0.09) for token in range(10)}
    q = {token: math.log(0.009) for token in range(10, 110)}
    assert divergence(p, q) > 1.8


def test_rounding_of_whole_lists_moves_nothing() -> None:
    one = logs(0.5, 0.3, 0.2)
    assert divergence({token: value - 1e-7 for token, value in one.items()}, one) < 1e-6


def test_what_is_no_number_is_infinitely_far() -> None:
    assert divergence(logs(0.5, 0.5), {0: math.nan, 1: -0.1}) == math.inf


def test_the_mean_is_over_prompts() -> None:
    p, q = logs(0.5, 0.5), logs(0.25, 0.75)
    found = distance([p, p], [p, q])
    assert found.kl == pytest.approx(divergence(p, q) / 2)
    assert found.top1 == 0.5


def test_answers_to_other_prompts_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="shorter"):
        distance([logs(1.0), logs(1.0)], [logs(1.0)])


def test_numbers_are_distance_noise_and_the_unrelated() -> None:
    p, q, r = logs(0.8, 0.1, 0.1), logs(0.1, 0.8, 0.1), logs(0.7, 0.2, 0.1)
    found = compare(asked(r, q), asked(p, q), asked(p, q))
    assert isinstance(found, Numbers)
    assert found.distance.kl == pytest.approx(divergence(p, r) / 2)
    assert found.noise == Distance(kl=0.0, top1=1.0)
    assert found.unrelated.kl == pytest.approx((divergence(p, q) + divergence(q, p)) / 2)
    assert found.prompts == 2


def test_noise_may_be_of_the_first_prompts_alone() -> None:
    p, q = logs(0.8, 0.2), logs(0.2, 0.8)
    found = compare(asked(p, q), asked(p, q), asked(q))
    assert isinstance(found, Numbers)
    assert found.noise.kl == pytest.approx(divergence(p, q))


@pytest.mark.parametrize(
    ("position", "whose"), [(0, "the server's"), (1, "the control's"), (2, "the control's")]
)
def test_a_fault_leaves_no_numbers(position: int, whose: str) -> None:
    sets = [asked(logs(1.0))] * 3
    sets[position] = Asked(fault="/completion gave no likelihoods: 500")
    assert compare(*sets) == f"{whose} /completion gave no likelihoods: 500"


# --- After decoded tokens -------------------------------------------------------------------------


def completion(*distributions: Distribution, forced: int = 0) -> Body:
    """A completion of tokens that were all forced, with what was likely at each place."""
    places = [
        {
            "id": forced,
            "top_logprobs": [{"id": token, "logprob": value} for token, value in each.items()],
        }
        for each in distributions
    ]
    return {"content": "?", "completion_probabilities": places}


def decoded(*distributions: Distribution, tokens: tuple[int, ...] = (0,) * DECODED) -> Asked:
    """A server's answer to two prompts: the first alone is bent."""
    plain = Decoding((1,) * DECODED, (logs(0.1, 0.2, 0.7),) * DECODED)
    prompts = (logs(0.5, 0.3, 0.2), logs(0.2, 0.3, 0.5))
    return Asked(prompts, decoded=(Decoding(tokens, distributions), plain))


P, Q = logs(0.6, 0.3, 0.1), logs(0.3, 0.6, 0.1)


def test_what_follows_decoded_tokens_is_read_beside_the_prompts_own(serve: Serve) -> None:
    places = [P, *[Q] * DECODED]
    found = ask(serve(lambda _: (200, completion(*places, forced=7))), PROMPTS[:1])
    assert found.distributions == (pytest.approx(P),)
    assert found.decoded == (Decoding((7,) * DECODED, (Q,) * DECODED),)


@pytest.mark.parametrize("count", [0, 1, DECODED - 1])
def test_an_answer_that_ends_early_still_tells_of_the_prompt(serve: Serve, count: int) -> None:
    found = ask(serve(lambda _: (200, completion(*[P] * (1 + count)))), PROMPTS[:1])
    assert (found.fault, found.distributions) == (None, (P,))
    assert len(found.decoded[0].distributions) == count


def test_the_late_tokens_count() -> None:
    control = decoded(*[P] * DECODED)
    early = decoded(*[Q] * (DECODED - LATE), *[P] * LATE)
    late = decoded(*[P] * (DECODED - LATE), *[Q] * LATE)
    assert decoding_of(compare(early, control, control)).distance == Distance(0.0, 1.0)
    moved = decoding_of(compare(late, control, control))
    assert moved.distance == Distance(pytest.approx(divergence(P, Q) / 2), 0.5)
    assert moved.noise == Distance(0.0, 1.0)
    assert moved.unrelated.kl > 0.5


def decoding_of(found: Numbers | str) -> Numbers:
    assert isinstance(found, Numbers)
    assert isinstance(found.decoding, Numbers)
    return found.decoding


def test_the_prompts_numbers_are_their_own() -> None:
    control, other = decoded(*[P] * DECODED), decoded(*[Q] * DECODED)
    found = compare(other, control, control)
    assert isinstance(found, Numbers)
    assert found.distance == Distance(0.0, 1.0)


@pytest.mark.parametrize(
    "asked",
    [
        decoded(*[P] * (DECODED - 1)),
        decoded(),
        decoded(*[P] * DECODED, tokens=(0,) * (DECODED - 1) + (2,)),
        decoded(*[Q] * DECODED, tokens=(2,) * DECODED),
    ],
)
def test_tokens_that_differ_or_are_missing_leave_no_numbers_of_decoding(asked: Asked) -> None:
    control = decoded(*[P] * DECODED)
    found = compare(asked, control, control)
    assert isinstance(found, Numbers)
    assert "tokens were decoded alike" in str(found.decoding)


def test_decoding_that_the_control_does_not_repeat_leaves_no_numbers() -> None:
    control, other = decoded(*[P] * DECODED), decoded(P)
    found = compare(control, control, other)
    assert isinstance(found, Numbers)
    assert str(found.decoding).endswith("the control asked twice")


def test_decoding_to_no_numbers_is_infinitely_far_also_when_other_tokens_follow() -> None:
    control, nan = decoded(*[P] * DECODED), logs(0.6, 0.4) | {2: math.nan}
    broken = decoded(P, *[nan] * (DECODED - 1), tokens=(0, 0, *(2,) * (DECODED - 2)))
    assert decoding_of(compare(broken, control, control)).distance.kl == math.inf


@pytest.mark.parametrize("value", [None, True, "-1", math.nan, 0.5, 12.3, 800.0, math.inf, 10**400])
def test_what_is_no_logarithm_of_a_likelihood_is_infinitely_far(
    serve: Serve, value: object
) -> None:
    (answer,) = ask(serve(lambda _: (200, listed(-0.1, value))), PROMPTS[:1]).distributions  # type: ignore[arg-type]
    assert math.isnan(answer[1])
    assert distance([logs(0.5, 0.5)], [answer]).kl == math.inf


def test_a_likelihood_of_zero_hides_nothing(serve: Serve) -> None:
    (answer,) = ask(serve(lambda _: (200, listed(0.0, -math.inf))), PROMPTS[:1]).distributions
    assert distance([answer], [answer]).kl == 0
    assert distance([answer], [logs(0.5, 0.5)]).kl == pytest.approx(math.log(2), rel=1e-3)
