"""The real Agent SDK, led by `overrides` while os.environ stays as it is."""

import asyncio
from pathlib import Path

import pytest
from claude_agent_sdk import ClaudeAgentOptions, query

from builder.agents.client import ASKED, overrides
from builder.agents.environment import ASIDE, NAMES
from builder.agents.recording_server import Recording, recording
from builder.agents.tools import banned
from tests.conftest import ROOT

KEY = "sk-ant-real"


async def ask(folder: Path, name: str, server: Recording) -> None:
    folder.mkdir()
    env = overrides(name, url=server.url, pins_file=ROOT / "pins.toml")
    options = ClaudeAgentOptions(
        env={**env, "CLAUDE_CONFIG_DIR": str(folder), "NO_PROXY": "127.0.0.1"},
        cwd=folder,
        setting_sources=[],
        disallowed_tools=banned(),
        max_turns=1,
    )
    async for _ in query(prompt="hello", options=options):
        pass


def test_two_tiers_side_by_side_each_get_their_own_and_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*NAMES, *ASIDE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv(ASKED, "1")

    async def both(haiku: Recording, sonnet: Recording) -> None:
        await asyncio.gather(
            ask(tmp_path / "haiku", "haiku", haiku), ask(tmp_path / "sonnet", "sonnet", sonnet)
        )

    with recording() as haiku, recording() as sonnet:
        asyncio.run(both(haiku, sonnet))
    for server, model in ((haiku, "local-haiku"), (sonnet, "local-sonnet")):
        assert [one.body["model"] for one in server.messages] == [model]
        assert KEY not in {value for one in server.requests for value in one.headers.values()}
