"""What a machine has: asked here, judged by `doctor`, completed by `engine_install`."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builder.common.errors import EngineError
from builder.engine import client as engine

Release = tuple[int, int]
"""Major and minor version: what the comparisons here need."""

LOWEST_ENGINE: Release = (23, 0)
"""The first engine whose own BuildKit takes named contexts (`--build-context`)."""

LOWEST_BUILDX: Release = (0, 13)
"""The first buildx with `--progress=rawjson`."""

STANDARD_HOSTS = ("", "unix:///var/run/docker.sock", "unix:///run/docker.sock")
"""The addresses of the engine that this machine's packages, and --fix, start."""

DENIED_FIX = 'sudo usermod -aG docker "$USER", then log in again; or run this as root'

_NUMBERS = re.compile(r"(\d+)\.(\d+)")
_BUILDX = re.compile(r"docker/buildx v?(?P<version>\S+)")
_OS_ERROR = re.compile(r"\w+Error\(\d+, '(?P<text>[^']+)'\)")
_QUERY = ("name", "driver_version", "compute_cap")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command said; `code` is None when there is no such command or it did not end."""

    code: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that answered, or why none did; `host` is the address where it was looked for."""

    version: str = ""
    podman: bool = False
    host: str = ""
    info: Mapping[str, Any] = field(default_factory=dict)
    complaint: str = ""

    @property
    def local(self) -> bool:
        """Whether its files are this machine's."""
        return not self.host or self.host.startswith("unix://")

    @property
    def denied(self) -> bool:
        """Whether there is one that this user may not talk to."""
        return "Permission denied" in self.complaint


@dataclass(frozen=True, slots=True)
class Buildx:
    """buildx as the docker command finds it: its version, or what the command said instead."""

    version: str = ""
    complaint: str = ""

    @property
    def usable(self) -> bool:
        """Whether it is there and new enough."""
        return bool(self.version) and at_least(self.version, LOWEST_BUILDX)


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as nvidia-smi shows it; `capability` is empty when the driver does not tell."""

    name: str
    driver: str
    capability: str


@dataclass(frozen=True, slots=True)
class Distribution:
    """The ID, code name and full name of /etc/os-release."""

    id: str
    codename: str
    name: str


def ask(*words: str, timeout_s: int = 20) -> Answer:
    """Run a command that only tells something. Never raises."""
    environment = os.environ | {"LC_ALL": "C"}
    try:
        result = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout_s,
            env=environment,
            check=False,
        )
    except OSError as error:
        return Answer(None, f"{words[0]}: {error.strerror}")
    except subprocess.TimeoutExpired:
        return Answer(None, f"{' '.join(words)} did not end within {timeout_s} s")
    return Answer(result.returncode, result.stdout.strip())


def at_least(version: str, lowest: Release) -> bool:
    """Whether a version that may end in a distribution's suffix ("26.1.5+dfsg1") is new enough."""
    numbers = _NUMBERS.search(version)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) >= lowest


def find_engine() -> Engine:
    """Ask the engine that the environment names what it is. Never raises."""
    from docker.errors import DockerException
    from requests import RequestException

    where = host()
    try:
        client = engine.connect(timeout_s=10)
        version, info = client.version(), client.info()
    except EngineError as error:
        return Engine(host=where, complaint=connection_complaint(error.why))
    except (DockerException, RequestException) as error:
        return Engine(host=where, complaint=connection_complaint(engine.first_line(error)))
    return Engine(
        version=str(version.get("Version", "")),
        podman=is_podman(version),
        host=where,
        info=info,
    )


def host() -> str:
    """Where the environment looks for an engine: DOCKER_HOST, else the docker command's context."""
    if address := os.environ.get("DOCKER_HOST"):
        return address
    answer = ask("docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}")
    return answer.text if answer.code == 0 else ""


def connection_complaint(text: str) -> str:
    """The operating system's own words, which the layers above it wrap in theirs."""
    found = _OS_ERROR.search(text)
    return found["text"] if found else text


def is_podman(version: Mapping[str, Any]) -> bool:
    """Whether the answer to /version is from podman's imitation of the Docker API."""
    names = [str(component.get("Name", "")) for component in version.get("Components") or []]
    return any("podman" in name.lower() for name in names)


