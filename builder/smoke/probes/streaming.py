"""Streams of the three APIs put together: what they say, count, and whether they end properly.

The events are those of mainline 0c1e57098 [ran]: a chat ends with a `finish_reason` and `[DONE]`, a
message with a `message_delta` that has a `stop_reason` and with `message_stop`, a completion with
an event whose `stop` is true.
"""

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from builder.llama.client import Answer, Server, quoted, stream

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
COMPLETION = "/completion"

DONE = "[DONE]"

PIECES = 24
"""Tokens of a stream whose arrival is timed: a tenth of a second on two cores."""

_TEXTS = ("content", "reasoning_content")
"""The fields of a chat's piece that a token may be in."""

_FEWEST = 8
_TRIES = 3
_SHARE = 0.25
"""Of the time that pieces took to make, how much their arrival takes at least."""
_SHORTEST_S = 0.008
"""Less is no time to be told from that of reading what is there already."""


@dataclass(frozen=True, slots=True)
class Streamed:
    """A stream that was read to its end.

    `fault` says why it is not a proper stream, empty: it is one. `ending` is the reason that the
    server gives for the end, `tokens` and `prompt_tokens` what it counted. `stray` is text where
    this API has no thoughts, under a name that says that it is one. `pieces` are those with text.
    """

    thought: str = ""
    stray: str = ""
    text: str = ""
    ending: object = None
    tokens: object = None
    prompt_tokens: object = None
    pieces: int = 0
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Pace:
    """How a stream is handed over, and the figures that say so.

    `token_s` is how long a token took to make, in seconds; None: nobody says.
    """

    delivery: Literal["in pieces", "whole", "unknown"]
    words: str
    token_s: float | None = None


def read(server: Server, path: str, body: dict[str, object]) -> Streamed:
    """Ask for a stream at one of the three paths, and read all of it."""
    asked = {**body, "stream": True}
    if path == CHAT:
        asked["stream_options"] = {"include_usage": True}
    with stream(server, path, asked) as pieces:
        events = list(pieces)
    read_events = {CHAT: _chat, MESSAGES: _message, COMPLETION: _completion}[path]
    streamed = read_events(events)
    return replace(streamed, fault=pieces.fault or _error(events) or streamed.fault)


def pace(server: Server, path: str) -> Pace:
    """Whether the pieces of a stream come as they are made.

    Their arrival is held against the time that the server says it took to make them. A busy machine
    may read them late once, a stream that is handed over whole is so each time: three tries.
    """
    measured = Pace("unknown", "no stream was timed")
    for _ in range(_TRIES):
        measured = _pace(server, path)
        if measured.delivery != "whole":
            break
    return measured


def _pace(server: Server, path: str) -> Pace:
    arrivals: list[float] = []
    made_s = 0.0
    with stream(server, path, _long_request(server, path)) as pieces:
        for event in pieces:
            if _is_piece(event, path):
                arrivals.append(time.monotonic())
            predicted_ms = event.at("timings", "predicted_ms")
            if isinstance(predicted_ms, int | float):
                made_s = predicted_ms / 1000
    if pieces.fault:
        return Pace("unknown", pieces.fault)
    if len(arrivals) < _FEWEST or made_s <= 0:
        return Pace("unknown", f"{len(arrivals)} pieces, made in {made_s * 1000:.0f} ms")
    took_s = arrivals[-1] - arrivals[0]
    words = (
        f"{len(arrivals)} pieces came within {took_s * 1000:.0f} ms, made in {made_s * 1000:.0f} ms"
    )
    delivery: Literal["whole", "in pieces"] = "whole" if took_s < made_s * _SHARE else "in pieces"
    return Pace(delivery, words, made_s / len(arrivals))


def pace_of_messages(server: Server, token_s: float) -> Pace:
    """The same of /v1/messages, which says not how long it took: held against a chat's tokens.

    It takes no `ignore_eos` [read at mainline 0c1e57098], so that there are few of them. Unknown
    where they are made too quickly to tell.
    """
    measured = Pace("unknown", "no stream was timed")
    for _ in range(_TRIES):
        measured = _pace_of_messages(server, token_s)
        if measured.delivery != "whole":
            break
    return measured


def _pace_of_messages(server: Server, token_s: float) -> Pace:
    body = _long_request(server, MESSAGES) | {"chat_template_kwargs": {"enable_thinking": True}}
    arrivals, counted = list[float](), 0
    with stream(server, MESSAGES, body) as pieces:
        for event in pieces:
            arrivals.append(time.monotonic())
            tokens = event.at("usage", "output_tokens")
            counted = tokens if isinstance(tokens, int) else counted
    # The first event comes with the first token, the last one after the last.
    made_s = (counted - 1) * token_s
    if pieces.fault or made_s < _SHORTEST_S:
        return Pace("unknown", pieces.fault or f"made in {made_s * 1000:.0f} ms")
    took_s = arrivals[-1] - arrivals[0]
    words = f"{counted} tokens came within {took_s * 1000:.0f} ms, made in {made_s * 1000:.0f} ms"
    return Pace("whole" if took_s < made_s * _SHARE else "in pieces", words)


