"""Does it stand what clients do: many at once, streams, nonsense, hanging up."""

import json
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from builder.llama.client import NOT_FOUND, OK, Answer, Server, get, post, post_raw, quoted, stream
from builder.model.finding import Finding, verdict
from builder.smoke.probes import streaming
from builder.smoke.probes.streaming import CHAT, COMPLETION, MESSAGES, Streamed
from builder.smoke.probes.thinking import MOST_TOKENS

PROBE = "load"
EXPECTED = (
    "two requests a slot at once are answered right; streams say the same; nonsense is refused or "
    "survived; hanging up frees the slot"
)

FREE_S = 3.0
"""Seconds in which a slot must be free after its client has hung up.

llama-server looks once a second, and after each token of a stream [read in server-context.cpp].
"""

MOST_FAULTS = 3
"""Faults that the finding tells one by one."""

STREAM_TRIES = 3
"""How often a real model may be asked until a stream says what the whole answer said.

The first answer fills the prompt cache and the next one is read from it: at a near tie of two
tokens rounding may choose. Later ones are asked alike.
"""

_POLL_S = 0.02
_ROOM = 64
_CLIENT_ERRORS = range(400, 500)
_SERVER_ERRORS = range(500, 600)


Said = tuple[str, str]
"""Thoughts and text."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one step found: faults, and what is worth saying where there are none.

    `unproven` says why the step could not tell.
    """

    faults: tuple[str, ...] = ()
    note: str = ""
    unproven: str = ""


@dataclass(frozen=True, slots=True)
class Nonsense:
    """A request that no client should send. `servable`: a server may make sense of it."""

    name: str
    path: str
    data: bytes
    servable: bool = False


def _json(**fields: object) -> bytes:
    return json.dumps(fields).encode()


NONSENSE = (
    Nonsense("malformed JSON for chats", CHAT, b'{"messages": ['),
    Nonsense("malformed JSON for messages", MESSAGES, b'{"messages": ['),
    Nonsense("a number as messages", CHAT, _json(messages=5, max_tokens=4)),
    Nonsense("a number as prompt", COMPLETION, _json(prompt=5, n_predict=4)),
    # Some commits take the default where a parameter has the wrong type.
    Nonsense(
        "a word as temperature",
        CHAT,
        _json(messages=[{"role": "user", "content": "x"}], temperature="hot", max_tokens=4),
        servable=True,
    ),
    # mainline 0c1e57098 answers as if the template had been enough.
    Nonsense("empty messages", CHAT, _json(messages=[], max_tokens=4), servable=True),
    Nonsense("an unknown path", "/no/such/path", b"{}"),
)


def load(server: Server) -> Finding:
    """Whether the server answers a crowd, streams, nonsense and hang-ups, and lives on.

    At least twelve requests, so that a server that dies on its tenth is caught. Nothing more is
    asked once there are faults: a server that is gone, or hangs, costs its timeout but once.
    """
    notes, unproven = [], []
    for step in _STEPS:
        seen = step(server)
        if seen.faults:
            return verdict(PROBE, holds=False, expected=EXPECTED, observed=_listed(seen.faults))
        notes.append(seen.note)
        unproven.append(seen.unproven)
    open_ = [*filter(None, unproven)]
    observed = "; ".join([*open_, *filter(None, notes)])
    return Finding(PROBE, "unproven" if open_ else "pass", EXPECTED, observed)


def _listed(faults: tuple[str, ...]) -> str:
    more = len(faults) - MOST_FAULTS
    return "; ".join([*faults[:MOST_FAULTS], *([f"{more} more"] if more > 0 else [])])


def _crowd(server: Server) -> Seen:
    """Twice as many requests at once as there are slots, no two alike."""
    count = 2 * server.profile.parallel
    with ThreadPoolExecutor(max_workers=count) as pool:
        found = list(pool.map(lambda number: _one_of_many(server, number, count), range(count)))
    faults = tuple(f"of {count} at once: {fault}" for fault in found if fault)
    return Seen(faults, f"{count} at once answered{' right' if server.script else ''}")


