"""Is thinking as the profile wants it: do completions come with thoughts or without any."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from builder.llama.client import NOT_FOUND, OK, Answer, Script, Server, post, quoted
from builder.model.finding import Finding, not_asked
from builder.smoke.probes.streaming import CHAT, MESSAGES, Streamed, read

PROBE = "thinking"
BY_REQUEST = "thinking_by_request"

QUESTION = "Answer with the word OK."

MOST_TOKENS = 64
"""Enough for a short answer, and for the start of a thought."""

MOST_THINKING_TOKENS = 1024
"""Enough for a real model to come to the end of its thoughts about this question."""

SPARE_TOKENS, SPARE_TOKENS_SCRIPTED = 8, 2
"""How many tokens may be counted beyond one a byte of the text.

Text takes a byte or more a token, so whatever is counted beyond that was never shown. One token
ends the answer; a real model may open and close an empty thought.
"""

_LONGEST_TOKEN = 128
_APART = 1
"""Whether the token that ends an answer is counted may differ."""

_MESSAGE_FIELDS = {"role", "content", "reasoning_content"}
_BLOCK_FIELDS = {"type", "text"}
_THOUGHT_BLOCKS = {"thinking", "redacted_thinking"}
_BLOCKS = {"text", *_THOUGHT_BLOCKS}

_MARKS = re.compile(r"</?think(ing)?>|\[/?THINK\]|<\|channel\|>", re.IGNORECASE)
_NAMES = re.compile(r"reasoning|thinking|thought", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Reply:
    """What one API answered, by its path.

    `thought` is what came where this API has thoughts, `stray` names what looks like one elsewhere.
    `cut`: the answer ended at the limit of tokens. `fault` says why there is no completion;
    `missing` that the server has no such path.
    """

    api: str
    text: str = ""
    thought: str = ""
    stray: str = ""
    prompt_tokens: object = None
    tokens: object = None
    cut: bool = False
    fault: str = ""
    missing: bool = False

    def __str__(self) -> str:
        """In a line, the API's path first."""
        if self.missing:
            return f"{self.api}: not available"
        if self.fault:
            return f"{self.api}: {self.fault}"
        thought = f"reasoning {quoted(self.thought)}" if self.thought else "no reasoning"
        return f"{self.api}: {quoted(self.text)}, {thought}, {quoted(self.tokens)} tokens"


@dataclass(frozen=True, slots=True)
class Reasoning:
    """What each API showed."""

    replies: tuple[Reply, ...]

    def shown(self, api: str) -> bool:
        """Whether thoughts came where this API has a place for them."""
        return any(reply.thought for reply in self.replies if reply.api == api)


def reasoning(server: Server) -> Reasoning:
    """Ask both APIs a question, and see what they show."""
    return _asked(server, MOST_TOKENS)


