"""`builder doctor` on the real engine, without one, and --fix on clean Debian machines."""

import json
import os
import subprocess
import uuid
from pathlib import Path

import docker
import pytest
from docker.errors import NotFound

from builder.build import apt_mirror
from builder.common.errors import EngineError
from builder.doctor import checks as doctor
from tests.conftest import ROOT, builder
from tests.engine.conftest import without_buildx

pytestmark = pytest.mark.engine

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def statuses(result: "subprocess.CompletedProcess[str]") -> dict[str, tuple[str, str, str]]:
    checks = json.loads(result.stdout)
    return {check["name"]: (check["status"], check["found"], check["fix"]) for check in checks}


def test_this_machine_can_build_mainline_cpu(engine):
    result = builder("doctor", "mainline-cpu", "--json")
    checks = statuses(result)
    assert result.returncode == 0, result.stdout
    assert checks["docker engine"][:2] == ("ok", engine.version()["Version"])
    assert checks["buildx"][0] == "ok"
    assert {status for status, _, fix in checks.values() if fix} <= {"warn"}


def test_what_is_complete_needs_no_fix(progress):
    doctor.fix([], progress)
    assert progress.steps == []


def test_no_engine_is_a_failed_check_with_its_fix():
    away = os.environ | {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}
    result = builder("doctor", "mainline-cpu", "--json", env=away)
    status, found, fix = statuses(result)["docker engine"]
    assert result.returncode == 1
    assert (status, found) == ("fail", "none answers: No such file or directory")
    assert "start the engine at unix:///nonexistent/docker.sock" in fix


def test_no_engine_is_exit_code_4_where_one_is_needed(monkeypatch, progress):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    with pytest.raises(EngineError) as caught:
        doctor.fix([], progress)
    assert caught.value.exit_code == 4
    assert "No such file" in caught.value.why


@needs_root
def test_fix_starts_nothing_that_docker_host_would_not_use():
    away = os.environ | {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}
    result = builder("doctor", "mainline-cpu", "--fix", env=away)
    assert result.returncode == 2
    assert "unset DOCKER_HOST" in result.stderr


@needs_root
def test_an_engine_without_buildx(tmp_path):
    result = without_buildx(tmp_path, "doctor", "mainline-cpu", "--json")
    checks = statuses(result)
    assert result.returncode == 1
    assert checks["docker engine"][0] == "ok"
    assert checks["buildx"][0] == "fail"
    assert "buildx" in checks["buildx"][1]
    assert checks["buildx"][2] == "sudo builder doctor --fix"


@needs_root
def test_a_context_whose_engine_does_not_answer(tmp_path):
    other = os.environ | {"DOCKER_CONFIG": str(tmp_path)}
    for words in (["create", "other", "--docker", "host=unix:///nonexistent"], ["use", "other"]):
        subprocess.run(["docker", "context", *words], env=other, check=True, capture_output=True)
    check = statuses(builder("doctor", "mainline-cpu", "--json", env=other))["docker engine"]
    assert check[0] == "fail"
    assert "docker context use default" in check[2]
    result = builder("doctor", "mainline-cpu", "--fix", env=other)
    assert result.returncode == 2
    assert "no engine answers at unix:///nonexistent" in result.stderr


# --- --fix on clean machines: Debian roots in privileged containers, with engines of their own


FIX = """
import sys
from builder.doctor import checks as doctor
from builder.common.errors import BuilderError

class Told:
    def step(self, text):
        print("step", text, flush=True)
    def detail(self, text):
        pass
    def warn(self, text):
        print("warn", text, flush=True)

try:
    doctor.fix(doctor.plan_fix(), Told())
except BuilderError as error:
    sys.exit(f"{error.what}\\n{error.why}\\n{error.hint}")
"""


