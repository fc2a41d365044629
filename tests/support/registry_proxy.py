"""A proxy in front of a registry that fails where a test says so, and remembers what was asked."""

import http.client
import re
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.docker_registry import DockerRegistry

PIECE = 65536


@dataclass
class Fault:
    """What happens to a request whose `METHOD /path` matches, `times` times.

    `status`, `headers` and `body` are answered in the registry's place. `cut`: the connection ends
    after so many bytes of the request's body, or of the answer's. `after` is called once the
    registry has answered, before the client hears of it.
    """

    where: str
    times: int = 1
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b'{"errors": []}'
    cut: int | None = None
    after: Callable[[], object] | None = None


class Proxy:
    """`host` stands for the registry's. `asked`: `METHOD /path` of every request."""

    def __init__(self) -> None:
        self.host = ""
        self.faults: list[Fault] = []
        self.asked: list[str] = []
        self.uploaded = 0
        self.date: str | None = None
        self._lock = threading.Lock()

    def fault(self, line: str) -> Fault | None:
        with self._lock:
            self.asked.append(line)
            for one in self.faults:
                if one.times and re.search(one.where, line):
                    one.times -= 1
                    return one
            return None

    def count(self, where: str) -> int:
        return sum(1 for line in self.asked if re.search(where, line))


@contextmanager
def in_front_of(registry: DockerRegistry, tls: ssl.SSLContext | None = None) -> Iterator[Proxy]:
    """With `tls` it is asked by https, and does not tell the registry so."""
    proxy = Proxy()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def _answer(self) -> None:
            fault = proxy.fault(f"{self.command} {self.path}")
            if fault and fault.cut is not None and self.command != "GET":
                self.rfile.read(min(fault.cut, int(self.headers.get("Content-Length") or 0)))
                self._hang_up()
                return
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if "digest=" in self.path:
                proxy.uploaded += len(body)
            if fault and fault.status:
                self._send(fault.status, dict(fault.headers), fault.body)
                return
            try:
                status, headers, content = self._ask(body)
            except OSError:
                self._hang_up()
                return
            if fault and fault.after:
                fault.after()
            if proxy.date:
                headers["Date"] = proxy.date
            self._send(status, headers, content, cut=fault.cut if fault else None)

        def _ask(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
            connection = http.client.HTTPConnection(registry.host, timeout=30)
            try:
                # With its Host, so that the registry names places that lead here again.
                connection.putrequest(
                    self.command, self.path, skip_host=True, skip_accept_encoding=True
                )
                for name, value in self.headers.items():
                    connection.putheader(name, value)
                connection.endheaders(body)
                answer = connection.getresponse()
                return answer.status, dict(answer.headers), answer.read()
            finally:
                connection.close()

        def _send(
            self, status: int, headers: dict[str, str], body: bytes, cut: int | None = None
        ) -> None:
            self.send_response_only(status)
            if self.command != "HEAD":
                headers["Content-Length"] = str(len(body))
            for name, value in headers.items():
                if name.lower() not in {"connection", "transfer-encoding"}:
                    self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[:cut])
            if cut is not None:
                self._hang_up()

        def _hang_up(self) -> None:
            self.close_connection = True
            self.connection.close()

    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
        setattr(Handler, f"do_{method}", Handler._answer)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    proxy.host = f"127.0.0.1:{server.server_port}"
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
