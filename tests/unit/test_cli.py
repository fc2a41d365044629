"""What every command answers before it does anything."""

import pytest

from builder import __version__, console
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
