"""What the console lets through of what strangers wrote: words, in one place for all commands."""

import json
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn

from builder.cli import console
from builder.cli import main as cli
from builder.common.errors import UsageError
from builder.common.files import write_atomically
from builder.common.printable import printable, without_commands

HOSTILE = "ok\x1b[1A\x1b[2K\x1b]0;title\x07PASS\r\x9b2J\u202e\u2028\x00\ud800\udcff"
SHOWN = r"ok\x1b[1A\x1b[2K\x1b]0;title\x07PASS\r\x9b2J\u202e\u2028\x00\ud800\xff"
LOGIN = "https://me:s3cret@host/x"


def told(what: str) -> None:
    """The text by every way to the terminal and to the job's page."""
    console.say(what)
    console.tell(what)
    console.table([(what, "pass")], ("name", "verdict"))
    console.summarise(what)
    console.complain(UsageError(what, why=f"a\n{what}", hint=what))
    with console.progress() as lines:
        lines.step(what)
        lines.warn(what)
    with Progress(TextColumn("{task.description}"), console=Console(stderr=True)) as live:
        terminal = console.Terminal(live)
        terminal.step(what)
        terminal.detail(what)
        terminal.warn(what)
        terminal.step("the end")


@pytest.fixture
def everything_told(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path):
    """All that is printed and written of a text."""

    def tell(what: str) -> str:
        page = tmp_path / "page.md"
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
        told(what)
        printed = capfd.readouterr()
        return printed.out + printed.err + page.read_text(encoding="utf-8")

    return tell


def test_no_control_character_is_printed(everything_told):
    found = everything_told(HOSTILE)
    assert not [one for one in found if not one.isprintable() and one != "\n"]
    assert "PASS" in found


def test_no_login_is_printed(everything_told):
    assert "s3cret" not in everything_told(f"not had: {LOGIN}")


def test_lines_and_tabs_stay(capsys):
    console.say("a\tb\n  c")
    assert capsys.readouterr().out == "a\tb\n  c\n"


@pytest.mark.parametrize("hostile", ["::add-mask::x", "  \t::error::x", "ok ##[add-mask]x"])
def test_a_job_takes_nothing_for_a_workflow_command(capfd, tmp_path, monkeypatch, hostile):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "page.md"))
    told(f"first\n{hostile}")
    found = "".join(capfd.readouterr())
    assert "x" in found
    assert not [line for line in found.splitlines() if line.lstrip().startswith("::")]
    assert "##[" not in found


def test_a_folded_cell_begins_no_workflow_command(capsys, monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    console.table([("a", f"{'x' * 118} ::stop-commands::x")], ("", ""))
    assert not [line for line in capsys.readouterr().out.splitlines() if line.lstrip()[:2] == "::"]


def test_elsewhere_colons_are_colons(capsys, monkeypatch):
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    console.say("::ggml::init ##[x]")
    assert capsys.readouterr().out == "::ggml::init ##[x]\n"


def test_json_means_the_same_in_a_job():
    page = json.dumps({"subject": "::x ##[group] \\##[x] ##"}, indent=2)
    assert json.loads(without_commands(page)) == json.loads(page)


def test_what_is_no_text_is_shown_as_escapes():
    assert printable(HOSTILE) == SHOWN


def test_a_bug_is_told_without_what_the_stranger_wrote(monkeypatch, capsys):
    def fail() -> None:
        raise AttributeError(f"{HOSTILE} {LOGIN}")

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr(console, "prepare", lambda: None)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == cli.BUG
    printed = capsys.readouterr().err
    assert "\x1b" not in printed
    assert "s3cret" not in printed


def test_a_file_of_text_holds_no_login(tmp_path: Path):
    write_atomically(tmp_path / "report.md", f"{LOGIN} \ud800")
    assert (tmp_path / "report.md").read_text() == "https://host/x \\ud800"
