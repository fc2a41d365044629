"""Start servers from a target, ask them the probes' questions, and say what that proves."""

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from builder.common import kept_logs as kept_log
from builder.common import paths
from builder.common.errors import UsageError
from builder.common.progress import Progress
from builder.engine import containers as container
from builder.engine import gpu_use, leftovers
from builder.engine.binary_target import BinaryTarget
from builder.engine.image_target import ImageTarget
from builder.llama import client as probe_server
from builder.llama import container_paths, profiles, readiness
from builder.llama.client import Script, Server
from builder.llama.flags import known_flags, not_available
from builder.llama.gguf import file as gguf_file
from builder.llama.gguf import kv_held, kv_types
from builder.llama.gguf import shape as gguf_shape
from builder.llama.gguf.scripted import MODELS, REPLY, THOUGHT, scripted_model
from builder.llama.placement import Placement, placement
from builder.llama.printed import offered
from builder.llama.target import Target
from builder.model.finding import Finding, not_asked
from builder.model.labels import LEFT_OUT, REVISION, VARIANT
from builder.model.pins import Kv, KvRules, KvType, Pins, Profile, Requirement
from builder.pins import parts
from builder.smoke import servers as launches
from builder.smoke.options import MODEL, Options
from builder.smoke.probes import health_command, kv_numbers, offload, stop
from builder.smoke.probes import kv as kv_probe
from builder.smoke.probes.health_command import Answers, healthcheck
from builder.smoke.probes.kv import KvEvidence, KvVerdict
from builder.smoke.probes.stop import Ending
from builder.smoke.report import SmokeReport
from builder.smoke.servers import Launched, Setting

if TYPE_CHECKING:
    from docker import DockerClient

PROFILE = Profile(alias="builder-smoke", parallel=2, slot_tokens=1024)
"""The smoke's own: small, so that it is quick."""

WAITING = {"OMP_WAIT_POLICY": "passive"}
"""Threads of the server sleep while they wait for each other, in place of spinning: what they
compute is the same, and other work on the machine no longer multiplies a smoke's time."""

_LASTS_S, _OWN_MODEL_LASTS_S = 1800.0, 4 * 3600.0
"""Seconds that a server may run once it is loaded, with a scripted model and with a user's own.

The first is a hundred times what an idle machine takes.
"""

_READINGS = 3  # the control twice, the one asked once


def smoke_image(
    client: "DockerClient",
    image: str,
    pins: Pins,
    options: Options,
    results: Path,
    progress: Progress,
) -> SmokeReport:
    """Smoke an image on the engine.

    A server that exits or never gets ready is a failed finding of the report. Raises UsageError for
    a model that is no GGUF or a KV type that nobody named, RefNotFoundError for an image that the
    engine lacks, EngineError for all that keeps a container from starting.
    """
    image_id = container.image_id(client, image)
    labels = container.image_labels(client, image)
    case = _case(
        "image",
        pins,
        options,
        variant=options.variant or labels.get(VARIANT),
        commit=labels.get(REVISION) or None,
        without_gpu=lambda profile: gpu_use.image_without_gpu(
            client, image_id, labels, pins, profile, named=options.variant, env=options.env
        ),
    )
    leftovers.remove(client, progress)
    env = {**WAITING, **case.profile.env, **options.env}
    lasts_s = case.timeout_s + (_LASTS_S if case.model.script else _OWN_MODEL_LASTS_S)
    target = ImageTarget(image, image_id, client, env, gpu=case.gpu, lasts_s=lasts_s)
    report = _smoke(target, case, results, progress, image_id)
    left_out = parts.words(labels.get(LEFT_OUT, ""))
    return replace(report, not_available=[*left_out, *report.not_available])


def smoke_binary(
    path: Path, pins: Pins, options: Options, results: Path, progress: Progress
) -> SmokeReport:
    """Smoke a llama-server program on this machine, as the variant named or the default one.

    Raises UsageError for a program that cannot be run, and as `smoke_image` does.
    """
    asked = BinaryTarget(path, options.env)
    case = _case(
        "binary",
        pins,
        options,
        variant=options.variant or pins.policy.default_variant,
        commit=None,
        without_gpu=lambda profile: gpu_use.binary_without_gpu(
            asked, pins, profile, named=options.variant, env=options.env
        ),
    )
    # A name that no other server has, whoever else listens on this machine.
    alias = f"{case.profile.alias}-{secrets.token_hex(4)}"
    case = replace(case, profile=replace(case.profile, alias=alias))
    leftovers.end_programs()
    if held := asked.held_back():
        progress.warn(f"not given to the server: {', '.join(held)}; --env NAME=VALUE does")
    env = {**WAITING, **case.profile.env, **options.env}
    return _smoke(BinaryTarget(path, env), case, results, progress)


