"""`builder tools`: what the real SDK of PyPI offers, and that a banned tool can't be used."""

import asyncio
import functools
import json
import os
from pathlib import Path
from typing import Any

import claude_agent_sdk
import pytest
import typer
from claude_agent_sdk import ClaudeAgentOptions, query

from builder.agents import tools as verb
from builder.agents.environment import ASIDE, Server, routed
from builder.agents.recording_server import Block, Recording, recording, tool_use
from builder.agents.tools import banned
from builder.agents.tools_list import BESIDES, OFFERED, PLACEHOLDER, SDK
from builder.cli.clients import tools as command
from builder.common.errors import UsageError
from builder.common.progress import Silent
from tests.conftest import builder

BYPASS = {"permission_mode": "bypassPermissions", "max_turns": 2}


def ask(folder: Path, *replies: Block, **options: Any) -> Recording:
    """One query of the SDK, answered in turn by `replies` and then with OK."""

    async def run(url: str) -> None:
        values = routed([Server("haiku", url, "local-haiku")])
        # The program asks for a sandbox before it lets root bypass permissions.
        there = {"CLAUDE_CONFIG_DIR": str(folder), "IS_SANDBOX": "1", "NO_PROXY": "127.0.0.1"}
        env = {**dict.fromkeys(ASIDE, ""), **values, **there}
        given = ClaudeAgentOptions(env=env, cwd=folder, setting_sources=[], **options)
        async for _ in query(prompt="hello", options=given):
            pass

    with recording(replies) as server:
        asyncio.run(run(server.url))
    return server


def offered(server: Recording) -> set[str]:
    return {tool["name"] for one in server.messages for tool in one.body.get("tools", [])}


def results(server: Recording) -> list[str]:
    """What the program told the model about the calls of its tools."""
    last = server.messages[-1].body["messages"]
    blocks = [block for one in last if isinstance(one["content"], list) for block in one["content"]]
    return [str(block["content"]) for block in blocks if block["type"] == "tool_result"]


def test_the_list_is_what_the_sdk_offers() -> None:
    result = builder("tools", "--json")
    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads(result.stdout)
    assert found["offered"] == sorted(OFFERED)
    assert (found["list"], found["passed"]) == (SDK, True)


def test_drift_is_told_both_ways_and_is_no(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verb, "OFFERED", OFFERED - {"Workflow"} | {"Nonesuch"})
    with pytest.raises(typer.Exit) as ended:
        command()
    assert ended.value.exit_code == 1
    printed = capsys.readouterr().out
    assert "not on the list: Workflow" in printed
    assert "on the list, offered no more: Nonesuch" in printed
    assert "offered although the list is applied: Workflow" in printed


def test_with_exceptions_only_they_are_offered(tmp_path: Path) -> None:
    server = ask(tmp_path, max_turns=1, disallowed_tools=banned(keep=["Read", "Grep"]))
    assert offered(server) == {"Read", "Grep", PLACEHOLDER}


def test_the_placeholder_is_no_tool(tmp_path: Path) -> None:
    server = ask(tmp_path, tool_use(PLACEHOLDER), **BYPASS)
    assert f"No such tool available: {PLACEHOLDER}" in results(server)[0]


def test_a_banned_tool_that_the_model_calls_is_refused(tmp_path: Path) -> None:
    made = tmp_path / "made"
    call = tool_use("Bash", command=f"touch {made}", description="make a file")
    server = ask(tmp_path, call, disallowed_tools=banned(), **BYPASS)
    assert [text for text in results(server) if "No such tool available: Bash" in text]
    assert not made.exists()


def test_the_same_call_is_obeyed_without_the_list(tmp_path: Path) -> None:
    made = tmp_path / "made"
    ask(tmp_path, tool_use("Bash", command=f"touch {made}", description="make a file"), **BYPASS)
    assert made.exists()


def test_a_name_to_keep_that_no_tool_has_is_refused() -> None:
    with pytest.raises(UsageError) as refused:
        banned(keep=["Raed"])
    assert "Read" in refused.value.hint


@pytest.mark.parametrize("name", ["Task", "Agent"])
def test_a_tool_is_kept_under_all_its_names(name: str) -> None:
    assert not {"Task", "Agent"} & set(banned(keep=[name]))


def test_the_list_names_nothing_twice() -> None:
    assert not OFFERED & BESIDES


def test_without_the_sdk_the_next_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb, "PACKAGE", "claude-agent-sdk-of-another-world")
    with pytest.raises(UsageError) as refused:
        verb.report(Silent())
    assert "is not installed" in refused.value.what
    assert refused.value.hint.startswith("`pip install claude-agent-sdk")


def test_a_program_that_asks_nothing_is_no_clean_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = functools.partial(ClaudeAgentOptions, cli_path="/bin/false")
    monkeypatch.setattr(claude_agent_sdk, "ClaudeAgentOptions", broken)
    with pytest.raises(UsageError, match="asked the server nothing"):
        verb.report(Silent())


def test_no_secret_of_the_user_is_sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-real")
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "X-Gateway: sk-gateway")
    server = ask(tmp_path, max_turns=1, disallowed_tools=banned())
    sent = [value for one in server.requests for value in one.headers.values()]
    assert "Bearer local" in sent
    assert not [value for value in sent if "sk-" in value]
    assert os.environ["ANTHROPIC_API_KEY"] == "sk-ant-real"
