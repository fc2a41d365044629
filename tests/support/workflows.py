"""The `run:` lines of .github/workflows, and a folder to run them in."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.conftest import ROOT

FOLDER = ROOT / ".github" / "workflows"


def documents() -> dict[str, dict[str, Any]]:
    """Every workflow by its file's name."""
    return {path.name: YAML(typ="safe").load(path.read_text()) for path in FOLDER.iterdir()}


def steps() -> list[dict[str, Any]]:
    """The steps of all jobs of all workflows."""
    jobs = [job for one in documents().values() for job in one["jobs"].values()]
    return [step for job in jobs for step in job.get("steps", [])]


def line(part: str) -> str:
    """The one `run:` line that has this in it."""
    (found,) = {step["run"] for step in steps() if part in step.get("run", "")}
    return str(found)


def run(script: str, folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a line as a job does, in a folder where `.venv/bin/builder` is this builder."""
    shim = folder / ".venv" / "bin" / "builder"
    shim.parent.mkdir(parents=True, exist_ok=True)
    shim.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m builder "$@"\n')
    shim.chmod(0o755)
    # The shell that a step without `shell:` gets on a runner of Linux.
    command = ["bash", "--noprofile", "--norc", "-e", "-c", script]
    return subprocess.run(
        command,
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


AUDIT = ".venv/bin/pip-audit"

_STAND_IN = """#!/bin/sh
echo "$0" >> "$CALLS"
[ "$(wc -l < "$CALLS")" != "$FAILING" ] || exit 3
"""


def run_with_stand_ins(
    script: str, folder: Path, calls: Path, failing: int = 0
) -> "subprocess.CompletedProcess[str]":
    """Run a line whose programs only write down that they were called; the n-th call fails."""
    path = folder / "path"
    for name in (
        "path/python3",
        "path/sudo",
        ".venv/bin/pip",
        ".venv/bin/builder",
        ".venv/bin/python",
        AUDIT,
    ):
        program = folder / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(_STAND_IN)
        program.chmod(0o755)
    calls.write_text("")
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-e", "-c", script],
        cwd=folder,
        env={
            "PATH": f"{path}:/usr/bin:/bin",
            "CALLS": str(calls),
            "FAILING": str(failing),
            "GITHUB_OUTPUT": str(folder / "output"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
