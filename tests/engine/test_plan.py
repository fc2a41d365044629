"""What `builder build` says before it begins, of the engine's real machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from docker import DockerClient

from tests.conftest import builder

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("private_cache")]


def with_a_full_disk(engine: DockerClient, *words: object) -> "subprocess.CompletedProcess[str]":
    """Run the command line where 400 MB are free under the engine's folder, in its own mounts."""
    mount = 'mount -t tmpfs -o size=400m none "$FOLDER"; exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", mount, "sh", sys.executable, "-m", "builder"]
    return subprocess.run(
        [*command, *(str(word) for word in words)],
        env=os.environ | {"FOLDER": engine.info()["DockerRootDir"]},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("words", [[], ["--dry-run"]])
def test_a_disk_without_room_is_refused_before_anything_is_fetched(
    engine, tiny_pins, private_cache: Path, words
):
    result = with_a_full_disk(engine, "build", "--ref", "HEAD", "--pins", tiny_pins, *words)
    assert result.returncode == 4, result.stderr
    assert "0.4 GB are free" in result.stderr
    assert "docker builder prune" in result.stderr
    assert not private_cache.exists()


def test_a_dry_run_tells_and_changes_nothing(engine, tiny_pins, private_cache: Path):
    result = builder("build", "--dry-run", "--json", "--ref", "HEAD", "--pins", tiny_pins)
    assert result.returncode == 0, result.stderr
    plan = json.loads(result.stdout)
    assert (plan["variant"], plan["source"]) == ("tiny", "fork tiny at HEAD")
    assert plan["cores"] == engine.info()["NCPU"]
    assert plan["disk_needed"] < plan["disk_free"]
    assert not private_cache.exists()
    assert not (tiny_pins.parent / "build").exists()


def test_fewer_compilers_can_be_asked_for(tiny_pins):
    result = builder("build", "--dry-run", "--json", "--jobs=1", "--pins", tiny_pins)
    assert json.loads(result.stdout)["jobs"] == 1


def test_nothing_is_said_of_a_named_builders_machine(tiny_pins):
    result = builder("build", "--dry-run", "--json", "--builder=far", "--pins", tiny_pins)
    plan = json.loads(result.stdout)
    assert (plan["cores"], plan["jobs"], plan["disk_free"]) == (None, None, None)
