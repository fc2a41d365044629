"""A llama-server as its clients see it: an address to ask, and what is expected of it."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from builder.model.pins import Profile

if TYPE_CHECKING:
    import requests

SHORT = 160
"""Characters of an answer that a finding quotes."""

OK = 200
NOT_FOUND = 404

REFUSED = (401, 403)
"""What a server answers to whoever has not its API key."""

SLOWEST_READ, SLOWEST_MADE = 10, 2
"""Tokens a second of prompts and of answers below which a server counts as hung.

A large model on a CPU makes three to ten.
"""

_START_S = 120.0
_CONNECT_S = 5.0
_MOST_BYTES = 64 * 2**20
_CHUNK = 2**16
_HEAD = 512
_FIELDS = {"data", "error"}


@dataclass(frozen=True, slots=True)
class Script:
    """What a scripted model says: its answer, and what it thinks before when thinking is on."""

    reply: str
    thought: str


@dataclass(frozen=True, slots=True)
class Server:
    """Where it listens, and what it should be.

    `commit` is the one that it should have been built from; None: nobody knows. `script` None: the
    model follows none. `timeout_s` is how long a completion may take, in seconds; None: as long as
    its tokens need, see `longest_s`.
    """

    url: str
    session: "requests.Session"
    profile: Profile
    commit: str | None = None
    script: Script | None = None
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer. `status` is None when none came; `text` then says why.

    `body` is the parsed JSON, None when it is none.
    """

    status: int | None
    text: str
    body: object = None

    def at(self, *path: str | int) -> object:
        """The value at this path of keys and indices in the body, or None."""
        value = self.body
        for step in path:
            if isinstance(value, dict):
                value = value.get(step)
            elif isinstance(value, list) and isinstance(step, int) and step < len(value):
                value = value[step] if value else None
            else:
                return None
        return value

    def __str__(self) -> str:
        """The status and the start of the text, on one line."""
        text = " ".join(self.text.split())
        shown = text if len(text) <= SHORT else f"{text[:SHORT]}…"
        return f"no answer ({shown})" if self.status is None else f"{self.status} {shown}"


class _TooMuchError(Exception):
    """An answer without end, in time or in bytes."""


@dataclass(slots=True)
class Stream:
    """Server-sent events as they come, each an answer of its own.

    `status` is None when no answer came at all. `fault` says why there are no more events, when
    it is not that the server had said all: a status that is no 200, a connection that broke.
    """

    status: int | None
    fault: str | None = None
    _events: Iterator[Answer] = field(default_factory=lambda: iter(()))

    def __iter__(self) -> Iterator[Answer]:
        return self

    def __next__(self) -> Answer:
        return next(self._events)


def quoted(value: object, most: int = 60) -> str:
    """A value of an answer as a finding shows it, in at most that many characters and one more."""
    try:
        text = repr(value)
    except RecursionError:
        return "something nested very deeply"
    return text if len(text) <= most else f"{text[:most]}…"


def longest_s(server: Server, body: object, at_once: int = 1) -> float:
    """How long an answer to this request may take, in seconds.

    Two minutes, and the time of its tokens at the slowest; `at_once` requests wait for each other.
    """
    if server.timeout_s is not None:
        return server.timeout_s
    fields = body if isinstance(body, dict) else {}
    made = fields.get("max_tokens", fields.get("n_predict"))
    prompt = fields.get("prompt", fields.get("messages"))
    # A token of text takes a byte or more.
    read = len(prompt if isinstance(prompt, list | str) else json.dumps(body))
    tokens = made if isinstance(made, int) else 0
    return _START_S + at_once * (read / SLOWEST_READ + tokens / SLOWEST_MADE)


@contextmanager
def session(api_key: str | None = None) -> "Iterator[requests.Session]":
    """An HTTP session for servers on this machine. `api_key` is sent with every request.

    It ignores the environment: a proxy named there knows nothing of our loopback. Every request has
    a connection of its own, since llama-server often closes one after a stream that it had promised
    to keep (seen in one case of four), and a probe must not take that for a crash.
    """
    import requests

    with requests.Session() as opened:
        opened.trust_env = False
        opened.headers["Connection"] = "close"
        if api_key is not None:
            opened.headers["Authorization"] = f"Bearer {api_key}"
        yield opened


def get(server: Server, path: str, timeout_s: float = 10.0) -> Answer:
    """GET a path, waiting at most `timeout_s` seconds for the answer."""
    return _ask(server, "GET", path, None, timeout_s)


