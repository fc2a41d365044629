"""A proxy on the loopback that writes down what went through it, and lets nothing out."""

import contextlib
import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

# One connection a request: llama-server closes some that it had promised to keep.
HOPS = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


@dataclass(slots=True)
class Passed:
    """One request with its answer."""

    line: str
    headers: dict[str, str]
    body: Any
    status: int
    answer: bytes

    def events(self) -> list[dict[str, Any]]:
        """The answer's events, if it was a stream."""
        lines = self.answer.decode().splitlines()
        data = [line.removeprefix("data:") for line in lines if line.startswith("data:")]
        return [json.loads(one) for one in data if one.strip() != "[DONE]"]


@dataclass(slots=True)
class Proxy:
    url: str
    passed: list[Passed] = field(default_factory=list)

    @property
    def lines(self) -> list[str]:
        return [one.line for one in self.passed]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def asked_for(self) -> list[str]:
        """The models that messages were asked of."""
        return [one.body["model"] for one in self.passed if one.line == "POST /v1/messages"]


@contextmanager
def proxying(upstream: str | None) -> Iterator[Proxy]:
    """Pass requests on to `upstream`; None: to nobody. A tunnel to another host is refused."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def do_CONNECT(self) -> None:
            self._answer(f"CONNECT {self.path}", b"", 403, {}, b"")

        def do_HEAD(self) -> None:
            self._pass_on()

        def do_GET(self) -> None:
            self._pass_on()

        def do_POST(self) -> None:
            self._pass_on()

        def _pass_on(self) -> None:
            line = f"{self.command} {urlsplit(self.path).path}"
            sent = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            if upstream is None:
                self._answer(line, sent, 403, {}, b"")
                return
            connection = http.client.HTTPConnection(urlsplit(upstream).netloc, timeout=600)
            kept = {name: v for name, v in self.headers.items() if name.lower() not in HOPS}
            connection.request(self.command, self.path, sent, kept)
            answer = connection.getresponse()
            headers = {name: v for name, v in answer.getheaders() if name.lower() not in HOPS}
            self._answer(line, sent, answer.status, headers, answer.read())

        def _answer(
            self, line: str, sent: bytes, status: int, headers: dict[str, str], text: bytes
        ) -> None:
            own = {name.lower(): value for name, value in self.headers.items()}
            body = json.loads(sent) if sent else None
            found.passed.append(Passed(line, own, body, status, text))
            with contextlib.suppress(ConnectionError):  # it has hung up
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found = Proxy(f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
