"""README.md and what runs are the same words."""

from tests.conftest import ROOT


def test_ci_runs_the_readmes_test_command():
    command = (ROOT / "README.md").read_text().rpartition("```sh\n")[2].partition("\n```")[0]
    assert command.endswith("pytest --numprocesses=2")
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()
