"""Several files are replaced together, or none of them is."""

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from builder.common.files import read_regular, replace_files, sweep, write_atomically


def listing(folder):
    return {p.name: p.read_bytes() if p.is_file() else None for p in folder.iterdir()}


def write_one(file, root=None):
    write_atomically(file, b"new", root=root)


def write_several(file, root=None):
    replace_files({file: b"new"}, root=root)


def read_one(file, root):
    read_regular(file, root=root)


def in_small_files(tmp_path, code):
    """The exit code and the last line of Python code, where no file may grow over 1 KiB."""
    limited = ["bash", "-c", 'ulimit -f 1; exec "$@"', "-", sys.executable, "-c", code]
    result = subprocess.run(limited, cwd=tmp_path, capture_output=True, text=True, check=False)
    return result.returncode, result.stderr.strip().rpartition("\n")[2]


@pytest.mark.parametrize("call", ["write_atomically(file, b'x' * 4096)", "require_writable(file)"])
def test_what_finds_no_room_changes_nothing_leaves_nothing_and_names_the_file(tmp_path, call):
    (tmp_path / "a").write_bytes(b"old")
    code = f"from pathlib import Path; from builder.common.files import *; file = Path('a'); {call}"
    assert in_small_files(tmp_path, code) == (1, "OSError: [Errno 27] File too large: 'a'")
    assert listing(tmp_path) == {"a": b"old"}


@pytest.mark.parametrize("content", ["new €", "new €".encode()])
def test_a_file_is_written_whole_in_a_folder_that_is_made(tmp_path, content):
    file = tmp_path / "made" / ("n" * 250)
    write_atomically(file, content)
    assert listing(tmp_path / "made") == {file.name: "new €".encode()}


def test_a_file_keeps_its_mode_and_a_link_leads_where_it_led(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "a").chmod(0o640)
    (tmp_path / "link").symlink_to("a")
    write_atomically(tmp_path / "link", "new")
    assert listing(tmp_path) == {"a": b"new", "link": b"new"}
    assert ((tmp_path / "a").stat().st_mode & 0o777, (tmp_path / "link").is_symlink()) == (
        0o640,
        True,
    )


def test_a_device_is_written_to_and_stays_one():
    write_atomically(Path(os.devnull), "new")
    with pytest.raises(OSError, match=r"No space left on device: '/dev/full'"):
        write_atomically(Path("/dev/full"), "new")
    assert not Path(os.devnull).is_file()