def _one_of_many(server: Server, number: int, count: int) -> str:
    """What is wrong with one answer of a crowd of so many.

    With a script, every other one is to go on with the reply after its first letter: neighbours
    get different answers, so that a mix-up shows.
    """
    if server.script is not None and number % 2:
        first, rest = server.script.reply[:1], server.script.reply[1:]
        prompt = f"Client {number} says {first}"
        brief = _brief(prompt=prompt, n_predict=MOST_TOKENS)
        answer = post(server, COMPLETION, brief, at_once=count)
        return _fault(answer, answer.at("content"), rest)
    question = _question(server, f"I am client {number}. Answer with OK.")
    answer = post(server, CHAT, question, at_once=count)
    return _reply_fault(server, answer, _chat_said(answer))


def _streams(server: Server) -> Seen:
    """The same question in one piece and as a stream, to both APIs; then how the pieces come."""
    faults, notes = [], []
    for path in (CHAT, MESSAGES):
        fault, note = _same_in_stream(server, path)
        faults += [fault] if fault else []
        notes.append(note or path)
    if faults:
        return Seen(tuple(faults))
    pace = streaming.pace(server, CHAT)
    if pace.delivery == "whole":
        return Seen((f"{CHAT} as a stream is handed over whole: {pace.words}",))
    after = ""
    if pace.token_s is not None and not any("not available" in one for one in notes):
        of_messages = streaming.pace_of_messages(server, pace.token_s)
        if of_messages.delivery == "whole":
            return Seen((f"{MESSAGES} as a stream is handed over whole: {of_messages.words}",))
        if of_messages.delivery == "unknown":
            after = f", too brief there to see them come ({of_messages.words})"
    unknown = f"how a stream is handed over is not known ({pace.words})"
    return Seen(
        note=f"the same in streams: {', '.join(notes)}{after}",
        unproven=unknown if pace.delivery == "unknown" else "",
    )


def _same_in_stream(server: Server, path: str) -> tuple[str, str]:
    """What is wrong with a stream held against the whole answer, and what is worth saying."""
    body = _question(server, "Answer with the word OK.")
    fault = ""
    for attempt in range(1 if server.script else STREAM_TRIES):
        answer = post(server, path, body)
        if path == MESSAGES and answer.status == NOT_FOUND:
            return "", f"{path} not available"
        said, ending = _whole(answer, path)
        if fault := _reply_fault(server, answer, said):
            return f"{path}: {fault}", ""
        streamed = streaming.read(server, path, body)
        if streamed.fault:
            return f"{path} as a stream: {streamed.fault}", ""
        fault = _stream_fault(streamed, said, ending)
        if not fault:
            near = f"{path} (a near tie at first: the prompt came from the cache)"
            return "", near if attempt else ""
    return f"{path} as a stream: {fault}", ""


def _stream_fault(streamed: Streamed, said: Said, ending: object) -> str:
    """How a stream differs from the whole answer."""
    if (streamed.thought, streamed.text) != said:
        return f"{quoted((streamed.thought, streamed.text))}, not {quoted(said)}"
    if streamed.ending != ending:
        return f"it ends because of {quoted(streamed.ending)}, the whole of {quoted(ending)}"
    return ""


def _whole(answer: Answer, path: str) -> tuple[Said, object]:
    """What a whole answer says, and the reason for its end."""
    if path == CHAT:
        return _chat_said(answer), answer.at("choices", 0, "finish_reason")
    return _messages_said(answer), answer.at("stop_reason")


def _nonsense(server: Server) -> Seen:
    """What each piece of nonsense gets; all of them must be answered."""
    faults, notes = [], []
    for one in NONSENSE:
        answer = post_raw(server, one.path, one.data)
        fault, note = _reception(one, answer)
        faults += [f"{one.name}: {fault}"] if fault else []
        notes += [f"{one.name}: {note}"] if note else []
        if answer.status is None:
            break
    clean = len(NONSENSE) - len(notes)
    return Seen(tuple(faults), ", ".join([f"{clean} of {len(NONSENSE)} refused cleanly", *notes]))


def _reception(one: Nonsense, answer: Answer) -> tuple[str, str]:
    """What is wrong with an answer to nonsense, and what is worth saying of it if nothing is."""
    status = answer.status
    if status == OK:
        served = isinstance(answer.at("choices", 0, "message"), dict) and not answer.at("error")
        if not one.servable or not served:
            return str(answer), ""
        # A real model may find nothing to say to it.
        return "", "served" if any(_chat_said(answer)) else "served, without a word"
    if status in _SERVER_ERRORS:
        return "", f"{status}, survived"
    if status not in _CLIENT_ERRORS:
        return str(answer), ""
    return "", "" if answer.at("error") else f"{status} without a JSON error"


