"""Smokes of the real image on the real engine, and of what is wrong with it."""

import dataclasses
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from docker import DockerClient
from docker.errors import NotFound

from builder import container
from builder.container import Launch
from builder.errors import EngineError, RefNotFoundError, UsageError
from builder.model import Pins
from builder.model_access import COPY_BYTES
from builder.scripted_model import scripted_model
from builder.smoke import SmokeReport, kv_of, smoke, to_json
from tests.conftest import Recorder

pytestmark = pytest.mark.engine

Smoke = Callable[..., SmokeReport]

SLEEPING = ["bash", "-c", "sleep 60"]

CHILD = """
import sys
from builder import engine, smoke

class Told:
    def step(self, text): print(text, flush=True)
    def detail(self, text): pass
    def warn(self, text): pass

try:
    smoke.smoke(engine.connect(), sys.argv[1], kv="q4_0", progress=Told())
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.fixture
def run(engine: DockerClient, mainline_cpu_image: str, progress: Recorder) -> Smoke:
    """A smoke of the good image, unless another is named."""

    def start(image: str = mainline_cpu_image, **options: object) -> SmokeReport:
        return smoke(engine, image, **{"kv": "q4_0", "progress": progress, **options})

    return start


@pytest.fixture(scope="module")
def sleeping_image(engine: DockerClient, mainline_cpu_image: str) -> Iterator[str]:
    """The good image, but what it starts never listens."""
    made = engine.containers.create(mainline_cpu_image)
    # A layer-less commit differs by its configuration alone.
    image = made.commit(conf={"Entrypoint": SLEEPING, "Cmd": []})
    made.remove()
    yield str(image.id)
    engine.images.remove(image.id)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scripted_model(tmp_path_factory.mktemp("model"))


def statuses(report: SmokeReport) -> dict[str, str]:
    return {finding.probe: finding.status for finding in report.findings}


def observed(report: SmokeReport, probe: str) -> str:
    return next(finding.observed for finding in report.findings if finding.probe == probe)


def containers_of(engine: DockerClient, image: str) -> list[str]:
    filters = {"ancestor": image, "label": container.LABEL}
    return [str(found.name) for found in engine.containers.list(all=True, filters=filters)]


def test_a_good_image_passes(run: Smoke, engine: DockerClient, mainline_cpu_image: str) -> None:
    report = run()
    assert statuses(report) == {
        "ready": "pass",
        "identity": "pass",
        "thinking_off": "pass",
        "kv": "unproven",
    }
    assert report.passed
    assert report.image_id == engine.images.get(mainline_cpu_image).id
    assert observed(report, "thinking_off") == "content 'OK', no reasoning"
    assert report.ready_s is not None
    assert 0 < report.ready_s < report.duration_s
    assert report.log_tail == ""


def test_a_report_as_json(run: Smoke) -> None:
    report = run()
    found = json.loads(to_json(report))
    assert (found["schema"], found["passed"], found["kv"]) == (1, True, "q4_0")
    assert [one["probe"] for one in found["findings"]] == list(statuses(report))


def test_kv_type_of_the_variant(
    engine: DockerClient, mainline_cpu_image: str, real_pins: Pins
) -> None:
    assert kv_of(engine, mainline_cpu_image, real_pins) == "q4_0"


def test_kv_type_of_a_variant_that_the_pins_lack(
    engine: DockerClient, mainline_cpu_image: str, real_pins: Pins
) -> None:
    fewer = dataclasses.replace(real_pins, variants={})
    with pytest.raises(UsageError, match="no KV type") as caught:
        kv_of(engine, mainline_cpu_image, fewer)
    assert "mainline-cpu" in caught.value.why


def test_a_model_that_thinks_fails_thinking_off_alone(run: Smoke) -> None:
    report = run(
        extra_args=["--reasoning", "on", "--chat-template-kwargs", '{"enable_thinking": true}']
    )
    assert not report.passed
    assert statuses(report) == {
        "ready": "pass",
        "identity": "pass",
        "thinking_off": "fail",
        "kv": "unproven",
    }
    assert "reasoning_content 'hm'" in observed(report, "thinking_off")
    assert report.log_tail


def test_another_alias_fails_identity_alone(run: Smoke) -> None:
    # Aliases add up, and the server puts them in alphabetical order.
    report = run(extra_args=["--alias", "another"])
    assert [name for name, status in statuses(report).items() if status == "fail"] == ["identity"]
    assert observed(report, "identity") == "it names another"


def test_a_server_that_refuses_its_flags_fails_at_once(run: Smoke) -> None:
    report = run(kv="turbo9")
    assert not report.passed
    assert statuses(report) == {
        "ready": "fail",
        "identity": "unproven",
        "thinking_off": "unproven",
        "kv": "unproven",
    }
    assert "exit code 1" in observed(report, "ready")
    assert "Unsupported cache type: turbo9" in report.log_tail
    assert report.ready_s is None
    assert report.duration_s < 30


def test_a_server_that_exits_while_loading_fails_at_once(
    run: Smoke, model: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(model.read_bytes()[:1_000_000])
    report = run(model=cut)
    assert statuses(report)["ready"] == "fail"
    assert "exit code 1" in observed(report, "ready")
    assert "failed to load model" in report.log_tail
    assert report.duration_s < 30


def test_a_server_that_is_never_healthy_fails_at_the_deadline(
    run: Smoke, sleeping_image: str
) -> None:
    report = run(sleeping_image, timeout_s=1.0)
    assert statuses(report)["ready"] == "fail"
    assert observed(report, "ready").startswith("no answer after ")
    assert report.duration_s < 30


def test_a_port_that_is_taken_is_named(run: Smoke) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EngineError, match=f"port {port} on 127.0.0.1 is taken") as caught:
            run(port=port)
    assert caught.value.exit_code == 4


def test_a_port_that_is_free_is_used(engine: DockerClient, sleeping_image: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with container.running(engine, Launch(sleeping_image, port=port)) as running:
        assert running.url == f"http://127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "it is empty"),
        (b"GG", "it begins with b'GG'"),
        (b"\x80\x02}q\x00pickle", "it begins with"),
        (b"GGUF", "cut short"),
        (b"GGUF\x00\x00\x00\x03", "of another byte order"),
    ],
)
def test_a_file_that_is_no_gguf_starts_nothing(
    run: Smoke, progress: Recorder, tmp_path: Path, content: bytes, found: str
) -> None:
    wrong = tmp_path / "model.gguf"
    wrong.write_bytes(content)
    with pytest.raises(UsageError, match=str(wrong)) as caught:
        run(model=wrong)
    assert found in caught.value.why
    assert progress.steps == []


def test_a_model_that_is_not_there_starts_nothing(run: Smoke, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        run(model=tmp_path / "none.gguf")
    with pytest.raises(UsageError, match="cannot be read"):
        run(model=tmp_path)


@pytest.mark.parametrize("image", ["turboquant:no-such-tag", "sha256:" + "0" * 64])
def test_an_image_that_is_not_there(run: Smoke, image: str) -> None:
    with pytest.raises(RefNotFoundError, match="no image") as caught:
        run(image)
    assert "builder build" in caught.value.hint


def test_an_image_name_that_cannot_be(run: Smoke) -> None:
    with pytest.raises(EngineError, match="look up"):
        run("Not A Name")


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
@pytest.mark.parametrize("size", [None, COPY_BYTES + 1], ids=["copied", "mounted"])
def test_a_model_in_a_private_folder_is_read(
    run: Smoke, model: Path, tmp_path: Path, mode: int, size: int | None
) -> None:
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    mine = folder / "model.gguf"
    mine.write_bytes(model.read_bytes())
    if size is not None:
        os.truncate(mine, size)
    mine.chmod(mode)
    assert run(model=mine).findings[0].status == "pass"
    assert stat.S_IMODE(mine.stat().st_mode) == mode


@pytest.mark.parametrize("size", [None, COPY_BYTES + 1], ids=["copied", "mounted"])
def test_a_model_cannot_be_written_from_inside(
    engine: DockerClient, sleeping_image: str, model: Path, tmp_path: Path, size: int | None
) -> None:
    mine = tmp_path / "model.gguf"
    mine.write_bytes(model.read_bytes())
    if size is not None:
        os.truncate(mine, size)
    mine.chmod(0o600)
    with container.running(engine, Launch(sleeping_image, model=mine)) as running:
        inside = engine.containers.get(running.name)
        read = inside.exec_run(["head", "-c", "4", container.MODEL])
        assert (read.exit_code, read.output) == (0, b"GGUF")
        assert inside.exec_run(["bash", "-c", f"echo >> {container.MODEL}"]).exit_code != 0


def test_an_exception_leaves_no_container(engine: DockerClient, sleeping_image: str) -> None:
    names = []

    def fail() -> None:
        with container.running(engine, Launch(sleeping_image)) as running:
            names.append(running.name)
            assert running.state().running
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with pytest.raises(NotFound):
        engine.containers.get(names[0])


def test_a_container_that_vanishes_is_an_engine_error(
    engine: DockerClient, sleeping_image: str
) -> None:
    with container.running(engine, Launch(sleeping_image)) as running:
        engine.containers.get(running.name).remove(force=True)
        with pytest.raises(EngineError, match="did not say how the container is"):
            running.state()


@pytest.mark.parametrize("step", ["starting the server", "waiting for the server to get ready"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_no_container(
    engine: DockerClient, sleeping_image: str, step: str, number: signal.Signals
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, sleeping_image], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert step in (line.strip() for line in child.stdout)
        child.send_signal(number)
        code = child.wait(timeout=30)
    # SIGTERM ends the process in its own way as long as there is no container to remove.
    assert code == 130 or (step, code) == ("starting the server", -signal.SIGTERM)
    assert containers_of(engine, sleeping_image) == []
