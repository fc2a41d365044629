"""Has the server the slots that it was asked for, and does it keep to their length."""

from builder.probe.finding import Finding, Status
from builder.probe.server import NOT_FOUND, OK, Answer, Server, get, post, quoted

PROBE = "slots"

SLOT_UNIT = 256
"""llama.cpp rounds the context of a slot up to a multiple of this [read in llama-context.cpp]."""

SLOWEST = 10
"""Tokens a second at which a long prompt must be read, if that takes longer than `timeout_s`."""

TOO_LONG = 400
TOO_LONG_TYPE = "exceed_context_size_error"
_OFF = {NOT_FOUND, 501}


def slots(server: Server) -> Finding:
    """Whether /props and /slots agree with the profile, and where a prompt becomes too long.

    A prompt needs room for the first token of its answer: the longest that fits has one token less
    than the slot, and one of the slot's own length is refused as one over it is [ran on mainline
    0c1e57098, read in the spiritbuun fork].
    """
    tokens = slot_tokens(server.profile.slot_limit)
    faults, notes = _said(server, tokens)
    # Prompts of the wrong length would show nothing that is not known by now.
    asked, unasked = _measured(server, tokens) if not faults else ([], "")
    faults += asked
    status: Status = "fail" if faults else "unproven" if unasked else "pass"
    good = [
        f"{server.profile.parallel} × {tokens} in /props{notes}",
        unasked or f"{tokens + 1} tokens refused, {tokens - 1} served",
    ]
    return Finding(
        PROBE,
        status,
        expected=f"{server.profile.parallel} slots of {tokens} tokens; a prompt of {tokens + 1} "
        f"gets {TOO_LONG} {TOO_LONG_TYPE}, one of {tokens - 1} is served",
        observed="; ".join(faults or good),
    )


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
        _served_fault(_ask(server, [token] * (tokens - 1)), tokens - 1),
    ]
    return [fault for fault in faults if fault], ""


def _ask(server: Server, prompt: list[int]) -> Answer:
    body = {"prompt": prompt, "n_predict": 1, "temperature": 0, "cache_prompt": False}
    timeout_s = max(server.timeout_s, len(prompt) / SLOWEST)
    return post(server, "/completion", body, timeout_s)


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