def _hang_up(server: Server) -> Seen:
    """Leave in the middle of a long stream; then the slot is free, and the next one is served."""
    idle_before = _busy(server) is False
    pace = streaming.pace(server, COMPLETION)
    if pace.delivery == "whole":
        return Seen((f"{COMPLETION} as a stream is handed over whole: {pace.words}",))
    body = _brief(
        prompt="Count: one, two,",
        n_predict=max(1, server.profile.slot_tokens - _ROOM),
        ignore_eos=True,
        stream=True,
    )
    with stream(server, COMPLETION, body) as pieces:
        if next(pieces, None) is None:
            return Seen((f"no stream to hang up on: {pieces.fault}",))
    if idle_before and not _freed(server):
        return Seen((f"a slot is still busy {FREE_S:.0f} s after its client hung up",))
    answer = post(server, CHAT, _question(server, "Answer with OK once more."))
    if fault := _reply_fault(server, answer, _chat_said(answer)):
        return Seen((f"after hanging up: {fault}",))
    if pace.delivery == "unknown":
        return Seen(unproven=f"whether it was hung up in mid-stream is not known ({pace.words})")
    free = "slot free and " if idle_before else ""
    return Seen(note=f"hung up in mid-stream, {free}served after that")


def _freed(server: Server) -> bool:
    deadline = time.monotonic() + FREE_S
    while busy := _busy(server):
        if time.monotonic() > deadline:
            break
        time.sleep(_POLL_S)
    return not busy


def _busy(server: Server) -> bool | None:
    """Whether any slot is at work; None where /slots does not say."""
    answer = get(server, "/slots")
    slots = answer.body if answer.status == OK and isinstance(answer.body, list) else []
    states = [answer.at(index, "is_processing") for index in range(len(slots))]
    known = [state for state in states if isinstance(state, bool)]
    return any(known) if known else None


def _fault(answer: Answer, text: object, expected: str | None) -> str:
    """What is wrong with an answer that should be a completion; `expected` None: any text is right.

    An error under a status of 200 is wrong whatever comes with it.
    """
    if answer.status != OK or answer.at("error") or not isinstance(text, str) or not text.strip():
        return str(answer)
    return "" if expected in {None, text} else f"{quoted(text)}, not {expected!r}"


def _reply_fault(server: Server, answer: Answer, said: Said) -> str:
    """What is wrong with a chat's answer. Thoughts in it are another probe's concern."""
    thought, text = said
    if server.script is None:
        return _fault(answer, text or thought, None)
    reply = server.script.reply
    return _fault(answer, reply if text.endswith(reply) else text, reply)


def _question(server: Server, text: str) -> dict[str, object]:
    return {
        "model": server.profile.alias,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": MOST_TOKENS,
        "temperature": 0,
    }


def _brief(**more: object) -> dict[str, object]:
    return {"temperature": 0, "cache_prompt": False, **more}


def _joined(pieces: Iterable[Said]) -> Said:
    """What was said in pieces, as if in one."""
    found = list(pieces)
    return "".join(thought for thought, _ in found), "".join(text for _, text in found)


def _chat_said(answer: Answer) -> Said:
    message = ("choices", 0, "message")
    return _said(answer, (*message, "reasoning_content"), (*message, "content"))


def _messages_said(answer: Answer) -> Said:
    blocks = answer.at("content")
    count = len(blocks) if isinstance(blocks, list) else 0
    return _joined(_block_said(answer, "content", index) for index in range(count))


def _block_said(answer: Answer, *path: str | int) -> Said:
    return _said(answer, (*path, "thinking"), (*path, "text"))


def _said(answer: Answer, *paths: tuple[str | int, ...]) -> Said:
    thought, text = (answer.at(*path) for path in paths)
    return thought if isinstance(thought, str) else "", text if isinstance(text, str) else ""


_STEPS: tuple[Callable[[Server], Seen], ...] = (_crowd, _streams, _nonsense, _hang_up)
