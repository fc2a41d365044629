"""What the host reads of a stranger's tree: regular files inside it, not endless, by no link."""

import os
import re
import resource
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.common import tree_files
from builder.common.errors import UsageError
from builder.common.tree_files import TreeError
from builder.sources import archive as source_archive
from builder.sources import tree as sources
from builder.sources.archive import Known
from tests.conftest import ROOT, builder

FILE = "ggml/src/ggml.c"
Make = Callable[[Path], object]


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        before = Path.cwd()
        os.chdir(path.parent)  # a socket's path is short
        made.bind(path.name)
        os.chdir(before)


def larger(path: Path) -> None:
    path.touch()
    os.truncate(path, tree_files.LARGEST_TEXT + 1)


HOSTILE: dict[str, tuple[Make, str]] = {
    "endless": (lambda path: path.symlink_to("/dev/zero"), "is a link"),
    "terminal": (lambda path: path.symlink_to("/dev/stdin"), "is a link"),
    "secret": (lambda path: path.symlink_to("/etc/passwd"), "is a link"),
    "inside": (lambda path: path.symlink_to("../../CMakeLists.txt"), "is a link"),
    "itself": (lambda path: path.symlink_to(path.name), "is a link"),
    "pipe": (os.mkfifo, "is a pipe"),
    "socket": (a_socket, "is a socket"),
    "folder": (Path.mkdir, "is a folder"),
    "large": (larger, "has more than"),
}


@pytest.fixture(autouse=True)
def _little_memory():
    """An endless file is no danger to whoever runs the tests."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    made = tmp_path / "tree"
    (made / "ggml" / "src").mkdir(parents=True)
    (made / "CMakeLists.txt").write_text("project(tiny)\n")
    return made


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_plain_file_is_not_read(tree, name):
    make, said = HOSTILE[name]
    make(tree / FILE)
    with pytest.raises(TreeError, match=f"^{FILE} {said}"):
        tree_files.text(tree, FILE)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_a_device_is_not_opened(tree):
    os.mknod(tree / FILE, 0o20666, os.makedev(1, 5))
    with pytest.raises(TreeError, match="is a device"):
        tree_files.text(tree, FILE)


def test_no_folder_on_the_way_is_a_link(tree, tmp_path):
    (tree / "ggml").rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "src" / "ggml.c").write_text("stolen")
    (tree / "ggml").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TreeError, match="lies behind a link"):
        tree_files.text(tree, FILE)
    assert not tree_files.is_folder(tree, "ggml/src")
    assert not tree_files.is_folder(tree, "ggml")


@pytest.mark.parametrize("within", ["../secret", "/etc/passwd", "ggml/../../secret"])
def test_no_path_leaves_the_tree(tree, within):
    with pytest.raises(TreeError, match="outside of the tree"):
        tree_files.text(tree, within)


def test_a_tree_of_a_name_that_is_a_link_is_the_users_own(tree, tmp_path):
    (tmp_path / "mine").symlink_to(tree)
    assert tree_files.text(tmp_path / "mine", "CMakeLists.txt") == "project(tiny)\n"
    assert tree_files.text(tmp_path / "mine", FILE) is None


def test_a_walk_follows_no_link_and_ends(tree, monkeypatch):
    (tree / "back").symlink_to(".")
    (tree / "root").symlink_to("/")
    names = [str(one.relative_to(tree)) for one in tree_files.walk(tree)]
    assert names == ["CMakeLists.txt", "back", "ggml", "ggml/src", "root"]
    monkeypatch.setattr(tree_files, "MOST_ENTRIES", 4)
    with pytest.raises(TreeError, match="more than 4 files"):
        list(tree_files.walk(tree))


def test_a_walk_goes_as_deep_as_a_commit_can(tree):
    deep = str(tree)
    for _ in range(1500):
        deep += "/a"
        os.mkdir(deep)  # noqa: PTH102 -- pathlib's own way down ends before
    try:
        assert sum(one.name == "a" for one in tree_files.walk(tree)) == 1500
    finally:
        subprocess.run(["rm", "-r", tree / "a"], check=True)  # Python's own way ends before


# --- Where trees are read -------------------------------------------------------------------------


@pytest.mark.parametrize("name", [one for one in HOSTILE if one not in {"inside", "folder"}])
def test_a_hostile_tree_is_not_packed(tree, tmp_path, monkeypatch, name):
    monkeypatch.setattr(source_archive, "_LARGEST", tree_files.LARGEST_TEXT)
    HOSTILE[name][0](tree / FILE)
    if name == "itself":
        (tree / FILE).unlink()
        (tree / FILE).symlink_to("../../../..")
    with pytest.raises(UsageError, match="cannot be archived"):
        source_archive.write(tree, tmp_path / "out.tar.gz", "tiny", Known())
    assert not list(tmp_path.glob("out.tar.gz*"))


@pytest.mark.parametrize("name", [one for one in HOSTILE if one != "large"])
def test_a_folder_whose_project_file_is_none_is_no_source(tree, real_pins, progress, name):
    (tree / "CMakeLists.txt").unlink()
    HOSTILE[name][0](tree / "CMakeLists.txt")
    taken = sources.tree(real_pins, "spiritbuun-cpu", "d" * 40, tree, progress)
    with pytest.raises(UsageError, match="is no source tree"), taken:
        pass


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_source_that_is_neither_folder_nor_file_is_refused_at_once(tmp_path, kind):
    os.mkfifo(tmp_path / "pipe")
    place = {"pipe": tmp_path / "pipe", "device": Path("/dev/zero")}[kind]
    words = ["build", "spiritbuun-cpu", "--pins", ROOT / "pins.toml", "--ref", "d" * 40]
    result = builder(*words, "--source", place, timeout=60)
    # Where there is no engine, that is said first.
    assert result.returncode in {2, 4}, result.stderr


def test_a_tree_is_read_in_this_one_place():
    """No module reads a file by the path of a tree, but as this one does."""
    readers = re.compile(r"(tree|folder|home|top)(\.path)? / [^)\n]*\)?\.(read_\w+|open|is_file)\(")
    modules = ("pins/parts", "sources/checks", "sources/tree", "sources/archive")
    places = [ROOT / "builder" / f"{one}.py" for one in modules]
    assert [one.name for one in places if readers.search(one.read_text())] == []
