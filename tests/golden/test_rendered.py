"""The committed Dockerfiles are what the templates and pins give, and hadolint passes them."""

import subprocess
import sys
from pathlib import Path

import pytest

from builder.build import render
from builder.pins import load as pins
from tests.conftest import ROOT

RENDERED = ROOT / "dockerfiles" / "rendered"
REAL = pins.load(ROOT / "pins.toml")


@pytest.mark.parametrize("name", REAL.variants)
def test_a_committed_dockerfile_is_what_is_rendered(name):
    rendered = render.render(REAL, name)

    assert (RENDERED / rendered.file_name).read_bytes() == rendered.text.encode()


def test_every_committed_file_belongs_to_a_variant():
    assert sorted(path.name for path in RENDERED.iterdir()) == sorted(
        f"{name}.Dockerfile" for name in REAL.variants
    )


def hadolint(path):
    return subprocess.run(
        [Path(sys.executable).parent / "hadolint", path],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("path", sorted(RENDERED.iterdir()), ids=lambda path: path.stem)
def test_hadolint_passes(path):
    result = hadolint(path)

    assert (result.returncode, result.stdout + result.stderr) == (0, "")


def test_hadolint_finds_what_is_wrong(tmp_path):
    path = tmp_path / "Dockerfile"
    path.write_text("FROM debian\n", encoding="utf-8")

    assert "DL3006" in hadolint(path).stdout