def _long_request(server: Server, path: str) -> dict[str, object]:
    """A request whose answer has `PIECES` tokens, whatever the model would say."""
    common = {"temperature": 0, "ignore_eos": True, "stream": True}
    if path == COMPLETION:
        return {"prompt": "Count: one, two,", "n_predict": PIECES, **common}
    return {
        "model": server.profile.alias,
        "messages": [{"role": "user", "content": "Count: one, two,"}],
        "max_tokens": PIECES,
        **common,
    }


def _is_piece(event: Answer, path: str) -> bool:
    if path == COMPLETION:
        return event.at("stop") is False
    delta = event.at("choices", 0, "delta")
    return isinstance(delta, dict) and any(delta.get(name) for name in _TEXTS)


_THOUGHTS = re.compile(r"reasoning|thinking|thought", re.IGNORECASE)
_THOUGHT_BLOCKS = {"thinking", "redacted_thinking"}


def _strays(event: Answer) -> Iterator[object]:
    """What a piece of a chat has under the name of a thought, but for `reasoning_content`."""
    delta = event.at("choices", 0, "delta")
    for name, value in delta.items() if isinstance(delta, dict) else ():
        if name not in _TEXTS and _THOUGHTS.search(name):
            yield value


def _chat(events: Sequence[Answer]) -> Streamed:
    reasons = _texts(event.at("choices", 0, "finish_reason") for event in events)
    usages = [event for event in events if isinstance(event.at("usage"), dict)]
    faults = []
    if not reasons:
        faults.append("it ends without a finish_reason")
    if not events or events[-1].text != DONE:
        faults.append(f"it ends without {DONE}")
    return Streamed(
        thought=_joined(event.at("choices", 0, "delta", "reasoning_content") for event in events),
        stray=_joined(stray for event in events for stray in _strays(event)),
        text=_joined(event.at("choices", 0, "delta", "content") for event in events),
        ending=reasons[-1] if reasons else None,
        tokens=usages[-1].at("usage", "completion_tokens") if usages else None,
        prompt_tokens=usages[-1].at("usage", "prompt_tokens") if usages else None,
        pieces=sum(_is_piece(event, CHAT) for event in events),
        fault=", ".join(faults),
    )


def _message(events: Sequence[Answer]) -> Streamed:
    """A message's stream: `message_start` has the prompt's tokens, `message_delta` the answer's."""
    starts = [event for event in events if event.at("type") == "message_start"]
    deltas = [event for event in events if event.at("type") == "message_delta"]
    reasons = _texts(event.at("delta", "stop_reason") for event in deltas)
    faults = []
    if not reasons:
        faults.append("it ends without a message_delta that has a stop_reason")
    if not events or events[-1].at("type") != "message_stop":
        faults.append("it ends without message_stop")
    names = ("input_tokens", "cache_read_input_tokens")
    counts = [start.at("message", "usage", name) for start in starts for name in names]
    return Streamed(
        thought=_joined(event.at("delta", "thinking") for event in events)
        # A block of thoughts is one even when nothing is in it.
        or "…" * any(_begins_thought(event) for event in events),
        text=_joined(event.at("delta", "text") for event in events),
        ending=reasons[-1] if reasons else None,
        tokens=deltas[-1].at("usage", "output_tokens") if deltas else None,
        prompt_tokens=sum(count for count in counts if isinstance(count, int)),
        pieces=sum(
            bool(event.at("delta", "text") or event.at("delta", "thinking")) for event in events
        ),
        fault=", ".join(faults),
    )


def _begins_thought(event: Answer) -> bool:
    kind = event.at("content_block", "type")
    return isinstance(kind, str) and kind in _THOUGHT_BLOCKS


def _completion(events: Sequence[Answer]) -> Streamed:
    last = events[-1] if events else Answer(None, "")
    return Streamed(
        text=_joined(event.at("content") for event in events),
        ending=last.at("stop_type"),
        tokens=last.at("tokens_predicted"),
        prompt_tokens=last.at("tokens_evaluated"),
        fault="" if last.at("stop") is True else "it ends without an event whose stop is true",
    )


def _error(events: Sequence[Answer]) -> str:
    """What is wrong with the first event that is an error, or nothing that an API sends."""
    for event in events:
        if event.at("error") or event.at("type") == "error":
            return f"an error in it: {quoted(event.text, 100)}"
        if not isinstance(event.body, dict) and event.text != DONE:
            return f"an event that is not a JSON object: {quoted(event.text)}"
    return ""


def _joined(parts: Iterable[object]) -> str:
    return "".join(_texts(parts))


def _texts(values: Iterable[object]) -> list[str]:
    return [value for value in values if isinstance(value, str) and value]
