"""The KV type in effect on the real server: bytes and numbers, each by itself, tell types apart."""

import time
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path

import pytest
from docker import DockerClient

from builder.engine.image_target import ImageTarget
from builder.llama import client as probe_server
from builder.llama.client import Server
from builder.llama.flags import server_args
from builder.llama.gguf import shape as gguf_shape
from builder.llama.gguf.kv_types import kv_types
from builder.llama.gguf.scripted import scripted_model
from builder.model.pins import Kv, KvType, Pins, Profile
from builder.smoke.probes import kv_numbers
from builder.smoke.probes.kv import KvEvidence, judge
from builder.smoke.probes.kv_numbers import Asked, Numbers

pytestmark = pytest.mark.engine

PROFILE = Profile("kv", parallel=2, slot_tokens=2048)

F16, Q8, Q4 = (Kv(name, name) for name in ("f16", "q8_0", "q4_0"))
V_DROPPED = Kv("q4_0", "f16")
HELD = (F16, Q8, Q4, V_DROPPED)


@dataclass(frozen=True)
class Seen:
    """What one server logged and answered."""

    log: str
    answers: Asked


@dataclass(frozen=True)
class Runs:
    """A server of each type, and the control's answers once more."""

    model: Path
    types: dict[str, KvType]
    of: dict[Kv, Seen]
    again: Asked

    def evidence(self, asked: Kv, held: Kv) -> KvEvidence:
        """As if `asked` had been asked of a server that holds another type."""
        numbers = kv_numbers.compare(self.of[held].answers, self.of[F16].answers, self.again)
        shape = gguf_shape.read(self.model)
        return KvEvidence(asked, self.types, PROFILE, self.of[held].log, shape, numbers)


@pytest.fixture(scope="module")
def runs(
    engine: DockerClient,
    mainline_cpu_image: str,
    real_pins: Pins,
    tmp_path_factory: pytest.TempPathFactory,
) -> Runs:
    model = scripted_model(tmp_path_factory.mktemp("model"))
    target = ImageTarget("mainline-cpu", mainline_cpu_image, engine, {})
    seen = {held: _see(target, model, held) for held in HELD}
    again = _see(target, model, F16).answers
    return Runs(model, kv_types(real_pins, "mainline"), seen, again)


def _see(target: ImageTarget, model: Path, held: Kv) -> Seen:
    arguments = server_args(PROFILE, held, frozenset())
    with (
        target.serve(arguments, model) as serving,
        probe_server.session() as session,
    ):
        server = Server(serving.url, session, PROFILE)
        _wait(server)
        return Seen(answers=kv_numbers.ask(server), log=serving.log())


def _wait(server: Server) -> None:
    deadline = time.monotonic() + 60
    while probe_server.get(server, "/health").status != 200:
        assert time.monotonic() < deadline


@pytest.mark.parametrize("asked", [F16, Q8, Q4], ids=str)
def test_the_type_in_effect_passes(runs: Runs, asked: Kv) -> None:
    verdict = judge(runs.evidence(asked, asked))
    assert (verdict.in_words, verdict.status) == (f"{asked} asked, {asked} in effect", "pass")


@pytest.mark.parametrize(
    ("asked", "held"),
    list(permutations([F16, Q8, Q4], 2)),
    ids=str,
)
def test_bytes_alone_tell_another_type(runs: Runs, asked: Kv, held: Kv) -> None:
    verdict = judge(replace(runs.evidence(asked, held), numbers=None))
    assert (verdict.in_words, verdict.status) == (f"{asked} asked, {held} in effect", "fail")


@pytest.mark.parametrize(
    ("asked", "held"),
    list(permutations([F16, Q8, Q4], 2)),
    ids=str,
)
def test_numbers_alone_tell_another_type(runs: Runs, asked: Kv, held: Kv) -> None:
    verdict = judge(replace(runs.evidence(asked, held), log=None))
    assert (verdict.in_words, verdict.status) == (f"{asked} asked, unknown in effect", "fail")


def test_a_v_that_was_dropped_shows_in_bytes_and_in_numbers(runs: Runs) -> None:
    whole = runs.evidence(Q4, V_DROPPED)
    assert (judge(whole).in_words, judge(whole).status) == (
        "q4_0 asked, K q4_0, V f16 in effect",
        "fail",
    )
    assert judge(replace(whole, log=None)).status == "fail"
    assert judge(replace(whole, numbers=None)).status == "fail"


def test_two_runs_of_one_type_answer_alike_to_the_last_digit(runs: Runs) -> None:
    assert runs.again == runs.of[F16].answers


def test_the_whole_vocabulary_is_listed(runs: Runs) -> None:
    assert {len(one) for one in runs.of[F16].answers.distributions} == {261}


def test_what_a_type_does_is_in_the_middle_of_its_band(runs: Runs) -> None:
    for held in (Q8, Q4):
        numbers = runs.evidence(held, held).numbers
        band = runs.types[held.k].band
        assert isinstance(numbers, Numbers)
        assert band is not None
        assert band.kl[0] * 1.3 < numbers.distance.kl < band.kl[1] / 1.5
