"""What an installed wheel carries."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an unpacked wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        f"--wheel-dir={folder}",
    ]
    subprocess.run([*command, str(ROOT)], check=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


def test_it_renders_its_own_pins_anywhere(installed: Path, tmp_path: Path):
    result = subprocess.run(
        [sys.executable, "-m", "builder", "render"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    rendered = tmp_path / "dockerfiles" / "rendered" / "mainline-cpu.Dockerfile"
    committed = ROOT / "dockerfiles" / "rendered" / "mainline-cpu.Dockerfile"
    assert rendered.read_bytes() == committed.read_bytes()


def test_it_carries_the_page_of_the_record(installed: Path, tmp_path: Path):
    result = subprocess.run(
        [sys.executable, "-m", "builder", "report", "--record", str(tmp_path)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "<title>" in (tmp_path / "index.html").read_text()
