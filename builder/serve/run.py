"""Serve profiles, one of them on the GPU: start, swap, stop, list.

What is served is what the engine's containers say. Whatever a builder that was killed has left is
settled by the next one that starts, swaps or stops.
"""

import contextlib
import hashlib
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from builder.common import kept_logs as kept_log
from builder.common import paths
from builder.common.errors import BuilderError, UsageError
from builder.common.locks import locked
from builder.common.progress import Progress
from builder.engine.client import engine_errors
from builder.llama import api_keys, readiness
from builder.llama import client as probe_server
from builder.llama import startup_errors as server_words
from builder.llama import wait as waiting
from builder.llama.client import OK, Server
from builder.llama.readiness import Phase, Wait
from builder.model.pins import Pins, Profile
from builder.serve import plan as serve_plan
from builder.serve.containers import Served, Spec, Stack
from builder.serve.plan import Ready, Request
from builder.smoke.probes import slots

if TYPE_CHECKING:
    import requests

_ASK_S = 1.0
_KEYLESS_S = 10.0
_EMBEDDING_S = 60.0

State = Literal["ready", "loading", "silent", "restarting", "stopped"]


class NotServedError(BuilderError):
    """A profile did not come up, or may not now."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Up:
    """A profile that is served. `ready_s`: seconds that its server took to load.

    `already`: it was up, as asked, and nothing was done. `replaced` are profiles that it took the
    place of. `warnings` are what its user must not miss.
    """

    profile: str
    spec: Spec
    kv: str
    parallel: int
    slot_tokens: int
    embeddings: bool
    ready_s: float | None
    already: bool = False
    replaced: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Row:
    """A container of a profile, for `ps`. `since` is when it was started: UTC, ISO 8601.

    `note` says what a builder that was killed left undone.
    """

    profile: str
    state: State
    alias: str
    url: str
    model: str
    image: str
    gpu: str
    container: str
    since: str
    restarts: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a start would do: profiles that it would stop, what it would start, its warnings."""

    stops: list[str]
    starts: Ready
    already: bool


def serve(stack: Stack, pins: Pins, request: Request, results: Path, progress: Progress) -> Up:
    """Start a profile where nothing is in its way. Served as asked already: nothing is done.

    Raises NotServedError when another holds the GPU, it is served otherwise, or its server does not
    come up: no container of it is left then. Raises UsageError, RefNotFoundError, EngineError.
    """
    with _alone(stack, request.timeout_s, results, progress):
        plan = _plan(stack, pins, request, progress)
        if plan.already:
            return _already(stack, plan, request, results, progress)
        if plan.stops:
            raise _in_the_way(plan)
        return _bring_up(stack, plan, request, results, progress)


def swap(stack: Stack, pins: Pins, request: Request, results: Path, progress: Progress) -> Up:
    """Start a profile in the place of the one that is in its way, which is back if that fails.

    What the request leaves out is as it was in the one replaced. Raises as `serve` does.
    """
    with _alone(stack, request.timeout_s, results, progress):
        plan = _plan(stack, pins, request, progress)
        if plan.already:
            return _already(stack, plan, request, results, progress)
        return _bring_up(stack, plan, request, results, progress)


def plan(stack: Stack, pins: Pins, request: Request, progress: Progress) -> Plan:
    """What `serve` or `swap` would do now. Raises as they do before they change anything."""
    return _plan(stack, pins, request, progress)


def stop(
    stack: Stack, name: str | None, *, everything: bool, results: Path, progress: Progress
) -> list[str]:
    """Stop a profile and remove its container; None: the only one that there is.

    Returns the names of those stopped. Raises NotServedError when there is none of the name.
    """
    with _alone(stack, None if everything else _DEFAULT.timeout_s, results, progress):
        there = stack.all()
        if everything:
            name = None
        elif name is None and len({one.profile for one in there}) > 1:
            names = ", ".join(sorted({one.profile for one in there}))
            raise UsageError("more than one profile is served", hint=f"name one of {names}, --all")
        chosen = [one for one in there if name in {None, one.profile}]
        if not chosen and not everything:
            raise NotServedError(f"{name or 'nothing'} is not served", hint="`builder ps`")
        for one in sorted(chosen, key=lambda one: one.confirmed):
            progress.step(f"stop {one.profile}")
            stack.stop(one)
            stack.remove(one)
        return sorted({one.profile for one in chosen})


