"""bandit, a checker of Python for security, has nothing against the package but what is named here.

What it rates low are subprocesses and words like "password": ruff's rules S judge them by line.
"""

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

EXCEPTED = {
    (
        "B104",
        "builder/audit/rules/launch.py",
    ): "the address that an image must listen on, inside of it",
    ("B104", "builder/serve/containers.py"): "compared, and not bound",
    ("B108", "builder/engine/restrictions.py"): "/tmp of a container, which is its own",
    ("B604", "builder/image/files.py"): "an image's SHELL, a field of ours; nothing is run",
    (
        "B701",
        "builder/build/render.py",
    ): "a Dockerfile is no HTML; pins_problems.py checks what goes in",
}


def found(folder: Path) -> set[tuple[str, str]]:
    """The rules that are broken, at medium severity or higher, and where."""
    words = ["-q", "-ll", "-r", str(folder), "-f", "json"]
    made = subprocess.run(
        [sys.executable, "-m", "bandit", *words], capture_output=True, text=True, check=False
    )
    report = json.loads(made.stdout)
    assert report["errors"] == []
    assert report["metrics"]["_totals"]["loc"] > 0
    return {
        (one["test_id"], str(Path(one["filename"]).relative_to(folder.parent)))
        for one in report["results"]
    }


def test_bandit_has_nothing_else_against_the_package():
    assert found(ROOT / "builder") - EXCEPTED.keys() == set()


def test_bandit_would_have(tmp_path):
    bad = tmp_path / "bad" / "bad.py"
    bad.parent.mkdir()
    bad.write_text("import subprocess, sys\nsubprocess.run(sys.argv[1], shell=True)\n")
    assert found(bad.parent) == {("B602", "bad/bad.py")}
