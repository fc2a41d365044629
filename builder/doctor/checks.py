"""`builder doctor`: can this machine build a variant and prove it, and what is missing."""

import dataclasses
import json
import platform
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.version import InvalidVersion, Version

from builder.build.plan import DISK_CPU, DISK_CUDA, GB, MEMORY_CPU, MEMORY_CUDA
from builder.common.progress import Progress
from builder.doctor import install as engine_install
from builder.doctor import install_plan as engine_plan
from builder.doctor.install_plan import Action
from builder.engine import facts
from builder.model.pins import MAINLINE_KV_TYPES, Base, Pins, Variant
from builder.pins import cuda
from builder.pins import load as pins_file

Status = Literal["ok", "warn", "fail"]

_FIX = "sudo builder doctor --fix"
_USUAL = "unset DOCKER_HOST and `docker context use default` for this machine's own"
_LOWEST_PYTHON = (3, 11)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: what was found and, unless it is ok, the command that mends it."""

    name: str
    status: Status
    found: str
    fix: str = ""


def diagnose(pins: Pins, variant_name: str) -> list[Check]:
    """Look at everything that building and proving this variant needs here.

    A missing thing is a check that says so. Raises UsageError for an unknown variant only.
    """
    name, variant = pins_file.variant(pins, variant_name)
    base = pins.bases[variant.base]
    engine = facts.find_engine()
    return [
        check_python(),
        check_machine(platform.system(), platform.machine()),
        check_engine(engine),
        check_buildx(facts.find_buildx()),
        _check_disk(engine, base),
        _check_memory(engine, base),
        _check_git(variant),
        _check_mmdebstrap(base),
        _check_cosign(),
        *check_gpus(pins, name, facts.find_gpus(), engine),
    ]


def to_json(checks: list[Check]) -> str:
    """The checks as indented JSON."""
    return json.dumps([dataclasses.asdict(check) for check in checks], indent=2)


def plan_fix() -> list[Action]:
    """What `fix` would do on this machine; `action.text` says it in words. Changes nothing.

    Raises EngineError where nothing can be installed.
    """
    return engine_plan.plan(engine_plan.survey())


def fix(actions: list[Action], progress: Progress) -> None:
    """Do what `plan_fix` said, then see that an engine with buildx answers.

    Raises UsageError without root, EngineError when a step fails or was not enough.
    """
    engine_install.fix(actions, progress)


def check_python() -> Check:
    """The interpreter that runs this."""
    status: Status = "ok" if sys.version_info[:2] >= _LOWEST_PYTHON else "fail"
    fix = "" if status == "ok" else "install Python 3.11 or newer and the package into it"
    return Check("python", status, platform.python_version(), fix)


def check_machine(system: str, machine: str) -> Check:
    """Kernel and processor: the pinned bases and CPU backends are for Linux on x86-64."""
    if (system, machine.lower()) in {("Linux", "x86_64"), ("Linux", "amd64")}:
        return Check("machine", "ok", f"{system} {machine}")
    return Check("machine", "fail", f"{system} {machine}", "build on Linux on x86-64")


def check_engine(engine: facts.Engine) -> Check:
    """The engine: whether it answers, is Docker, and has a BuildKit new enough."""
    if engine.complaint:
        fix = _FIX
        if engine.denied:
            fix = facts.DENIED_FIX
        elif engine.host not in facts.STANDARD_HOSTS:
            fix = f"start the engine at {engine.host}, or {_USUAL}"
        return Check("docker engine", "fail", f"none answers: {engine.complaint}", fix)
    if engine.podman:
        fix = f"unset DOCKER_HOST, remove podman-docker, then {_FIX}"
        return Check("docker engine", "fail", f"podman {engine.version}: has no BuildKit", fix)
    if not facts.at_least(engine.version, facts.LOWEST_ENGINE):
        lowest = ".".join(map(str, facts.LOWEST_ENGINE))
        fix = f"stop it and remove its package, then {_FIX}"
        return Check("docker engine", "fail", f"{engine.version}, older than {lowest}", fix)
    return Check("docker engine", "ok", engine.version)


def check_buildx(buildx: facts.Buildx) -> Check:
    """buildx, through which BuildKit is reached."""
    if buildx.usable:
        return Check("buildx", "ok", buildx.version)
    lowest = ".".join(map(str, facts.LOWEST_BUILDX))
    found = f"{buildx.version}, older than {lowest}" if buildx.version else buildx.complaint
    fix = _FIX
    if buildx.version:
        fix = f"remove this plugin (`docker info` names its path), then {_FIX}"
    elif "podman" in buildx.complaint:
        fix = f"remove podman-docker, then {_FIX}"
    return Check("buildx", "fail", found, fix)


def _check_disk(engine: facts.Engine, base: Base) -> Check:
    folder = Path(str(engine.info.get("DockerRootDir") or "/var/lib/docker"))
    need = DISK_CPU if base.cuda is None else DISK_CUDA
    if not engine.local:
        return Check("disk", "warn", "the engine is elsewhere", f"see there: df {folder}")
    try:
        free = facts.free_bytes(folder)
    except OSError as error:
        return Check("disk", "warn", f"{folder}: {error.strerror}", f"df {folder}")
    return check_disk(folder, free, need)


def check_disk(folder: Path, free: int, need: int) -> Check:
    """Room where the engine keeps images and build cache."""
    found = f"{free / GB:.0f} GB free in {folder}"
    if free >= need:
        return Check("disk", "ok", found)
    fix = "docker builder prune; docker image prune; or a larger disk"
    return Check("disk", "fail", f"{found}, a build needs {need // GB} GB", fix)


def _check_memory(engine: facts.Engine, base: Base) -> Check:
    size = engine.info.get("MemTotal") or facts.memory_bytes()
    return check_memory(size, MEMORY_CPU if base.cuda is None else MEMORY_CUDA)


def check_memory(size: int | None, need: int) -> Check:
    """Memory of the machine that compiles."""
    if size is None:
        return Check("memory", "warn", "unknown", "free --giga")
    if size >= need:
        return Check("memory", "ok", f"{size / GB:.0f} GB")
    fix = "build with less parallelism or on a larger machine; the compiler may be killed"
    return Check("memory", "warn", f"{size / GB:.1f} GB, less than {need // GB} GB", fix)


def _check_git(variant: Variant) -> Check:
    if path := shutil.which("git"):
        return Check("git", "ok", path)
    if variant.source is not None:
        found = f"missing; the pinned source of this variant, {variant.source}, needs none"
        return Check("git", "warn", found, f"{_FIX}, or apt-get install git")
    return Check("git", "fail", "missing", f"{_FIX}, or apt-get install git")


def _check_mmdebstrap(base: Base) -> Check:
    if path := shutil.which("mmdebstrap"):
        return Check("mmdebstrap", "ok", path)
    found = "missing; needed only where no image hub answers"
    if base.bootstrap is None:
        found += ", with a base that can be bootstrapped (--base)"
    return Check("mmdebstrap", "warn", found, f"{_FIX}, or apt-get install mmdebstrap")


def _check_cosign() -> Check:
    if path := shutil.which("cosign"):
        return Check("cosign", "ok", path)
    found = "missing; without it nothing published is signed, and no signature checked"
    return Check("cosign", "warn", found, "apt-get install cosign (Debian 13)")


def check_gpus(
    pins: Pins, variant_name: str, gpus: list[facts.Gpu] | str, engine: facts.Engine
) -> list[Check]:
    """The GPUs: are they there, does this variant's code run on them, do containers see them."""
    variant = pins.variants[variant_name]
    base = pins.bases[variant.base]
    if isinstance(gpus, str):
        return [_check_no_gpu(variant, gpus)]
    names = ", ".join(f"{gpu.name} ({gpu.capability or '?'})" for gpu in gpus)
    checks = [Check("gpu", "ok", names), _check_toolkit(engine)]
    if base.cuda is None:
        return [*checks, *_check_unused(pins, variant_name, gpus)]
    best = min(
        (_check_architecture(pins, variant_name, gpu) for gpu in gpus),
        key=lambda check: ("ok", "warn", "fail").index(check.status),
    )
    return [*checks, _check_driver(gpus[0].driver, base), best]


