"""Is thinking off: does a completion come without any."""

from builder.probe.finding import Finding, verdict
from builder.probe.server import Answer, Server, post

PROBE = "thinking_off"
QUESTION = "Answer with the word OK."
LONGEST = 64
"""Tokens: enough for a short answer, and for the start of a thought."""

MARKS = ("<think>", "</think>")


def thinking_off(server: Server) -> Finding:
    """Whether /v1/chat/completions answers with text, and no thoughts in any field."""
    answer = post(
        server,
        "/v1/chat/completions",
        {
            "model": server.alias,
            "messages": [{"role": "user", "content": QUESTION}],
            "max_tokens": LONGEST,
            "temperature": 0,
        },
    )
    fault = _fault(answer, server.reply)
    text = repr(server.reply) if server.reply else "text"
    return verdict(
        PROBE,
        holds=fault is None,
        expected=f"a completion whose content is {text}, with no reasoning",
        observed=fault or f"content {answer.at(*_MESSAGE, 'content')!r}, no reasoning",
    )


_MESSAGE = ("choices", 0, "message")


def _fault(answer: Answer, reply: str | None) -> str | None:
    """What is wrong with a completion, or None."""
    message, content = answer.at(*_MESSAGE), answer.at(*_MESSAGE, "content")
    if answer.status != 200 or not isinstance(message, dict):  # noqa: PLR2004
        return str(answer)
    if thoughts := answer.at(*_MESSAGE, "reasoning_content"):
        return f"reasoning_content {thoughts!r}, content {content!r}"
    if any(mark in answer.text for mark in MARKS):
        return f"a thinking mark in {message}"
    if not isinstance(content, str) or not content.strip():
        return f"content {content!r}"
    return f"content {content!r}" if reply is not None and content != reply else None
