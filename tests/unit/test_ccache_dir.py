"""Which folders `--ccache-dir` takes: what is in one is replaced as a whole."""

from pathlib import Path

import pytest

from builder import ccache_dir
from builder.errors import UsageError
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


def test_a_mount_is_refused_with_a_folder_in_it():
    with pytest.raises(UsageError, match="cannot be replaced") as caught:
        ccache_dir.prepare(Path("/dev/shm"))
    assert "/dev/shm/ccache" in caught.value.hint


def test_each_folder_has_a_mount_of_its_own(tmp_path):
    assert ccache_dir.mount_id(tmp_path / "a") != ccache_dir.mount_id(tmp_path / "b")


def test_a_folder_that_cannot_be_replaced_is_put_back(tmp_path):
    folder = tmp_path / "ccache"
    folder.mkdir()
    with pytest.raises(FileNotFoundError):
        ccache_dir._swap(folder, tmp_path / "never-made", tmp_path / "old")
    assert [path.name for path in tmp_path.iterdir()] == ["ccache"]