def _check_no_gpu(variant: Variant, complaint: str) -> Check:
    if variant.smoke_kv in MAINLINE_KV_TYPES:
        return Check("gpu", "ok", f"{complaint}; {variant.smoke_kv} needs none")
    found = f"{complaint}: {variant.smoke_kv} cannot be proven here, the image can be built"
    return Check("gpu", "warn", found, "run `builder smoke` on a machine with an NVIDIA GPU")


def _check_unused(pins: Pins, variant_name: str, gpus: list[facts.Gpu]) -> list[Check]:
    variant = pins.variants[variant_name]
    if variant.smoke_kv in MAINLINE_KV_TYPES:
        return []
    found = f"this variant does not use the GPU, without which there is no {variant.smoke_kv}"
    better = recommended_variant(pins, variant_name, gpus[0].capability)
    fix = f"builder build {better}" if better else "take a variant with CUDA"
    return [Check("gpu architecture", "warn", found, fix)]


def _check_driver(driver: str, base: Base) -> Check:
    if base.cuda is None:
        return Check("nvidia driver", "ok", driver)
    lowest = [base.cuda.driver, cuda.lowest_driver(base.cuda.version) or base.cuda.driver]
    need = max(lowest, key=Version)
    try:
        if Version(driver) >= Version(need):
            return Check("nvidia driver", "ok", driver)
    except InvalidVersion:
        return Check("nvidia driver", "warn", driver, f"see that it is {need} or newer: nvidia-smi")
    found = f"{driver}, older than the {need} that CUDA {base.cuda.version} needs"
    return Check("nvidia driver", "fail", found, f"install NVIDIA driver {need} or newer")


