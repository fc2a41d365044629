"""A real HTTP server that answers as a llama-server with the scripted model does, or worse."""

import json
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]
Reaction = Callable[["Handler", Body], None]

ALIAS = "the-alias"
COMMIT = "1c478819233f28b90be647040cac1ca7f4ee1c9c"
SLOTS, SLOT_TOKENS = 2, 512
TOKEN_S = 0.001

REFUSAL = {
    "error": {"code": 400, "message": "Expected 'messages' to be an array", "type": "invalid"}
}
TOO_LONG = {"error": {"code": 400, "type": "exceed_context_size_error", "n_ctx": SLOT_TOKENS}}


class Handler(BaseHTTPRequestHandler):
    """One answer a connection. `reactions` replace the good answer to a path."""

    reactions: dict[str, Reaction]
    # Each piece of a stream is on its way at once.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.react({})

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            body = json.loads(data)
        except ValueError:
            return self.say(500, {"error": {"code": 500, "message": "parse error"}})
        return self.react(body if isinstance(body, dict) else {})

    def react(self, body: Body) -> None:
        self.reactions.get(self.path, GOOD.get(self.path, not_found))(self, body)

    def say(self, status: int, body: object, *, raw: str | None = None) -> None:
        data = (json.dumps(body) if raw is None else raw).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def stream(self, *events: object) -> None:
        """Events as they are: a text is no JSON, but what comes after `data: `."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for event in events:
            text = event if isinstance(event, str) else json.dumps(event)
            self.wfile.write(f"data: {text}\n\n".encode())

    def stream_pieces(self, *pieces: object, made: Callable[[float], list[object]]) -> None:
        """Pieces as a model makes them, one after the other, and the end of it.

        `made` gives the last events, with the seconds that it took.
        """
        started = time.monotonic()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for piece in pieces:
            self.wfile.write(f"data: {json.dumps(piece)}\n\n".encode())
            # The time of a token. A client that hangs up ends it.
            if select.select([self.connection], [], [], TOKEN_S)[0]:
                return
        for event in made(time.monotonic() - started):
            text = event if isinstance(event, str) else json.dumps(event)
            self.wfile.write(f"data: {text}\n\n".encode())

    def log_message(self, *_words: object) -> None: ...


@contextmanager
def serving(reactions: dict[str, Reaction]) -> Iterator[str]:
    """The URL of a server with these reactions."""
    handler = type("Misbehaving", (Handler,), {"reactions": reactions})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        # How often it looks whether to stop, in seconds.
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{httpd.server_port}"
        finally:
            httpd.shutdown()


def saying(status: int, body: object = None, *, raw: str | None = None) -> Reaction:
    """The same answer to everything."""
    return lambda handler, _body: handler.say(status, body, raw=raw)


def both(whole: Body, events: list[object]) -> Reaction:
    """The same answer to everything, and these events to whoever asks for a stream."""

    def react(handler: Handler, body: Body) -> None:
        handler.stream(*events) if body.get("stream") else handler.say(200, whole)

    return react


def hanging_up(handler: Handler, _body: Body) -> None:
    handler.close_connection = True


def not_found(handler: Handler, _body: Body) -> None:
    handler.say(404, {"error": {"code": 404, "message": "File Not Found"}})


def thinks(body: Body) -> bool:
    kwargs = body.get("chat_template_kwargs")
    return isinstance(kwargs, dict) and kwargs.get("enable_thinking") is True


def chat_body(*, tokens: object = 3, **message: object) -> dict[str, Any]:
    return {
        "choices": [{"finish_reason": "stop", "message": {"role": "assistant", **message}}],
        "model": ALIAS,
        "usage": {"prompt_tokens": 47, "completion_tokens": tokens},
    }


def messages_body(*content: object, tokens: object = 3) -> dict[str, Any]:
    return {
        "type": "message",
        "role": "assistant",
        "content": list(content),
        "stop_reason": "end_turn",
        "usage": {"cache_read_input_tokens": 46, "input_tokens": 1, "output_tokens": tokens},
    }


TEXT = {"type": "text", "text": "OK"}
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": ""}
THINKING_CHAT = chat_body(content="OK", reasoning_content="hm", tokens=8)
THINKING_MESSAGES = messages_body(THOUGHT, TEXT, tokens=8)
THOUGHT_DELTA = {"type": "thinking_delta", "thinking": "hm"}


def chat(handler: Handler, body: Body) -> None:
    if not isinstance(body.get("messages"), list):
        return handler.say(400, REFUSAL)
    if body.get("temperature") == "hot":
        return handler.say(400, REFUSAL)
    if body.get("stream"):
        if body.get("ignore_eos"):
            pieces = [chat_event(content="x")] * body["max_tokens"]
            return handler.stream_pieces(*pieces, made=chat_end)
        return handler.stream(*chat_events({"content": "O"}, {"content": "K"}))
    return handler.say(200, THINKING_CHAT if thinks(body) else chat_body(content="OK"))


def chat_events(*deltas: Body, tokens: object = 3) -> list[object]:
    """A chat's stream that says this, and its proper end."""
    return [*(chat_event(**delta) for delta in deltas), *chat_end(0.001, tokens)]


