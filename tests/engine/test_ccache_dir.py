"""`builder build --ccache-dir` on the real engine: what compiled travels in a folder."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.conftest import SAMPLES, Repository, builder, start_builder

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("private_cache", "tiny_tags")]

UNLINKED = "int missing(); int main() { return missing(); }\n"
"""Compiles, and does not link."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "carried, ccache"


def build(pins: Path, folder: Path, *words: object) -> dict:
    result = builder("build", "--json", "--pins", pins, "--ccache-dir", folder, *words)
    assert result.returncode == 0, result.stderr
    assert "did not get out" not in result.stderr
    return json.loads(result.stdout)


def results(folder: Path) -> list[Path]:
    """What ccache keeps of compilations: names that end in R."""
    return [path for path in folder.rglob("*") if path.is_file() and path.name.endswith("R")]


def beside(folder: Path) -> list[str]:
    return [path.name for path in folder.parent.iterdir() if folder.name in path.name]


def test_an_empty_folder_is_filled_by_what_compiles(tiny_pins, folder):
    receipt = build(tiny_pins, folder, "--ref", "HEAD")
    assert receipt["ccache"] == {"hits": 0, "misses": 4, "uncacheable": 0, "hit_rate": 0.0}
    assert len(results(folder)) == 4
    assert beside(folder) == [folder.name]


def test_a_folder_that_was_elsewhere_answers_every_call(tiny_pins, folder, tmp_path):
    build(tiny_pins, folder, "--ref", "HEAD")
    # Another path, another cache mount: the engine holds nothing under it.
    moved = folder.rename(tmp_path / "moved")
    receipt = build(tiny_pins, moved, "--ref", "HEAD")
    assert receipt["ccache"] == {"hits": 4, "misses": 0, "uncacheable": 0, "hit_rate": 1.0}


def test_files_are_the_callers_and_keep_the_times_of_their_last_use(tiny_pins, folder, repository):
    build(tiny_pins, folder, "--ref", "HEAD")
    before = {path.name: path.stat().st_mtime_ns for path in results(folder)}
    build(tiny_pins, folder, "--ref", repository.commit("another", notes_md="another"))
    after = {path.name: path.stat() for path in results(folder)}
    # By these times ccache tells what to drop first. All but the first build info was used again.
    assert len([name for name in before if after[name].st_mtime_ns == before[name]]) == 1
    owners = {(found.st_uid, found.st_gid) for found in after.values()}
    assert owners == {(os.getuid(), os.getgid())}


def test_a_failed_build_leaves_the_folder_as_it_was(tiny_pins, folder, repository: Repository):
    good = build(tiny_pins, folder, "--ref", "HEAD")
    before = sorted(results(folder))
    broken = repository.commit("broken", server_cpp=UNLINKED)
    failed = builder("build", "--pins", tiny_pins, "--ccache-dir", folder, "--ref", broken)
    assert failed.returncode == 5, failed.stderr
    assert (sorted(results(folder)), beside(folder)) == (before, [folder.name])
    whole = (SAMPLES / "tiny" / "server.cpp").read_text()
    mended = repository.commit("mended", server_cpp=whole)
    # Of the good commit, all but the build info, which names the commit.
    assert (
        good["ccache"]["misses"],
        build(tiny_pins, folder, "--ref", mended)["ccache"]["hits"],
    ) == (4, 3)


def test_an_interrupted_build_leaves_the_folder_as_it_was(tiny_pins, folder, repository):
    commit = repository.commit("unique", notes_md=os.urandom(8).hex())
    running = start_builder("build", "--pins", tiny_pins, "--ccache-dir", folder, "--ref", commit)
    assert running.stderr is not None
    assert any("[build 1/2]" in line for line in running.stderr)
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=60)
    assert running.returncode == 130
    assert list(folder.iterdir()) == []
    assert beside(folder) == [folder.name]


def test_no_cache_compiles_all_anew_and_the_folder_gets_it(tiny_pins, folder):
    build(tiny_pins, folder, "--ref", "HEAD")
    again = build(tiny_pins, folder, "--ref", "HEAD", "--no-cache")
    assert (again["ccache"]["hits"], again["ccache"]["misses"]) == (0, 4)
    assert len(results(folder)) == 4


def test_no_cache_leaves_the_ccache_that_others_share(tiny_pins, repository):
    def shared(commit: str, *words: str) -> dict:
        result = builder("build", "--json", "--pins", tiny_pins, "--ref", commit, *words)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)["ccache"]

    shared(repository.commit("first", notes_md=os.urandom(8).hex()))
    anew = repository.commit("second", notes_md=os.urandom(8).hex())
    assert shared(anew, "--no-cache")["misses"] == 4
    # All but the build info, which names the commit.
    assert shared(repository.commit("third", notes_md=os.urandom(8).hex()))["hits"] == 3