def thinking(server: Server, control: Reasoning | None) -> Finding:
    """Whether both APIs answer with text, and with thoughts or without as the profile says.

    `control` is what a server showed whose thinking is the other way round. None: there is no such
    server, and requests to this one ask for thoughts. Where the control shows no thoughts either,
    their absence proves nothing.
    """
    on = server.profile.thinking
    text = repr(server.script.reply) if server.script else "text"
    how = "after" if on else "without"
    expected = f"both APIs answer {text}, {how} reasoning; usage counted, in streams too"
    most = MOST_TOKENS
    if on and server.script is None:
        most = min(MOST_THINKING_TOKENS, server.profile.slot_tokens // 2)
    replies = _asked(server, most).replies
    fault = _fault_when_on if on else _fault_when_off
    if bad := [f"{reply} ({why})" for reply in replies if (why := fault(reply, server.script))]:
        return Finding(PROBE, "fail", expected, "; ".join(bad))
    bad, open_ = _in_streams(server, replies)
    if bad:
        return Finding(PROBE, "fail", expected, "; ".join(bad))
    open_ += [f"{reply.api} is not available" for reply in replies if reply.missing]
    open_ += _unfinished(replies) if on else _uncontrolled(server, replies, control)
    seen = "; ".join(str(reply) for reply in replies if not reply.missing)
    return Finding(PROBE, "unproven" if open_ else "pass", expected, "; ".join([*open_, seen]))


def thinking_by_request(server: Server, control: Reasoning | None = None) -> Finding:
    """Whether a request can turn thinking on where the server was started with it off.

    Either is a good answer, but none is had from a model that nobody has seen think: `control` is
    what a server with thinking on showed.
    """
    if server.profile.thinking:
        return not_asked(BY_REQUEST, "thinking is on in this profile")
    expected = "it is known whether a request can turn thinking on"
    replies = _by_request(server).replies
    on = [reply.api for reply in replies if reply.thought or reply.stray]
    if on:
        return Finding(BY_REQUEST, "pass", expected, f"a request can, through {' and '.join(on)}")
    if bad := [str(reply) for reply in replies if reply.fault or reply.missing]:
        return Finding(BY_REQUEST, "unproven", expected, "; ".join(bad))
    if control is not None and any(reply.thought for reply in control.replies):
        return Finding(BY_REQUEST, "pass", expected, "a request cannot: it showed no reasoning")
    return Finding(
        BY_REQUEST,
        "unproven",
        expected,
        "it showed no reasoning, which proves nothing: nobody has seen this model think",
    )


def _fault_when_off(reply: Reply, script: Script | None) -> str:
    """What is wrong with a reply of a server whose thinking is off; empty: nothing."""
    if (why := _fault(reply, script)) or reply.missing:
        return why
    if reply.thought:
        return "reasoning"
    if why := _hidden(reply.text, reply.tokens, script):
        return why
    return "" if reply.text.strip() else "no text"


def _hidden(text: str, tokens: object, script: Script | None) -> str:
    """What is wrong where more was counted than shown."""
    spare = SPARE_TOKENS_SCRIPTED if script else SPARE_TOKENS
    most = len(text.encode()) + spare
    if isinstance(tokens, int) and tokens > most:
        return f"more tokens than the text can have: {most}"
    return ""


def _fault_when_on(reply: Reply, script: Script | None) -> str:
    """The same where thinking is on."""
    if (why := _fault(reply, script)) or reply.missing:
        return why
    if not reply.thought:
        return "no reasoning"
    if script and reply.thought != script.thought:
        return f"the reasoning is not {script.thought!r}"
    return "" if reply.text.strip() or reply.cut else "no text"


def _fault(reply: Reply, script: Script | None) -> str:
    """What is wrong either way. That /v1/messages is missing is not: it is told by itself."""
    if reply.missing:
        return "" if reply.api == MESSAGES else "no server for chats"
    if reply.fault:
        return "no completion"
    if reply.stray:
        return reply.stray
    if script and reply.text != script.reply:
        return f"the text is not {script.reply!r}"
    return _usage_fault(reply.prompt_tokens, reply.tokens, reply.thought + reply.text, script)


def _usage_fault(prompt_tokens: object, tokens: object, shown: str, script: Script | None) -> str:
    """What is wrong with what was counted: nothing at all, or less than was read and shown.

    Each byte is a token of our models; a real model's token has `_LONGEST_TOKEN` bytes at most.
    """
    longest = 1 if script else _LONGEST_TOKEN
    for tokens_, text in ((prompt_tokens, QUESTION), (tokens, shown)):
        least = max(1, len(text.encode()) // longest)
        if type(tokens_) is not int or tokens_ < least:
            return f"usage: prompt {quoted(prompt_tokens)}, answer {quoted(tokens)}"
    return ""


def _in_streams(server: Server, replies: tuple[Reply, ...]) -> tuple[list[str], list[str]]:
    """What is wrong with thoughts and usage in streams, and what streams leave open.

    Whether a stream says the same and ends properly is asked by another probe.
    """
    faults, open_ = [], []
    for reply in replies:
        if reply.missing:
            continue
        streamed = read(server, reply.api, _question(server, MOST_TOKENS))
        if streamed.fault and streamed.tokens is None:
            open_.append(f"{reply.api} as a stream counts nothing: {streamed.fault}")
            continue
        on = bool(server.profile.thinking)
        why = _stream_fault(streamed, server.script, on=on) or _count_fault(streamed, reply)
        faults += [f"{reply.api} as a stream: {why}"] if why else []
    return faults, open_


def _stream_fault(streamed: Streamed, script: Script | None, *, on: bool) -> str:
    """What is wrong with a stream's thoughts and usage."""
    if not on and (thought := streamed.thought or streamed.stray):
        return f"reasoning {quoted(thought)}"
    if on and not streamed.thought:
        return "no reasoning"
    hidden = "" if on else _hidden(streamed.text, streamed.tokens, script)
    shown = streamed.thought + streamed.text
    return hidden or _usage_fault(streamed.prompt_tokens, streamed.tokens, shown, script)


def _count_fault(streamed: Streamed, whole: Reply) -> str:
    """What is wrong with a stream's count of tokens, held against its pieces and the whole answer.

    A piece may have no token of its own; but half as many tokens as pieces are too few.
    """
    tokens = streamed.tokens
    if not isinstance(tokens, int) or not isinstance(whole.tokens, int):
        return ""
    if 2 * tokens < streamed.pieces:
        return f"{tokens} tokens counted in {streamed.pieces} pieces"
    same = (streamed.thought, streamed.text) == (whole.thought, whole.text)
    if same and abs(tokens - whole.tokens) > _APART:
        return f"{tokens} tokens counted, {whole.tokens} for the same in one piece"
    return ""


def _unfinished(replies: tuple[Reply, ...]) -> list[str]:
    return [
        f"{reply.api}: cut after {quoted(reply.tokens)} tokens, before any text"
        for reply in replies
        if reply.cut and not reply.text.strip()
    ]


def _uncontrolled(
    server: Server, replies: tuple[Reply, ...], control: Reasoning | None
) -> list[str]:
    """The APIs whose silence proves nothing, since nobody has seen the model think there."""
    held_against = control if control is not None else _by_request(server)
    silent = [
        reply.api for reply in replies if not reply.missing and not held_against.shown(reply.api)
    ]
    who = "the control server" if control is not None else "a request that asks for it"
    where = " and ".join(silent)
    return [f"{who} shows no reasoning in {where} either: nothing is proven"] if silent else []


def _by_request(server: Server) -> Reasoning:
    return _asked(server, MOST_TOKENS, chat_template_kwargs={"enable_thinking": True})


def _question(server: Server, most_tokens: int) -> dict[str, object]:
    return {
        "model": server.profile.alias,
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": most_tokens,
        "temperature": 0,
    }


def _asked(server: Server, most_tokens: int, **more: object) -> Reasoning:
    body = {**_question(server, most_tokens), **more}
    return Reasoning((_chat(post(server, CHAT, body)), _messages(post(server, MESSAGES, body))))


def _chat(answer: Answer) -> Reply:
    """An answer of /v1/chat/completions as a reply."""
    choice, message = answer.at("choices", 0), answer.at("choices", 0, "message")
    if reply := _no_completion(CHAT, answer, message):
        return reply
    content = answer.at("choices", 0, "message", "content")
    if not isinstance(content, str | None):
        return Reply(CHAT, fault=f"content {quoted(content)}")
    around = [_without(answer.body, "choices"), _without(choice, "message")]
    strays = [*_foreign(message, _MESSAGE_FIELDS), *_strays({"content": content}, *around)]
    return Reply(
        CHAT,
        text=content or "",
        thought=_text(answer.at("choices", 0, "message", "reasoning_content")),
        stray=", ".join(strays),
        prompt_tokens=answer.at("usage", "prompt_tokens"),
        tokens=answer.at("usage", "completion_tokens"),
        cut=answer.at("choices", 0, "finish_reason") == "length",
    )


def _messages(answer: Answer) -> Reply:
    """An answer of /v1/messages as a reply. `input_tokens` are those that were not cached."""
    blocks = answer.at("content")
    if reply := _no_completion(MESSAGES, answer, blocks):
        return reply
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        return Reply(MESSAGES, fault=f"content {quoted(blocks)}")
    kinds = [(str(block.get("type")), block) for block in blocks]
    texts = [block for kind, block in kinds if kind == "text"]
    thoughts = [block for kind, block in kinds if kind in _THOUGHT_BLOCKS]
    strays = [f"a block of type {kind}" for kind, _ in kinds if kind not in _BLOCKS]
    strays += [stray for block in texts for stray in _foreign(block, _BLOCK_FIELDS)]
    strays += _strays(texts, _without(answer.body, "content"))
    read = [answer.at("usage", name) for name in ("input_tokens", "cache_read_input_tokens")]
    return Reply(
        MESSAGES,
        text=_text([_only(block, "text") for block in texts]),
        # A block of thoughts is one even when nothing is in it.
        thought=_text([_only(block, "thinking") for block in thoughts]) or "…" * bool(thoughts),
        stray=", ".join(strays),
        prompt_tokens=sum(count for count in read if isinstance(count, int)),
        tokens=answer.at("usage", "output_tokens"),
        cut=answer.at("stop_reason") == "max_tokens",
    )


def _no_completion(api: str, answer: Answer, completion: object) -> Reply | None:
    """A reply that says why there is no completion, or None when there is one."""
    if answer.status == NOT_FOUND:
        return Reply(api, missing=True)
    if answer.status != OK or not isinstance(completion, dict | list) or answer.at("error"):
        return Reply(api, fault=str(answer))
    return None


def _strays(*parts: object) -> list[str]:
    """What looks like a thought in parts of an answer that are no place for one."""
    return [
        f"a thinking mark in {path}" if _MARKS.search(text) else f"text in {path}"
        for path, text in _texts(parts)
        if _MARKS.search(text) or _NAMES.search(path)
    ]


def _foreign(fields: object, known: set[str]) -> list[str]:
    """The fields with text that have no business there, whatever their name."""
    return [f"text in {path}" for path, _ in _texts(fields) if path.split(".")[0] not in known]


def _texts(value: object) -> Iterator[tuple[str, str]]:
    """All texts in a value that are not blank, each with the keys that lead to it.

    In their order. No recursion: a server may nest as deeply as it likes.
    """
    left: list[tuple[str, object]] = [("", value)]
    while left:
        path, one = left.pop()
        if isinstance(one, str) and one.strip():
            yield path, one
        elif isinstance(one, dict):
            inside = [(f"{path}.{key}".lstrip("."), inner) for key, inner in one.items()]
            left += reversed(inside)
        elif isinstance(one, list | tuple):
            left += [(path, inner) for inner in reversed(one)]


def _text(value: object) -> str:
    """All text in a value, but for what is blank."""
    return "".join(text for _, text in _texts(value))


def _without(fields: object, key: str) -> object:
    return {name: value for name, value in _items(fields) if name != key}


def _only(fields: object, key: str) -> object:
    return {name: value for name, value in _items(fields) if name == key}


def _items(fields: object) -> Iterator[tuple[str, object]]:
    yield from fields.items() if isinstance(fields, dict) else ()
