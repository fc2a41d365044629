"""Profiles served for real: started, swapped, stopped, and what goes wrong meanwhile."""

import contextlib
import dataclasses
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from docker import DockerClient

from builder.common.errors import BuilderError, UsageError
from builder.engine import containers as container
from builder.engine import facts as doctor_facts
from builder.llama.gguf.scripted import scripted_model
from builder.model.pins import Kv, Pins, Profile
from builder.serve import run as serve
from builder.serve.containers import Served, Stack
from builder.serve.plan import Request
from builder.serve.run import NotServedError, Up
from tests.conftest import Recorder, builder
from tests.engine.second_engine import load, second_engine

pytestmark = pytest.mark.engine

KEY = "k-" + "0123456789abcdef" * 2
MARK = "a-marked-prompt"
Q4 = Kv("q4_0", "q4_0")

# It ends itself, as nobody can stop it from, at the moment that is named.
KILLED = """
import os, pathlib, pickle, signal, sys
from builder.engine import client as engine
from builder.serve import run as serve, containers as served
from builder.common.progress import Silent

moment, name, asked, pins = pickle.loads(bytes.fromhex(sys.argv[1]))

class Doomed(served.Stack):
    def die_after(self, step, *args):
        found = getattr(super(), step)(*args)
        if moment == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return found
    def create(self, *args): return self.die_after("create", *args)
    def stop(self, *args): return self.die_after("stop", *args)
    def start(self, *args): return self.die_after("start", *args)
    def confirm(self, *args): return self.die_after("confirm", *args)
    def remove(self, *args): return self.die_after("remove", *args)

serve.swap(Doomed(engine.connect(), name), pins, asked, pathlib.Path(), Silent())
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scripted_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def stack(engine: DockerClient) -> Iterator[Stack]:
    made = Stack(engine, f"turboquant-test-{secrets.token_hex(4)}")
    yield made
    for one in made.all():
        made.remove(one)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def pins(real_pins: Pins) -> Pins:
    """Profiles of the shipped names, as small as a test wants them, on ports of their own."""
    port = free_port()
    profiles = {
        "haiku": Profile("local-haiku", 2, 512, thinking=False, kv=Q4, port=port),
        "sonnet": Profile("local-sonnet", 1, 1024, thinking=True, kv=Q4, port=port),
        "embed": Profile(
            *("local-embed", 1, 512),
            embeddings=True,
            gpu="none",
            port=free_port(),
            flags=["--pooling", "mean"],
        ),
    }
    return dataclasses.replace(real_pins, profiles=profiles)


@pytest.fixture(scope="module")
def debug_at_four_image(engine: DockerClient, mainline_cpu_image: str) -> Iterator[str]:
    """The server with the levels of spiritbuun and TheTom: 4 is debug, and no 5."""
    script = r"""#!/bin/bash
