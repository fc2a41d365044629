"""HTTP sessions whose answers end: a limit of bytes and of seconds for every one, headers too.

What `requests` calls a timeout is that of one read: a server that sends a byte now and then keeps
it waiting for ever, and one that never stops fills memory or disk.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.response import BaseHTTPResponse

_PIECE = 65536
_REDIRECTS = 5


@dataclass(frozen=True, slots=True)
class Limits:
    """The most bytes of a body, unpacked, and the seconds for it.

    `seconds` for the start of it; more for each `slowest` bytes that came, 0: never more. Never
    more than `longest` seconds in all.
    """

    largest: int
    seconds: float
    slowest: int = 0
    longest: float = 3600.0

    def deadline(self, size: int) -> float:
        """Seconds after which a body of which so many bytes came is given up."""
        more = size / self.slowest if self.slowest else 0.0
        return min(self.seconds + more, self.longest)


class EndlessError(requests.RequestException):
    """A body that passes its limits."""


def limit(session: requests.Session, limits: Limits) -> None:
    """Give a session's bodies these limits; its headers take as long as one read may."""
    session.max_redirects = _REDIRECTS
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(limits))


class _Watch:
    """Ends a connection whose answer takes too long, be it in the middle of a line.

    `deadline` is in seconds from now, and may move as more comes. The socket is shut down by
    another thread: whoever reads finds its end.
    """

    def __init__(self, connection: socket.socket, deadline: Callable[[], float]) -> None:
        self._connection, self._deadline = connection, deadline
        self._started = time.monotonic()
        self._ended = threading.Event()
        self.expired = False
        threading.Thread(target=self._watch, daemon=True).start()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._started

    def late(self) -> bool:
        """Whether the deadline has passed."""
        return self.expired or self.seconds > self._deadline()

    def cancel(self) -> None:
        """The answer is there."""
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(self._deadline() - self.seconds):
            if self.late():
                self.expired = True
                # An SSLSocket's own method would take the encryption from under the reader.
                with contextlib.suppress(OSError):  # it is closed already
                    socket.socket.shutdown(self._connection, socket.SHUT_RDWR)
                return


class Body:
    """The body of an answer, in place of urllib3's: read as that is, within limits."""

    def __init__(self, raw: BaseHTTPResponse, limits: Limits) -> None:
        self._raw, self._limits, self._size = raw, limits, 0
        self._watch = _Watch(raw.watched, self._deadline)  # type: ignore[attr-defined]

    def allow(self, limits: Limits) -> None:
        """Other limits, for what is asked for as a large file and read through a buffer.

        Else it closes itself at its end: to a buffer around it that is an error.
        """
        self._limits = limits
        self._raw.auto_close = False  # type: ignore[attr-defined]

    def read(self, amount: int | None = None, decode_content: bool | None = None) -> bytes:
        """So many bytes, fewer only at the end; all without an amount."""
        pieces: list[bytes] = []
        left = amount
        while left is None or left > 0:
            piece = self.read1(_PIECE if left is None else min(left, _PIECE), decode_content)
            if not piece:
                break
            pieces.append(piece)
            left = None if left is None else left - len(piece)
        return b"".join(pieces)

    def read1(self, amount: int = _PIECE, decode_content: bool | None = None) -> bytes:
        """What is there, at most so many bytes; none at the end. Raises EndlessError."""
        try:
            piece = self._raw.read1(amount, decode_content=decode_content)
        except Exception as error:
            if self._watch.expired:
                raise self._slow() from error
            raise
        if not piece and self._watch.expired:
            raise self._slow()
        if not piece:
            self._watch.cancel()
            return piece
        self._size += len(piece)
        if self._size > self._limits.largest:
            raise EndlessError(f"no end after {self._limits.largest} bytes")
        if self._watch.late():
            raise self._slow()
        return piece

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 -- any buffer
        """As a buffered reader around it asks."""
        piece = self.read1(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def stream(self, amount: int = _PIECE, decode_content: bool | None = None) -> Iterator[bytes]:
        """As `requests` reads it."""
        while piece := self.read1(amount, decode_content):
            yield piece

    def close(self) -> None:
        """Also ends the watch."""
        self._watch.cancel()
        self._raw.close()

    def release_conn(self) -> None:
        """Also ends the watch."""
        self._watch.cancel()
        self._raw.release_conn()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- whatever urllib3's has
        return getattr(self._raw, name)

    def _deadline(self) -> float:
        return self._limits.deadline(self._size)

    def _slow(self) -> EndlessError:
        return EndlessError(f"no end after {self._size} bytes and {self._watch.seconds:.0f} s")


class _Adapter(HTTPAdapter):
    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        super().__init__()

    def init_poolmanager(self, *words: Any, **more: Any) -> None:  # noqa: ANN401 -- requests' own
        super().init_poolmanager(*words, **more)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *words: Any, **more: Any) -> Any:  # noqa: ANN401 -- requests' own
        manager = super().proxy_manager_for(*words, **more)
        manager.pool_classes_by_scheme = _POOLS
        return manager

    def send(self, *words: Any, **more: Any) -> requests.Response:  # noqa: ANN401 -- requests' own
        response = super().send(*words, **more)
        response.raw = Body(response.raw, self._limits)
        return response


def _within(connection: HTTPConnection) -> BaseHTTPResponse:
    """The answer's headers, the last of them no later than one read may take."""
    limit = connection.timeout
    own = connection.sock
    seconds = float(limit) if isinstance(limit, int | float) else _HEADERS_S
    watch = _Watch(own, lambda: seconds)
    try:
        answer = HTTPConnection.getresponse(connection)
    finally:
        watch.cancel()
    if watch.expired:
        # A header that is cut short is the last one, to http.client.
        answer.close()
        raise TimeoutError
    answer.watched = own  # type: ignore[attr-defined]
    return answer


_HEADERS_S = 120.0
"""For headers, where a session is asked without a timeout."""


class _Plain(HTTPConnection):
    def getresponse(self) -> Any:  # noqa: ANN401 -- urllib3's own
        return _within(self)


class _Encrypted(HTTPSConnection):
    def getresponse(self) -> Any:  # noqa: ANN401 -- urllib3's own
        return _within(self)


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class _EncryptedPool(HTTPSConnectionPool):
    ConnectionCls = _Encrypted


_POOLS: Mapping[str, type[HTTPConnectionPool]] = {"http": _PlainPool, "https": _EncryptedPool}