def _check_architecture(pins: Pins, variant_name: str, gpu: facts.Gpu) -> Check:
    variant = pins.variants[variant_name]
    compiled = ", ".join(f"sm_{name}" for name in variant.architectures)
    if not gpu.capability:
        found = f"the driver of {gpu.name} does not tell its compute capability"
        return Check("gpu architecture", "warn", found, "update the NVIDIA driver")
    fit = _fit(variant, gpu.capability)
    found = f"compute capability {gpu.capability}, the variant has {compiled}"
    if fit == "exact":
        return Check("gpu architecture", "ok", found)
    better = recommended_variant(pins, variant_name, gpu.capability)
    if fit == "family" and better in (None, variant_name):
        return Check("gpu architecture", "ok", f"{found}, which runs there too")
    if fit == "family":
        found = f"{found}, which runs there; {better} is compiled for it"
        return Check("gpu architecture", "warn", found, f"builder build {better}")
    return Check("gpu architecture", "fail", found, _other_variant(pins, variant, gpu, better))


def _other_variant(pins: Pins, variant: Variant, gpu: facts.Gpu, better: str | None) -> str:
    if better is not None:
        return f"builder build {better}"
    wanted = cuda.variant_architecture(gpu.capability)
    toolkit = pins.bases[variant.base].cuda
    conflict = cuda.architecture_conflict(toolkit.version, wanted) if toolkit else None
    advice = f" and {conflict.suggestion} as base" if conflict else ""
    return (
        f'add a variant of fork {variant.fork} to pins.toml: architectures = ["{wanted}"]{advice}'
    )


def _check_toolkit(engine: facts.Engine) -> Check:
    """`--gpus` works through NVIDIA's runtime, its hook on the engine's PATH, or a CDI device."""
    name, info = "container toolkit", engine.info
    if "nvidia" in (info.get("Runtimes") or {}):
        return Check(name, "ok", "the engine has the runtime nvidia")
    devices = [str(device.get("ID", "")) for device in info.get("DiscoveredDevices") or []]
    specs = [Path(folder).glob("*nvidia*") for folder in info.get("CDISpecDirs") or []]
    if any("nvidia.com/gpu" in device for device in devices) or any(map(any, specs)):
        return Check(name, "ok", "the engine knows the GPU through CDI")
    hook = shutil.which("nvidia-container-runtime-hook")
    if engine.local and hook and not engine.complaint:
        return Check(name, "ok", hook)
    fix = (
        "install the package nvidia-container-toolkit from NVIDIA's repository, then "
        "`sudo nvidia-ctk runtime configure --runtime=docker` and restart the engine"
    )
    return Check(name, "warn", "missing: containers do not see the GPU", fix)


def recommended_variant(pins: Pins, variant_name: str, capability: str) -> str | None:
    """The variant of the same fork for a GPU: this one if it fits, else the smallest that does.

    One compiled for exactly this compute capability ("8.9") goes before one that merely runs, and
    cuBLAS as NVIDIA ships it before a pruned one. None when no variant's code runs there.
    """
    fork = pins.variants[variant_name].fork
    ranked = []
    for name, variant in pins.variants.items():
        fit = _fit(variant, capability)
        if variant.fork == fork and fit is not None:
            pruned = variant.cublas == "pruned"
            size = len(variant.architectures)
            ranked.append((fit != "exact", name != variant_name, pruned, size, name))
    return min(ranked)[-1] if ranked else None


def _fit(variant: Variant, capability: str) -> Literal["exact", "family"] | None:
    """Machine code runs on its own architecture, and on later ones of the same major version.

    A pruned cuBLAS does not: on a later GPU it may look for kernels that were made for that one.
    """
    architectures = variant.architectures
    if not re.fullmatch(r"\d+\.\d+", capability):
        return None
    wanted = cuda.variant_architecture(capability)
    if any(name.rstrip("af") == wanted for name in architectures):
        return "exact"
    if variant.cublas == "pruned":
        return None
    plain = [name for name in architectures if name.isdecimal()]
    if any(name[:-1] == wanted[:-1] and int(name) <= int(wanted) for name in plain):
        return "family"
    return None
