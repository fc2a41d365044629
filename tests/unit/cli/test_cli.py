"""What every command answers before it does anything."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from builder import __version__
from builder.bump import fork as bump
from builder.cli import console
from tests.conftest import ROOT, builder


def test_the_version_is_told():
    assert builder("--version").stdout == f"builder {__version__}\n"


@pytest.mark.parametrize(
    "command", ["render", "build", "smoke", "audit", "freshness", "bump", "bisect", "doctor", "try"]
)
def test_every_command_takes_pins(command):
    assert "--pins" in builder(command, "--help").stdout


@pytest.mark.parametrize("words", [["build", "--bogus"], ["nothing"], ["smoke"]])
def test_a_wrong_command_line_is_exit_2(words):
    assert builder(*words).returncode == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["x", "--ref=v1"], "add --reproduce"),
        (["mainline-cpu", "--reproduce", "--variant=spiritbuun-cpu"], "two variants are named"),
        (["mainline-cpu", "--reproduce", "--set=x"], "is not devel=IMAGE"),
    ],
)
def test_an_audit_that_makes_no_sense_is_exit_2(words, said):
    result = builder("audit", *words)
    assert (result.returncode, said in result.stderr) == (2, True)


def test_pins_that_are_not_there_are_exit_2_and_named(tmp_path):
    result = builder("render", "--pins", tmp_path / "none.toml")
    assert (result.returncode, "none.toml: cannot be read" in result.stderr) == (2, True)


def test_pins_with_a_mistake_are_exit_2_with_its_place(tmp_path):
    text = (ROOT / "pins.toml").read_text().replace('fork = "mainline"', 'fork = "mainlin"', 1)
    (tmp_path / "pins.toml").write_text(text)
    result = builder("render", "--pins", tmp_path / "pins.toml")
    assert result.returncode == 2
    assert "pins.toml: variants.mainline-cpu.fork: unknown fork 'mainlin'" in result.stderr


def test_pins_are_looked_for_upwards(tmp_path):
    (tmp_path / "pins.toml").write_bytes((ROOT / "pins.toml").read_bytes())
    (tmp_path / "below").mkdir()
    builder("render", cwd=tmp_path / "below")
    assert (tmp_path / "dockerfiles" / "rendered" / "mainline-cpu.Dockerfile").is_file()


def test_an_unknown_variant_is_exit_2_with_the_nearest():
    result = builder("render", "mainline-cpux", "--stdout")
    assert (result.returncode, "did you mean 'mainline-cpu'?" in result.stderr) == (2, True)


def test_check_is_exit_1_with_a_diff_when_a_file_differs(tmp_path):
    (tmp_path / "pins.toml").write_bytes((ROOT / "pins.toml").read_bytes())
    builder("render", cwd=tmp_path)
    file = tmp_path / "dockerfiles" / "rendered" / "mainline-cpu.Dockerfile"
    file.write_text(file.read_text().replace("GGML_NATIVE=OFF", "GGML_NATIVE=ON"))
    result = builder("render", "--check", cwd=tmp_path)
    assert result.returncode == 1
    assert '+      "-DGGML_NATIVE=OFF" \\' in result.stdout


def test_check_finds_a_file_that_no_variant_has(tmp_path):
    (tmp_path / "pins.toml").write_bytes((ROOT / "pins.toml").read_bytes())
    builder("render", cwd=tmp_path)
    (tmp_path / "dockerfiles" / "rendered" / "old.Dockerfile").write_text("FROM scratch\n")
    assert builder("render", "--check", cwd=tmp_path).returncode == 1


def test_stdout_writes_no_file(tmp_path):
    (tmp_path / "pins.toml").write_bytes((ROOT / "pins.toml").read_bytes())
    result = builder("render", "mainline-cpu", "--stdout", cwd=tmp_path)
    assert "FROM ${DEVEL_IMAGE} AS devel" in result.stdout
    assert not (tmp_path / "dockerfiles").exists()


def test_a_summary_goes_to_the_jobs_page_and_keeps_what_is_there(tmp_path, monkeypatch, capsys):
    page = tmp_path / "summary.md"
    page.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    console.summarise("### PASS")
    assert page.read_text() == "before\n### PASS\n"
    assert capsys.readouterr().out == ""


def test_a_summary_outside_of_a_job_is_printed(monkeypatch, capsys):
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    console.summarise("### PASS")
    assert capsys.readouterr().out == "### PASS\n"


def test_a_table_leaves_nothing_out_of_a_word_that_is_wider_than_its_column(capsys):
    console.table([("a", "x" * 500)], header=("name", "value"))
    assert capsys.readouterr().out.count("x") == 500


# --- What the machine lacks costs a line, and never a verdict -------------------------------------


def shell(command: str, *words: object, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run the program in a line of bash, where it is "$@"."""
    line = ["bash", "-c", command, "-", sys.executable, "-m", "builder", *map(str, words)]
    environment = os.environ | variables
    return subprocess.run(line, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture
def copy(tmp_path) -> Path:
    """The real pins.toml alone in a folder."""
    (tmp_path / "pins.toml").write_bytes((ROOT / "pins.toml").read_bytes())
    return tmp_path / "pins.toml"


def test_a_full_disk_is_one_line_with_the_file_and_leaves_nothing(copy):
    result = shell('ulimit -f 1; "$@"', "render", "mainline-cpu", "--pins", copy)
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 2)
    assert "mainline-cpu.Dockerfile: File too large" in result.stderr
    assert not list(copy.parent.rglob("*.tmp")) + list(copy.parent.rglob("*.Dockerfile"))


