"""Smokes of the real image on the real engine, and of what is wrong with it."""

import dataclasses
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from docker import DockerClient
from docker.errors import NotFound
from docker.types import DeviceRequest

from builder.common.errors import EngineError, RefNotFoundError, UsageError
from builder.common.progress import Silent
from builder.engine import containers as container
from builder.engine import leftovers
from builder.engine.containers import Launch
from builder.engine.file_access import COPY_BYTES
from builder.llama import client as server
from builder.llama import container_paths
from builder.llama.client import Server
from builder.llama.flags import server_args
from builder.llama.gguf.scripted import LAYERS, scripted_model
from builder.model.labels import VARIANT
from builder.model.pins import Kv, Pins, Profile
from builder.smoke import servers as launches
from builder.smoke.options import Options
from builder.smoke.report import SmokeReport, to_json
from builder.smoke.run import PROFILE, smoke_binary, smoke_image, smoke_url
from tests.conftest import ROOT, Recorder, builder

pytestmark = pytest.mark.engine

Smoke = Callable[..., SmokeReport]

# It answers --help, and no other question.

CHILD = """
import pathlib, sys
from builder.engine import client as engine
from builder.pins import load as pins
from builder.smoke import run as smoke
from builder.model.pins import Kv
from builder.smoke.options import Options

class Told:
    def step(self, text): print(text, flush=True)
    def detail(self, text): pass
    def warn(self, text): pass

try:
    options = Options(kv=Kv("q4_0", "q4_0"))
    everything = pins.load(pathlib.Path("pins.toml"))
    smoke.smoke_image(engine.connect(), sys.argv[1], everything, options, pathlib.Path(), Told())
except KeyboardInterrupt:
    sys.exit(130)
"""

REFUSED = [DeviceRequest(driver="nvidia", count=-1, capabilities=[["gpu"]])]
"""What an engine without a GPU, such as this one, refuses with its container."""

ALL_BUT_GPU = {
    "ready": "pass",
    "identity": "pass",
    "slots": "pass",
    "thinking": "pass",
    "thinking_by_request": "pass",
    "load": "pass",
    "determinism": "pass",
    "kv": "pass",
    "offload": "unproven",
    "stop": "pass",
    "healthcheck": "pass",
}


@pytest.fixture
def run(
    engine: DockerClient,
    mainline_cpu_image: str,
    real_pins: Pins,
    progress: Recorder,
    tmp_path: Path,
) -> Smoke:
    """A smoke of the good image, unless another is named."""

    def start(
        image: str = mainline_cpu_image, pins: Pins = real_pins, **options: object
    ) -> SmokeReport:
        chosen = Options(**{"kv": Kv("q4_0", "q4_0"), **options})
        return smoke_image(engine, image, pins, chosen, tmp_path, progress)

    return start


@pytest.fixture(scope="module")
def good(engine: DockerClient, mainline_cpu_image: str, real_pins: Pins) -> SmokeReport:
    """The report on the good image, as its variant asks for it."""
    return smoke_image(engine, mainline_cpu_image, real_pins, Options(), Path(), Silent())


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


def test_a_good_image_passes(
    good: SmokeReport, engine: DockerClient, mainline_cpu_image: str
) -> None:
    assert statuses(good) == ALL_BUT_GPU
    assert good.passed
    assert good.image_id == engine.images.get(mainline_cpu_image).id
    assert good.ready_s is not None
    assert 0 < good.ready_s < good.duration_s
    assert good.log == ""


def test_a_verdict_stands_where_its_logs_cannot_be_written(
    mainline_cpu_image: str, tmp_path: Path
) -> None:
    (tmp_path / "pins.toml").write_bytes((ROOT / "pins.toml").read_bytes())
    (tmp_path / "build").write_text("in the way")
    words = ["smoke", mainline_cpu_image, "--variant", "spiritbuun-cpu"]
    result = builder(*words, "--junit", "/dev/full", "--pins", tmp_path / "pins.toml")
    assert (result.returncode, result.stdout.startswith("FAIL ")) == (1, True)
    assert result.stderr.count("warning: the servers' logs are not kept: ") == 1
    assert "error: /dev/full: No space left on device" in result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"pins.toml", "build"}