def ps(stack: Stack) -> list[Row]:
    """Every container of a profile, and what its server says."""
    there = stack.all()
    with probe_server.session() as session:
        return [_row(one, there, session) for one in there]


# --- What is there, and what is in the way --------------------------------------------------------


_DEFAULT = Request("")


@contextlib.contextmanager
def _alone(
    stack: Stack, timeout_s: float | None, results: Path, progress: Progress
) -> Iterator[None]:
    """Nobody else starts or stops profiles meanwhile, and nothing is left from before.

    `timeout_s` None: what was left is not settled.
    """
    with engine_errors("describe itself"):
        engine = str(stack.client.info().get("ID", ""))
    mark = hashlib.sha256(f"{engine}/{stack.name}".encode()).hexdigest()[:16]
    with locked(paths.cache() / f"serve-{mark}", "another builder to start or stop", progress):
        if timeout_s is not None:
            settle(stack, timeout_s, results, progress)
        yield


def _in_place_of(there: Sequence[Served], name: str, profile: Profile) -> list[Served]:
    """Those that must go for this profile: itself, and another that holds the GPU."""
    return [
        one
        for one in there
        if one.profile == name or (profile.gpu == "holds" and one.spec.gpu == "holds")
    ]


def _plan(stack: Stack, pins: Pins, request: Request, progress: Progress) -> Plan:
    from builder.llama import profiles

    profile = profiles.find(pins, request.profile)
    there = stack.all()
    before = _in_place_of(there, request.profile, profile)
    running = [one for one in before if one.running]
    # One of another profile that somebody else stopped says nothing of this one.
    own = [one for one in before if one.profile == request.profile]
    inherited = next((one.spec for one in [*running, *own]), None)
    ready = serve_plan.prepare(stack.client, pins, request, inherited, progress)
    for one in there:
        if one not in before and one.running and one.spec.port == ready.spec.port:
            raise UsageError(
                f"port {ready.spec.port} is that of {one.profile}, which is served",
                hint="--port N, or `port` in the profile",
            )
    if not any(one.running and one.spec.port == ready.spec.port for one in before):
        _require_free(ready.spec)
    same = [one for one in running if one.profile == request.profile and one.spec == ready.spec]
    return Plan([one.profile for one in running], ready, already=bool(same) and len(running) == 1)


def _require_free(spec: Spec) -> None:
    """Raises UsageError when a program of this machine listens where the server is to."""
    family = socket.AF_INET6 if ":" in spec.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Else connections that ended a minute ago would still count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((spec.host, spec.port))
        except PermissionError:
            return  # a low port, which the engine may take
        except OSError as error:
            raise UsageError(
                f"port {spec.port} on {spec.host} is taken",
                why=error.strerror or str(error),
                hint=f"`ss -ltnp sport = :{spec.port}` names who has it; --port N takes another",
            ) from error


def _in_the_way(plan: Plan) -> NotServedError:
    name, holders = plan.starts.name, ", ".join(plan.stops)
    if plan.stops == [name]:
        what = f"{name} is served already, and not as asked for"
    else:
        what = f"{holders} holds the GPU"
    return NotServedError(what, hint=f"`builder swap {name}` takes its place; `builder ps`")


# --- Starting -------------------------------------------------------------------------------------


def _bring_up(stack: Stack, plan: Plan, request: Request, results: Path, progress: Progress) -> Up:
    ready = plan.starts
    for text in ready.warnings:
        progress.warn(text)
    there = _in_place_of(stack.all(), ready.name, ready.profile)
    before = [one for one in there if one.running]
    dead = [one for one in there if not one.running and one.profile == ready.name]
    started = time.monotonic()
    new = stack.create(ready.name, ready.spec, ready.launch, before)
    try:
        for one in before:
            progress.step(f"stop {one.profile}")
            stack.stop(one)
        progress.step(f"start {ready.name}")
        stack.start(new)
        started = time.monotonic()
        told = _await(new, request.timeout_s, results, progress, ready.profile)
        stack.confirm(new)
    except BaseException as error:
        back = _put_back(stack, new, before, request.timeout_s, progress)
        if isinstance(error, BuilderError):
            error.why = "\n".join(filter(None, [error.why, back]))
        elif back:
            progress.warn(back)
        raise
    ready_s = time.monotonic() - started
    for one in [*before, *dead]:
        stack.remove(one)
    stack.settle_name(new)
    for text in told:
        progress.warn(text)
    return _up(ready, ready_s, [one.profile for one in before], told)