def find_buildx() -> Buildx:
    """Ask the docker command for its buildx. Never raises."""
    client = ask("docker", "--version")
    if "podman" in client.text.lower():
        # podman has a `buildx` as well, which is buildah.
        return Buildx(complaint=f"the docker command is {client.text.splitlines()[-1]}")
    return parse_buildx(ask("docker", "buildx", "version"))


def parse_buildx(answer: Answer) -> Buildx:
    """Read the answer to `docker buildx version`."""
    found = _BUILDX.search(answer.text)
    if answer.code == 0 and found:
        return Buildx(version=found["version"])
    lines = answer.text.splitlines()
    return Buildx(complaint=lines[0] if lines else "`docker buildx version` says nothing")


def find_gpus() -> list[Gpu] | str:
    """The NVIDIA GPUs of this machine, or why there is none. Never raises."""
    if shutil.which("nvidia-smi") is None:
        return "no NVIDIA driver (nvidia-smi is not installed)"
    answer = ask("nvidia-smi", f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader")
    if "compute_cap" in answer.text and answer.code != 0:
        # Drivers before 510 do not know the field.
        answer = ask("nvidia-smi", f"--query-gpu={','.join(_QUERY[:2])}", "--format=csv,noheader")
    return parse_gpus(answer)


def used_gpu_memory() -> float | None:
    """Memory in use on all GPUs of this machine in MiB; None where no driver says. Never raises."""
    figures = _gpu_figures("memory.used")
    return float(sum(figures)) if figures else None


def gpu_memory() -> int | None:
    """Memory of this machine's first GPU in bytes; None where no driver says. Never raises."""
    figures = _gpu_figures("memory.total")
    return figures[0] * 1024 * 1024 if figures else None


def gpus_memory() -> list[int]:
    """Memory of each GPU of this machine in bytes; none where no driver says. Never raises."""
    return [figure * 1024 * 1024 for figure in _gpu_figures("memory.total")]


def _gpu_figures(what: str) -> list[int]:
    """A figure of each GPU as nvidia-smi gives it, in MiB; none where one is missing."""
    answer = ask("nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits")
    figures = answer.text.split()
    if answer.code != 0 or not all(figure.isdecimal() for figure in figures):
        return []
    return [int(figure) for figure in figures]


def parse_gpus(answer: Answer) -> list[Gpu] | str:
    """Read nvidia-smi's lines `name, driver version[, compute capability]`."""
    lines = answer.text.splitlines()
    if answer.code != 0:
        return lines[0] if lines else "nvidia-smi failed and said nothing"
    gpus = []
    for line in lines:
        name, driver, capability, *_ = [part.strip() for part in line.split(",")] + ["", ""]
        if _NUMBERS.match(driver):
            gpus.append(Gpu(name, driver, capability if _NUMBERS.fullmatch(capability) else ""))
    return gpus or "nvidia-smi lists no GPU"


def find_distribution() -> Distribution:
    """The distribution of this machine; empty fields when it does not say. Never raises."""
    for file in (Path("/etc/os-release"), Path("/usr/lib/os-release")):
        if file.is_file():
            return parse_os_release(file.read_text(encoding="utf-8", errors="replace"))
    return parse_os_release("")


def parse_os_release(text: str) -> Distribution:
    """Read the three fields of os-release(5) that matter here."""
    values = dict(line.split("=", 1) for line in text.splitlines() if re.match(r"[A-Z_]+=", line))
    read = {key: value.strip().strip("\"'") for key, value in values.items()}
    name = read.get("PRETTY_NAME") or read.get("NAME") or "an unknown system"
    return Distribution(read.get("ID", ""), read.get("VERSION_CODENAME", ""), name)


def free_bytes(folder: Path) -> int:
    """Bytes free on the disk of a folder, which without an engine is not there yet.

    Raises OSError.
    """
    existing = next(path for path in [folder, *folder.parents] if path.exists())
    return shutil.disk_usage(existing).free


def memory_bytes() -> int | None:
    """The machine's memory; None when it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return None