class CleanMachine:
    """A bare Debian in a container; this package and its dependencies are mounted into it."""

    def __init__(self, engine: docker.DockerClient, image: str) -> None:
        site = Path(docker.__file__).parents[1]
        self.container = engine.containers.run(
            image,
            ["sleep", "infinity"],
            detach=True,
            privileged=True,
            tmpfs={"/run": ""},
            # An engine's data cannot lie on an overlay.
            volumes=["/var/lib/docker", f"{ROOT}:/builder:ro", f"{site}:/site:ro"],
            environment={"PYTHONPATH": "/builder:/site", "PYTHONDONTWRITEBYTECODE": "1"},
        )

    def run(self, *words: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        command = ["docker", "exec", "--interactive", str(self.container.id), *words]
        return subprocess.run(command, input=stdin, capture_output=True, check=False)

    def ok(self, *words: str, stdin: bytes = b"") -> str:
        result = self.run(*words, stdin=stdin)
        assert result.returncode == 0, (result.stdout + result.stderr).decode()
        return result.stdout.decode()

    def fix(self) -> list[str]:
        return self.ok("python3", "-c", FIX).splitlines()


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def suite(request):
    return request.param


@pytest.fixture(scope="module")
def root_archive(suite, tmp_path_factory):
    """The clean root as an archive: no engine, no git, no package lists."""
    archive = tmp_path_factory.mktemp(suite) / "root.tar"
    make = ["mmdebstrap", "--quiet", "--variant=minbase", "--include=ca-certificates,python3"]
    mirror = apt_mirror.find()
    command = [*make, suite, str(archive), *([mirror.given] if mirror else [])]
    subprocess.run(command, check=True, capture_output=True)
    return archive


@pytest.fixture(scope="module")
def clean_image(engine, root_archive):
    name = f"turboquant-test-clean:{uuid.uuid4().hex[:8]}"
    subprocess.run(["docker", "import", str(root_archive), name], check=True, capture_output=True)
    yield name
    engine.images.remove(name, force=True)


@pytest.fixture
def clean_machine(engine, clean_image):
    machine = CleanMachine(engine, clean_image)
    yield machine
    try:
        machine.container.remove(force=True, v=True)
    except NotFound:
        return


DOCKERFILE = b"""
FROM scratch AS source
FROM clean
RUN --mount=type=bind,from=source,target=/src test -f /src/pins.toml
RUN apt-get update
RUN --network=none echo built
"""


def test_fix_makes_a_bare_debian_build(clean_machine, root_archive):
    told = clean_machine.fix()
    assert told[0].startswith("step apt-get update; apt-get install")
    assert any(line.startswith("step start ") for line in told)
    # An overlay, a named context, the network of a build step, and none: on the inner engine.
    clean_machine.ok("docker", "import", "-", "clean", stdin=root_archive.read_bytes())
    clean_machine.ok(
        *["docker", "buildx", "build", "--build-context=source=/builder", "--tag=inside"],
        *["--file=-", "/tmp"],
        stdin=DOCKERFILE,
    )
    ran = clean_machine.ok("docker", "run", "--init", "--rm", "inside", "echo", "runs")
    assert ran == "runs\n"

    assert clean_machine.fix() == []

    # As after a reboot, with the leftovers of the engine that was.
    clean_machine.ok("sh", "-c", "kill -9 $(cat /var/run/docker.pid)")
    steps = [line for line in clean_machine.fix() if line.startswith("step")]
    assert len(steps) == 1
    assert "dockerd in the background" in steps[0]
    assert clean_machine.ok("docker", "run", "--rm", "inside", "echo", "still") == "still\n"


def test_fix_says_why_dockerd_does_not_start(clean_machine):
    clean_machine.ok("sh", "-c", "umount -R /sys/fs/cgroup")
    result = clean_machine.run("python3", "-c", FIX)
    assert result.returncode == 1
    assert b"cgroup" in result.stderr
    assert b"/var/log/turboquant-builder-dockerd.log" in result.stderr


def test_fix_repairs_after_it_was_killed(clean_machine):
    killed = clean_machine.run("timeout", "--signal=KILL", "9", "python3", "-c", FIX)
    assert killed.returncode != 0
    # What the killed program had started goes on for a while.
    working = "readlink /proc/[0-9]*/exe | grep -E '/(apt-get|dpkg)$'"
    clean_machine.ok("timeout", "60", "sh", "-c", f"while {working}; do sleep 1; done")
    clean_machine.ok("dpkg", "--configure", "--pending")
    clean_machine.fix()
    assert clean_machine.fix() == []


# Only Debian 12 takes packages of another release.
@pytest.mark.parametrize("suite", ["bookworm"], scope="module")
def test_fix_refuses_unsigned_packages(clean_machine):
    keys = "/usr/share/keyrings/debian-archive-"
    clean_machine.ok("cp", f"{keys}removed-keys.gpg", f"{keys}keyring.gpg")
    result = clean_machine.run("python3", "-c", FIX)
    assert result.returncode == 1
    assert b"NO_PUBKEY" in result.stderr
    assert clean_machine.run("ls", "/opt/turboquant-builder/engine").returncode != 0
