"""Servers on loopback whose answers never end, or come a byte at a time."""

import contextlib
import gzip
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Answer = Callable[[socket.socket, threading.Event], None]

HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
PIECE = b"x" * 65536
DRIP_S = 0.02


def plain(connection: socket.socket, stop: threading.Event) -> None:
    """A body without a length."""
    connection.sendall(HEAD + b"\r\n")
    for_ever(connection, stop, PIECE)


def chunked(connection: socket.socket, stop: threading.Event) -> None:
    connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    for_ever(connection, stop, b"10000\r\n" + PIECE + b"\r\n")


def packed(connection: socket.socket, _stop: threading.Event) -> None:
    """1 GB of zeros in 1 MB of gzip."""
    connection.sendall(HEAD + b"Content-Encoding: gzip\r\n\r\n")
    connection.sendall(b"".join([gzip.compress(b"\0" * (1 << 24))] * 64))


def trailers(connection: socket.socket, stop: threading.Event) -> None:
    connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n")
    for_ever(connection, stop, b"X-More: x\r\n" * 100)


def hints(connection: socket.socket, stop: threading.Event) -> None:
    """Answers before the answer."""
    for_ever(connection, stop, b"HTTP/1.1 100 Continue\r\n\r\n" * 100)


def dripping_body(connection: socket.socket, stop: threading.Event) -> None:
    connection.sendall(HEAD + b"\r\n{")
    for_ever(connection, stop, b" ", DRIP_S)


def dripping_chunk_size(connection: socket.socket, stop: threading.Event) -> None:
    connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2;")
    for_ever(connection, stop, b"x", DRIP_S)


def dripping_headers(connection: socket.socket, stop: threading.Event) -> None:
    connection.sendall(HEAD + b"X-Name: ")
    for_ever(connection, stop, b"x", DRIP_S)


SLOW = {one.__name__: one for one in (dripping_body, dripping_chunk_size, dripping_headers)}
ENDLESS = {one.__name__: one for one in (plain, chunked, packed, trailers, hints)}


def for_ever(
    connection: socket.socket, stop: threading.Event, piece: bytes, pause_s: float = 0.0
) -> None:
    while not stop.wait(pause_s):
        connection.sendall(piece)


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """The `host:port` of a server that answers everything so."""
    stop = threading.Event()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            with contextlib.suppress(OSError):
                answer(self.request, stop)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            stop.set()
            server.shutdown()
