"""The three servers of a smoke, one after the other: the control, the one asked, the interrupted.

Never two at once: a model made for the card fills it.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from builder.common.progress import Progress
from builder.engine import facts as doctor_facts
from builder.llama import client as probe_server
from builder.llama import readiness
from builder.llama import wait as waiting
from builder.llama.client import Script, Server
from builder.llama.flags import server_args
from builder.llama.readiness import Observation, Wait
from builder.llama.target import CheckRun, Serving, Target
from builder.model.finding import Finding, not_asked
from builder.model.pins import Kv, Profile
from builder.smoke.probes import kv_numbers, stop, streaming
from builder.smoke.probes.determinism import PROBE as DETERMINISM
from builder.smoke.probes.determinism import determinism
from builder.smoke.probes.identity import PROBE as IDENTITY
from builder.smoke.probes.identity import identity
from builder.smoke.probes.kv_numbers import Asked
from builder.smoke.probes.load import PROBE as LOAD
from builder.smoke.probes.load import load
from builder.smoke.probes.offload import decode_speed
from builder.smoke.probes.slots import PROBE as SLOTS
from builder.smoke.probes.slots import slots
from builder.smoke.probes.stop import Ending
from builder.smoke.probes.thinking import (
    BY_REQUEST,
    Reasoning,
    reasoning,
    thinking,
    thinking_by_request,
)
from builder.smoke.probes.thinking import PROBE as THINKING

if TYPE_CHECKING:
    from pathlib import Path

    import requests

MOVED_PORT = 18080
"""What the control server listens on, to see that HEALTHCHECK follows."""

KV_F16 = Kv("f16", "f16")

_POLL_S = 0.05
_LOADING_POLL_S = 0.002
_NOTICED_S = 2.0
_TRIES = 3
_AGAIN = kv_numbers.PROMPTS[:5]
_NOT_READY = "the server was not ready"
_GONE = Ending("in mid-stream", missed="the server had exited")
_ROOM = 64
_SLOW_TOKENS = 32768

Probe = Callable[[Server], Finding]


@dataclass(frozen=True, slots=True)
class Setting:
    """What all servers of a smoke have in common.

    `flags` are those that `--help` lists. `timeout_s` is how long each may take to get ready,
    `answer_s` how long for an answer (None: as long as its tokens need).
    `gpu`: whether there is one to run on.
    """

    target: Target
    profile: Profile
    model: "Path"
    script: Script | None
    commit: str | None
    flags: frozenset[str]
    timeout_s: float
    answer_s: float | None
    session: "requests.Session"
    gpu: bool


@dataclass(frozen=True, slots=True)
class Launched:
    """What was seen of one server. Fields keep their defaults when it never got ready.

    `check` is what HEALTHCHECK answered, run once: None when nobody asked, or there is none.
    """

    wait: Wait
    log: str = ""
    findings: tuple[Finding, ...] = ()
    numbers: tuple[Asked, ...] = ()
    reasoning: Reasoning | None = None
    decode_tokens_s: float | None = None
    gpu_memory_mib: float | None = None
    check: CheckRun | None = None
    ending: Ending | None = None

    @property
    def ready(self) -> bool:
        """Whether it could be asked."""
        return self.wait.phase is readiness.Phase.READY


def control(setting: Setting, progress: Progress) -> Launched:
    """A server with f16 KV, the other thinking, another port: what the one asked is held against.

    Some of its answers are read twice: what differs is this machine's noise.
    """
    profile = replace(setting.profile, thinking=not setting.profile.thinking)
    with _started(setting, profile, KV_F16, progress, MOVED_PORT) as (serving, wait, server):
        if wait.phase is not readiness.Phase.READY:
            missed = Ending("idle", missed="the control was not ready")
            return Launched(wait, serving.log(), ending=missed)
        progress.detail("reading the control's answers")
        return Launched(
            wait,
            reasoning=reasoning(server),
            numbers=(kv_numbers.ask(server), kv_numbers.ask(server, _AGAIN)),
            check=serving.check(),
            ending=_terminate(serving, "idle"),
            log=serving.log(),
        )


def asked(setting: Setting, kv: Kv, shown: Reasoning | None, progress: Progress) -> Launched:
    """The server as the profile wants it, asked by every probe. `shown` is what the control did."""
    with _started(setting, setting.profile, kv, progress) as (serving, wait, server):
        if wait.phase is not readiness.Phase.READY:
            missed = Ending("in mid-stream", missed=_NOT_READY)
            return Launched(wait, serving.log(), not_asked_at_all(_NOT_READY), ending=missed)
        findings = _ask_all(server, shown, lambda: _gone(serving, server), progress)
        alive = _gone(serving, server) is None
        progress.detail("reading its answers")
        return Launched(
            wait,
            findings=findings,
            numbers=(kv_numbers.ask(server),) if alive else (),
            decode_tokens_s=decode_speed(server) if alive and setting.gpu else None,
            gpu_memory_mib=doctor_facts.used_gpu_memory() if setting.gpu else None,
            check=serving.check() if alive else None,
            ending=_terminate_in_stream(serving, server) if alive else _GONE,
            log=serving.log(),
        )


def already_running(server: Server, timeout_s: float, progress: Progress) -> Launched:
    """A server that somebody else started: asked, and left running."""
    wait = waiting.until_over(
        lambda at_s: Observation(at_s, waiting.ask_health(server)), timeout_s, progress
    )
    if wait.phase is not readiness.Phase.READY:
        return Launched(wait, findings=not_asked_at_all(_NOT_READY))
    return Launched(wait, findings=_ask_all(server, None, lambda: None, progress))


def interrupted(setting: Setting, kv: Kv, asked: Launched) -> tuple[Ending, CheckRun | None]:
    """HEALTHCHECK and SIGTERM to a server that has just been seen loading, if the one asked loads.

    What HEALTHCHECK answers counts only where the server still loads after it: where a machine is
    too busy for the first start, the others take four times as long.
    """
    if not asked.ready:
        return Ending("loading", missed=_NOT_READY), None
    for left in reversed(range(_TRIES)):
        first = left == _TRIES - 1
        profile, slow_kv = _slow_to_load(setting, kv, _SLOW_TOKENS * (1 if first else 4))
        arguments = server_args(profile, slow_kv, setting.flags)
        with setting.target.serve(arguments, setting.model) as serving:
            if not _seen_loading(serving, setting):
                continue
            # A server that is ready by then is told nothing: the last one has only the signal.
            check = serving.check() if left else None
            if check is None or _seen_loading(serving, setting):
                return _terminate(serving, "loading"), check
    return Ending("loading", missed=f"it was never seen loading in {_TRIES} starts"), None


def _slow_to_load(setting: Setting, kv: Kv, tokens: int) -> tuple[Profile, Kv]:
    """The profile with so long a context in f16 that a small model's cache is slow to clear.

    32768 tokens are 256 MiB with the scripted model: it loads for 50 ms else, in which no question
    has an answer. A real model takes long enough to load.
    """
    if setting.script is None:
        return setting.profile, kv
    longest = max(setting.profile.slot_tokens, tokens // setting.profile.parallel)
    return replace(setting.profile, slot_tokens=longest), KV_F16


def not_asked_at_all(why: str) -> tuple[Finding, ...]:
    """A finding for each probe that needs a server to ask."""
    return tuple(not_asked(name, why) for name in _probes(None))


def _probes(shown: Reasoning | None) -> dict[str, Probe]:
    """The questions to a server that is ready, in order."""
    return {
        IDENTITY: identity,
        SLOTS: slots,
        THINKING: lambda server: thinking(server, shown),
        BY_REQUEST: lambda server: thinking_by_request(server, shown),
        LOAD: load,
        DETERMINISM: determinism,
    }


def _ask_all(
    server: Server, shown: Reasoning | None, gone: Callable[[], str | None], progress: Progress
) -> tuple[Finding, ...]:
    """Ask until the server is gone; the probe under which it went has failed.

    One that wants an API key from us is asked nothing.
    """
    findings: list[Finding] = []
    why = probe_server.refused(server)
    for name, probe in _probes(shown).items():
        if why is not None:
            findings.append(not_asked(name, why))
            continue
        progress.detail(name)
        found = probe(server)
        why = gone()
        if why is not None:
            found = replace(found, status="fail", observed=f"{why}; {found.observed}")
        findings.append(found)
    return tuple(findings)


@contextmanager
def _started(
    setting: Setting, profile: Profile, kv: Kv, progress: Progress, port: int | None = None
) -> Iterator[tuple[Serving, Wait, Server]]:
    """A server that is ready or never will be."""
    arguments = server_args(profile, kv, setting.flags)
    with setting.target.serve(arguments, setting.model, port=port) as serving:
        url = serving.url if serving.port is not None else ""
        server = Server(
            url, setting.session, profile, setting.commit, setting.script, setting.answer_s
        )
        look = partial(waiting.look, serving, server)
        wait = waiting.until_over(look, setting.timeout_s, progress)
        yield serving, wait, server


def _seen_loading(serving: Serving, setting: Setting) -> bool:
    """Whether /health answered 503; False once it is ready or gone."""
    deadline = time.monotonic() + setting.timeout_s
    while serving.port is not None and time.monotonic() < deadline:
        server = Server(serving.url, setting.session, setting.profile)
        health = readiness.health(probe_server.get(server, "/health", waiting.HEALTH_TIMEOUT_S))
        if health == "loading" and serving.listens():
            return True
        if health == "ok" or not serving.state().running:
            return False
        time.sleep(_LOADING_POLL_S)
    return False


def _gone(serving: Serving, server: Server) -> str | None:
    """How the server ended, or None while it runs.

    The engine notices an exit a moment after the clients do.
    """
    deadline = time.monotonic() + _NOTICED_S
    silent = probe_server.get(server, "/health", waiting.HEALTH_TIMEOUT_S).status is None
    while (state := serving.state()).running and silent and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    if state.running:
        return None
    if state.overdue:
        return "the server was ended, for it had answered for longer than a smoke may take"
    how = readiness.ending(state.exit_code, out_of_memory=state.out_of_memory)
    return f"the server exited: {how}"


def _terminate(serving: Serving, when: stop.When) -> Ending:
    """SIGTERM now, and how it ends."""
    started = time.monotonic()
    serving.terminate()
    while (state := serving.state()).running and time.monotonic() - started < stop.DEADLINE_S:
        time.sleep(_POLL_S)
    return Ending(when, time.monotonic() - started, state.exit_code)


def _terminate_in_stream(serving: Serving, server: Server) -> Ending:
    """SIGTERM after the first piece of an answer that is far from its end.

    Of a stream that is handed over whole the first piece comes when all is over.
    """
    when: stop.When = "in mid-stream"
    pace = streaming.pace(server, streaming.COMPLETION)
    if pace.delivery != "in pieces":
        return Ending(when, missed=f"when a stream is under way is not known ({pace.words})")
    body = {
        "prompt": "Count from one to a thousand: one",
        "n_predict": server.profile.slot_tokens - _ROOM,
        "ignore_eos": True,
        "stream": True,
    }
    with probe_server.stream(server, streaming.COMPLETION, body) as pieces:
        if next(pieces, None) is None:
            return Ending(when, missed=f"no answer began: {pieces.fault}")
        return _terminate(serving, when)
