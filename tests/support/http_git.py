"""git's own HTTP server program behind a small local HTTP server, with redirects."""

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit


@contextmanager
def serve(
    root: Path,
    moved: dict[str, str],
    *,
    before: Callable[[], object] = lambda: None,
    protocol: int = 2,
) -> Iterator[str]:
    """Serve the repositories under `root`; `moved` maps an old first folder to its new name.

    `before` is called ahead of each answer. In protocol 0, as of an old server, single commits are
    refused unless the repository's uploadpack.allowAnySHA1InWant is on. Gives the base URL.
    """

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            before()
            name, _, rest = self.path.lstrip("/").partition("/")
            if name in moved:
                self.send_response(301)
                self.send_header("Location", f"/{moved[name]}/{rest}")
                self.end_headers()
                return
            head, _, body = self._backend().partition(b"\r\n\r\n")
            fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
            self.send_response(int(fields.pop("Status", "200").split()[0]))
            for field, value in fields.items():
                self.send_header(field, value)
            self.end_headers()
            self.wfile.write(body)

        def _backend(self) -> bytes:
            address = urlsplit(self.path)
            variables = {
                "GIT_PROJECT_ROOT": str(root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "REQUEST_METHOD": self.command,
                "PATH_INFO": address.path,
                "QUERY_STRING": address.query,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "HTTP_GIT_PROTOCOL": self.headers.get("Git-Protocol", "") if protocol else "",
            }
            sent = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            return subprocess.run(
                ["git", "http-backend"],
                input=sent,
                env=os.environ | variables,
                capture_output=True,
                # It ends with 1 after a refusal, which is its answer all the same.
                check=False,
            ).stdout

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
