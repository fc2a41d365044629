"""Wait for a server that was started, looking at it and at its process until it is over."""

import time
from collections.abc import Callable

from builder.common.progress import Progress
from builder.llama import client as probe_server
from builder.llama import readiness
from builder.llama.client import Server
from builder.llama.readiness import Observation, Wait
from builder.llama.target import Serving

HEALTH_TIMEOUT_S = 2.0

_POLL_S = 0.05
_UNAVAILABLE = 503


def until_over(look: Callable[[float], Observation], timeout_s: float, progress: Progress) -> Wait:
    """Look at the server until it is ready, gone or too late."""
    started = time.monotonic()
    wait = Wait(timeout_s)
    while True:
        wait = wait.after(look(time.monotonic() - started))
        if wait.over:
            return wait
        progress.detail(f"{wait.phase}, {wait.last.at_s:.0f} of at most {timeout_s:.0f} s")
        time.sleep(_POLL_S)


def look(serving: Serving, server: Server, at_s: float) -> Observation:
    """One look, so many seconds after the start."""
    # The process is looked at last: a server that answers and dies has died.
    health: readiness.Health = "silent"
    if serving.port is not None:
        health = ask_health(server)
        # An answer of somebody else, who listens there too, is none.
        if health != "silent" and not _own(serving, server):
            health = "silent"
    state = serving.state()
    return Observation(at_s, health, state.running, state.exit_code, state.out_of_memory)


def _own(serving: Serving, server: Server) -> bool:
    """Whether the server that was started is the one that answers."""
    listens = serving.listens()
    if listens is not None:
        return listens
    names = probe_server.get(server, "/v1/models", HEALTH_TIMEOUT_S)
    return names.at("data", 0, "id") == server.profile.alias


def ask_health(server: Server) -> readiness.Health:
    """What /health says; a server that says ok and turns the next question away is not ready."""
    health = readiness.health(probe_server.get(server, "/health", HEALTH_TIMEOUT_S))
    if health == "ok" and probe_server.get(server, "/props").status == _UNAVAILABLE:
        return "premature"
    return health
