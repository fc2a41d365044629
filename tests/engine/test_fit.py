"""What `fit` reads in a header, against what the real server reports of the same model."""

import dataclasses
import re
import time
from pathlib import Path

import pytest
from docker import DockerClient

from builder.engine.image_target import ImageTarget
from builder.llama.flags import server_args
from builder.llama.gguf import file as gguf_file
from builder.llama.gguf import memory
from builder.llama.gguf.kv_types import kv_types
from builder.llama.slots import launch_slots
from builder.model.pins import Kv, Pins, Profile
from tests.support import shapes

pytestmark = pytest.mark.engine

PROFILE = Profile("fit", parallel=2, slot_tokens=8192)
SLOTS = launch_slots(PROFILE, PROFILE.slot_tokens, "slots")
MIB = 1024 * 1024
PRINTED = 0.005 * MIB
"""The log gives two decimals of a MiB."""
BUFFER = re.compile(r"(?P<what>model|KV|RS|compute) buffer size = +(?P<mib>[\d.]+) MiB")


@pytest.fixture(scope="module", params=sorted(shapes.SHAPES))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shapes.write(tmp_path_factory.mktemp("shape"), request.param)


@pytest.fixture(scope="module", params=["f16", "q4_0"])
def kv(request: pytest.FixtureRequest) -> Kv:
    return Kv(request.param, request.param)


@pytest.fixture(scope="module")
def reported(
    engine: DockerClient, mainline_cpu_image: str, model: Path, kv: Kv
) -> dict[str, float]:
    """Bytes of the server's buffers, by what they hold."""
    return buffers(ImageTarget("mainline-cpu", mainline_cpu_image, engine, {}), PROFILE, kv, model)


def buffers(target: ImageTarget, profile: Profile, kv: Kv, model: Path) -> dict[str, float]:
    with target.serve(server_args(profile, kv, frozenset()), model) as serving:
        deadline = time.monotonic() + 120
        while "compute buffer size" not in serving.log():
            assert time.monotonic() < deadline, serving.log()
        log = serving.log()
    found: dict[str, float] = {}
    for match in BUFFER.finditer(log):
        found[match["what"]] = found.get(match["what"], 0) + float(match["mib"]) * MIB
    return found


def test_the_server_reports_what_the_header_tells(
    model: Path, kv: Kv, reported: dict[str, float], real_pins: Pins
) -> None:
    told = memory.model(gguf_file.read(model))
    seen = {"RS": 0.0} | {what: size for what, size in reported.items() if what != "compute"}
    need = memory.kv_need(told.shape, kv, kv_types(real_pins, "mainline"), SLOTS)
    assert need is not None
    assert {
        "model": told.weights.without_card,
        "KV": need.total,
        "RS": memory.state_bytes(told.shape, SLOTS),
    } == pytest.approx(seen, rel=0.01, abs=PRINTED)


def test_the_compute_buffer_is_estimated_within_a_quarter(
    model: Path, reported: dict[str, float]
) -> None:
    if model.stem == "lightning":
        pytest.skip("lightning attention takes more, which is not estimated")
    estimate = memory.compute_bytes(memory.model(gguf_file.read(model)), SLOTS)
    assert estimate == pytest.approx(reported["compute"], rel=0.25)


@pytest.mark.parametrize(
    "changes",
    [{"flags": ["--swa-full", "-ub", "256"]}, {"kv_unified": True, "flags": ["-ub", "1024"]}],
    ids=["swa-full", "unified"],
)
def test_what_a_profile_says_of_caches_and_batches_is_counted(
    engine: DockerClient,
    mainline_cpu_image: str,
    tmp_path: Path,
    real_pins: Pins,
    changes: dict[str, object],
) -> None:
    profile, kv = dataclasses.replace(PROFILE, **changes), Kv("f16", "f16")  # type: ignore[arg-type]
    model = shapes.write(tmp_path, "window")
    target = ImageTarget("mainline-cpu", mainline_cpu_image, engine, {})
    seen = buffers(target, profile, kv, model)
    told, slots = memory.model(gguf_file.read(model)), launch_slots(profile, 8192, "slots")
    need = memory.kv_need(told.shape, kv, kv_types(real_pins, "mainline"), slots)
    assert need is not None
    assert need.total == pytest.approx(seen["KV"], rel=0.01)
    assert memory.compute_bytes(told, slots) == pytest.approx(seen["compute"], rel=0.25)
