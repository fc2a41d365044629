"""Has the server the slots that it was asked for, and does it keep to their length."""

from builder.llama.client import NOT_FOUND, OK, Answer, Server, get, post, quoted
from builder.model.finding import Finding, Status

PROBE = "slots"

SLOT_UNIT = 256
"""llama.cpp rounds the context of a slot up to a multiple of this [read in llama-context.cpp]."""

SURE = 8192
"""Tokens of a slot up to which the longest prompt is sent without a look at the speed."""

MOST_S = 300.0
"""Seconds that the longest prompt may take, going by the speed of a short one."""

_SAMPLE = 1024
TOO_LONG = 400
TOO_LONG_TYPE = "exceed_context_size_error"
_OFF = {403, NOT_FOUND, 405, 501}


def slots(server: Server) -> Finding:
    """Whether /props and /slots agree with the profile, and where a prompt becomes too long.

    A prompt needs room for the first token of its answer: the longest that fits has one token less
    than the slot, and one of the slot's own length is refused as one over it is [ran on mainline
    0c1e57098, read in the spiritbuun fork].
    """
    asked = slot_tokens(server.profile.slot_limit)
    tokens, capped = _capped(server, asked)
    faults, notes = _said(server, tokens)
    # Prompts of the wrong length would show nothing that is not known by now.
    measured, unasked = _measured(server, tokens) if not faults else ([], "")
    faults += measured
    open_ = [*filter(None, (capped, unasked))]
    status: Status = "fail" if faults else "unproven" if open_ else "pass"
    good = [f"{server.profile.parallel} × {tokens} in /props{notes}", *open_]
    if not unasked:
        good.append(f"{tokens + 1} tokens refused, {tokens - 1} served")
    return Finding(
        PROBE,
        status,
        expected=f"{server.profile.parallel} slots of {asked} tokens; a prompt of {asked + 1} "
        f"gets {TOO_LONG} {TOO_LONG_TYPE}, one of {asked - 1} is served",
        observed="; ".join(faults or good),
    )


def _capped(server: Server, asked: int) -> tuple[int, str]:
    """The tokens of a slot that a model allows, and what that leaves open.

    llama-server caps slots at the context that the model was trained for [read in
    server-context.cpp of mainline 0c1e57098].
    """
    trained = get(server, "/v1/models").at("data", 0, "meta", "n_ctx_train")
    told = get(server, "/props").at("default_generation_settings", "n_ctx")
    if type(trained) is not int or not 0 < trained < asked or told != trained:
        return asked, ""
    return trained, f"the model was trained for {trained} tokens, and no slot is longer"


def slot_tokens(asked: int) -> int:
    """The context of a slot, in tokens, that a server makes of the one asked for."""
    return -(-asked // SLOT_UNIT) * SLOT_UNIT


def _said(server: Server, tokens: int) -> tuple[list[str], str]:
    """What is wrong with /props and /slots, and what is to be said of /slots when nothing is."""
    props = get(server, "/props")
    faults = []
    if props.status != OK or not isinstance(props.body, dict):
        faults.append(f"/props: {props}")
    else:
        found = props.at("total_slots"), props.at("default_generation_settings", "n_ctx")
        if found != (server.profile.parallel, tokens):
            faults.append(f"/props: total_slots {quoted(found[0])}, n_ctx {quoted(found[1])}")
    each = get(server, "/slots")
    if each.status in _OFF:
        return faults, " (/slots is off)"
    if fault := _slots_fault(each, server.profile.parallel, tokens):
        faults.append(fault)
    return faults, " and /slots"


def _slots_fault(answer: Answer, parallel: int, tokens: int) -> str | None:
    if answer.status != OK or not isinstance(answer.body, list):
        return f"/slots: {answer}"
    found = [answer.at(index, "n_ctx") for index in range(len(answer.body))]
    if found == [tokens] * parallel:
        return None
    return f"/slots: {len(found)} slots, n_ctx {quoted(found)}"


def _measured(server: Server, tokens: int) -> tuple[list[str], str]:
    """What is wrong with how long prompts are taken, and why none was sent."""
    answer = post(server, "/tokenize", {"content": "a"})
    token = answer.at("tokens", -1)
    if type(token) is not int:
        return [], f"no prompt was measured: /tokenize gave no token ({answer})"
    faults = [
        _refusal_fault(_ask(server, [token] * (tokens + 1)), tokens + 1),
        _served_fault(_ask(server, [token]), 1, " after that"),
    ]
    too_slow = _too_slow(server, token, tokens) if not any(faults) else ""
    if not too_slow:
        faults.append(_served_fault(_ask(server, [token] * (tokens - 1)), tokens - 1))
    return [fault for fault in faults if fault], too_slow


def _too_slow(server: Server, token: int, tokens: int) -> str:
    """Why the longest prompt is not sent: it would take minutes."""
    if tokens <= SURE:
        return ""
    speed = _ask(server, [token] * _SAMPLE).at("timings", "prompt_per_second")
    if isinstance(speed, bool) or not isinstance(speed, int | float) or not speed > 0:
        return ""
    seconds = tokens / speed
    if seconds <= MOST_S:
        return ""
    return f"{tokens + 1} tokens refused; {tokens - 1} would take {seconds:.0f} s and were not sent"


def _ask(server: Server, prompt: list[int]) -> Answer:
    body = {"prompt": prompt, "n_predict": 1, "temperature": 0, "cache_prompt": False}
    return post(server, "/completion", body)


def _refusal_fault(answer: Answer, length: int) -> str | None:
    if answer.status == TOO_LONG and answer.at("error", "type") == TOO_LONG_TYPE:
        return None
    return f"a prompt of {length} tokens: {answer}"


def _served_fault(answer: Answer, length: int, when: str = "") -> str | None:
    what = f"a prompt of {length} token{'s' * (length > 1)}{when}"
    if answer.status != OK or not isinstance(answer.at("content"), str):
        return f"{what}: {answer}"
    read = answer.at("tokens_evaluated")
    if read is not None and read != length:
        return f"{what}: the server read {quoted(read)}"
    return None