@pytest.mark.parametrize("stdout", ["/dev/full", "&-"])
@pytest.mark.parametrize("drifted", [False, True])
def test_an_answer_that_is_not_written_does_not_change_a_no(copy, stdout, drifted):
    builder("render", "--pins", copy)
    if drifted:
        next(copy.parent.rglob("mainline-cpu.Dockerfile")).write_text("")
    result = shell(f'"$@" >{stdout}', "render", "--check", "--pins", copy)
    assert result.returncode == int(drifted)
    # Who closes stdout asked for no answer; nobody fills a disk on purpose.
    lost = stdout == "/dev/full" and drifted
    assert ("error: the answer cannot be written" in result.stderr) == lost
    assert "Traceback" not in result.stderr


def test_a_yes_that_is_not_written_is_no_yes():
    result = shell('"$@" >/dev/full', "--version")
    said = "error: the answer cannot be written: No space left on device\n"
    assert (result.returncode, result.stderr) == (2, said)


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "ascii:strict"])
def test_a_terminal_that_lacks_a_letter_gets_another(copy, encoding):
    rendered = builder("render", "--pins", copy).returncode
    file = next(copy.parent.rglob("mainline-cpu.Dockerfile"))
    file.write_text(file.read_text() + "# €\n", encoding="utf-8")
    result = shell('"$@"', "render", "--check", "--pins", copy, PYTHONIOENCODING=encoding)
    assert (rendered, result.returncode) == (0, 1)
    assert "-# ?" in result.stdout


def test_a_name_that_is_no_text_is_told_all_the_same():
    name = b"/nowhere/\xff.toml"
    line = [sys.executable, "-m", "builder", "render", "--pins", name]
    assert subprocess.run(line, capture_output=True, check=False).returncode == 2


def test_a_cache_that_cannot_be_written_is_one_line_that_says_where_to_put_it(tiny_pins):
    before = tiny_pins.read_text()
    result = shell('"$@"', "bump", "--to=v1", "--pins", tiny_pins, XDG_CACHE_HOME="/dev/null/x")
    assert (result.returncode, tiny_pins.read_text()) == (2, before)
    assert "error: /dev/null/x/turboquant-builder/bump: Not a directory\n" in result.stderr
    assert "XDG_CACHE_HOME names another folder" in result.stderr


@pytest.mark.usefixtures("private_cache")
@pytest.mark.parametrize(("behind", "verdict"), [(0, 0), (60, 1)])
def test_a_jobs_page_that_is_not_there_leaves_the_verdict(
    tiny_pins, repository, progress, behind, verdict
):
    bump.bump(tiny_pins, bump.Request(to="HEAD"), None, progress)
    for number in range(behind):
        repository.commit(f"commit {number}")
    nowhere = {"GITHUB_STEP_SUMMARY": "/nowhere/summary.md"}
    words = ["freshness", "--github-summary", "--pins", tiny_pins]
    result = shell('"$@"', *words, **nowhere)
    assert result.returncode == verdict
    assert "warning: no summary: GITHUB_STEP_SUMMARY /nowhere/summary.md" in result.stderr
    assert ("stale" in result.stdout) == (verdict == 1)
    # A file that was asked for is more than a page of somebody else's: a yes without it is none.
    result = shell('"$@"', "freshness", "--badge", "/dev/full", "--pins", tiny_pins)
    assert result.returncode == (verdict or 2)
    assert "/dev/full: No space left on device" in result.stderr
