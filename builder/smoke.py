"""Start a server from an image, ask it the probes' questions, and take it down again."""

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from builder import container, paths
from builder.errors import UsageError
from builder.model import Pins
from builder.probe import readiness
from builder.probe import server as probe_server
from builder.probe.finding import Finding, not_asked
from builder.probe.identity import PROBE as IDENTITY
from builder.probe.identity import identity
from builder.probe.kv import kv as kv_finding
from builder.probe.readiness import Observation, Wait
from builder.probe.server import Server
from builder.probe.thinking import PROBE as THINKING_OFF
from builder.probe.thinking import thinking_off
from builder.progress import Progress
from builder.scripted_model import REPLY, scripted_model

if TYPE_CHECKING:
    import requests
    from docker import DockerClient

ALIAS = "builder-smoke"
SLOTS = 2
SLOT_TOKENS = 2048

VARIANT_LABEL = "io.github.turboquant-builder.variant"

PROBES = {IDENTITY: identity, THINKING_OFF: thinking_off}
"""The questions to a server that is ready, in order."""

_POLL_S = 0.1
_HEALTH_TIMEOUT_S = 2.0
_GGUF_MAGIC = b"GGUF"
_GGUF_HEAD = 8


@dataclass(frozen=True, slots=True)
class SmokeReport:
    """The verdict on an image. Times in seconds; `ready_s` is None when it never got ready.

    `log_tail` holds the server's last lines when a probe failed.
    """

    image: str
    image_id: str
    kv: str
    model: str
    findings: list[Finding]
    duration_s: float
    ready_s: float | None
    log_tail: str = ""
    schema: int = 1

    @property
    def passed(self) -> bool:
        """Whether no probe failed. One that is unproven did not fail."""
        return _passed(self.findings)


def smoke(
    client: "DockerClient",
    image: str,
    *,
    kv: str,
    progress: Progress,
    model: Path | None = None,
    timeout_s: float = 120.0,
    port: int | None = None,
    extra_args: Sequence[str] = (),
) -> SmokeReport:
    """Smoke an image on the engine with `kv` asked for as the type of both caches.

    `model` None: the scripted model. `timeout_s` is how long the server may take to get ready.
    `port` is the loopback port; None lets the engine pick. `extra_args` follow the server's others,
    and the last one of a kind holds.

    A server that exits or never gets ready is a failed finding of the report. Raises UsageError for
    a model that is no GGUF, RefNotFoundError for an image that the engine lacks, EngineError for
    all that keeps the container from starting.
    """
    started = time.monotonic()
    image_id = container.image_id(client, image)
    if model is None:
        progress.step("the scripted model")
        path = scripted_model(paths.cache() / "models")
    else:
        path = gguf_file(model)
    launch = container.Launch(
        image=image_id,
        command=[*server_args(kv), *extra_args],
        model=path,
        port=port,
    )
    reply = REPLY if model is None else None
    outcome = _run(client, launch, reply, timeout_s, progress)
    return SmokeReport(
        image=image,
        image_id=image_id,
        kv=kv,
        model=str(path),
        findings=[*outcome.findings, kv_finding(kv)],
        duration_s=time.monotonic() - started,
        ready_s=outcome.ready_s,
        log_tail=outcome.log_tail,
    )


def to_json(report: SmokeReport) -> str:
    """The report as indented JSON, with the verdict `passed` beside its fields."""
    return json.dumps({**asdict(report), "passed": report.passed}, indent=2)


def kv_of(client: "DockerClient", image: str, pins: Pins) -> str:
    """The KV type that the pins give the image's variant, which its label names.

    Raises RefNotFoundError for an image that the engine lacks, UsageError for one that the pins do
    not know.
    """
    name = container.image_labels(client, image).get(VARIANT_LABEL)
    if name not in pins.variants:
        raise UsageError(
            f"no KV type to ask {image} for",
            why=f"the pins have no variant {name}" if name else "no label names its variant",
            hint="name the type: --kv q8_0",
        )
    return pins.variants[name].smoke_kv


