"""Real clients, led to the real server by `builder.client`; proxies see them, and keep them in."""

import asyncio
import contextlib
import json
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from claude_agent_sdk import (
    AssistantMessage,
    ClaudeAgentOptions,
    ResultMessage,
    query,
)
from docker import DockerClient

from builder.agents.client import ASKED, tier
from builder.agents.environment import ASIDE, NAMES
from builder.agents.tools import banned
from builder.engine import containers as container
from builder.engine.containers import Launch
from builder.llama import client as probe_server
from builder.llama import profiles
from builder.llama.client import Server, get
from builder.llama.gguf.scripted import scripted_model
from builder.model.pins import Kv
from builder.pins import load as pins
from builder.smoke.run import WAITING
from tests.conftest import ROOT, builder
from tests.support.recording_proxy import Proxy, proxying

pytestmark = pytest.mark.engine

KEY = "sk-ant-a-dummy-of-the-vendors"
PINS = ROOT / "pins.toml"
VENDOR = "CONNECT api.anthropic.com:443"


@dataclass(frozen=True, slots=True)
class World:
    """Two tiers, each behind a proxy, and the proxy that is the only way out."""

    haiku: Proxy
    sonnet: Proxy
    outside: Proxy
    pins_file: Path


@pytest.fixture(scope="module")
def world(
    engine: DockerClient, mainline_cpu_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("clients")
    model = scripted_model(folder)
    with (
        served("haiku", engine, mainline_cpu_image, model) as haiku,
        served("sonnet", engine, mainline_cpu_image, model) as sonnet,
        proxying(None) as outside,
    ):
        path = folder / "pins.toml"
        text = PINS.read_text(encoding="utf-8")
        for name, proxy in {"haiku": haiku, "sonnet": sonnet}.items():
            head = f"[profiles.{name}]"
            text = text.replace(head, f"{head}\nport = {proxy.port}")
        path.write_text(text, encoding="utf-8")
        yield World(haiku, sonnet, outside, path)


@contextlib.contextmanager
def served(name: str, engine: DockerClient, image: str, model: Path) -> Iterator[Proxy]:
    """The shipped profile with one slot, and one thread: a busy machine delays two far more."""
    chosen = pins.load(PINS).profiles[name]
    command = profiles.command(chosen, Kv("q8_0", "q8_0"), "")
    launch = Launch(image, [*command, "-np", "1", "-c", "32768", "-t", "1"], WAITING, model)
    with (
        container.running(engine, launch) as running,
        probe_server.session() as session,
        proxying(running.url) as proxy,
    ):
        server = Server(running.url, session, chosen)
        deadline = time.monotonic() + 60
        while get(server, "/health").status != 200:
            assert time.monotonic() < deadline, running.log()
        yield proxy


@pytest.fixture(autouse=True)
def _user(monkeypatch: pytest.MonkeyPatch, world: World) -> Iterator[None]:
    """Somebody with a key of the vendor's, behind a proxy, who asked for local tiers."""
    for name in (*NAMES, *ASIDE):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, world.outside.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("CLAUDE_CODE_MAX_RETRIES", "0")
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("BUILDER_STACK", f"turboquant-test-{secrets.token_hex(4)}")
    monkeypatch.setenv(ASKED, "1")
    before = variables()
    for proxy in (world.haiku, world.sonnet, world.outside):
        proxy.passed.clear()
    yield
    assert variables() == before


def variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}


async def ask(folder: Path, **env: str) -> tuple[str, dict[str, Any]]:
    """One turn of the Agent SDK: what the model said, and the usage that the SDK tells at its end.

    The usage is empty when there was no answer.
    """
    options = ClaudeAgentOptions(
        env={"CLAUDE_CONFIG_DIR": str(folder), **env},
        cwd=folder,
        setting_sources=[],
        disallowed_tools=banned(),
        max_turns=1,
    )
    said, usage = "", {}
    async with contextlib.aclosing(query(prompt="hello", options=options)) as messages:
        async for message in messages:
            if isinstance(message, AssistantMessage):
                said += "".join(getattr(block, "text", "") for block in message.content)
            if isinstance(message, ResultMessage) and message.is_error:
                break  # the program takes half a minute to end then
            if isinstance(message, ResultMessage):
                usage = message.usage or {}
    return said, usage


