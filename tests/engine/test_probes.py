"""Every probe on the real image: what is right passes, and what is launched wrong is seen."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from docker import DockerClient

from builder.engine import containers as container
from builder.engine.containers import Launch, Running
from builder.llama import client as probe_server
from builder.llama import container_paths
from builder.llama.client import Script, Server, get, post, stream
from builder.llama.gguf.scripted import REPLY, THOUGHT, scripted_model
from builder.model.finding import Finding
from builder.model.pins import Profile
from builder.smoke.probes.determinism import determinism
from builder.smoke.probes.identity import identity
from builder.smoke.probes.load import load
from builder.smoke.probes.offload import decode_speed, offload
from builder.smoke.probes.slots import slots
from builder.smoke.probes.thinking import reasoning, thinking, thinking_by_request

pytestmark = pytest.mark.engine

SCRIPT = Script(REPLY, THOUGHT)
# The longest prompt of a slot of 2,048 takes five seconds of both cores; of these, half a second.
PROFILE = Profile("the-alias", parallel=2, slot_tokens=512)
THINKING_FLAGS = {
    False: ["--reasoning", "off", "--chat-template-kwargs", '{"enable_thinking": false}'],
    True: ["--reasoning", "on", "--chat-template-kwargs", '{"enable_thinking": true}'],
}


@dataclasses.dataclass(frozen=True)
class Started:
    server: Server
    running: Running


Start = Callable[..., AbstractContextManager[Started]]


PROBES: dict[str, Callable[[Server], Finding]] = {
    "identity": identity,
    "slots": slots,
    "thinking": lambda server: thinking(server, None),
    "thinking_by_request": thinking_by_request,
    "load": load,
    "determinism": determinism,
}


def flags(profile: Profile) -> list[str]:
    return [
        *("-m", container_paths.MODEL, "--alias", profile.alias),
        *("-c", str(profile.parallel * profile.slot_tokens), "-np", str(profile.parallel)),
        *("-ctk", "q4_0", "-ctv", "q4_0", "-fa", "on", "-lv", "4", "--jinja"),
        *THINKING_FLAGS[bool(profile.thinking)],
    ]


@pytest.fixture(scope="module")
def start(
    engine: DockerClient, mainline_cpu_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Start:
    """Starts the real server, with more flags after the profile's; it is ready when it is given."""
    model = scripted_model(tmp_path_factory.mktemp("model"))
    commit = container.image_labels(engine, mainline_cpu_image)["org.opencontainers.image.revision"]

    @contextmanager
    def started(*more: str, profile: Profile = PROFILE) -> Iterator[Started]:
        launch = Launch(mainline_cpu_image, [*flags(profile), *more], model=model)
        with container.running(engine, launch) as running, probe_server.session() as session:
            server = Server(running.url, session, profile, commit, SCRIPT)
            deadline = time.monotonic() + 30
            while get(server, "/health").status != 200:
                assert time.monotonic() < deadline
            yield Started(server, running)

    return started


@pytest.fixture(scope="module")
def started(start: Start) -> Iterator[Started]:
    with start() as one:
        yield one


@pytest.fixture
def good(started: Started) -> Server:
    return started.server


@pytest.fixture(scope="module")
def thoughtful(start: Start) -> Iterator[Server]:
    with start(profile=dataclasses.replace(PROFILE, thinking=True)) as one:
        yield one.server


@pytest.mark.parametrize("name", PROBES)
def test_the_real_server_passes(good: Server, name: str) -> None:
    found = PROBES[name](good)
    assert (found.probe, found.status) == (name, "pass"), found


def test_what_the_real_server_does_with_nonsense_is_said(good: Server) -> None:
    observed = load(good).observed
    assert "4 of 7 refused cleanly" in observed
    assert "malformed JSON for chats: 500, survived" in observed
    assert "empty messages: served" in observed
    assert "slot free" in observed


def test_the_real_server_says_its_commit(good: Server) -> None:
    assert "build_info b0-0c1e57098" in identity(good).observed
    another = dataclasses.replace(good, commit="1c478819233f28b90be647040cac1ca7f4ee1c9c")
    assert identity(another).status == "fail"


def test_a_request_turns_thinking_on_again(good: Server) -> None:
    assert "a request can" in thinking_by_request(good).observed


def test_thinking_off_with_the_control(good: Server, thoughtful: Server) -> None:
    assert thinking(good, reasoning(thoughtful)).status == "pass"


def test_thinking_off_proves_nothing_where_the_control_is_silent(good: Server) -> None:
    assert thinking(good, reasoning(good)).status == "unproven"


def test_thinking_on_with_thinking_asked_for(good: Server, thoughtful: Server) -> None:
    assert thinking(thoughtful, reasoning(good)).status == "pass"


def test_thinking_asked_off_and_on_all_the_same(thoughtful: Server) -> None:
    found = thinking(dataclasses.replace(thoughtful, profile=PROFILE), None)
    assert found.status == "fail"
    assert f"reasoning {THOUGHT!r}" in found.observed


def test_thoughts_disturb_no_other_probe(thoughtful: Server) -> None:
    asked_off = dataclasses.replace(thoughtful, profile=PROFILE)
    assert [load(asked_off).status, determinism(asked_off).status] == ["pass", "pass"]


def test_another_alias_another_slot_count_and_length(start: Start) -> None:
    with start("--alias", "another", "-np", "3", "-c", "3072") as one:
        assert "it names another" in identity(one.server).observed
        found = slots(one.server)
    assert found.status == "fail"
    assert "total_slots 3, n_ctx 1024" in found.observed


def test_slots_that_are_not_shown(start: Start) -> None:
    with start("--no-slots") as one:
        found = [slots(one.server), load(one.server)]
    assert [each.status for each in found] == ["pass", "pass"]
    assert "/slots is off" in found[0].observed


def test_a_slot_is_rounded_up(start: Start) -> None:
    with start(profile=dataclasses.replace(PROFILE, parallel=1, slot_tokens=300)) as one:
        found = slots(one.server)
    assert found.status == "pass", found
    assert "1 × 512" in found.observed


def test_a_stream_is_left_in_the_middle(good: Server) -> None:
    body = {"prompt": "x", "n_predict": 400, "ignore_eos": True, "stream": True}
    with stream(good, "/completion", body) as pieces:
        first = next(pieces)
    assert isinstance(first.at("content"), str)
    assert post(good, "/completion", {"prompt": "x", "n_predict": 1}).status == 200


def test_the_speed_of_decoding(good: Server) -> None:
    speed = decode_speed(good)
    assert speed is not None
    assert speed > 1


def test_the_log_of_a_cpu_run_is_no_offload(started: Started) -> None:
    log = started.running.log()
    found = offload(log, model_bytes=10**7, decode_tokens_s=500.0, memory_mib=None)
    assert found.status == "fail"
    assert found.observed == "no layer is on a GPU: a CPU run; 2.25 MiB of KV cache in CPU"
