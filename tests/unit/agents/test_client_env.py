"""`builder env`: what it prints, and that shells and clients read it as it is meant."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from builder.agents import environment as client_env
from builder.agents.environment import ANTHROPIC, NAMES, Server, routed, to_dotenv, to_shell
from builder.agents.recording_server import recording
from builder.common.errors import UsageError
from tests.conftest import ROOT, builder

HAIKU = Server("haiku", "http://127.0.0.1:8080", "local-haiku")
SONNET = Server("sonnet", "http://127.0.0.1:8080", "local-sonnet")
EMBED = Server("embed", "http://127.0.0.1:8081", "local-embed", embeddings=True)

NO_ENGINE = "unix:///nobody/listens/here"

ODD = "a b'c\"d$HOME`id`\\;#é"


def shell(script: str, **variables: str) -> str:
    """What a POSIX shell with only these variables prints."""
    command = ["/bin/sh", "-euc", script]
    return subprocess.run(
        command,
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_every_tier_asks_for_a_model_that_is_there() -> None:
    values = routed([HAIKU])
    models = {name: value for name, value in values.items() if name.endswith("_MODEL")}
    assert set(models.values()) == {"local-haiku"}
    assert set(models) == {*client_env.MODEL_OF_TIER.values(), "ANTHROPIC_MODEL", "OPENAI_MODEL"}


def test_a_tier_that_is_named_has_its_own_model() -> None:
    values = routed([SONNET, HAIKU])
    assert values["ANTHROPIC_MODEL"] == "local-sonnet"
    assert values["ANTHROPIC_DEFAULT_HAIKU_MODEL"] == "local-haiku"
    assert values["ANTHROPIC_DEFAULT_OPUS_MODEL"] == "local-sonnet"


def test_an_embedder_takes_openais_address_and_leaves_anthropics() -> None:
    values = routed([HAIKU, EMBED])
    assert values["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:8080"
    assert values["OPENAI_BASE_URL"] == "http://127.0.0.1:8081/v1"
    assert not set(routed([EMBED])) & set(ANTHROPIC)


def test_two_addresses_do_not_fit_into_one_variable() -> None:
    coder = Server("coder", "http://127.0.0.1:9090", "local-coder")
    with pytest.raises(UsageError, match="both haiku and coder"):
        routed([HAIKU, coder])


def test_a_shell_reads_back_what_was_written() -> None:
    lines = to_shell({"OPENAI_MODEL": ODD}, ("OPENAI_BASE_URL",))
    found = shell(
        f'{lines}\nprintf "%s|%s" "$OPENAI_MODEL" "${{OPENAI_BASE_URL-gone}}"', OPENAI_BASE_URL="x"
    )
    assert found == f"{ODD}|gone"


@pytest.mark.parametrize("value", ["local", "http://127.0.0.1:8080/v1", "two words", "a#b", "é;x"])
def test_a_shell_reads_a_dotenv_file_too(value: str) -> None:
    assert shell(f'{to_dotenv({"A": value}, ("B",))}\nprintf "%s|%s" "$A" "$B"') == f"{value}|"


@pytest.mark.parametrize("value", ["it's", 'a"b', "a\\b", "$HOME", "`id`", "a\nb"])
def test_a_value_that_readers_dispute_is_refused_in_a_dotenv_file(value: str) -> None:
    with pytest.raises(UsageError, match="OPENAI_MODEL"):
        to_dotenv({"OPENAI_MODEL": value}, ())


def test_the_command_works_before_the_profile_is_up(tmp_path: Path) -> None:
    pins = pins_of_profile(tmp_path, port=free_port())
    result = builder("env", "haiku", "--pins", pins, env=clean())
    assert result.returncode == 0
    assert "nothing answers at http://127.0.0.1:" in result.stderr
    assert "builder serve haiku --model PATH" in result.stderr


def test_evaluated_it_leads_a_program_there_and_hides_the_real_key(tmp_path: Path) -> None:
    with recording() as server:
        pins = pins_of_profile(tmp_path, port=int(server.url.rpartition(":")[2]))
        printed = builder("env", "haiku", "--pins", pins, env=clean()).stdout
    found = shell(f"{printed}\nenv", ANTHROPIC_API_KEY="sk-ant-real", KEPT="1")
    left = dict(line.split("=", 1) for line in found.splitlines())
    assert left["ANTHROPIC_BASE_URL"] == server.url
    assert left["KEPT"] == "1"
    assert "sk-ant-real" not in found


def test_clear_unsets_every_name_a_line_each_and_no_key_of_the_user() -> None:
    result = builder("env", "--clear")
    assert result.stdout.splitlines() == [f"unset {name}" for name in NAMES]
    assert "ANTHROPIC_API_KEY" not in result.stdout


def test_after_clear_a_shell_has_none_of_them(tmp_path: Path) -> None:
    pins = pins_of_profile(tmp_path, port=free_port())
    there = builder("env", "haiku", "--pins", pins, env=clean()).stdout
    back = builder("env", "--clear").stdout
    found = shell(f"{there}\n{back}\nenv")
    assert not [line for line in found.splitlines() if line.partition("=")[0] in NAMES]


def test_opus_is_cleared_for() -> None:
    assert json.loads(builder("env", "opus", "--json").stdout) == {
        "schema": 1,
        "set": {},
        "unset": list(NAMES),
    }


def test_json_has_what_is_set_and_unset(tmp_path: Path) -> None:
    pins = pins_of_profile(tmp_path, port=18080)
    found = json.loads(builder("env", "haiku", "--json", "--pins", pins, env=clean()).stdout)
    assert found["set"] == routed([Server("haiku", "http://127.0.0.1:18080", "local-haiku")])
    assert "ANTHROPIC_API_KEY" in found["unset"]


def test_a_key_that_is_lost_to_the_shell_is_told(tmp_path: Path) -> None:
    pins = pins_of_profile(tmp_path, port=free_port())
    keys = {"ANTHROPIC_API_KEY": "sk-ant-real", "OPENAI_API_KEY": "sk-real"}
    result = builder("env", "haiku", "--pins", pins, env=clean(**keys))
    assert "ANTHROPIC_API_KEY is taken away" in result.stderr
    assert "OPENAI_API_KEY is replaced" in result.stderr
    assert "sk-" not in result.stdout + result.stderr


def test_a_proxy_in_the_way_is_told(tmp_path: Path) -> None:
    pins = pins_of_profile(tmp_path, port=free_port())
    proxy = {"HTTP_PROXY": "http://127.0.0.1:9"}
    asked = ("env", "haiku", "--pins", pins)
    assert "export NO_PROXY=127.0.0.1" in builder(*asked, env=clean(**proxy)).stderr
    excepted = clean(**proxy, NO_PROXY="127.0.0.1")
    assert "NO_PROXY" not in builder(*asked, env=excepted).stderr


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([], "name a profile"),
        (["hikku"], "did you mean 'haiku'?"),
        (["opus", "haiku"], "opus stands alone"),
        (["--clear", "haiku"], "--clear takes no profile"),
        (["haiku", "--json", "--shell"], "name one of"),
        (["opus", "--dotenv"], "a .env file cannot unset"),
    ],
)
def test_bad_command_lines_say_what_to_do(words: list[str], error: str) -> None:
    result = builder("env", *words)
    assert result.returncode == 2
    assert error in result.stderr
    assert result.stdout == ""


def pins_of_profile(folder: Path, *, port: int) -> Path:
    """The real pins with the haiku profile on another port."""
    text = (ROOT / "pins.toml").read_text(encoding="utf-8")
    path = folder / "pins.toml"
    path.write_text(
        text.replace("[profiles.haiku]", f"[profiles.haiku]\nport = {port}"), encoding="utf-8"
    )
    return path


def free_port() -> int:
    """One that nobody listens on."""
    with recording() as server:
        return int(server.url.rpartition(":")[2])


def clean(**more: str) -> dict[str, str]:
    """This environment without keys, proxies and an engine, and with `more`."""
    gone = {*NAMES, *client_env.ASIDE}
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in gone and not name.lower().endswith("_proxy")
    }
    return {**kept, "DOCKER_HOST": NO_ENGINE, **more}