def server_args(kv: str) -> list[str]:
    """The arguments of llama-server: the mission's flags, small slots, a log that tells all.

    The address and port stay the image's own: whether those are right is part of the question.
    """
    return [
        *("-m", container.MODEL, "--alias", ALIAS),
        *("-c", str(SLOTS * SLOT_TOKENS), "-np", str(SLOTS)),
        *("-ctk", kv, "-ctv", kv, "-fa", "on"),
        *("--jinja", "--reasoning", "off"),
        *("--chat-template-kwargs", json.dumps({"enable_thinking": False})),
        *("-lv", "4"),
    ]


def gguf_file(path: Path) -> Path:
    """The path itself, if a GGUF of this machine's byte order begins there.

    Raises UsageError saying what is there instead.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_GGUF_HEAD)
    except OSError as error:
        raise UsageError(
            f"the model {path} cannot be read", why=error.strerror or str(error)
        ) from error
    if found := _not_gguf(head):
        raise UsageError(
            f"{path} is no GGUF that a server here can load",
            why=found,
            hint="name a .gguf file, or leave --model out for the one that builder writes",
        )
    return path


@dataclass(frozen=True, slots=True)
class _Outcome:
    findings: list[Finding]
    ready_s: float | None
    log_tail: str


def _run(
    client: "DockerClient",
    launch: container.Launch,
    reply: str | None,
    timeout_s: float,
    progress: Progress,
) -> _Outcome:
    """The container's life: start, wait, ask, remove."""
    with ExitStack() as stack:
        progress.step("starting the server")
        running = stack.enter_context(container.running(client, launch))
        if running.user is not None:
            progress.warn(
                f"the server runs as {running.user}, the model's owner: nobody else may read it"
            )
        session = stack.enter_context(probe_server.session())
        progress.step("waiting for the server to get ready")
        wait = _wait(running, session, timeout_s, progress)
        findings = [readiness.finding(wait)]
        if wait.phase is readiness.Phase.READY:
            progress.step("asking")
            target = Server(running.url, ALIAS, reply, session)
            findings += _ask_all(target, progress)
        else:
            findings += [not_asked(name, "the server was not ready") for name in PROBES]
        return _Outcome(
            findings=findings,
            ready_s=wait.last.at_s if wait.phase is readiness.Phase.READY else None,
            log_tail="" if _passed(findings) else running.log_tail(),
        )


def _wait(
    running: container.Running, session: "requests.Session", timeout_s: float, progress: Progress
) -> Wait:
    """Look at the server until it is ready, gone or too late."""
    started = time.monotonic()
    wait = Wait(timeout_s)
    while True:
        wait = wait.after(_look(running, session, started))
        if wait.over:
            return wait
        progress.detail(f"{wait.phase}, {wait.last.at_s:.0f} of at most {timeout_s:.0f} s")
        time.sleep(_POLL_S)


def _look(running: container.Running, session: "requests.Session", started: float) -> Observation:
    # The container is looked at last: a server that answers and dies has died.
    health: readiness.Health = "silent"
    if running.port is not None:
        target = Server(running.url, ALIAS, None, session)
        health = readiness.health(probe_server.get(target, "/health", _HEALTH_TIMEOUT_S))
    state = running.state()
    return Observation(
        at_s=time.monotonic() - started,
        health=health,
        running=state.running,
        exit_code=state.exit_code,
        out_of_memory=state.out_of_memory,
    )


def _ask_all(target: Server, progress: Progress) -> list[Finding]:
    findings = []
    for name, probe in PROBES.items():
        progress.detail(name)
        findings.append(probe(target))
    return findings


def _passed(findings: Sequence[Finding]) -> bool:
    return all(finding.status != "fail" for finding in findings)


def _not_gguf(head: bytes) -> str | None:
    """What a file that begins like this is, if not a GGUF."""
    if not head:
        return "it is empty"
    if not head.startswith(_GGUF_MAGIC):
        return f"it begins with {head[:4]!r}, a GGUF with {_GGUF_MAGIC!r}"
    version = int.from_bytes(head[4:], "little")
    # Versions are small numbers: one with nothing in its low half was written the other way round.
    if len(head) < _GGUF_HEAD or version & 0xFFFF == 0:
        return f"its version reads as {version}: it is cut short, or of another byte order"
    return None