def test_an_agent_goes_through_haiku_then_sonnet_then_opus_cleared(
    world: World, tmp_path: Path
) -> None:
    async def session() -> tuple[int, int, str]:
        with tier("haiku", pins_file=world.pins_file):
            haiku = await ask(tmp_path)
        with tier("sonnet", pins_file=world.pins_file):
            sonnet = await ask(tmp_path)
        assert (haiku[0], sonnet[0]) == ("OK", "OK")
        assert world.outside.lines == []
        with tier("opus"):
            refused, usage = await ask(tmp_path)
        assert usage == {}
        return haiku[1]["output_tokens"], sonnet[1]["output_tokens"], refused

    used_by_haiku, used_by_sonnet, refused = asyncio.run(session())
    assert world.haiku.asked_for() == ["local-haiku"]
    assert world.sonnet.asked_for() == ["local-sonnet"]
    assert set(world.outside.lines) == {VENDOR}
    assert "proxy" in refused
    assert (used_by_haiku, used_by_sonnet) == (3, 8)
    assert KEY not in sent_to(world.haiku) | sent_to(world.sonnet)


def sent_to(proxy: Proxy) -> set[str]:
    return {value for one in proxy.passed for value in one.headers.values()}


def test_the_last_event_counts_what_was_said_and_the_first_what_was_asked(world: World) -> None:
    with tier("haiku", pins_file=world.pins_file):
        model = os.environ["ANTHROPIC_MODEL"]
        body = [{"role": "user", "content": "hello"}]
        with anthropic.Anthropic().messages.stream(
            model=model, max_tokens=50, messages=body
        ) as stream:
            total = stream.get_final_message().usage
    (passed,) = world.haiku.passed
    usage = {event["type"]: event for event in passed.events()}
    first = usage["message_start"]["message"]["usage"]
    assert first["output_tokens"] == 0
    assert usage["message_delta"]["usage"] == {"output_tokens": 3}
    assert total.output_tokens == 3
    assert total.input_tokens == first["input_tokens"]


def test_anthropics_package_sends_the_token_and_not_the_key(world: World) -> None:
    with tier("sonnet", pins_file=world.pins_file):
        answer = anthropic.Anthropic().messages.create(
            model=os.environ["ANTHROPIC_MODEL"],
            max_tokens=50,
            messages=[{"role": "user", "content": "hello"}],
        )
    assert [block.type for block in answer.content] == ["thinking", "text"]
    assert answer.model == "local-sonnet"
    (passed,) = world.sonnet.passed
    assert passed.headers["authorization"] == "Bearer local"
    assert KEY not in sent_to(world.sonnet)


def say_hello(**given: str) -> str | None:
    """What OpenAI's package gets from wherever the environment leads it."""
    answer = openai.OpenAI(**given).chat.completions.create(
        model=os.environ.get("OPENAI_MODEL", "any"),
        max_tokens=50,
        messages=[{"role": "user", "content": "hello"}],
    )
    return answer.choices[0].message.content


def test_openais_package_is_led_there_too(world: World) -> None:
    with tier("haiku", pins_file=world.pins_file):
        assert say_hello() == "OK"
    assert world.haiku.lines == ["POST /v1/chat/completions"]


def test_env_says_nothing_against_a_profile_that_is_up_but_its_keys_end(world: World) -> None:
    result = builder("env", "haiku", "--json", "--pins", world.pins_file)
    assert json.loads(result.stdout)["set"]["ANTHROPIC_BASE_URL"] == world.haiku.url
    assert result.stderr.splitlines() == [
        "warning: ANTHROPIC_API_KEY is taken away, for it must not go to a local server; "
        "after `builder env --clear` it has to be set again"
    ]


def test_a_served_profile_is_found_where_it_is_with_its_key(
    mainline_cpu_image: str, tmp_path: Path
) -> None:
    key = tmp_path / "keys"
    key.write_text("# of this test\nsesame\n", encoding="utf-8")
    with proxying(None) as free:
        port = free.port
    where = ["--image", mainline_cpu_image, "--model", scripted_model(tmp_path), "--port", port]
    try:
        up = builder("serve", "haiku", *where, "--api-key-file", key, "--pins", PINS)
        assert up.returncode == 0, up.stderr
        with tier("haiku", pins_file=PINS):
            assert os.environ["OPENAI_BASE_URL"] == f"http://127.0.0.1:{port}/v1"
            assert os.environ["OPENAI_API_KEY"] == "sesame"
            assert say_hello() == "OK"
            with pytest.raises(openai.AuthenticationError):
                say_hello(api_key="another")
    finally:
        builder("stop", "--all", "--pins", PINS)


def test_env_tells_when_another_profile_has_the_port(world: World, tmp_path: Path) -> None:
    text = world.pins_file.read_text(encoding="utf-8")
    path = tmp_path / "pins.toml"
    path.write_text(text.replace(str(world.haiku.port), str(world.sonnet.port)), encoding="utf-8")
    result = builder("env", "haiku", "--pins", path)
    assert result.returncode == 0
    assert "serves local-sonnet, not local-haiku: `builder swap haiku`" in result.stderr
