"""A server on the loopback that writes down what a client sends, and gives scripted answers.

It speaks as much of Anthropic's Messages API as a client needs for a turn: the streamed events of
https://docs.anthropic.com/en/docs/build-with-claude/streaming, and token counts. Nothing leaves
the machine.
"""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

MESSAGES = "/v1/messages"

_LOOPBACK = "127.0.0.1"
_OK, _NOT_FOUND = 200, 404

Block = dict[str, Any]
"""A content block of an answer, as the Messages API has it."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a client sent. Names of `headers` are in lower case; `body` None: it was no JSON."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass(slots=True)
class Recording:
    """Where it listens, and what it was sent so far."""

    url: str
    requests: list[Request] = field(default_factory=list)

    @property
    def messages(self) -> list[Request]:
        """The requests for an answer of the model."""
        return [one for one in self.requests if one.method == "POST" and one.path == MESSAGES]


def text(words: str) -> Block:
    """An answer in words."""
    return {"type": "text", "text": words}


def tool_use(name: str, **arguments: object) -> Block:
    """An answer that calls a tool."""
    return {"type": "tool_use", "id": f"toolu_{name}", "name": name, "input": arguments}


@contextmanager
def recording(replies: Sequence[Block] = ()) -> Iterator[Recording]:
    """Listen on a free port of the loopback until the end of the block.

    The first answer is the first of `replies`, and so on; the model says OK once they are used up.
    """
    left = iter(replies)
    turn = threading.Lock()

    class Handler(_Handler):
        def next_reply(self) -> Block:
            with turn:
                return next(left, text("OK"))

        def record(self, request: Request) -> None:
            found.requests.append(request)

    server = ThreadingHTTPServer((_LOOPBACK, 0), Handler)
    server.daemon_threads = True
    found = Recording(f"http://{_LOOPBACK}:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def next_reply(self) -> Block:
        raise NotImplementedError

    def record(self, request: Request) -> None:
        raise NotImplementedError

    def log_message(self, *_: object) -> None:
        """Nothing: what was sent is in the recording."""

    def do_HEAD(self) -> None:
        self._take()
        self._say(_OK, b"")

    def do_GET(self) -> None:
        self._take()
        self._say_json(_NOT_FOUND, _error("not_found_error", "nothing is here"))

    def do_POST(self) -> None:
        request = self._take()
        body = request.body if isinstance(request.body, dict) else {}
        if request.path == f"{MESSAGES}/count_tokens":
            self._say_json(_OK, {"input_tokens": 1})
        elif request.path != MESSAGES:
            self._say_json(_NOT_FOUND, _error("not_found_error", "nothing is here"))
        elif body.get("stream"):
            events = _events(str(body.get("model")), self.next_reply())
            self._say(_OK, b"".join(map(_event, events)), "text/event-stream")
        else:
            self._say_json(_OK, _message(str(body.get("model")), self.next_reply()))

    def _take(self) -> Request:
        sent = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        try:
            body = json.loads(sent)
        except ValueError:
            body = None
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, urlsplit(self.path).path, headers, body)
        self.record(request)
        return request

    def _say_json(self, status: int, body: object) -> None:
        self._say(status, json.dumps(body).encode(), "application/json")

    def _say(self, status: int, body: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _message(model: str, block: Block) -> dict[str, Any]:
    return {
        "id": "msg_recorded",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [block],
        "stop_reason": "tool_use" if block["type"] == "tool_use" else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }


def _events(model: str, block: Block) -> Iterator[dict[str, Any]]:
    """One answer as the events of a stream, its text or arguments in one piece."""
    whole = _message(model, block)
    if block["type"] == "tool_use":
        empty: Block = {**block, "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
    else:
        empty = {**block, "text": ""}
        delta = {"type": "text_delta", "text": block["text"]}
    begun = {**whole, "content": [], "stop_reason": None}
    yield {"type": "message_start", "message": begun}
    yield {"type": "content_block_start", "index": 0, "content_block": empty}
    yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    ended = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": ended, "usage": whole["usage"]}
    yield {"type": "message_stop"}


def _event(event: dict[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def _error(kind: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}}