def smoke_url(url: str, pins: Pins, options: Options, progress: Progress) -> SmokeReport:
    """Smoke a server that runs already, as far as asking goes: no start, no stop, no log.

    Which KV type is in effect needs its log and a second server, so it stays unproven. Raises
    UsageError as `smoke_image` does.
    """
    variant = options.variant or pins.policy.default_variant
    why = "a server that is not ours to stop"
    case = _case("url", pins, options, variant=variant, commit=None, without_gpu=lambda _: why)
    started = time.monotonic()
    progress.step(f"asking {url}")
    with probe_server.session(case.api_key) as session:
        server = Server(
            url.rstrip("/"),
            session,
            case.profile,
            script=case.model.script,
            timeout_s=case.answer_s,
        )
        launched = launches.already_running(server, options.timeout_s, progress)
    verdict = kv_probe.judge(_evidence(case, None, None))
    findings = [
        readiness.finding(launched.wait),
        *launched.findings,
        kv_probe.finding(verdict),
        not_asked(offload.PROBE, "a server whose log is not ours to read"),
        not_asked(stop.PROBE, why),
        not_asked(health_command.PROBE, why),
    ]
    return _report(url, case, findings, verdict, launched, started)


@dataclass(frozen=True, slots=True)
class _Model:
    """A GGUF and, if it is one of ours, what it says."""

    name: str
    path: Path
    script: Script | None


@dataclass(frozen=True, slots=True)
class _Case:
    """What is smoked and how: options, pins and the target's labels taken together.

    `kv_named`: the user names the type. `no_gpu` is why its servers run on no GPU, empty when they
    do.
    """

    kind: Literal["image", "binary", "url"]
    variant: str | None
    profile_name: str | None
    profile: Profile
    kv: Kv
    kv_named: bool
    types: Mapping[str, KvType]
    rules: KvRules
    commit: str | None
    no_gpu: str
    placed: Placement
    model: _Model
    required: frozenset[Requirement]
    timeout_s: float
    answer_s: float | None
    api_key: str | None

    @property
    def gpu(self) -> bool:
        """Whether its servers run on a GPU."""
        return not self.no_gpu


def _case(
    kind: Literal["image", "binary", "url"],
    pins: Pins,
    options: Options,
    *,
    variant: str | None,
    commit: str | None,
    without_gpu: Callable[[Profile], str],
) -> _Case:
    known = pins.variants.get(variant or "")
    profile = _profile(pins, options.profile)
    kv = options.kv or profile.kv or (Kv(known.smoke_kv, known.smoke_kv) if known else None)
    if kv is None:
        raise UsageError(
            "no KV type to ask for",
            why=f"the pins have no variant {variant}" if variant else "no label names its variant",
            hint="name the type (--kv q8_0) or the variant (--variant NAME)",
        )
    model, no_gpu = _model(options.model), without_gpu(profile)
    return _Case(
        kind=kind,
        variant=variant,
        profile_name=options.profile,
        profile=profile,
        kv=kv,
        kv_named=options.kv is not None,
        types=kv_types.kv_types(pins, known.fork if known else None),
        rules=kv_held.in_force(
            pins.forks[known.fork].kv_rules if known else kv_held.NO_RULES,
            {**profile.env, **options.env},
        ),
        commit=commit,
        no_gpu=no_gpu,
        placed=placement(profile, options.env),
        model=model,
        # With a GPU there is no excuse: what was asked for has to be in effect.
        required=options.require | (set() if no_gpu else {"kv"}),
        timeout_s=options.timeout_s,
        answer_s=options.answer_s,
        api_key=options.api_key or _key_in({**profile.env, **options.env}),
    )


def _key_in(env: Mapping[str, str]) -> str | None:
    """The API key that servers are started with."""
    return env.get("LLAMA_API_KEY", "").split(",")[0] or None


def _profile(pins: Pins, name: str | None) -> Profile:
    if name is None:
        return PROFILE
    profile = profiles.find(pins, name)
    if profile.embeddings:
        raise UsageError(f"profile {name} serves embeddings", why="a smoke asks for chats")
    if profile.draft is not None:
        raise UsageError(f"profile {name} drafts with a second model", why="a smoke has but one")
    return profile


def _model(name: str) -> _Model:
    if name in MODELS:
        path = scripted_model(paths.cache() / "models", name)
        return _Model(name, path, Script(REPLY, THOUGHT))
    # A header that cannot be read is said before anything is started.
    gguf_file.read_keys(Path(name))
    return _Model(name, Path(name), None)


