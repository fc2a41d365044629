"""Which folders `--ccache-dir` takes, and what is read of what is in one."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from builder.build import ccache as ccache_dir
from builder.build.compile_cache import CompileCache
from builder.common.errors import UsageError
from tests.conftest import ROOT, builder


def test_a_folder_that_is_not_there_is_made(tmp_path):
    assert ccache_dir.prepare(tmp_path / "a" / "b").is_dir()


def test_what_ccache_keeps_is_taken(tmp_path):
    for name in ("0", "f", "lock", "tmp"):
        (tmp_path / name).mkdir()
    for name in ("CACHEDIR.TAG", "ccache.conf", "stats"):
        (tmp_path / name).touch()
    assert ccache_dir.prepare(tmp_path) == tmp_path


def test_a_folder_of_other_files_is_refused_and_keeps_them(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UsageError, match="is no ccache") as caught:
        ccache_dir.prepare(tmp_path)
    assert "thesis.tex" in caught.value.why
    assert "empty folder" in caught.value.hint
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_file_is_refused_before_an_engine_is_asked(tmp_path, place):
    (tmp_path / "file").touch()
    words = ["build", "mainline-cpu", "--pins", ROOT / "pins.toml"]
    result = builder(*words, "--ccache-dir", tmp_path / place)
    assert result.returncode == 2, result.stderr
    assert "is no folder" in result.stderr
    assert "→ name a folder" in result.stderr


def test_a_mount_is_taken_as_what_is_replaced_is_a_folder_in_it():
    with TemporaryDirectory(dir="/dev/shm") as folder:
        assert ccache_dir.prepare(Path(folder)) == Path(folder)


def test_each_folder_and_each_commit_has_a_mount_of_its_own(tmp_path):
    caches = [CompileCache("turboquant-ccache-tiny-commits", "commits", one) for one in "ab"]
    folders = [tmp_path / "a", tmp_path / "b"]
    mounts = {ccache_dir.mount_id(folder, one) for folder in folders for one in caches}
    assert len(mounts) == 4


def test_a_folder_that_cannot_be_replaced_is_put_back(tmp_path):
    folder = tmp_path / "ccache"
    folder.mkdir()
    with pytest.raises(FileNotFoundError):
        ccache_dir._swap(folder, tmp_path / "never-made", tmp_path / "old")
    assert [path.name for path in tmp_path.iterdir()] == ["ccache"]


def test_what_a_candidate_left_is_read_once_it_is_settled(tmp_path):
    cache = CompileCache("turboquant-ccache-tiny-commits", "commits", "d" * 40)
    (tmp_path / cache.name).mkdir()
    (tmp_path / cache.name / "before").touch()
    waiting = tmp_path / f".{cache.name}.waiting"
    waiting.mkdir()
    (waiting / "after").touch()
    assert ccache_dir.prepare(tmp_path) == tmp_path
    ccache_dir.settle(tmp_path, cache)
    assert [one.name for one in tmp_path.rglob("*")] == [cache.name, "after"]
    # Told again, after a kill perhaps, there is nothing to do.
    ccache_dir.settle(tmp_path, cache)
    assert [one.name for one in tmp_path.rglob("*")] == [cache.name, "after"]