def _up(
    ready: Ready,
    ready_s: float | None,
    replaced: list[str],
    told: Sequence[str],
    *,
    already: bool = False,
) -> Up:
    return Up(
        profile=ready.name,
        spec=ready.spec,
        kv=ready.kv,
        parallel=ready.profile.parallel,
        slot_tokens=ready.profile.slot_tokens,
        embeddings=ready.profile.embeddings,
        ready_s=ready_s,
        already=already,
        replaced=replaced,
        warnings=[*ready.warnings, *told],
    )


def _already(stack: Stack, plan: Plan, request: Request, results: Path, progress: Progress) -> Up:
    """It runs as asked for: perhaps it still loads, or nobody saw that it got ready."""
    (one,) = [one for one in stack.all() if one.profile == plan.starts.name and one.running]
    told = _await(one, request.timeout_s, results, progress, plan.starts.profile)
    stack.confirm(one)
    stack.settle_name(one)
    return _up(plan.starts, None, [], told, already=True)


def _await(
    one: Served,
    timeout_s: float,
    results: Path,
    progress: Progress,
    profile: Profile | None = None,
) -> list[str]:
    """Wait until its server is ready; what it makes of the profile that its user must not miss.

    Raises NotServedError in the words of its log when it never is.
    """
    with _asking(one) as server:
        look = partial(waiting.look, one.running_container, server)
        wait = waiting.until_over(look, timeout_s, progress)
        if wait.phase is not Phase.READY:
            raise _not_up(one, wait, results, progress)
        if one.spec.key_file:
            require_locked(server)
        return told_apart(server, profile) if profile else []


def require_locked(server: Server) -> None:
    """A server with a file of API keys turns away who has none, and takes the one of the session.

    Raises NotServedError otherwise.
    """
    with probe_server.session() as stranger:
        keyless = replace(server, session=stranger)
        answers = [
            probe_server.get(keyless, "/props"),
            probe_server.post(keyless, "/v1/chat/completions", {}, _KEYLESS_S),
        ]
    for answer in answers:
        if answer.status not in probe_server.REFUSED:
            raise NotServedError(
                "it serves whoever asks, without an API key",
                why=f"asked without one it should answer 401, and it said {answer}",
                hint="see its file of API keys: one key a line",
            )
    if why := probe_server.refused(server):
        raise NotServedError(
            why, hint="see its file of API keys: one key a line, without spaces around it"
        )


def _not_up(one: Served, wait: Wait, results: Path, progress: Progress) -> NotServedError:
    log = one.running_container.log()
    reason = server_words.reason(wait, log)
    path = kept_log.keep({one.profile: log}, f"serve-{one.profile}", results, progress)
    return NotServedError(
        f"{one.profile} did not come up: {reason.what}",
        why=reason.words,
        hint=f"{reason.hint}; its log: {path}" if path else reason.hint,
    )


@contextlib.contextmanager
def _asking(one: Served) -> Iterator[Server]:
    """The server with a session that has its key, if there is one."""
    with probe_server.session() as session:
        if one.spec.key_file:
            with contextlib.suppress(BuilderError):
                key = api_keys.read(Path(one.spec.key_file))[0]
                session.headers["Authorization"] = f"Bearer {key}"
        yield Server(one.spec.url, session, Profile(one.spec.alias, 1, 1))


def told_apart(server: Server, profile: Profile) -> list[str]:
    """Where a server that is ready serves another thing than the profile says.

    Raises NotServedError when it is another server: its alias is not the profile's.
    """
    models = probe_server.get(server, "/v1/models")
    named = models.at("data", 0, "id")
    if models.status == OK and named != profile.alias:
        raise NotServedError(
            f"what answers at {server.url} is {named!r}, not {profile.alias}",
            hint="another server has the port: `builder ps`, `ss -ltnp`",
        )
    return [*_slots_told(server, profile), *_embeddings_told(server, profile)]


def _slots_told(server: Server, profile: Profile) -> Iterator[str]:
    props = probe_server.get(server, "/props")
    found = props.at("total_slots"), props.at("default_generation_settings", "n_ctx")
    tokens = slots.slot_tokens(profile.slot_limit)
    if props.status == OK and found != (profile.parallel, tokens):
        yield f"it has {found[0]} slots of {found[1]} tokens, not {profile.parallel} of {tokens}"


