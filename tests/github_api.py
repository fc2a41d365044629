"""A local server that speaks the shapes of GitHub's API, its refusals among them."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Answer:
    """One answer. `cut` bytes are missing at its end; `drip` sends a byte each few milliseconds."""

    status: int = 200
    body: object = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = 0
    drip: bool = False


NOT_FOUND = Answer(404, {"message": "Not Found", "status": "404"})


class Api:
    """What to answer by path, and the requests that came. The last answer of a path stays."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: dict[str, list[Answer]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []

    def on(self, path: str, *answers: Answer) -> None:
        self.answers[path] = list(answers)

    def take(self, path: str) -> Answer:
        waiting = self.answers.get(path, [NOT_FOUND])
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]


def page(name: str, *, archived: bool = False) -> dict[str, object]:
    """The part of GitHub's repository object that matters here."""
    return {
        "full_name": name,
        "html_url": f"https://github.com/{name}",
        "default_branch": "master",
        "archived": archived,
    }


@contextmanager
def serve() -> Iterator[Api]:
    api = Api()
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            api.asked.append((self.path, dict(self.headers)))
            answer = api.take(self.path)
            body = b"" if answer.body is None else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if answer.drip:
                self._drip(body)
            else:
                self.wfile.write(body[: len(body) - answer.cut])

        def _drip(self, body: bytes) -> None:
            for byte in body:
                try:
                    self.wfile.write(bytes([byte]))
                except OSError:
                    return
                if over.wait(0.01):
                    return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    api.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield api
    finally:
        over.set()
        server.shutdown()
        server.server_close()
