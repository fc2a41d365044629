"""Audits of the real image, and of images that differ from it by one change."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient
from docker.types import DeviceRequest

from builder.audit.run import RULES, AuditReport, audit, to_json
from builder.build import receipts as receipt
from builder.common.errors import RefNotFoundError, UsageError
from builder.engine import containers as container
from builder.model.pins import BaseImage, Pins, Receipt
from tests.conftest import Recorder, builder
from tests.support.elf_bytes import elf
from tests.support.fatbin_bytes import SASS, unit

pytestmark = pytest.mark.engine

Audit = Callable[..., AuditReport]

# Of the shape that the service gives out; it opens nothing.
TOKEN = "ghp_" + "Ab3dE6gH1jK4mN7pQ0sT9vW2yZ5aC8eF1hJ4"
AS_ROOT = "USER root\nRUN {}\nUSER 10001:10001\n"

# Dockerfile lines on the good image → the rules that fail, and nothing else does.
FAULTS = {
    "a soname missing": (
        AS_ROOT.format("rm /opt/llama/libllama-common.so.0"),
        # The server does not start: it cannot say what it is.
        {"needs", "kv_types", "version"},
    ),
    "libgomp removed": (
        AS_ROOT.format("rm /usr/lib/x86_64-linux-gnu/libgomp.so.1"),
        {"libgomp", "kv_types", "version"},
    ),
    "a build path": ("COPY runpath.so /opt/llama/libextra.so", {"runpath"}),
    "a stub": (AS_ROOT.format("touch /usr/lib/x86_64-linux-gnu/libcuda.so"), {"stub"}),
    "a compiler": (AS_ROOT.format("touch /usr/bin/gcc-14"), {"leftovers"}),
    "apt lists": (AS_ROOT.format("touch /var/lib/apt/lists/x"), {"leftovers"}),
    "a path for everybody": (AS_ROOT.format("chmod 777 /models"), {"permissions"}),
    "a setuid file": (AS_ROOT.format("chmod u+s /opt/llama/llama-server"), {"permissions"}),
    "a token": (AS_ROOT.format(f"echo {TOKEN[:9]}''{TOKEN[9:]} >/srv/x"), {"secrets"}),
    "a token that is gone": (
        AS_ROOT.format(f"echo {TOKEN[:9]}''{TOKEN[9:]} >/srv/x") + AS_ROOT.format("rm /srv/x"),
        {"secrets"},
    ),
    "a token in the history": (AS_ROOT.format(f": {TOKEN}"), {"secrets"}),
    "device code": ("COPY cuda.so /opt/llama/libextra.so", {"device_code"}),
    "native code": ("COPY avx.so /opt/llama/libextra.so", {"cpu_baseline"}),
    "root": ("USER 0", {"user"}),
    "a shell as PID 1": ('ENTRYPOINT exec /opt/llama/llama-server "$0" "$@"', {"entrypoint"}),
    "no healthcheck": ("HEALTHCHECK NONE", {"healthcheck"}),
    "another commit": (
        f"LABEL org.opencontainers.image.revision={'d' * 40}",
        {"labels", "version"},
    ),
    "too large": (AS_ROOT.format("head -c 20000000 /dev/zero >/srv/x"), {"size"}),
}  # fmt: skip


@pytest.fixture
def run(
    engine: DockerClient,
    mainline_cpu_image: str,
    real_pins: Pins,
    progress: Recorder,
    tmp_path: Path,
) -> Audit:
    """An audit of the good image, unless another is named."""

    def start(image: str = mainline_cpu_image, **options: Any) -> AuditReport:
        given = {"pins": real_pins, "results": tmp_path, "progress": progress}
        return audit(engine, image, **given | options)

    return start


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the changed images copy."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "avx.so").write_bytes(elf(code=bytes.fromhex("c5f058c2")))
    (folder / "cuda.so").write_bytes(elf(fatbin=unit((SASS, 86))))
    (folder / "runpath.so").write_bytes(elf(tags=(("runpath", "/src/build/bin"),)))
    return folder


@contextlib.contextmanager
def changed(engine: DockerClient, image: str, files: Path, lines: str) -> Iterator[str]:
    """The image with more Dockerfile lines."""
    (files / "Dockerfile").write_text(f"FROM {image}\n{lines}\n", encoding="utf-8")
    made, _ = engine.images.build(path=str(files), rm=True, forcerm=True)
    try:
        yield str(made.id)
    finally:
        engine.images.remove(str(made.id), force=True)


def statuses(report: AuditReport) -> dict[str, str]:
    return {finding.probe: finding.status for finding in report.findings}


def observed(report: AuditReport, rule: str) -> str:
    return next(finding.observed for finding in report.findings if finding.probe == rule)


def failed(report: AuditReport) -> set[str]:
    return {rule for rule, status in statuses(report).items() if status == "fail"}


def test_a_good_image_passes_every_rule(
    run: Audit, engine: DockerClient, mainline_cpu_image: str
) -> None:
    report = run()
    assert statuses(report) == {rule.__name__: "pass" for rule in RULES}
    assert report.image_id == engine.images.get(mainline_cpu_image).id
    assert report.variant == "mainline-cpu"


def test_a_cpu_variant_is_read_beside_a_gpu_that_the_engine_cannot_give(
    run: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = DeviceRequest(driver="nvidia", count=-1, capabilities=[["gpu"]])
    monkeypatch.setattr(container, "gpu_requests", lambda _info: [asked])
    assert statuses(run()) == {rule.__name__: "pass" for rule in RULES}


def test_its_size_is_what_docker_says(
    run: Audit, engine: DockerClient, mainline_cpu_image: str
) -> None:
    size = engine.images.get(mainline_cpu_image).attrs["Size"]
    assert run().size_bytes == pytest.approx(size, rel=0.01)


def test_its_largest_files_are_ten_and_sorted(run: Audit) -> None:
    sizes = [file.size_bytes for file in run().largest]
    assert (len(sizes), sizes) == (10, sorted(sizes, reverse=True))


@pytest.mark.parametrize("fault", FAULTS)
def test_one_change_fails_its_rule_alone(
    run: Audit, engine: DockerClient, mainline_cpu_image: str, files: Path, fault: str
) -> None:
    lines, rules = FAULTS[fault]
    with changed(engine, mainline_cpu_image, files, lines) as image:
        assert failed(run(image)) == rules


def test_a_token_is_never_told(
    run: Audit, engine: DockerClient, mainline_cpu_image: str, files: Path
) -> None:
    with changed(engine, mainline_cpu_image, files, FAULTS["a token in the history"][0]) as image:
        assert TOKEN not in to_json(run(image))


def test_a_variant_whose_types_the_server_lacks(run: Audit) -> None:
    report = run(variant="spiritbuun-cpu")
    assert observed(report, "kv_types").startswith("-ctk does not offer turbo4")


def test_the_receipt_of_the_very_image_is_believed(
    run: Audit, mainline_cpu_receipt: dict[str, Any], tmp_path: Path
) -> None:
    bases = [BaseImage(**base) for base in mainline_cpu_receipt["bases"]]
    built = Receipt(**{**mainline_cpu_receipt, "bases": bases, "stages": [], "ccache": None})
    receipt.write(built, tmp_path)
    assert "agree with pins, receipt and Dockerfile" in observed(run(), "labels")
    receipt.write(dataclasses.replace(built, commit="d" * 40, created="2099-01-01"), tmp_path)
    assert failed(run()) == {"labels"}


def test_an_image_of_somebody_else_is_judged_where_no_variant_is_needed(
    run: Audit, mainline_cpu_receipt: dict[str, Any]
) -> None:
    runtime = next(one for one in mainline_cpu_receipt["bases"] if one["role"] == "runtime")
    report = run(runtime["reference"])
    assert report.variant is None
    assert failed(report) == {"version", "user", "entrypoint", "healthcheck"}
    assert {rule for rule, status in statuses(report).items() if status == "unproven"} == {
        "device_code",
        "cpu_baseline",
        "kv_types",
        "labels",
        "size",
        # It is one layer, so its setuid files may be anybody's.
        "permissions",
    }


def test_an_unknown_variant_is_a_usage_error(run: Audit, progress: Recorder) -> None:
    with pytest.raises(UsageError, match="unknown variant"):
        run(variant="mainline-cpux")
    assert progress.steps == []


def test_an_image_that_is_not_there(run: Audit) -> None:
    with pytest.raises(RefNotFoundError, match="no image"):
        run("turboquant:no-such-tag")


def test_the_command_says_no_with_exit_1_and_json(
    engine: DockerClient, mainline_cpu_image: str, files: Path
) -> None:
    with changed(engine, mainline_cpu_image, files, "USER 0") as image:
        result = builder("audit", image, "--json")
    found = json.loads(result.stdout)
    assert (result.returncode, found["schema"], found["passed"]) == (1, 1, False)
    assert [one["probe"] for one in found["findings"]] == [rule.__name__ for rule in RULES]


def test_the_command_puts_the_verdict_on_top(mainline_cpu_image: str) -> None:
    result = builder("audit", mainline_cpu_image)
    assert result.returncode == 0, result.stdout
    verdict = f"PASS  {mainline_cpu_image} as mainline-cpu: every rule holds"
    assert result.stdout.startswith(verdict)
    assert "MB  /opt/llama/" in result.stdout


def test_an_interrupt_leaves_no_container(
    run: Audit,
    engine: DockerClient,
    mainline_cpu_image: str,
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_words: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("builder.image.files.layers", interrupted)
    with changed(engine, mainline_cpu_image, files, "LABEL one=more") as image:
        with pytest.raises(KeyboardInterrupt):
            run(image)
        filters = {"ancestor": image, "label": container.LABEL}
        assert engine.containers.list(all=True, filters=filters) == []
