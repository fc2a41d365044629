"""A llama-server as its clients see it: an address to ask, and what is expected of it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import requests

SHORT = 160
"""Characters of an answer that a finding quotes."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where it listens, and what it should be.

    `reply` is the text that the model answers by its script; None: the model has none.
    `timeout_s` is the longest silence that a completion may take, in seconds.
    """

    url: str
    alias: str
    reply: str | None
    session: "requests.Session"
    timeout_s: float = 120.0


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
                value = value[step]
            else:
                return None
        return value

    def __str__(self) -> str:
        """The status and the start of the text, on one line."""
        text = " ".join(self.text.split())
        shown = text if len(text) <= SHORT else f"{text[:SHORT]}…"
        return f"no answer ({shown})" if self.status is None else f"{self.status} {shown}"


@contextmanager
def session() -> "Iterator[requests.Session]":
    """An HTTP session for servers on this machine.

    It ignores the environment: a proxy named there knows nothing of our loopback.
    """
    import requests

    with requests.Session() as opened:
        opened.trust_env = False
        yield opened


def get(server: Server, path: str, timeout_s: float = 10.0) -> Answer:
    """GET a path, waiting at most `timeout_s` seconds for each part of the answer."""
    return _ask(server, "GET", path, None, timeout_s)


def post(server: Server, path: str, body: object) -> Answer:
    """POST a JSON body to a path."""
    return _ask(server, "POST", path, body, server.timeout_s)


def _ask(server: Server, method: str, path: str, body: object, timeout_s: float) -> Answer:
    import requests

    try:
        response = server.session.request(
            method, f"{server.url}{path}", json=body, timeout=(5.0, timeout_s)
        )
    except requests.RequestException as error:
        return Answer(None, f"{type(error).__name__}: {error}")
    return Answer(response.status_code, response.text, _parsed(response.text))


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None
