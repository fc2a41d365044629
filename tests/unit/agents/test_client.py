"""`builder.client`: what os.environ is inside and after a tier, whatever happens in between."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from builder.agents.client import ASKED, environment, overrides, tier
from builder.agents.environment import ANTHROPIC, ASIDE, NAMES
from builder.common.errors import UsageError
from tests.conftest import ROOT

KEY = "sk-ant-real"
PINS = ROOT / "pins.toml"


@pytest.fixture(autouse=True)
def _user_with_a_key(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Somebody who asked for local tiers, and whose own key is and stays in the environment."""
    for name in (*NAMES, *ASIDE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv(ASKED, "1")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nobody/listens/here")
    yield
    assert os.environ["ANTHROPIC_API_KEY"] == KEY


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    before = left()
    yield
    assert left() == before


def left() -> dict[str, str]:
    """The environment but for what pytest itself writes there."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}


def model() -> str | None:
    return os.environ.get("ANTHROPIC_MODEL")


def test_inside_all_eight_are_set_and_the_key_is_out_of_reach() -> None:
    with tier("haiku", pins_file=PINS):
        assert set(ANTHROPIC) <= set(os.environ)
        assert model() == "local-haiku"
        assert KEY not in os.environ.values()


def test_one_after_another() -> None:
    for name in ("haiku", "sonnet", "haiku"):
        with tier(name, pins_file=PINS):
            assert model() == f"local-{name}"
        assert model() is None


def test_nested_the_inner_one_holds_and_the_outer_one_comes_back() -> None:
    with tier("haiku", pins_file=PINS):
        with tier("sonnet", pins_file=PINS):
            assert model() == "local-sonnet"
        assert model() == "local-haiku"


def test_what_was_set_before_and_meanwhile_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_MODEL", "of the user")
    with tier("haiku", pins_file=PINS):
        os.environ["ANTHROPIC_MODEL"] = "meanwhile"
        with tier("sonnet", pins_file=PINS):
            pass
        assert model() == "meanwhile"
    assert model() == "of the user"


def test_an_exception_leaves_nothing_behind() -> None:
    with pytest.raises(ZeroDivisionError), tier("haiku", pins_file=PINS):
        _ = 1 / 0
    assert model() is None


def test_opus_clears_all_and_brings_the_key_back() -> None:
    with tier("haiku", pins_file=PINS), tier("opus"):
        assert not set(ANTHROPIC) & set(os.environ)
        assert os.environ["ANTHROPIC_API_KEY"] == KEY


def test_opus_clears_what_a_shell_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:8080")
    with tier("opus"):
        assert "ANTHROPIC_BASE_URL" not in os.environ


def test_opus_leaves_openais_client_as_it_is_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-real")
    with tier("haiku", pins_file=PINS):
        assert os.environ["OPENAI_API_KEY"] == "local"
        with tier("opus"):
            assert os.environ["OPENAI_API_KEY"] == "sk-real"
            assert "OPENAI_BASE_URL" not in os.environ


def test_an_embedder_leaves_anthropics_client_where_it_is() -> None:
    with tier("haiku", pins_file=PINS), tier("embed", pins_file=PINS):
        assert model() == "local-haiku"
        assert os.environ["OPENAI_MODEL"] == "local-embed"


def test_blocks_left_in_the_wrong_order_leave_nothing_behind() -> None:
    outer, inner = tier("haiku", pins_file=PINS), tier("sonnet", pins_file=PINS)
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)
    assert model() == "local-sonnet"
    inner.__exit__(None, None, None)
    assert model() is None


@pytest.mark.parametrize("value", [None, "", "0"])
def test_nothing_is_led_anywhere_unasked(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is None:
        monkeypatch.delenv(ASKED)
    else:
        monkeypatch.setenv(ASKED, value)
    before = dict(os.environ)
    for name in ("haiku", "opus"):
        with tier(name, pins_file=PINS) as values:
            assert (values, dict(os.environ)) == ({}, before)
        assert overrides(name, pins_file=PINS) == {}
        assert environment(name, pins_file=PINS) == before


def test_an_answer_that_is_neither_yes_nor_no_is_not_taken_for_no(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(ASKED, "true")
    with pytest.raises(UsageError, match="USE_LOCAL_LLM=true"), tier("haiku", pins_file=PINS):
        pass


def test_an_unknown_tier_changes_nothing() -> None:
    with pytest.raises(UsageError, match="unknown profile 'hikku'"), tier("hikku", pins_file=PINS):
        pass


def test_threads_take_turns_and_each_sees_its_own() -> None:
    names = ["haiku", "sonnet", "coder", "opus"] * 4
    start = threading.Barrier(len(names))

    def work(name: str) -> set[str | None]:
        start.wait()
        with tier(name, pins_file=PINS):
            # Each read lets another thread go on.
            return {model() for _ in range(200) if not Path(os.devnull).read_bytes()}

    with ThreadPoolExecutor(len(names)) as pool:
        seen = list(pool.map(work, names))
    assert seen == [{None if name == "opus" else f"local-{name}"} for name in names]


def test_a_second_task_of_a_loop_is_refused_at_once() -> None:
    async def first(entered: asyncio.Event, leave: asyncio.Event) -> None:
        with tier("haiku", pins_file=PINS):
            entered.set()
            await leave.wait()
            assert model() == "local-haiku"

    async def both() -> None:
        entered, leave = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(first(entered, leave))
        await entered.wait()
        with pytest.raises(UsageError, match="another task"), tier("sonnet", pins_file=PINS):
            pass
        leave.set()
        await task

    asyncio.run(both())


def test_tasks_inside_a_tier_cannot_overlap_either() -> None:
    async def inner(name: str, gate: asyncio.Event) -> None:
        with tier(name, pins_file=PINS):
            await gate.wait()

    async def both() -> None:
        gate = asyncio.Event()
        with tier("haiku", pins_file=PINS):
            one = asyncio.create_task(inner("sonnet", gate))
            other = asyncio.create_task(inner("coder", gate))
            with pytest.raises(UsageError, match="another task"):
                await other
            gate.set()
            await one
            assert model() == "local-haiku"

    asyncio.run(both())


def test_overrides_change_what_the_sdk_inherits_and_nothing_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLAUDE_CODE_USE_BEDROCK", "1")
    found = overrides("haiku", pins_file=PINS)
    assert found["ANTHROPIC_MODEL"] == "local-haiku"
    assert found["ANTHROPIC_API_KEY"] == found["CLAUDE_CODE_USE_BEDROCK"] == ""
    assert "ANTHROPIC_CUSTOM_HEADERS" not in found
    assert model() is None


def test_overrides_for_opus_inside_a_tier_undo_it() -> None:
    with tier("haiku", pins_file=PINS):
        found = overrides("opus")
    assert found["ANTHROPIC_BASE_URL"] == ""
    assert found["ANTHROPIC_API_KEY"] == KEY


def test_an_environment_for_a_process_lacks_what_has_to_go() -> None:
    found = environment("haiku", url="http://127.0.0.1:1234/", pins_file=PINS)
    assert found["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:1234"
    assert found["PATH"] == os.environ["PATH"]
    assert "ANTHROPIC_API_KEY" not in found


def test_pins_are_looked_for_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = PINS.read_text(encoding="utf-8").replace("local-haiku", "my-own")
    (tmp_path / "pins.toml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with tier("haiku"):
        assert model() == "my-own"


def test_an_exit_stack_may_hold_tiers() -> None:
    with contextlib.ExitStack() as stack:
        stack.enter_context(tier("haiku", pins_file=PINS))
        stack.enter_context(tier("sonnet", pins_file=PINS))
        assert model() == "local-sonnet"