def test_the_variant_says_which_kv_type_is_asked_for(good: SmokeReport) -> None:
    assert good.kv.asked == Kv("q4_0", "q4_0")
    assert [(one.k, one.v, one.layers) for one in good.kv.in_effect] == [("q4_0", "q4_0", LAYERS)]


def test_a_report_as_json(good: SmokeReport) -> None:
    found = json.loads(to_json(good))
    assert (found["schema"], found["passed"], found["failed"], found["missing"]) == (
        2,
        True,
        [],
        [],
    )
    assert found["kv"]["asked"] == {"k": "q4_0", "v": "q4_0"}
    assert found["kv"]["status"] == "pass"
    assert [one["probe"] for one in found["findings"]] == list(ALL_BUT_GPU)


def test_a_variant_that_the_pins_lack_needs_a_type(run: Smoke, real_pins: Pins) -> None:
    with pytest.raises(UsageError, match="no KV type") as caught:
        run(pins=dataclasses.replace(real_pins, variants={}), kv=None)
    assert "mainline-cpu" in caught.value.why


@pytest.fixture
def engine_with_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine says that it has a GPU, and hands out none."""
    monkeypatch.setattr(container, "has_gpu", lambda _client: True)


@pytest.mark.usefixtures("engine_with_gpu")
def test_a_cpu_variant_beside_a_gpu_is_judged_as_without_one(
    run: Smoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    # This engine refuses to give what is asked for: a CPU image asks for nothing.
    monkeypatch.setattr(container, "gpu_requests", lambda _info: REFUSED)
    report = run()
    assert statuses(report) == ALL_BUT_GPU
    assert (report.passed, report.required) == (True, [])
    assert "built for the CPU alone" in observed(report, "offload")


@pytest.mark.usefixtures("engine_with_gpu")
def test_a_variant_with_cuda_beside_a_gpu_has_to_use_it(
    run: Smoke, engine: DockerClient, mainline_cpu_image: str
) -> None:
    made = engine.containers.create(mainline_cpu_image)
    # A build that lost its GPU code: the CPU image under another variant's label.
    image = made.commit(changes=f"LABEL {VARIANT}=mainline-cuda12-sm86")
    made.remove()
    try:
        report = run(str(image.id))
    finally:
        engine.images.remove(image.id)
    assert statuses(report) == {**ALL_BUT_GPU, "offload": "fail"}
    assert "no layer is on a GPU" in observed(report, "offload")
    assert (report.passed, report.required) == (False, ["kv"])


def test_another_type_is_proven_as_itself(run: Smoke) -> None:
    report = run(kv=Kv("q8_0", "q8_0"))
    assert statuses(report) == ALL_BUT_GPU
    assert [(one.k, one.v) for one in report.kv.in_effect] == [("q8_0", "q8_0")]


def test_a_sliding_window_has_two_caches(run: Smoke) -> None:
    report = run(model="scripted-swa", require=frozenset({"contract"}))
    assert report.passed
    assert report.model == "scripted-swa"
    assert {one.cache for one in report.kv.in_effect} == {"full", "window"}
    assert {one.k for one in report.kv.in_effect} == {"q4_0"}


def test_a_profile_that_thinks_is_asked_for_thoughts(run: Smoke, real_pins: Pins) -> None:
    thinking = Profile("thinker", parallel=1, slot_tokens=1024, thinking=True)
    pins = dataclasses.replace(real_pins, profiles={"thinker": thinking})
    report = run(pins=pins, profile="thinker")
    assert statuses(report) == {**ALL_BUT_GPU, "thinking_by_request": "unproven"}


NEVER_READY = {
    **dict.fromkeys(ALL_BUT_GPU, "unproven"),
    "ready": "fail",
}


def test_a_server_that_refuses_its_flags_fails_at_once(run: Smoke) -> None:
    report = run(env={"LLAMA_ARG_CACHE_TYPE_K": "turbo9"})
    assert not report.passed
    assert statuses(report) == NEVER_READY
    assert "exit code 1" in observed(report, "ready")
    assert "Unsupported cache type: turbo9" in Path(report.log).read_text()
    assert report.ready_s is None


def test_a_kv_type_that_the_image_does_not_know_is_a_usage_error(run: Smoke) -> None:
    with pytest.raises(UsageError, match="knows no KV type turbo9"):
        run(kv=Kv("turbo9", "turbo9"))


def test_a_server_that_exits_while_loading_fails_at_once(
    run: Smoke, model: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(model.read_bytes()[:1_000_000])
    report = run(model=str(cut))
    assert statuses(report) == NEVER_READY
    assert "exit code 1" in observed(report, "ready")
    assert "failed to load model" in Path(report.log).read_text()


def test_a_server_that_is_never_healthy_fails_at_the_deadline(
    run: Smoke, sleeping_image: str
) -> None:
    report = run(sleeping_image, timeout_s=1.0)
    assert statuses(report) == NEVER_READY
    assert observed(report, "ready").startswith("no answer after ")


ASKS_8080 = (
    "exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET /health HTTP/1.0\\r\\n\\r\\n' >&3"
    " && read -r _ status _ <&3 && [[ $status == 200 ]]"
)


def test_a_check_that_the_engine_runs_rarely_and_on_the_default_port_alone_passes(
    run: Smoke, engine: DockerClient, mainline_cpu_image: str
) -> None:
    # As llama.cpp's own images have it: without --start-interval, 8080 in the clear.
    made = engine.containers.create(mainline_cpu_image)
    image = made.commit(
        changes=f"HEALTHCHECK --interval=5m CMD {json.dumps(['bash', '-c', ASKS_8080])}"
    )
    made.remove()
    try:
        report = run(str(image.id))
    finally:
        engine.images.remove(image.id)
    assert statuses(report)["healthcheck"] == "pass"
    assert observed(report, "healthcheck").endswith("it is about port 8080 alone")


def test_a_server_that_runs_already_is_asked_and_left_running(
    engine: DockerClient, mainline_cpu_image: str, real_pins: Pins, model: Path
) -> None:
    options = Options(variant="mainline-cpu", require=frozenset({"contract"}))
    arguments = server_args(PROFILE, Kv("q4_0", "q4_0"), frozenset())
    launch = Launch(mainline_cpu_image, ["-m", container_paths.MODEL, *arguments], model=model)
    with container.running(engine, launch) as running:
        report = smoke_url(running.url, real_pins, options, Silent())
        assert running.state().running
    asked = ("ready", "identity", "slots", "thinking", "load", "determinism")
    assert {probe for probe, status in statuses(report).items() if status == "pass"} >= {*asked}
    assert report.failed == []
    assert report.missing == ["stop", "healthcheck"]
    assert report.kv.status == "unproven"


def test_a_program_is_smoked_like_an_image(
    engine: DockerClient, mainline_cpu_image: str, real_pins: Pins, tmp_path: Path
) -> None:
    program = unpacked(engine, mainline_cpu_image, tmp_path / "root")
    options = Options(variant="mainline-cpu")
    with socket.create_server(("127.0.0.1", launches.MOVED_PORT)) as somebody_else:
        somebody_else.setblocking(False)
        report = smoke_binary(program, real_pins, options, tmp_path, Silent())
        with pytest.raises(BlockingIOError):
            somebody_else.accept()
    assert report.profile.alias.startswith(f"{PROFILE.alias}-")
    assert statuses(report) == {**ALL_BUT_GPU, "healthcheck": "unproven"}
    assert report.passed


def unpacked(engine: DockerClient, image: str, root: Path) -> Path:
    """The image's files in a folder, and a program there that runs its server on this machine."""
    made = engine.containers.create(image)
    try:
        # By tar: Debian 12's Python 3.11.2 has no extraction filters.
        root.mkdir()
        command = ["tar", "--extract", "--directory", str(root)]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as tar:
            assert tar.stdin is not None
            for chunk in made.export():
                tar.stdin.write(chunk)
    finally:
        made.remove()
    program = root / "llama-server"
    # Its own loader and libraries: this machine's may be older. Its backends are looked for beside
    # the program, which is the loader then.
    program.write_text(
        "#!/bin/sh\n"
        f"export GGML_BACKEND_PATH={root}/opt/llama/libggml-cpu.so\n"
        f"exec {root}/lib64/ld-linux-x86-64.so.2 --library-path "
        f'{root}/opt/llama:{root}/usr/lib/x86_64-linux-gnu {root}/opt/llama/llama-server "$@"\n'
    )
    program.chmod(0o755)
    return program