def _smoke(
    target: Target, case: _Case, results: Path, progress: Progress, image_id: str | None = None
) -> SmokeReport:
    """The servers of a smoke, one after the other, and the verdict on what they showed."""
    started = time.monotonic()
    progress.step("reading --help")
    help_text = target.output("--help")
    if case.kv_named:
        _require_kv(case.kv, help_text, target.name)
    flags = known_flags(help_text)
    if case.profile_name is not None:
        profiles.require_flags(case.profile_name, case.profile, flags, target.name)
    servers = _run_servers(target, case, flags, progress)
    asked, control = servers.asked, servers.control
    verdict = kv_probe.judge(_evidence(case, asked, control))
    findings = [
        readiness.finding(asked.wait),
        *asked.findings,
        kv_probe.finding(verdict),
        offload.offload(
            asked.log,
            no_gpu=case.no_gpu,
            placed=case.placed,
            model_bytes=case.model.path.stat().st_size,
            decode_tokens_s=asked.decode_tokens_s,
            memory_mib=asked.gpu_memory_mib,
        ),
        stop.stop(servers.endings),
        _healthcheck(target, case, servers.answers),
    ]
    report = _report(target.name, case, findings, verdict, asked, started)
    report = replace(report, image_id=image_id, not_available=not_available(flags))
    if report.passed:
        return report
    logs = {"control": control.log, f"KV {case.kv}": asked.log}
    kept = kept_log.keep(logs, f"smoke-{target.name}", results, progress)
    return replace(report, log=str(kept or ""))


def _require_kv(kv: Kv, help_text: str, name: str) -> None:
    """Raise UsageError for a type that the user names and `--help` does not list, if it lists any.

    What a variant or a profile asks for is the image's fault: a verdict, and no error.
    """
    listed = offered(help_text)
    for half, kv_type in (("k", kv.k), ("v", kv.v)):
        known = listed.get(half)
        if known and kv_type not in known:
            raise UsageError(
                f"--kv {kv}: {name} knows no KV type {kv_type}",
                why=f"its --help lists {', '.join(known)}",
                hint=f"`--kv` with one of these, or an image of a fork that has {kv_type}",
            )


@dataclass(frozen=True, slots=True)
class _Servers:
    """What the two servers that were asked showed, how all ended, and what HEALTHCHECK said."""

    control: Launched
    asked: Launched
    endings: list[Ending]
    answers: Answers


def _run_servers(
    target: Target, case: _Case, flags: frozenset[str], progress: Progress
) -> _Servers:
    """Start the three servers, one after the other. `flags` are those that `--help` lists."""
    with probe_server.session(case.api_key) as session:
        setting = Setting(
            target=target,
            profile=case.profile,
            model=case.model.path,
            script=case.model.script,
            commit=case.commit,
            flags=flags,
            timeout_s=case.timeout_s,
            answer_s=case.answer_s,
            session=session,
            gpu=case.gpu,
        )
        progress.step("control server: f16 KV, the other thinking")
        control = launches.control(setting, progress)
        progress.step(f"server: KV {case.kv}")
        asked = launches.asked(setting, case.kv, control.reasoning, progress)
        progress.step("server to stop while it loads")
        loading, check_loading = launches.interrupted(setting, case.kv, asked)
        check_alone = target.check_alone() if asked.check and asked.check.healthy else None
    endings = [one for one in (control.ending, asked.ending, loading) if one]
    if case.kind == "binary":
        # A busy llama-server ends in time only under an image's init.
        endings = [one for one in endings if one.when == "idle"]
    return _Servers(
        control, asked, endings, Answers(asked.check, control.check, check_alone, check_loading)
    )


def _healthcheck(target: Target, case: _Case, answers: Answers) -> Finding:
    if case.kind != "image":
        return not_asked(health_command.PROBE, "a program has no HEALTHCHECK, an image has")
    return healthcheck(target.check_command(), answers, container_paths.SERVER_PORT)


def _report(
    name: str,
    case: _Case,
    findings: list[Finding],
    verdict: KvVerdict,
    launched: Launched,
    started: float,
) -> SmokeReport:
    return SmokeReport(
        target=name,
        kind=case.kind,
        image_id=None,
        variant=case.variant,
        profile=case.profile,
        model=case.model.name,
        kv=verdict,
        findings=findings,
        required=sorted(case.required),
        not_available=[],
        ready_s=launched.wait.last.at_s if launched.ready else None,
        duration_s=time.monotonic() - started,
    )


def _evidence(case: _Case, asked: Launched | None, control: Launched | None) -> KvEvidence:
    """What the verdict on the KV type rests on. None: a server that was not ours to start."""
    evidence = KvEvidence(
        asked=case.kv,
        types=case.types,
        rules=case.rules,
        profile=case.profile,
        log=asked.log if asked else None,
        shape=gguf_shape.read(case.model.path),
        scripted=case.model.name == MODEL,
        gpu=case.gpu,
    )
    if asked is None or control is None:
        return evidence
    readings = [*asked.numbers, *control.numbers]
    if len(readings) < _READINGS:
        return replace(evidence, numbers="one of the two servers could not be asked")
    return replace(evidence, numbers=kv_numbers.compare(*readings))
