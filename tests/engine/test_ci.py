"""The `run:` line of ci.yml in a fresh clone: all of it, with one test for pytest to run."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support import workflows

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ci") / "clone"
    subprocess.run(["git", "clone", "-q", ROOT, folder], check=True)
    return folder


def run(clone: Path) -> "subprocess.CompletedProcess[str]":
    # Who runs the tests is root already.
    words = workflows.line(".ci/run").removeprefix("sudo ").split()
    one = {"PYTEST_ADDOPTS": "tests/golden/test_readme.py"}
    return subprocess.run(
        words, cwd=clone, env=os.environ | one, capture_output=True, text=True, check=False
    )


def test_the_line_sets_up_tests_and_lints_a_fresh_clone(clone):
    made = run(clone)
    assert made.returncode == 0, made.stdout + made.stderr
    assert "1 passed" in made.stdout
    assert "Success: no issues found" in made.stdout


def test_the_line_fails_where_one_of_its_steps_does(clone):
    (clone / "builder" / "unused.py").write_text('"""A module."""\n\nimport os\n')
    made = run(clone)
    assert made.returncode == 1
    assert "`os` imported but unused" in made.stdout