def test_a_port_that_is_taken_is_named(engine: DockerClient, sleeping_image: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        launch = Launch(sleeping_image, port=port, reach="published")
        with (
            pytest.raises(EngineError, match=f"port {port} on 127.0.0.1 is taken") as caught,
            container.running(engine, launch),
        ):
            pass
    assert caught.value.exit_code == 4


def test_a_port_that_is_free_is_used(engine: DockerClient, sleeping_image: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with container.running(engine, Launch(sleeping_image, port=port, reach="published")) as running:
        assert running.url == f"http://127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "it is empty"),
        (b"GG", "it begins with b'GG'"),
        (b"\x80\x02}q\x00pickle", "it is a PyTorch file"),
        (b"GGUF", "cut short"),
        (b"GGUF\x00\x00\x00\x03", "it is a big-endian GGUF"),
    ],
)
def test_a_file_that_is_no_gguf_starts_nothing(
    run: Smoke, progress: Recorder, tmp_path: Path, content: bytes, found: str
) -> None:
    wrong = tmp_path / "model.gguf"
    wrong.write_bytes(content)
    with pytest.raises(UsageError, match=str(wrong)) as caught:
        run(model=str(wrong))
    assert found in caught.value.why
    assert progress.steps == []


def test_a_model_that_is_not_there_starts_nothing(run: Smoke, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        run(model=str(tmp_path / "none.gguf"))
    with pytest.raises(UsageError, match="cannot be read"):
        run(model=str(tmp_path))


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
    engine: DockerClient,
    mainline_cpu_image: str,
    model: Path,
    tmp_path: Path,
    mode: int,
    size: int | None,
) -> None:
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    mine = folder / "model.gguf"
    mine.write_bytes(model.read_bytes())
    if size is not None:
        os.truncate(mine, size)
    mine.chmod(mode)
    launch = Launch(mainline_cpu_image, ["-m", container_paths.MODEL, "-c", "512"], model=mine)
    with container.running(engine, launch) as running, server.session() as session:
        asked = Server(running.url, session, PROFILE)
        assert launches.already_running(asked, 60, Silent()).ready
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
        read = inside.exec_run(["head", "-c", "4", container_paths.MODEL])
        assert (read.exit_code, read.output) == (0, b"GGUF")
        assert inside.exec_run(["bash", "-c", f"echo >> {container_paths.MODEL}"]).exit_code != 0


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


