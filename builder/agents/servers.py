"""Where the server of a profile is, and what a client should know before it goes there."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from builder.agents.environment import TOKEN, Server
from builder.common.errors import EngineError
from builder.llama import client as http
from builder.llama import profiles
from builder.model.pins import Pins, Profile

if TYPE_CHECKING:
    from builder.serve.containers import Served

_ANSWER_S = 2.0


def find(pins: Pins, name: str) -> Server:
    """The server of this profile: where its container is, else on its own port of the loopback.

    A container that wants an API key has it in a file, of which this is the first key. Raises
    UsageError for a profile that pins.toml lacks, or a file of keys that cannot be read.
    """
    from builder.llama import api_keys

    chosen = profiles.find(pins, name)
    one = _served(name)
    if one is None:
        url = f"http://127.0.0.1:{chosen.port}"
        return Server(name, url, chosen.alias, embeddings=chosen.embeddings)
    key = one.spec.key_file
    token = api_keys.read(Path(key))[0] if key else TOKEN
    return Server(name, one.spec.url, one.spec.alias, token, embeddings=chosen.embeddings)


def _served(name: str) -> "Served | None":
    """The container that runs for this profile; None, too, where no engine answers."""
    from builder.serve import containers as served

    there: list[Served] = []
    with contextlib.suppress(EngineError):
        there = [one for one in served.connect().all() if one.profile == name and one.running]
    # Two run while one replaces the other, of which the new one has not been ready yet.
    return max(there, key=lambda one: one.confirmed, default=None)


def warnings(servers: list[Server], environ: Mapping[str, str]) -> Iterator[str]:
    """What would keep a client of this environment from getting there, and what it loses."""
    by_url = {one.url: [other for other in servers if other.url == one.url] for one in servers}
    for url, sharing in by_url.items():
        yield from _state(url, sharing)
        yield from _proxy(url)
    if "ANTHROPIC_API_KEY" in environ and not all(one.embeddings for one in servers):
        yield (
            "ANTHROPIC_API_KEY is taken away, for it must not go to a local server; "
            "after `builder env --clear` it has to be set again"
        )
    if environ.get("OPENAI_API_KEY", TOKEN) not in {one.token for one in servers}:
        yield "OPENAI_API_KEY is replaced; after `builder env --clear` it has to be set again"


def _state(url: str, servers: list[Server]) -> Iterator[str]:
    """Whether one of these servers, which share an address, answers at it."""
    first = servers[0]
    with http.session() as session:
        session.headers["Authorization"] = f"Bearer {first.token}"
        asked = http.Server(url, session, Profile(first.alias, 1, 1))
        health = http.get(asked, "/health", _ANSWER_S)
        models = http.get(asked, "/v1/models", _ANSWER_S)
    if health.status is None:
        yield f"nothing answers at {url} yet: `builder serve {first.tier} --model PATH`"
    elif health.status != http.OK:
        yield f"{url} is not ready yet: {health}"
    elif (alias := models.at("data", 0, "id")) not in {None, *(one.alias for one in servers)}:
        yield f"{url} serves {alias}, not {first.alias}: `builder swap {first.tier}`"


def _proxy(url: str) -> Iterator[str]:
    """Clients ask the proxy of the environment for a local address too, unless it is excepted."""
    from requests.utils import get_environ_proxies

    host = urlsplit(url).hostname
    if get_environ_proxies(url).get("http"):
        yield f"HTTP_PROXY would be asked for {host}: `export NO_PROXY={host}`"
