"""A local server that speaks the shapes of a registry's HTTP API v2, its refusals among them."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"


class Registry:
    """What is pushed here, by digest, and the tags. `token`: what one has to show, if anything.

    `refusal` is a status (and headers) for every question; `named` says whether HEAD tells digests.
    """

    def __init__(self) -> None:
        self.host = ""
        self.stored: dict[str, tuple[str, bytes]] = {}
        self.tags: dict[str, str] = {}
        self.token: str | None = None
        self.refusal: tuple[int, dict[str, str]] | None = None
        self.named = True
        self.asked: list[tuple[str, str]] = []
        self.scopes: list[dict[str, list[str]]] = []
        self.logins: list[str | None] = []

    def name(self, tag: str) -> str:
        return f"{self.host}/{tag}"

    def store(self, kind: str, content: object) -> str:
        body = json.dumps(content).encode()
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        self.stored[digest] = (kind, body)
        return digest

    def push(self, tag: str, labels: dict[str, str], *, index: bool = False) -> str:
        """An image of these labels under `name:tag`; as an index with a second platform."""
        config = self.store(CONFIG, {"config": {"Labels": labels}})
        digest = self.store(MANIFEST, {"config": {"digest": config}})
        if index:
            other = {
                "digest": "sha256:" + "0" * 64,
                "platform": {"os": "linux", "architecture": "arm64"},
            }
            own = {"digest": digest, "platform": {"os": "linux", "architecture": "amd64"}}
            digest = self.store(INDEX, {"manifests": [other, own]})
        self.tags[tag] = digest
        return digest

    def drop(self, digest: str) -> None:
        del self.stored[digest]


@contextmanager
def serve() -> Iterator[Registry]:
    registry = Registry()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            self._answer()

        def do_HEAD(self) -> None:
            self._answer()

        def _answer(self) -> None:
            registry.asked.append((self.command, self.path))
            address = urlsplit(self.path)
            if address.path == "/token":
                registry.scopes.append(parse_qs(address.query))
                registry.logins.append(self.headers.get("Authorization"))
                self._send(200, json.dumps({"token": registry.token}).encode())
            elif registry.refusal is not None:
                self._send(registry.refusal[0], b"", registry.refusal[1])
            elif registry.token and self.headers.get("Authorization") != f"Bearer {registry.token}":
                realm = f'Bearer realm="http://{registry.host}/token",service="test",scope="pull"'
                self._send(401, b"{}", {"WWW-Authenticate": realm})
            else:
                self._content(address.path.removeprefix("/v2/"))

        def _content(self, path: str) -> None:
            name, _, wanted = path.replace("/blobs/", "/manifests/").partition("/manifests/")
            digest = registry.tags.get(f"{name}:{wanted}", wanted)
            if digest not in registry.stored:
                self._send(404, b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}')
                return
            kind, body = registry.stored[digest]
            if "/manifests/" in path and kind not in self.headers.get("Accept", ""):
                self._send(404, b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}')
                return
            named = {"Docker-Content-Digest": digest} if registry.named else {}
            self._send(200, body, {"Content-Type": kind, **named})

        def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    registry.host = f"127.0.0.1:{server.server_port}"
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
