"""Web servers of a test's own, by http or https, that remember who showed what to them."""

import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

NAMES = ("registry.example.test", "elsewhere.example.test")
"""Names that `resolve_here` has on this machine: to builder they are hosts of another one."""


@dataclass(frozen=True)
class Asked:
    """A request as it came in. `authorization` None: it showed nothing."""

    method: str
    path: str
    authorization: str | None
    body: bytes = b""


@dataclass(frozen=True)
class Reply:
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"{}"


@dataclass
class Place:
    """A server. `answer` makes the reply to a request; `port` is where it listens."""

    answer: Callable[[Asked], Reply] = lambda _: Reply(404)
    port: int = 0
    asked: list[Asked] = field(default_factory=list)

    @property
    def shown(self) -> list[str]:
        """Every Authorization that came here."""
        return [one.authorization for one in self.asked if one.authorization]


@contextmanager
def serve(tls: ssl.SSLContext | None = None) -> Iterator[Place]:
    place = Place()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = Asked(self.command, self.path, self.headers.get("Authorization"), body)
            place.asked.append(asked)
            reply = place.answer(asked)
            self.send_response(reply.status)
            for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply.body)

    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
        setattr(Handler, f"do_{method}", Handler._answer)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    place.port = server.server_port
    try:
        yield place
    finally:
        server.shutdown()
        server.server_close()


def certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS for all `NAMES`, and the file by which a client trusts it."""
    file, key = folder / "certificate.pem", folder / "key.pem"
    names = ",".join(f"DNS:{name}" for name in NAMES)
    words = ["-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"]
    extensions = ["-addext", f"subjectAltName={names}"]
    files = ["-keyout", key, "-out", file]
    subprocess.run(
        ["openssl", "req", "-x509", *words, *extensions, *files], check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key)
    return context, file


def resolve_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within this process `NAMES` are addresses of this machine, and no proxy is asked for them."""
    real = socket.getaddrinfo

    def found(host: Any, *rest: Any, **more: Any) -> Any:
        return real("127.0.0.1" if host in NAMES else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", found)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("no_proxy", "*")