def refused(server: Server) -> str | None:
    """Why a server wants to talk to nobody who has not its API key, or None when it talks to us."""
    answer = get(server, "/props")
    if answer.status not in REFUSED:
        return None
    if "Authorization" in server.session.headers:
        return f"the server does not take this API key ({answer.status} from /props)"
    return f"the server wants an API key ({answer.status} from /props): --api-key-file FILE"


def post(
    server: Server, path: str, body: object, timeout_s: float | None = None, *, at_once: int = 1
) -> Answer:
    """POST a JSON body to a path, as one of `at_once` requests.

    `timeout_s` None: as long as its tokens need.
    """
    limit_s = longest_s(server, body, at_once) if timeout_s is None else timeout_s
    return _ask(server, "POST", path, json.dumps(body).encode(), limit_s)


def post_raw(server: Server, path: str, data: bytes) -> Answer:
    """POST these bytes as if they were JSON."""
    return _ask(server, "POST", path, data, longest_s(server, None))


@contextmanager
def stream(server: Server, path: str, body: object) -> Iterator[Stream]:
    """POST a JSON body and read the events of the answer; the end of the block hangs up."""
    data = json.dumps(body).encode()
    timeout_s = longest_s(server, body)
    deadline = time.monotonic() + timeout_s
    try:
        response = _request(server, "POST", path, data, timeout_s)
    except _errors() as error:
        yield Stream(None, _why(error))
        return
    with response:
        found = Stream(response.status_code)
        if response.status_code == OK:
            found._events = _events(found, _chunks(response, deadline))
        else:
            found.fault = str(_read(response, deadline))
        yield found


def _events(found: Stream, chunks: Iterator[bytes]) -> Iterator[Answer]:
    """The `data:` lines of a stream as answers, up to its end or its fault.

    Some llama-servers write `error:` in place of `data:`.
    """
    rest, none_yet, text = b"", True, b""
    try:
        for chunk in chunks:
            text = (text + chunk)[:_HEAD]
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                name, _, value = line.decode(errors="replace").strip().partition(":")
                if name in _FIELDS:
                    none_yet = False
                    body = _parsed(value)
                    yield Answer(OK, value.strip(), body if name == "data" else {name: body})
    except _errors() as error:
        found.fault = _why(error)
    else:
        if none_yet:
            found.fault = f"no event in {Answer(OK, text.decode(errors='replace'))}"


def _ask(server: Server, method: str, path: str, data: bytes | None, timeout_s: float) -> Answer:
    deadline = time.monotonic() + timeout_s
    try:
        response = _request(server, method, path, data, timeout_s)
    except _errors() as error:
        return Answer(None, _why(error))
    with response:
        return _read(response, deadline)


def _request(
    server: Server, method: str, path: str, data: bytes | None, timeout_s: float
) -> "requests.Response":
    """The head of an answer. A redirection is an answer too: it may lead anywhere."""
    return server.session.request(
        method,
        f"{server.url}{path}",
        data=data,
        headers=None if data is None else {"Content-Type": "application/json"},
        timeout=(_CONNECT_S, timeout_s),
        allow_redirects=False,
        stream=True,
    )


def _read(response: "requests.Response", deadline: float) -> Answer:
    try:
        text = b"".join(_chunks(response, deadline)).decode(errors="replace")
    except _errors() as error:
        return Answer(None, _why(error))
    return Answer(response.status_code, text, _parsed(text))


def _chunks(response: "requests.Response", deadline: float) -> Iterator[bytes]:
    """The body as it comes. `deadline` is a time of the monotonic clock."""
    size = 0
    # Whatever is there, and not until there is a chunk of it: an event is due when it was sent.
    while chunk := response.raw.read1(_CHUNK, decode_content=True):
        size += len(chunk)
        if size > _MOST_BYTES:
            raise _TooMuchError(f"more than {_MOST_BYTES} bytes")
        if time.monotonic() > deadline:
            raise _TooMuchError("it was still coming at the deadline")
        yield chunk


def _errors() -> tuple[type[Exception], ...]:
    """What requests, urllib3 and we raise when an answer is none, or has no end."""
    import requests
    from urllib3.exceptions import HTTPError

    return (requests.RequestException, HTTPError, OSError, _TooMuchError)


def _why(error: Exception) -> str:
    return f"{type(error).__name__.lstrip('_')}: {error}"


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
