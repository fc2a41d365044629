"""What `fit` reads in a header, against what the real server reports of the same model."""

import re
import time
from pathlib import Path

import pytest
from docker import DockerClient

from builder import gguf_file, memory
from builder.image_target import ImageTarget
from builder.memory import Slots
from builder.model import Kv, Pins, Profile
from builder.probe.kv import kv_types
from builder.server_args import server_args
from tests import shapes

pytestmark = pytest.mark.engine

SLOTS = Slots(count=2, tokens=8192)
PROFILE = Profile("fit", parallel=SLOTS.count, slot_tokens=SLOTS.tokens)
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
    target = ImageTarget("mainline-cpu", mainline_cpu_image, engine, {})
    with target.serve(server_args(PROFILE, kv, frozenset()), model) as serving:
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
    estimate = memory.compute_bytes(memory.model(gguf_file.read(model)), SLOTS)
    assert estimate == pytest.approx(reported["compute"], rel=0.25)
