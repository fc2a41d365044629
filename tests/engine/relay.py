"""Connections handed on: a service of this machine, reached in a container's network as well.

`python relay.py PORT SOCKET` hands on what comes to 127.0.0.1:PORT of its network to a socket's
file, and `serving` in another network from that file to the service.
"""

import contextlib
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def serving(file: Path, port: int) -> Iterator[None]:
    """Hand on what comes to this socket's file to 127.0.0.1:port."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(file))
        listener.listen()
        arguments = (listener, lambda: socket.create_connection(("127.0.0.1", port)))
        threading.Thread(target=_accept, args=arguments, daemon=True).start()
        yield
        listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, connect: Callable[[], socket.socket]) -> None:
    with contextlib.suppress(OSError):  # it was closed
        while True:
            ends = listener.accept()[0], connect()
            for one, other in (ends, ends[::-1]):
                threading.Thread(target=_hand_on, args=(one, other), daemon=True).start()


def _hand_on(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := one.recv(1 << 16):
            other.sendall(piece)
        other.shutdown(socket.SHUT_WR)


def _to_file(file: str) -> socket.socket:
    end = socket.socket(socket.AF_UNIX)
    end.connect(file)
    return end


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
        print("listens", flush=True)  # noqa: T201 -- whoever started it waits for that
        _accept(listener, lambda: _to_file(sys.argv[2]))
