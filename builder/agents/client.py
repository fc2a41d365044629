"""Lead the clients in this process, or in one that it starts, to a server of this machine.

    from builder.agents.client import tier

    with tier("haiku"):
        ...  # Agent SDK, anthropic and openai talk to the haiku profile
    with tier("opus"):
        ...  # the vendor, as if no route had ever been set

Nothing is led anywhere unless USE_LOCAL_LLM=1 is in the environment: the same program runs with
the vendor without it. Inside `tier("haiku")` the user's own ANTHROPIC_API_KEY is out of the
environment, so that it cannot go to a local server; `tier("opus")` brings it back.

**Threads and tasks.** os.environ is one for the whole process, so two tiers cannot hold in it at
the same time. A thread that enters `tier` while another thread is inside waits until that one is
out; so don't wait inside a block for a thread that enters one. Threads that enter none see what is
set, whoever set it. A task of asyncio can't wait without stopping its own loop, so there the second
of two gets a UsageError at once. For calls side by side leave os.environ alone:

    ClaudeAgentOptions(env=overrides("haiku"))       # laid over os.environ by the SDK
    subprocess.run([...], env=environment("haiku"))  # in place of os.environ
"""

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path

from builder.agents.environment import ANTHROPIC, ASIDE, NAMES, aside, routed
from builder.common.errors import UsageError
from builder.model.pins import OPUS

ASKED = "USE_LOCAL_LLM"
"""1: tiers are led to this machine. 0, empty or not there: they are not."""

Variables = dict[str, str | None]
"""Names with their values; None: it is not to be there."""


@dataclass(slots=True, eq=False)
class _Block:
    """A block that was entered. `found`: what our names were before it."""

    found: Variables


class _Blocks:
    """Those entered and not yet left, the outermost first: all of one thread."""

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._open: list[_Block] = []
        self._owner: int | None = None

    def enter(self, name: str, around: _Block | None) -> _Block:
        """A new block; `around` is the one that this code is in. Waits for another thread's end."""
        me = threading.get_ident()
        with self._turn:
            self._turn.wait_for(lambda: self._owner in {None, me})
            if self._open and around is not self._open[-1]:
                raise UsageError(
                    f"tier({name!r}) while another task of this thread is inside a tier",
                    why="os.environ is one for the whole process",
                    hint=f"ClaudeAgentOptions(env=builder.client.overrides({name!r}))",
                )
            self._owner = me
            block = _Block(_now())
            self._open.append(block)
            return block

    def leave(self, block: _Block) -> None:
        """Our names as they were before the block."""
        with self._turn:
            place = self._open.index(block)
            if block is self._open[-1]:
                _apply(block.found)
            else:
                # Left before a block inside it, as an ExitStack may: that one puts our find back.
                self._open[place + 1].found = block.found
            del self._open[place]
            if not self._open:
                self._owner = None
                self._turn.notify_all()

    def outside(self) -> Variables:
        """What our names are outside of all blocks."""
        with self._turn:
            return dict(self._open[0].found) if self._open else _now()


_blocks = _Blocks()
_inside: ContextVar[_Block | None] = ContextVar("builder_client_inside", default=None)
"""The innermost block around this code; None in a new thread."""


@contextlib.contextmanager
def tier(
    name: str, *, url: str | None = None, pins_file: Path | None = None
) -> Iterator[dict[str, str]]:
    """Set os.environ for the profile of this name, and put it back at the end of the block.

    `opus` clears all that a route sets. `url` is where the server is, when it is not where
    `builder env` finds it. Yields what was set; empty when nothing was, as when USE_LOCAL_LLM is
    not 1: then os.environ is left as it is.

    Raises UsageError for an unknown profile, a USE_LOCAL_LLM that is neither 1 nor 0, or a second
    task of this thread; PinsError as `pins.load` does.
    """
    if not asked():
        yield {}
        return
    values = _values(name, url, pins_file)
    around = _inside.get()
    block = _blocks.enter(name, around)
    _inside.set(block)
    try:
        _apply(_changes(name, values, _blocks.outside()))
        yield dict(values)
    finally:
        _blocks.leave(block)
        _inside.set(around)


def overrides(
    name: str, *, url: str | None = None, pins_file: Path | None = None
) -> dict[str, str]:
    """What to lay over os.environ: for `ClaudeAgentOptions(env=…)`, which can't take a name away.

    What has to go is empty, which the SDK's program takes for not set. Empty as a whole when
    USE_LOCAL_LLM is not 1. os.environ is only read. Raises as `tier` does.
    """
    if not asked():
        return {}
    changes = _changes(name, _values(name, url, pins_file), _blocks.outside())
    return {key: value or "" for key, value in changes.items() if value or key in os.environ}


def environment(
    name: str, *, url: str | None = None, pins_file: Path | None = None
) -> dict[str, str]:
    """A whole environment for a process that is started: os.environ with the tier's changes.

    A copy of os.environ when USE_LOCAL_LLM is not 1. Raises as `tier` does.
    """
    found: Mapping[str, str | None] = os.environ
    if asked():
        changes = _changes(name, _values(name, url, pins_file), _blocks.outside())
        found = {**os.environ, **changes}
    return {key: value for key, value in found.items() if value is not None}


def asked() -> bool:
    """Whether USE_LOCAL_LLM is 1.

    Raises UsageError when it is neither 1 nor 0: taking "true" for no would send to the vendor what
    was meant to stay here.
    """
    value = os.environ.get(ASKED, "")
    if value not in {"", "0", "1"}:
        raise UsageError(f"{ASKED}={value}: it is 1 or 0", hint=f"`export {ASKED}=1`")
    return value == "1"


def _values(name: str, url: str | None, pins_file: Path | None) -> dict[str, str]:
    if name == OPUS:
        return {}
    from builder.agents import servers as client_servers
    from builder.common import paths
    from builder.pins import load as pins

    file = pins_file or pins.find(Path.cwd()) or paths.INSTALLATION / pins.FILE_NAME
    found = client_servers.find(pins.load(file), name)
    return routed([replace(found, url=url.rstrip("/")) if url else found])


def _changes(name: str, values: dict[str, str], outside: Variables) -> Variables:
    """What to set and to take away. `outside`: what our names are outside of all blocks.

    For opus OpenAI's are as they are outside: that tier is a matter of Anthropic's clients.
    """
    if name == OPUS:
        return {**outside, **dict.fromkeys(ANTHROPIC)}
    return {**dict.fromkeys(aside(values)), **values}


def _now() -> Variables:
    return {name: os.environ.get(name) for name in (*NAMES, *ASIDE)}


def _apply(variables: Variables) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