def chat_event(**delta: object) -> Body:
    return {"choices": [{"finish_reason": None, "delta": delta}]}


def chat_end(took_s: float, tokens: object = 3) -> list[object]:
    """Copied from mainline 0c1e57098, as all streams here are."""
    usage = {"completion_tokens": tokens, "prompt_tokens": 47}
    timings = {"predicted_n": tokens, "predicted_ms": took_s * 1000}
    return [
        {"choices": [{"finish_reason": "stop", "delta": {}}]},
        {"choices": [], "usage": usage, "timings": timings},
        "[DONE]",
    ]


def message_events(*deltas: Body, tokens: object = 3) -> list[object]:
    """A message's stream that says this, and its proper end."""
    usage = {"cache_read_input_tokens": 46, "input_tokens": 1, "output_tokens": 0}
    return [
        {"type": "message_start", "message": {"usage": usage}},
        *({"type": "content_block_delta", "delta": delta} for delta in deltas),
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {"output_tokens": tokens},
        },
        {"type": "message_stop"},
    ]


OK_DELTAS = tuple({"type": "text_delta", "text": letter} for letter in "OK")


def thinking_aloud() -> dict[str, Reaction]:
    """Both APIs of a server whose thinking is on."""
    chats = chat_events({"reasoning_content": "hm"}, {"content": "OK"}, tokens=8)
    blocks = message_events(THOUGHT_DELTA, *OK_DELTAS, tokens=8)
    return {
        "/v1/chat/completions": both(THINKING_CHAT, chats),
        "/v1/messages": both(THINKING_MESSAGES, blocks),
    }


def messages(handler: Handler, body: Body) -> None:
    if body.get("stream"):
        return handler.stream(*message_events(*OK_DELTAS))
    return handler.say(200, THINKING_MESSAGES if thinks(body) else messages_body(TEXT))


def completion(handler: Handler, body: Body) -> None:
    prompt = body.get("prompt")
    if not isinstance(prompt, str | list):
        return handler.say(400, REFUSAL)
    if len(prompt) >= SLOT_TOKENS:
        return handler.say(400, TOO_LONG)
    if body.get("stream"):
        pieces = [{"content": "x", "stop": False}] * body["n_predict"]
        return handler.stream_pieces(*pieces, made=completion_end)
    return handler.say(200, completion_body(prompt, cached=int(bool(body.get("cache_prompt")))))


def completion_end(took_s: float) -> list[object]:
    return [{"content": "", "stop": True, "timings": {"predicted_ms": took_s * 1000}}]


def completion_body(prompt: str | list[int], *, cached: int = 0) -> dict[str, Any]:
    text = "K" if isinstance(prompt, str) and prompt.endswith("O") else "xyz"
    return {
        "content": text,
        "tokens_evaluated": len(prompt),
        "completion_probabilities": [step(ord(letter), 1.0) for letter in text],
        "timings": {"cache_n": cached, "predicted_n": 64, "predicted_per_second": 500.5},
    }


def step(token: int, margin: float) -> dict[str, Any]:
    likely = [{"id": token, "logprob": -0.5}, {"id": 0, "logprob": -0.5 - margin}]
    return {"id": token, "top_logprobs": likely}


def slot_states(*, count: int = SLOTS, tokens: int = SLOT_TOKENS, busy: bool = False) -> list[Body]:
    return [{"id": number, "n_ctx": tokens, "is_processing": busy} for number in range(count)]


PROPS = {
    "default_generation_settings": {"n_ctx": SLOT_TOKENS},
    "total_slots": SLOTS,
    "build_info": "b9326-1c4788192",
}

GOOD: dict[str, Reaction] = {
    "/v1/models": saying(200, {"data": [{"id": ALIAS}]}),
    "/props": saying(200, PROPS),
    "/slots": saying(200, slot_states()),
    "/tokenize": saying(200, {"tokens": [97]}),
    "/completion": completion,
    "/v1/chat/completions": chat,
    "/v1/messages": messages,
}