args=("$@")
for ((i = 0; i < $#; i++)); do
  [[ ${args[i]} == -lv && ${args[i + 1]} -ge 4 ]] && args[i + 1]=5
done
[[ " $* " == *" --help "* ]] || exec "$0.real" "${args[@]}"
"$0.real" "$@" | sed '/ - 4: trace/d; s/ - 5: debug/ - 4: debug/'
"""
    with bent(engine, mainline_cpu_image, "debug-at-four", script) as image:
        yield image


@pytest.fixture(scope="module")
def keyless_image(engine: DockerClient, mainline_cpu_image: str) -> Iterator[str]:
    """A server that ignores its file of API keys."""
    script = r"""#!/bin/bash
args=()
while (($#)); do
  if [[ $1 == --api-key-file ]]; then shift 2; else args+=("$1"); shift; fi
done
exec "$0.real" "${args[@]}"
"""
    with bent(engine, mainline_cpu_image, "keyless", script) as image:
        yield image


@contextlib.contextmanager
def bent(engine: DockerClient, base: str, name: str, script: str) -> Iterator[str]:
    """The image with a script before its server, which is llama-server.real then."""
    text = f"""FROM {base}
USER root
RUN mv /opt/llama/llama-server /opt/llama/llama-server.real
COPY --chmod=755 <<'EOF' /opt/llama/llama-server
{script}EOF
USER 10001:10001
"""
    tag = f"turboquant-test-serve:{name}-{secrets.token_hex(4)}"
    build = ["docker", "buildx", "build", "--quiet", "--provenance=false", "--load", "-t", tag, "-"]
    subprocess.run(build, input=text, text=True, check=True, capture_output=True)
    yield tag
    engine.images.remove(tag, force=True)


class Act:
    """The verbs on one stack, with what they are asked unless a test says otherwise."""

    def __init__(self, stack: Stack, pins: Pins, model: Path, image: str, results: Path) -> None:
        self.stack, self.pins, self.model, self.image = stack, pins, model, image
        self.results, self.progress = results, Recorder()

    def serve(self, profile: str, **more: object) -> Up:
        asked = Request(profile, **{"model": self.model, "image": self.image, **more})
        return serve.serve(self.stack, self.pins, asked, self.results, self.progress)

    def swap(self, profile: str, **more: object) -> Up:
        asked = Request(profile, **more)
        return serve.swap(self.stack, self.pins, asked, self.results, self.progress)

    def first(self) -> Request:
        return Request("haiku", model=self.model, image=self.image)

    def only(self) -> Served:
        (one,) = self.stack.all()
        return one

    def settle(self) -> None:
        serve.settle(self.stack, 60.0, self.results, self.progress)


@pytest.fixture
def act(stack: Stack, pins: Pins, model: Path, mainline_cpu_image: str, tmp_path: Path) -> Act:
    return Act(stack, pins, model, mainline_cpu_image, tmp_path)


def ask(url: str, key: str | None = None) -> requests.Response:
    body = {"model": "any", "max_tokens": 8, "messages": [{"role": "user", "content": "hello"}]}
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return requests.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=60)


def test_a_profile_is_served_on_loopback_and_answers_as_its_alias(act: Act) -> None:
    up = act.serve("haiku")
    answer = ask(up.spec.url).json()
    assert answer["model"] == "local-haiku"
    assert answer["choices"][0]["message"]["content"] == "OK"
    bindings = act.only().handle.attrs["NetworkSettings"]["Ports"]["8080/tcp"]
    assert bindings == [{"HostIp": "127.0.0.1", "HostPort": str(act.pins.profiles["haiku"].port)}]
    (row,) = serve.ps(act.stack)
    assert (row.profile, row.state, row.url, row.note) == ("haiku", "ready", up.spec.url, "")


def test_served_as_asked_nothing_is_done_and_otherwise_it_is_refused(act: Act) -> None:
    act.serve("haiku")
    before = act.only()
    assert act.serve("haiku").already
    with pytest.raises(NotServedError, match="served already, and not as asked"):
        act.serve("haiku", memory=2**30)
    with pytest.raises(NotServedError, match="haiku holds the GPU"):
        act.serve("sonnet")
    assert dataclasses.replace(act.only(), handle=before.handle) == before


def test_a_swap_takes_over_model_image_and_port(act: Act) -> None:
    first = act.serve("haiku")
    second = act.swap("sonnet")
    assert second.replaced == ["haiku"]
    assert second.spec.url == first.spec.url
    answer = ask(second.spec.url).json()
    assert answer["model"] == "local-sonnet"
    assert answer["choices"][0]["message"]["reasoning_content"] == "hm"
    assert act.only().name == f"{act.stack.name}-sonnet"


def test_the_server_takes_every_key_of_a_profile(act: Act, tmp_path: Path) -> None:
    for name in ("model.gguf", "draft.gguf"):
        (tmp_path / name).write_bytes(act.model.read_bytes())
    act.pins.profiles["haiku"] = dataclasses.replace(
        act.pins.profiles["haiku"],
        kv=Kv("q8_0", "q4_0"),
        kv_unified=True,
        slot_prompt_similarity=0.5,
        cache_ram=64,
        cache_idle_slots=True,
        draft="draft.gguf",
        flags=["--top-k", "1", "-lv", "4"],
        env={"OMP_WAIT_POLICY": "passive"},
    )
    up = act.serve("haiku", model=tmp_path / "model.gguf")
    # That there is no GPU is told too.
    assert [text for text in up.warnings if "GPU" not in text] == []
    assert ask(up.spec.url).json()["choices"][0]["message"]["content"] == "OK"
    log = act.only().running_container.log()
    assert "K (q8_0)" in log
    assert "V (q4_0)" in log
    assert "/models/draft.gguf" in log
    assert "OMP_WAIT_POLICY=passive" in act.only().handle.attrs["Config"]["Env"]


def test_an_embedder_is_served_beside_and_outlives_a_swap(act: Act) -> None:
    act.serve("haiku")
    beside = act.serve("embed")
    act.swap("sonnet")
    assert [one.profile for one in act.stack.all()] == ["embed", "sonnet"]
    body = {"model": "local-embed", "input": ["one", "two"]}
    found = requests.post(f"{beside.spec.url}/v1/embeddings", json=body, timeout=60).json()
    assert [len(one["embedding"]) for one in found["data"]] == [256, 256]


def test_an_embedder_that_embeds_nothing_is_warned_of(act: Act) -> None:
    act.pins.profiles["embed"].flags.clear()
    assert any("Pooling type 'none'" in text for text in act.serve("embed").warnings)


def test_stop_removes_the_container(act: Act) -> None:
    act.serve("haiku")
    assert serve.stop(
        act.stack, None, everything=False, results=act.results, progress=act.progress
    ) == ["haiku"]
    assert act.stack.all() == []


# --- Faults that are seen before anything is stopped ----------------------------------------------


def cut(model: Path, size: int, folder: Path) -> Path:
    short = folder / "cut.gguf"
    short.write_bytes(model.read_bytes()[:size])
    return short


EARLY: dict[str, tuple[Callable[[Act, Path], object], str]] = {
    "model missing": (
        lambda act, tmp: act.swap("sonnet", model=tmp / "no.gguf"),
        "there is no model",
    ),
    "model truncated": (
        lambda act, tmp: act.swap("sonnet", model=cut(act.model, 5_000_000, tmp)),
        "is cut short",
    ),
    "header truncated": (
        lambda act, tmp: act.swap("sonnet", model=cut(act.model, 1000, tmp)),
        "cannot be read",
    ),
    "image missing": (
        lambda act, _: act.swap("sonnet", image="turboquant-test:none"),
        "no image turboquant-test:none",
    ),
    "bound wider without a key": (
        lambda act, _: act.swap("sonnet", host="0.0.0.0"),  # noqa: S104
        "there is no API key",
    ),
}


@pytest.mark.parametrize("fault", EARLY)
def test_what_is_seen_early_leaves_the_server_untouched(
    fault: str, act: Act, tmp_path: Path
) -> None:
    act.serve("haiku")
    before = act.only()
    act_on, told = EARLY[fault]
    with pytest.raises(BuilderError, match=told):
        act_on(act, tmp_path)
    assert dataclasses.replace(act.only(), handle=before.handle) == before


def test_a_flag_of_another_commit_is_refused_by_its_place(act: Act) -> None:
    act.serve("haiku")
    before = act.only()
    act.pins.profiles["sonnet"].flags.extend(["--vbr-floor", "3"])
    with pytest.raises(UsageError) as caught:
        act.swap("sonnet")
    assert "profiles.sonnet.flags: --vbr-floor is no flag of this commit" in caught.value.why
    assert act.only().started == before.started


def test_a_model_larger_than_the_card_is_refused_with_figures(act: Act) -> None:
    act.serve("haiku")
    before = act.only()
    with pytest.raises(UsageError, match="of a card of"):
        act.swap("sonnet", card=2**20)
    assert act.only().started == before.started


def test_a_cpu_variant_is_not_held_against_the_machines_card(
    act: Act, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container, "has_gpu", lambda _client: True)
    monkeypatch.setattr(doctor_facts, "gpus_memory", lambda: [2**20])
    starts = serve.plan(act.stack, act.pins, act.first(), act.progress).starts
    assert starts.warnings == ["built for the CPU alone: the model runs on the CPU"]
    assert not starts.launch.gpu


def test_a_port_of_somebody_else_is_refused(act: Act) -> None:
    act.serve("haiku")
    before = act.only()
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(UsageError, match="is taken"),
    ):
        act.swap("sonnet", port=taken.getsockname()[1])
    assert act.only().started == before.started


# --- Faults that only the server shows ------------------------------------------------------------


def test_a_shape_that_its_kv_type_does_not_divide_is_told_and_the_old_one_is_back(
    act: Act, tmp_path: Path
) -> None:

    act.serve("haiku")
    with pytest.raises(NotServedError) as caught:
        act.swap("sonnet", model=odd_heads(tmp_path))
    assert "heads of 80 values, and q4_0 packs 32 at a time" in caught.value.what
    assert "K cache type q4_0 with block size 32 does not divide" in caught.value.why
    assert "haiku is back" in caught.value.why
    assert ask(act.only().spec.url).json()["model"] == "local-haiku"


def odd_heads(folder: Path) -> Path:
    """A model with heads of 80 values, which no quantized type packs."""
    from builder.llama.gguf import scripted

    path = folder / "odd.gguf"
    scripted._write(path, scripted._Shape("odd", "llama", 1, 4, 2, 80))
    return path


def test_killed_by_the_kernel_for_memory_it_is_told_so_and_the_old_one_is_back(act: Act) -> None:
    act.serve("haiku")
    # 144 MiB of cache.
    sonnet = act.pins.profiles["sonnet"]
    act.pins.profiles["sonnet"] = dataclasses.replace(sonnet, slot_tokens=65536)
    with pytest.raises(NotServedError, match="the kernel killed it for want of memory") as caught:
        act.swap("sonnet", memory=64 * 2**20)
    assert "haiku is back" in caught.value.why
    assert act.only().profile == "haiku"


def test_a_first_server_that_fails_leaves_no_container(act: Act, tmp_path: Path) -> None:
    # Cut by less than its header is long: the sum of its tensors does not show it.
    model = cut(act.model, act.model.stat().st_size - 64, tmp_path)
    with pytest.raises(NotServedError, match="the model file is cut short") as caught:
        act.serve("haiku", model=model)
    assert "data is not within the file bounds" in caught.value.why
    assert act.stack.all() == []
    (log,) = (act.results / "build" / "logs").iterdir()
    assert str(log) in caught.value.hint


# --- Keys -----------------------------------------------------------------------------------------


def test_a_key_comes_from_a_file_and_shows_nowhere(act: Act, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"# mine\n{KEY}\n", encoding="utf-8")
    file.chmod(0o600)
    up = act.serve("haiku", host="0.0.0.0", key_file=file)  # noqa: S104
    assert ask(up.spec.url).status_code == 401
    assert ask(up.spec.url, KEY).status_code == 200
    assert KEY not in json.dumps(act.only().handle.attrs)
    assert KEY not in act.only().running_container.log()
    # Kept by what takes its place.
    assert ask(act.swap("sonnet").spec.url).status_code == 401


@pytest.mark.parametrize("content", [b"# of the team\rs3cret\r", b"k\r\n", b"\xef\xbb\xbfk\n"])
def test_keys_that_llama_server_reads_otherwise_leave_the_server_untouched(
    content: bytes, act: Act, tmp_path: Path
) -> None:
    before = act.serve("haiku").spec
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(UsageError, match="line 1 has"):
        act.swap("sonnet", host="0.0.0.0", key_file=file)  # noqa: S104
    assert (act.only().spec, act.only().running) == (before, True)


def test_a_server_that_has_no_key_of_its_file_is_not_up_and_the_old_one_is_back(
    act: Act, tmp_path: Path, keyless_image: str
) -> None:
    act.serve("haiku")
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n", encoding="utf-8")
    with pytest.raises(NotServedError, match="serves whoever asks") as caught:
        act.swap("sonnet", image=keyless_image, host="0.0.0.0", key_file=file)  # noqa: S104
    assert "haiku is back" in caught.value.why
    assert act.only().profile == "haiku"


def test_no_other_container_asks_a_served_one(
    act: Act, engine: DockerClient, sleeping_image: str
) -> None:
    act.serve("haiku")
    act.serve("embed")
    served = {one.profile: one.handle for one in act.stack.all()}
    place = served["haiku"].attrs["NetworkSettings"]["Networks"]["turboquant-served"]["IPAddress"]
    asks = ["timeout", "3", "bash", "-c", f"exec 3<>/dev/tcp/{place}/8080"]
    plain = engine.containers.run(sleeping_image, detach=True)
    try:
        assert plain.exec_run(asks).exit_code != 0
    finally:
        plain.remove(force=True)
    assert served["embed"].exec_run(asks).exit_code != 0
    assert served["haiku"].exec_run(asks).exit_code == 0


def test_a_served_container_has_no_capability(act: Act) -> None:
    act.serve("haiku")
    status = act.only().handle.exec_run(["cat", "/proc/1/status"]).output.decode()
    assert "CapEff:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status


# --- What a server's log keeps --------------------------------------------------------------------


def whole_log(one: Served) -> str:
    """All that the server wrote: it writes the last of it when it ends."""
    one.handle.stop()
    return one.running_container.log()


@pytest.mark.parametrize("scale", ["debug at 5", "debug at 4"])
def test_no_prompt_and_no_answer_is_in_a_log(
    scale: str, act: Act, request: pytest.FixtureRequest
) -> None:
    image = "mainline_cpu_image" if scale == "debug at 5" else "debug_at_four_image"
    up = act.serve("haiku", image=request.getfixturevalue(image))
    chat = {"messages": [{"role": "user", "content": MARK}], "max_tokens": 8}
    for path, body in {
        "/v1/chat/completions": chat,
        "/v1/messages": chat,
        "/completion": {"prompt": MARK, "n_predict": 8},
        "/tokenize": {"content": MARK},
    }.items():
        assert requests.post(f"{up.spec.url}{path}", json=body, timeout=60).status_code == 200
    too_long = {"prompt": f"{MARK} " * 200, "n_predict": 8}
    assert requests.post(f"{up.spec.url}/completion", json=too_long, timeout=60).status_code == 400
    log = whole_log(act.only())
    assert "stop processing" in log
    assert MARK not in log


def test_a_profile_that_has_prompts_logged_is_warned_of(act: Act, debug_at_four_image: str) -> None:
    haiku = act.pins.profiles["haiku"]
    act.pins.profiles["haiku"] = dataclasses.replace(haiku, flags=["-lv", "4"])
    up = act.serve("haiku", image=debug_at_four_image)
    assert any("-lv 4" in text and "prompts" in text for text in up.warnings)
    body = {"messages": [{"role": "user", "content": MARK}], "max_tokens": 8}
    requests.post(f"{up.spec.url}/v1/messages", json=body, timeout=60)
    assert MARK in whole_log(act.only())


def test_a_log_has_an_end(act: Act) -> None:
    act.serve("haiku")
    config = act.only().handle.attrs["HostConfig"]["LogConfig"]
    assert config == {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}


# --- Two at once, and builders that are killed ----------------------------------------------------


def test_a_swap_waits_for_the_one_before(act: Act, tmp_path: Path) -> None:
    act.serve("haiku")
    file = written(act.pins, tmp_path)
    command = [sys.executable, "-m", "builder", "swap", "sonnet", "--pins", str(file)]
    with serve._alone(act.stack, None, act.results, act.progress):
        started = subprocess.Popen(
            command,
            env=os.environ | {"BUILDER_STACK": act.stack.name},
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert started.stderr is not None
        assert "wait for another builder to start or stop" in started.stderr.readline()
        assert act.only().profile == "haiku"
    started.communicate(timeout=120)
    assert started.returncode == 0
    assert act.only().profile == "sonnet"


@pytest.mark.parametrize(
    ("moment", "kept"),
    [
        ("create", "haiku"),
        ("stop", "haiku"),
        ("start", "sonnet"),
        ("confirm", "sonnet"),
        ("remove", "sonnet"),
    ],
)
def test_what_a_killed_swap_leaves_is_settled_by_the_next_command(
    moment: str, kept: str, act: Act
) -> None:
    import pickle

    act.serve("haiku")
    asked = Request("sonnet")
    told = pickle.dumps((moment, act.stack.name, asked, act.pins)).hex()
    result = subprocess.run([sys.executable, "-c", KILLED, told], capture_output=True, check=False)
    assert result.returncode == -signal.SIGKILL, result.stderr
    act.settle()
    (row,) = serve.ps(act.stack)
    assert (row.profile, row.state, row.note) == (kept, "ready", "")
    assert act.only().name == f"{act.stack.name}-{kept}"
    assert act.only().confirmed


def test_a_swap_that_was_put_back_halfway_goes_on_back(act: Act) -> None:
    act.serve("haiku")
    (haiku,) = act.stack.all()
    ready = serve._plan(act.stack, act.pins, Request("sonnet"), act.progress).starts
    new = act.stack.create("sonnet", ready.spec, ready.launch, [haiku])
    # As a builder leaves it that is killed between the stop of the one and the start of the other.
    act.stack.stop(haiku)
    assert [row.note for row in serve.ps(act.stack) if row.profile == "sonnet"] == [
        "starting in place of haiku"
    ]
    act.settle()
    assert act.only().id == haiku.id
    assert act.only().running
    assert new.id not in {one.id for one in act.stack.all()}


def test_a_server_that_crashes_is_started_again_by_the_engine(act: Act) -> None:
    act.serve("haiku")
    one = act.only()
    processes = one.handle.top(ps_args="-eo pid,comm")["Processes"]
    (pid,) = [int(pid) for pid, command in processes if command == "llama-server"]
    now = int(time.time())
    news = {"container": one.id}
    events = act.stack.client.events(since=now, until=now + 60, filters=news, decode=True)
    os.kill(pid, signal.SIGKILL)
    assert any(act.only().restarts for _ in events)
    assert act.serve("haiku").already
    assert act.only().restarts == 1


def test_a_served_profile_is_back_when_the_engine_is(
    engine: DockerClient, act: Act, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("e")
    ready = serve._plan(act.stack, act.pins, act.first(), act.progress).starts
    with second_engine(engine, act.image, folder) as address:
        load(engine, address, act.image)
        stack = Stack(DockerClient(base_url=address), act.stack.name)
        stack.start(one := stack.create("haiku", ready.spec, ready.launch, []))
        stack.confirm(one)
        (before,) = stack.all()
    with second_engine(engine, act.image, folder) as address:
        (again,) = Stack(DockerClient(base_url=address), act.stack.name).all()
        assert (again.id, again.running) == (one.id, True)
        assert again.started > before.started


# --- The command line -----------------------------------------------------------------------------


def written(pins: Pins, folder: Path) -> Path:
    """The real pins with the profiles of these."""
    real = (Path(__file__).parents[2] / "pins.toml").read_text(encoding="utf-8")
    text = real[: real.index("[profiles.")]
    for name in ("haiku", "sonnet"):
        one = pins.profiles[name]
        text += f'[profiles.{name}]\nalias = "{one.alias}"\nparallel = {one.parallel}\n'
        text += f'slot_tokens = {one.slot_tokens}\nport = {one.port}\nkv = "{one.kv}"\n'
        text += f"thinking = {str(one.thinking).lower()}\n"
    path = folder / "pins.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_commands_say_what_they_did(act: Act, tmp_path: Path) -> None:
    pins = ("--pins", written(act.pins, tmp_path))
    env = os.environ | {"BUILDER_STACK": act.stack.name}
    start = ("serve", "haiku", "--model", act.model, "--image", act.image, "--json", *pins)
    planned = builder(*start, "--dry-run", env=env)
    assert json.loads(planned.stdout)["starts"]["port"] == act.pins.profiles["haiku"].port
    assert act.stack.all() == []
    up = json.loads(builder(*start, env=env).stdout)
    listed = json.loads(builder("ps", "--json", env=env).stdout)["served"]
    assert [(row["profile"], row["url"], row["state"]) for row in listed] == [
        ("haiku", up["url"], "ready")
    ]
    refused = builder("serve", "sonnet", "--model", act.model, *pins, env=env)
    assert refused.returncode == 1
    assert "builder swap sonnet" in refused.stderr
    told = builder("swap", "sonnet", *pins, env=env)
    assert 'eval "$(builder env sonnet)"' in told.stdout
    assert builder("stop", *pins, env=env).stdout == "stopped sonnet\n"