def _embeddings_told(server: Server, profile: Profile) -> Iterator[str]:
    """An embedder that loads may still have no way to make one vector of a text."""
    if not profile.embeddings:
        return
    body = {"model": profile.alias, "input": "one"}
    answer = probe_server.post(server, "/v1/embeddings", body, _EMBEDDING_S)
    if answer.status != OK:
        said = answer.at("error", "message") or answer
        yield f"it makes no embeddings: {said}; `--pooling` in flags says how, for many models"


# --- Putting back, and what a killed builder left -------------------------------------------------


def _put_back(
    stack: Stack, new: Served, before: Sequence[Served], timeout_s: float, progress: Progress
) -> str:
    """Those before run again, and the new one is gone; what became of that, in words.

    The new one goes last: as long as it is there, the next builder knows what was to be back.
    """
    if new.running_container.state().running:
        stack.stop(new)
    stopped = [one for one in before if not one.running_container.state().running]
    told = [_back(stack, one, timeout_s, progress) for one in stopped]
    stack.remove(new)
    return "\n".join(told)


def _back(stack: Stack, one: Served, timeout_s: float, progress: Progress) -> str:
    """Start one that was stopped, wait for it, and say how that went."""
    progress.step(f"put {one.profile} back")
    try:
        stack.start(one)
    except BuilderError as error:
        return f"{one.profile} did not come back: {error.what}"
    with _asking(one) as server:
        look = partial(waiting.look, one.running_container, server)
        wait = waiting.until_over(look, timeout_s, progress)
    if wait.phase is Phase.READY:
        return f"{one.profile} is back at {one.spec.url}"
    reason = server_words.reason(wait, one.running_container.log())
    return f"{one.profile} did not come back: {reason.what}"


def settle(stack: Stack, timeout_s: float, results: Path, progress: Progress) -> None:
    """Bring to an end what a killed builder left; does nothing when there is nothing.

    Forward where its new server runs and gets ready, else back.
    """
    there = stack.all()
    for new in there:
        before = [one for one in there if one.id in new.replaces]
        if new.confirmed:
            _finish(stack, new, before)
        elif before or not new.running:
            progress.step(f"settle what a builder that was killed left of {new.profile}")
            _settle(stack, new, before, timeout_s, results, progress)
        elif _health(new) == "ok":
            _confirm_locked(stack, new, progress)


def _confirm_locked(stack: Stack, new: Served, progress: Progress) -> None:
    """It is served from now on, unless it lets in who has no key: then it stops."""
    try:
        with _asking(new) as server:
            if new.spec.key_file:
                require_locked(server)
    except NotServedError as error:
        progress.warn(f"{new.profile} is stopped: {error.what}")
        stack.stop(new)
        stack.remove(new)
        return
    stack.confirm(new)
    stack.settle_name(new)


def _settle(
    stack: Stack,
    new: Served,
    before: Sequence[Served],
    timeout_s: float,
    results: Path,
    progress: Progress,
) -> None:
    if new.running and not any(one.running for one in before):
        try:
            _await(new, timeout_s, results, progress)
        except NotServedError as error:
            progress.warn(error.what)
        else:
            stack.confirm(new)
            _finish(stack, new, before)
            return
    if told := _put_back(stack, new, before, timeout_s, progress):
        progress.warn(told)


def _finish(stack: Stack, new: Served, before: Sequence[Served]) -> None:
    for one in before:
        stack.remove(one)
    stack.settle_name(new)


# --- Looking --------------------------------------------------------------------------------------


def _health(one: Served) -> readiness.Health:
    with _asking(one) as server:
        return readiness.health(probe_server.get(server, "/health", _ASK_S))


def _row(one: Served, there: Sequence[Served], session: "requests.Session") -> Row:
    server = Server(one.spec.url, session, Profile(one.spec.alias, 1, 1))
    state: State = "restarting" if one.restarting else "stopped"
    if one.running and not one.restarting:
        health = readiness.health(probe_server.get(server, "/health", _ASK_S))
        state = "ready" if health == "ok" else "loading" if health == "loading" else "silent"
    before = [other.profile for other in there if other.id in one.replaces]
    note = ""
    if not one.confirmed:
        note = f"starting in place of {', '.join(before)}" if before else "starting"
    return Row(
        profile=one.profile,
        state=state,
        alias=one.spec.alias,
        url=one.spec.url,
        model=one.spec.model,
        image=one.spec.image,
        gpu=one.spec.gpu,
        container=one.name,
        since=one.started,
        restarts=one.restarts,
        note=note,
    )
