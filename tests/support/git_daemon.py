"""git's own daemon on loopback: one process a connection, so that no port is taken in advance."""

import socketserver
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def serve(root: Path) -> Iterator[str]:
    """Serve the repositories under `root`. Gives the base URL."""
    command = ["git", "daemon", "--inetd", "--export-all", f"--base-path={root}", str(root)]

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            quiet = subprocess.DEVNULL
            subprocess.run(
                command, stdin=self.request, stdout=self.request, stderr=quiet, check=False
            )

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"git://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
