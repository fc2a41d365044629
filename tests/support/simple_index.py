"""A small package index on loopback, as pip and the builder ask one."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of an index of the folders below `folder`/simple: one for each project."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/simple"
    finally:
        server.shutdown()
        server.server_close()


def publish(folder: Path, project: str, files: dict[str, bytes]) -> None:
    """The project's page, with its files in this order."""
    home = folder / "simple" / project
    home.mkdir(parents=True)
    for name, content in files.items():
        (home / name).write_bytes(content)
    (home / "index.html").write_text("".join(f'<a href="{name}">{name}</a>\n' for name in files))
