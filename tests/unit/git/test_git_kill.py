"""Git's caches after SIGKILL, a power cut, and beside a git that outlived its builder."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from builder.common.errors import FileError
from builder.git import remote as git
from builder.git.cache import GitCache, drop
from builder.git.run import alone
from tests.conftest import Recorder, Repository, builder
from tests.support import git_kills

pytestmark = pytest.mark.usefixtures("private_cache")


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return git_kills.compiled(tmp_path_factory.mktemp("kill-points"))


@pytest.fixture
def remote(repository: Repository) -> git.Remote:
    repository.git("config", "uploadpack.allowFilter", "true")
    return git.Remote("tiny", repository.url)


def files(tree: Path) -> dict[str, bytes]:
    found = [path for path in tree.rglob("*") if path.is_file()]
    return {str(path.relative_to(tree)): path.read_bytes() for path in found}


def files_of(repository: Repository, commit: str) -> dict[str, bytes]:
    names = repository.git("ls-tree", "-r", "--name-only", commit).split()
    shown = [["git", "-C", str(repository.path), "show", f"{commit}:{name}"] for name in names]
    return {
        name: subprocess.run(command, capture_output=True, check=True).stdout
        for name, command in zip(names, shown, strict=True)
    }


def left(remote: git.Remote, kind: str) -> list[str]:
    """What only a git that was killed leaves in a repository."""
    return [str(path) for path in remote.cache(kind).rglob("*.lock")] + [
        str(path) for path in remote.cache(kind).rglob("tmp_*")
    ]


# --- A kill at each change of the disk


def test_a_kill_anywhere_in_a_checkout_is_mended_by_the_next(library, remote, repository, progress):
    commits = [repository.git("rev-parse", name) for name in ("HEAD", "HEAD~2")]
    wanted = [files_of(repository, commit) for commit in commits]
    git.checkout(remote, commits[1], progress)
    points, locked = 0, 0
    for _ in git_kills.each(library, lambda: git.checkout(remote, commits[0], Recorder())):
        points += 1
        locked += bool(left(remote, "trees"))
        # In turn the commit that was killed, and one that is no part of it.
        which = points % 2
        tree, _ = git.checkout(remote, commits[which], progress)
        assert files(tree) == wanted[which], f"after the kill at {points}"
        assert not left(remote, "trees")
        git.checkout(remote, commits[1], progress)
    assert points > 5, "no kill was in the checkout"
    assert locked, "no kill left a lock behind"


@pytest.mark.parametrize(("name", "step"), [("checkout", 3), ("history", 3), ("names", 3)], ids=str)
def test_a_kill_anywhere_in_the_first_fetch_is_mended_by_the_next(
    library, remote, repository, progress, name, step
):
    head = repository.git("rev-parse", "HEAD")
    work = {
        "checkout": lambda: git.checkout(remote, head, progress)[1],
        "history": lambda: git.history(remote, progress).build_number(head),
        "names": lambda: git.Branch(remote).fetch("master"),
    }[name]
    answer, points = work(), 0
    drop(remote.cache("trees").parent)
    for point in git_kills.each(library, work, step=step):
        points += 1
        assert work() == answer, f"after the kill at {point}"
        drop(remote.cache("trees").parent)
    assert points > 5


# --- What a kill or a power cut leaves


LOCKS = ["index.lock", "config.lock", "HEAD.lock", "packed-refs.lock", "shallow.lock", "gc.pid"]


@pytest.mark.parametrize("name", [*LOCKS, "refs/freshness/head.lock", "objects/pack/tmp_pack_x"])
def test_a_lock_that_a_killed_git_left_is_taken_away(remote, repository, progress, name):
    head, before = (repository.git("rev-parse", ref) for ref in ("HEAD", "HEAD~1"))
    git.checkout(remote, head, progress)
    git.history(remote, progress)
    git.Branch(remote).fetch("master")
    for kind in ("trees", "history", "names"):
        lock = remote.cache(kind) / name
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.write_bytes(b"")
    tree, _ = git.checkout(remote, before, progress)
    assert (tree / "notes.md").read_text() == "second"
    assert git.build_number(remote, head, progress) == 3
    branch = git.Branch(remote)
    repository.commit("one more")
    assert branch.fetch("master") == repository.git("rev-parse", "HEAD")
    assert not (remote.cache("trees") / name).exists()


def test_the_command_line_goes_on_after_a_lock(tiny_pins, repository, remote):
    words = ["bisect", "tiny", "--good", "HEAD~2", "--bad", "HEAD", "--run", "grep -q second *.md"]
    words[3], words[5] = (repository.git("rev-parse", ref) for ref in ("HEAD~2", "HEAD"))
    assert builder(*words, "--pins", tiny_pins).returncode == 0
    for name in LOCKS:
        (remote.cache("trees") / name).touch()
        (remote.cache("history") / name).touch()
    again = builder(*words, "--restart", "--pins", tiny_pins)
    assert again.returncode == 0, again.stderr


def _cut(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _emptied(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(b"")


def _gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("harm", [_cut, _emptied, _gone], ids=["cut", "emptied", "gone"])
@pytest.mark.parametrize("what", ["HEAD", "config", "index", "objects", "shallow"])
def test_a_broken_cache_of_trees_is_dropped_and_fetched_anew(
    remote, repository, progress, what, harm
):
    head = repository.git("rev-parse", "HEAD")
    git.checkout(remote, repository.git("rev-parse", "HEAD~1"), progress)
    git.checkout(remote, head, progress)
    place = remote.cache("trees")
    for path in [one for one in (place / what).rglob("*") if one.is_file()] or [place / what]:
        harm(path)
    for commit in (repository.git("rev-parse", "HEAD~2"), head):
        tree, _ = git.checkout(remote, commit, progress)
        assert files(tree) == files_of(repository, commit)


@pytest.mark.parametrize("harm", [_cut, _emptied, _gone], ids=["cut", "emptied", "gone"])
@pytest.mark.parametrize("what", ["HEAD", "config", "objects", "refs"])
def test_a_broken_history_is_dropped_and_fetched_anew(remote, repository, progress, what, harm):
    head, old = (repository.git("rev-parse", ref) for ref in ("HEAD", "HEAD~2"))
    git.build_number(remote, head, progress)
    git.first_with(remote, "notes.md", lambda text: "third" in text, old, head, progress)
    git.Branch(remote).fetch("master")
    for kind in ("history", "names"):
        place = remote.cache(kind)
        for path in [one for one in (place / what).rglob("*") if one.is_file()] or [place / what]:
            harm(path)
    assert git.build_number(remote, head, progress) == 3
    found = git.first_with(remote, "notes.md", lambda text: "third" in text, old, head, progress)
    assert found == head


def test_a_remote_that_is_silent_costs_no_cache(remote, repository, progress):
    head = repository.git("rev-parse", "HEAD")
    git.build_number(remote, head, progress)
    repository.path.rename(repository.path.with_name("away"))
    assert git.build_number(remote, head, progress) is None
    assert remote.cache("history").is_dir()


# --- A git that outlived its builder


def test_a_git_that_outlived_its_builder_is_waited_for(remote, repository, progress):
    """A kill of the builder alone leaves its git at work in the tree: the lock is git's too."""
    git.checkout(remote, repository.git("rev-parse", "HEAD"), progress)
    running = remote.cache("trees").with_name("trees.running")
    read, write = os.pipe()
    with alone(running) as kept_open:
        # As git: it ends when the pipe is closed.
        orphan = subprocess.Popen(["cat"], stdin=read, pass_fds=kept_open)
    os.close(read)
    child = os.fork()
    if child == 0:
        os.close(write)
        GitCache(remote.cache("trees"), remote.url)
        os._exit(0)
    assert os.waitpid(child, os.WNOHANG) == (0, 0)
    os.close(write)
    orphan.wait()
    assert os.waitpid(child, 0)[1] == 0


def test_a_git_that_the_kernel_kills_is_no_verdict_on_a_commit(
    remote, repository, progress, tmp_path, monkeypatch
):
    git.checkout(remote, repository.git("rev-parse", "HEAD~1"), progress)
    shim = tmp_path / "bin" / "git"
    shim.parent.mkdir()
    real = subprocess.run(["which", "git"], capture_output=True, text=True, check=True).stdout
    shim.write_text(
        f'#!/bin/sh\ncase " $* " in *" checkout "*) kill -{signal.SIGKILL.value} $$;; esac\n'
        f'exec {real.strip()} "$@"\n'
    )
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{shim.parent}:{os.environ['PATH']}")
    with pytest.raises(FileError, match="git checkout was ended by SIGKILL") as caught:
        git.checkout(remote, repository.git("rev-parse", "HEAD"), progress)
    assert caught.value.exit_code == 2