def ps() -> str:
    result = builder("ps")
    assert result.returncode == 0, result.stderr
    return result.stderr


def stop_all() -> str:
    # Of a stack that nobody has: no server of this machine is stopped.
    result = builder("stop", "--all", env=os.environ | {"BUILDER_STACK": "nobody"})
    assert result.returncode == 0, result.stderr
    return result.stderr


@pytest.mark.parametrize("next_command", [ps, stop_all, "smoke"])
def test_a_server_that_a_killed_smoke_left_is_removed_by_the_next_command(
    engine: DockerClient, sleeping_image: str, next_command: Callable[[], str] | str, run: Smoke
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, sleeping_image], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert any("control server" in line for line in child.stdout)
        while not (left := containers_of(engine, sleeping_image)):
            assert child.poll() is None
        # While its builder lives it is nobody else's to touch.
        assert not set(left) & set(leftovers.remove(engine, Silent()).removed)
        child.send_signal(signal.SIGKILL)
    if callable(next_command):
        next_command()
    else:
        run(sleeping_image, timeout_s=0.1)
    assert containers_of(engine, sleeping_image) == []


@pytest.mark.parametrize("step", ["reading --help", "control server: f16 KV, the other thinking"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_no_container(
    engine: DockerClient, sleeping_image: str, step: str, number: signal.Signals
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, sleeping_image], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert step in (line.strip() for line in child.stdout)
        child.send_signal(number)
        code = child.wait(timeout=30)
    # SIGTERM ends the process in its own way whenever there is no container to remove.
    assert code == 130 or (number, code) == (signal.SIGTERM, -signal.SIGTERM)
    assert containers_of(engine, sleeping_image) == []
