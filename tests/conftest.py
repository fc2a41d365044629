"""What tests share: the real pins, small pins, small git repositories, the engine and its image."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Before anything imports numpy: on a busy machine its threads wait for each other, ten times over.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
from docker import DockerClient

from builder.common import paths
from builder.engine import client as engines
from builder.model.pins import Pins
from builder.pins import load as pins
from tests.support import cosign_program, docker_registry
from tests.support.docker_registry import DockerRegistry

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

# Where the tests were started in the background of a shell, they and what they start would be deaf
# to the Ctrl-C that some of them send.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parent.parent
SAMPLES = Path(__file__).parent / "samples"

TINY_PINS = """
[policy]
default_variant = "tiny"
max_days = 14
max_commits = 50
release = {{ require = ["contract"] }}

[forks.tiny]
url = "{url}"
branch = "master"
linkage = "backend-dl"
unpinned = "tests say which commit"

[bases.debian-trixie]
{base}

[variants.tiny]
fork = "tiny"
base = "debian-trixie"
cpu = "x86-64-v2"
smoke_kv = "q4_0"
"""


ON_THE_ENGINE = ("tests/engine/", "tests/faults/", "tests/image/", "tests/browser/")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> "LoadScopeScheduling":
    """With --numprocesses=2 the engine's tests run in a row on one worker, the others beside them.

    What uses the one engine, or the image that one test builds for all, is never at once. xdist's
    groups by mark have no effect: pytest 9.2 has no `_nodeid`, in which xdist 3.8 keeps them.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByEngine(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "engine" if nodeid.startswith(ON_THE_ENGINE) else nodeid.partition("::")[0]

    return ByEngine(config, log)


@pytest.fixture(scope="session")
def real_pins() -> Pins:
    return pins.load(ROOT / "pins.toml")


@pytest.fixture
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own: git objects and sdists of other runs do not help it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return paths.cache()


class Repository:
    """A real git repository with commits of the tiny project."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = path.as_uri()
        path.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=master")

    def git(self, *words: str) -> str:
        identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
        command = ["git", *identity, "-C", str(self.path), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, message: str, **files: str) -> str:
        """Write the files (`server_cpp` is server.cpp), commit, and give the full SHA."""
        for name, text in files.items():
            stem, _, suffix = name.rpartition("_")
            (self.path / f"{stem}.{suffix}").write_text(text, encoding="utf-8")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Three commits of the tiny project on master; the last carries the tag v1."""
    made = Repository(tmp_path / "fork")
    shutil.copytree(SAMPLES / "tiny", made.path, dirs_exist_ok=True)
    made.commit("first")
    made.commit("second", notes_md="second")
    made.commit("third", notes_md="third")
    made.git("tag", "v1")
    return made


@pytest.fixture
def tiny_pins(tmp_path: Path, repository: Repository) -> Path:
    """A pins.toml of one fork, the repository above, on the real base."""
    real = (ROOT / "pins.toml").read_text(encoding="utf-8")
    start = real.index("[bases.debian-trixie]") + len("[bases.debian-trixie]")
    base = real[start : real.index("[bases.nvidia-cuda126]")]
    path = tmp_path / "pins.toml"
    path.write_text(TINY_PINS.format(url=repository.url, base=base), encoding="utf-8")
    return path


class Recorder:
    """Progress that remembers what it was told."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.warnings: list[str] = []
        self.details: list[str] = []

    def step(self, text: str) -> None:
        self.steps.append(text)

    def detail(self, text: str) -> None:
        self.details.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture
def progress() -> Recorder:
    return Recorder()


def builder(*words: object, **kwargs: object) -> "subprocess.CompletedProcess[str]":
    """Run the command line as a user would."""
    command = [sys.executable, "-m", "builder", *(str(word) for word in words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **kwargs)


def start_builder(*words: object) -> "subprocess.Popen[str]":
    """Start the command line and go on."""
    command = [sys.executable, "-m", "builder", *(str(word) for word in words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="session")
def engine() -> DockerClient:
    return engines.connect()


@pytest.fixture(scope="session")
def mainline_cpu_receipt(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The receipt of `builder build mainline-cpu --json`, from a copy of the real pins."""
    pins = tmp_path_factory.mktemp("mainline-cpu") / "pins.toml"
    shutil.copy(ROOT / "pins.toml", pins)
    result = builder("build", "mainline-cpu", "--json", "--pins", pins)
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.fixture(scope="session")
def mainline_cpu_image(mainline_cpu_receipt: dict[str, Any]) -> str:
    return str(mainline_cpu_receipt["image"])


@pytest.fixture(scope="session")
def registry_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return docker_registry.install(tmp_path_factory.mktemp("docker-registry"))


@pytest.fixture
def docker_registry_server(registry_program: Path, tmp_path: Path) -> Iterator[DockerRegistry]:
    """A real, empty registry that anybody may push to."""
    with docker_registry.serve(registry_program, tmp_path / "registry") as registry:
        yield registry


@pytest.fixture
def docker_registry_with_login(registry_program: Path, tmp_path: Path) -> Iterator[DockerRegistry]:
    """A real, empty registry that asks for USER and PASSWORD."""
    folder = tmp_path / "registry-with-login"
    with docker_registry.serve(registry_program, folder, login=True) as registry:
        yield registry


@pytest.fixture(scope="session")
def cosign_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cosign_program.install(tmp_path_factory.mktemp("cosign"))


@pytest.fixture
def with_cosign(cosign_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """cosign is on the path, and knows the password of the tests' keys."""
    monkeypatch.setenv("PATH", f"{cosign_folder}:{os.environ['PATH']}")
    monkeypatch.setenv("COSIGN_PASSWORD", cosign_program.PASSWORD)