def test_every_file_is_written_and_nothing_else_is_left(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    replace_files({tmp_path / "a": b"new", tmp_path / "b": b"first"})
    assert listing(tmp_path) == {"a": b"new", "b": b"first"}


def test_a_rename_that_fails_in_the_middle_puts_everything_back(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "in-the-way").mkdir()
    (tmp_path / "z").write_bytes(b"old")
    before = listing(tmp_path)
    names = ("a", "new", "in-the-way", "z")
    with pytest.raises(IsADirectoryError):
        replace_files({tmp_path / name: b"new" for name in names})
    assert listing(tmp_path) == before


def test_a_folder_that_is_not_there_changes_nothing(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(FileNotFoundError):
        replace_files({tmp_path / "a": b"new", tmp_path / "nowhere" / "b": b"new"})
    assert listing(tmp_path) == {"a": b"old"}


def test_the_mode_of_a_file_stays(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "a").chmod(0o640)
    replace_files({tmp_path / "a": b"new"})
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_what_put_back_is_the_very_file_with_its_time(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    os.utime(tmp_path / "a", (1_000_000_000, 1_000_000_000))
    (tmp_path / "b").mkdir()
    with pytest.raises(IsADirectoryError):
        replace_files({tmp_path / "a": b"new", tmp_path / "b": b"new"})
    assert (tmp_path / "a").stat().st_mtime == 1_000_000_000


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to own a file that another may not take")
def test_a_file_of_somebody_else_in_a_sticky_folder_leaves_all_as_it_was(tmp_path):
    # In such a folder anybody may make files, and only the owner may replace one: a real failure
    # of the second rename.
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    for name, owner in (("a", 65534), ("b", 0)):
        (folder / name).write_bytes(b"old")
        os.chown(folder / name, owner, owner)
        (folder / name).chmod(0o666)
    before = listing(folder)
    code = """
        import os, sys
        from pathlib import Path
        from builder.common.files import replace_files
        os.chdir(sys.argv[1])
        os.setgid(65534)
        os.setuid(65534)
        try:
            replace_files({Path("a"): b"new", Path("b"): b"new"})
        except PermissionError:
            sys.exit(7)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), folder], check=False)
    assert done.returncode == 7
    assert listing(folder) == before


# --- Links and names that somebody else made ------------------------------------------------------


@pytest.fixture
def victim(tmp_path):
    (tmp_path / "home").mkdir()
    file = tmp_path / "home" / ".bashrc"
    file.write_bytes(b"mine")
    return file


@pytest.fixture
def tree(tmp_path):
    """A tree that came from elsewhere, such as a record of a branch."""
    folder = tmp_path / "tree"
    (folder / "nights").mkdir(parents=True)
    return folder


@pytest.mark.parametrize("act", [write_one, write_several, read_one])
def test_no_link_is_followed_in_a_tree_from_elsewhere(act, victim, tree):
    (tree / "nights" / "a.json").symlink_to(victim)
    with pytest.raises(OSError, match=r"none is followed there: '.*a\.json'"):
        act(tree / "nights" / "a.json", tree)
    assert victim.read_bytes() == b"mine"


@pytest.mark.parametrize("act", [write_one, write_several, read_one])
def test_no_folder_of_such_a_tree_may_be_a_link(act, victim, tree):
    (tree / "releases").symlink_to(victim.parent)
    with pytest.raises(OSError, match="none is followed there"):
        act(tree / "releases" / ".bashrc", tree)
    assert victim.read_bytes() == b"mine"
    assert listing(victim.parent) == {".bashrc": b"mine"}


@pytest.mark.parametrize("name", ["a.json.builder-new", "a.json.builder-old", "a.json.tmp"])
@pytest.mark.parametrize("act", [write_one, write_several])
def test_no_name_that_can_be_foreseen_is_written_to(act, name, victim, tree):
    (tree / "nights" / "a.json").write_bytes(b"old")
    (tree / "nights" / name).symlink_to(victim)
    act(tree / "nights" / "a.json", tree)
    assert (tree / "nights" / "a.json").read_bytes() == b"new"
    assert victim.read_bytes() == b"mine"


def test_the_tree_itself_may_be_behind_a_link_of_the_users_own(tmp_path, tree):
    (tmp_path / "link").symlink_to("tree")
    write_one(tmp_path / "link" / "nights" / "a.json", tmp_path / "link")
    assert (tree / "nights" / "a.json").read_bytes() == b"new"


def test_a_file_outside_of_its_tree_is_not_written(tree):
    with pytest.raises(ValueError, match="is not in the subpath"):
        write_one(tree.parent / "escaped", tree)


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_only_regular_files_are_read_and_nothing_hangs(kind, tree):
    file = tree / "a.json"
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        file, tree = Path("/dev/zero"), Path("/dev")
    with pytest.raises(OSError, match=str(file)):
        read_regular(file, root=tree)


def test_a_file_without_end_is_not_read(tree):
    with (tree / "big").open("wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(OSError, match="over 67108864 bytes"):
        read_regular(tree / "big", root=tree)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to have a file of somebody else")
@pytest.mark.parametrize("act", [write_one, write_several])
@pytest.mark.parametrize("link", ["out.json", "folder"])
def test_a_link_of_another_user_is_not_followed(act, link, victim, tmp_path):
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    (folder / "out.json").symlink_to(victim)
    (folder / "folder").symlink_to(victim.parent)
    file = folder / "out.json" if link == "out.json" else folder / "folder" / ".bashrc"
    os.chown(folder / link, 65534, 65534, follow_symlinks=False)
    with pytest.raises(OSError, match="a link that another user made"):
        act(file)
    assert victim.read_bytes() == b"mine"


def test_a_pipe_is_written_to_through_links():
    code = """
        from pathlib import Path
        from builder.common.files import write_atomically
        write_atomically(Path("/dev/stdout"), b"told")
    """
    told = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, check=True
    )
    assert told.stdout == b"told"


def test_links_in_a_ring_have_an_end(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        write_one(tmp_path / "a")


def test_what_a_kill_left_is_swept_away_and_nothing_else(tmp_path):
    left = ("a.json.builder-new", "a.json.builder-old", ".0123456789abcdef.tmp")
    for name in (*left, "a.json", ".tmp", "b.tmp"):
        (tmp_path / name).write_bytes(b"")
    sweep(tmp_path)
    assert sorted(listing(tmp_path)) == [".tmp", "a.json", "b.tmp"]


# --- What is no regular file ----------------------------------------------------------------------

BOTH = """
import sys
from pathlib import Path
from builder.common.files import replace_files, write_atomically

print("before")
if sys.argv[1] == "alone":
    write_atomically(Path(sys.argv[2]), b"written\\n")
else:
    replace_files({Path(sys.argv[2]): b"written\\n", Path("other"): b"other\\n"})
print("after")
"""
WAYS = ["alone", "with others"]


def shell(folder: Path, way: str, line: str) -> "subprocess.CompletedProcess[str]":
    """Run a line of bash in which `$WRITE` writes to the file that is named after it."""
    (folder / "write.py").write_text(BOTH)
    # As /dev/stdout is one; a mistake here leaves /dev alone.
    (folder / "stdout").symlink_to("/proc/self/fd/1")
    words = ["bash", "-c", line.replace("$WRITE", f"'{sys.executable}' write.py '{way}'")]
    return subprocess.run(
        words, cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["stdout", "/dev/fd/1"])
def test_standard_output_gets_it_in_its_turn(tmp_path, way, name):
    made = shell(tmp_path, way, f"$WRITE {name} | cat")
    assert (made.stdout, made.stderr) == ("before\nwritten\nafter\n", "")
    assert (tmp_path / "stdout").is_symlink()


@pytest.mark.parametrize("way", WAYS)
def test_so_it_does_where_it_is_a_file(tmp_path, way):
    made = shell(tmp_path, way, "$WRITE stdout > file")
    assert (made.returncode, made.stderr) == (0, "")
    assert (tmp_path / "file").read_text() == "before\nwritten\nafter\n"


@pytest.mark.parametrize("way", WAYS)
def test_another_program_gets_it_by_substitution(tmp_path, way):
    made = shell(tmp_path, way, "mkfifo done; $WRITE >(cat > got; : > done) && : < done")
    assert (made.returncode, made.stderr) == (0, "")
    assert (tmp_path / "got").read_text() == "written\n"


@pytest.mark.parametrize("way", WAYS)
def test_a_pipe_stays_and_its_reader_gets_it(tmp_path, way):
    made = shell(tmp_path, way, "mkfifo pipe; $WRITE pipe > said & cat pipe; wait")
    assert made.stdout == "written\n"
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
@pytest.mark.parametrize("way", WAYS)
def test_a_device_stays(tmp_path, way):
    os.mknod(tmp_path / "null", 0o20666, os.makedev(1, 3))
    made = shell(tmp_path, way, "$WRITE null")
    assert (made.returncode, made.stderr) == (0, "")
    assert (tmp_path / "null").is_char_device()


@pytest.mark.parametrize("way", WAYS)
def test_a_link_of_ones_own_stays_and_its_file_is_replaced(tmp_path, way):
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    made = shell(tmp_path, way, "$WRITE link")
    assert (made.returncode, made.stderr) == (0, "")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "written\n"


def test_where_a_device_is_full_the_files_are_as_they_were(tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(OSError, match="/dev/full") as caught:
        replace_files({Path("/dev/full"): b"new", tmp_path / "file": b"new"})
    assert caught.value.errno == errno.ENOSPC
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("file", "old")]
