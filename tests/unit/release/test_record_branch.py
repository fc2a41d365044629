"""A record on a branch: real git, somebody else who pushes, kills at every point, hostile trees."""

import multiprocessing
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.common.errors import FileError, RemoteUnavailableError, UsageError
from builder.git.github import Github
from builder.git.pushed_branches import Checkout
from builder.release import record
from builder.release.record import Night
from builder.release.record_branch import RecordBranch
from tests.conftest import Recorder
from tests.unit.release.test_record_merge import a_release, an_index, promoted, tagged

pytestmark = pytest.mark.usefixtures("private_cache")

GIT = str(shutil.which("git"))


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    command = [GIT, *identity, "-C", str(folder), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


class Machine:
    """Somebody with a checkout of the remote, a folder for the record, and nights to write down."""

    def __init__(self, folder: Path, remote: Path) -> None:
        self.folder = folder
        self.record = folder / "build" / "record"
        git(folder.parent, "clone", "--quiet", str(remote), str(folder))

    @property
    def kept(self) -> RecordBranch:
        return RecordBranch.of(Checkout(self.folder, Github()), "record", self.record)

    def take(self, progress: Recorder | None = None) -> None:
        self.kept.take(progress or Recorder())

    def give(self, progress: Recorder | None = None) -> None:
        self.kept.give("Nights", progress or Recorder())

    def release(self, name: str, at: str) -> None:
        """What a night writes down that publishes and promotes."""
        index = record.read_index(self.record) or an_index()
        names = dict.fromkeys([name, *index.releases])
        index = an_index(*names, **{**index.floating, "tiny": name})
        record.write_release(self.record, a_release(name, tagged(at), promoted(at)), index)
        night = Night(f"2026-11-{at}", name, "tiny", "promoted", [])
        record.write_night(self.record, night)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A remote with a default branch, and no record yet."""
    folder = tmp_path_factory.mktemp("remote")
    git(folder, "init", "--quiet", "--bare", "--initial-branch=main", "bare.git")
    git(folder, "clone", "--quiet", "bare.git", "work")
    git(folder / "work", "commit", "--quiet", "--allow-empty", "-m", "first")
    git(folder / "work", "push", "--quiet", "origin", "HEAD:main")
    return folder / "bare.git"


@pytest.fixture
def remote(bare: Path, tmp_path: Path) -> Path:
    shutil.copytree(bare, tmp_path / "remote.git")
    return tmp_path / "remote.git"


@pytest.fixture
def one(tmp_path: Path, remote: Path) -> Machine:
    return Machine(tmp_path / "one", remote)


@pytest.fixture
def other(tmp_path: Path, remote: Path) -> Machine:
    return Machine(tmp_path / "other", remote)


def pushed(remote: Path) -> list[str]:
    """The record's files at the remote, whose contents are all what builder wrote."""
    names = git(remote, "ls-tree", "-r", "--name-only", "record").split()
    for name in names:
        if name.endswith(".json"):
            assert "<<<<<<<" not in git(remote, "show", f"record:{name}")
    return names


def of(*releases: str) -> list[str]:
    """The files of a record with these releases, each of a night of its own: `NAME@DAY`."""
    pairs = [one.split("@") for one in releases]
    nights = [f"nights/2026-11-{day}-{name}.json" for name, day in pairs]
    return sorted(["index.json", *nights, *(f"releases/{name}.json" for name, _ in pairs)])


def test_a_record_comes_from_its_branch_and_goes_there(one, other, remote):
    one.take()
    one.release("a", "01")
    one.give()
    other.take()
    assert pushed(remote) == of("a@01")
    index = record.read_index(other.record)
    assert (index.floating, index.releases) == ({"tiny": "a"}, ["a"])
    assert git(other.record, "status", "--porcelain") == ""


def test_what_did_not_change_is_not_pushed_again(one, remote):
    one.take()
    one.give()
    one.release("a", "01")
    one.give()
    before = git(remote, "rev-parse", "record")
    one.take()
    one.give()
    assert git(remote, "rev-parse", "record") == before


def test_who_pushes_second_merges_and_pushes_again(one, other, remote):
    for machine in (one, other):
        machine.take()
    one.release("a", "02")
    other.release("b", "01")
    other.give()
    one.give()
    assert pushed(remote) == of("a@02", "b@01")
    index = record.read_index(one.record)
    assert (index.floating, index.releases) == ({"tiny": "a"}, ["a", "b"])
    assert git(remote, "rev-list", "--count", "record") == "2"


def test_whoever_is_faster_several_times_loses_nothing_either(one, other, remote):
    """A push of theirs between our fetch and our push, twice."""
    one.take()
    one.release("a", "09")
    left = [("b", "01"), ("c", "02")]

    class Beaten(Recorder):
        def detail(self, text: str) -> None:
            if text == "push" and left:
                other.take()
                other.release(*left.pop(0))
                other.give()

    one.give(Beaten())
    assert left == []
    assert pushed(remote) == of("a@09", "b@01", "c@02")


def test_runs_on_two_machines_at_once_both_have_their_nights(one, other, remote):
    """Real processes that race, each of them three nights."""

    def nights(machine: Machine, name: str) -> None:
        for number in range(3):
            machine.take()
            machine.release(f"{name}{number}", f"{10 + number}")
            machine.give()

    fork = multiprocessing.get_context("fork")
    runs = [fork.Process(target=nights, args=pair) for pair in ((one, "one"), (other, "other"))]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert [run.exitcode for run in runs] == [0, 0]
    names = [f"{name}{number}@{10 + number}" for name in ("one", "other") for number in range(3)]
    assert pushed(remote) == of(*names)


def test_a_push_that_is_refused_for_good_stays_and_goes_with_the_next(one, other, remote):
    other.take()
    other.release("b", "01")
    other.give()
    one.take()
    one.release("a", "02")
    hook = remote / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho the disk is full >&2\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(RemoteUnavailableError, match="was not pushed") as caught:
        one.give()
    assert caught.value.exit_code == 6
    assert "the disk is full" in caught.value.why
    hook.unlink()
    one.take()
    one.give()
    assert pushed(remote) == of("a@02", "b@01")


def test_a_branch_that_was_taken_away_is_begun_again(one, remote):
    one.take()
    one.release("a", "01")
    one.give()
    git(remote, "update-ref", "-d", "refs/heads/record")
    one.take()
    one.give()
    assert pushed(remote) == of("a@01")


# --- Kills ----------------------------------------------------------------------------------------


def in_a_process(act: Callable[[], object]) -> int:
    """The exit code of a process that does it; minus the signal that ended it."""

    def run() -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        act()

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join()
    return int(process.exitcode or 0)


@pytest.mark.parametrize(
    "command",
    [
        "init",
        "config",
        "fetch",
        "update-ref",
        "symbolic-ref",
        "read-tree",
        "hash-object",
        "write-tree",
        "commit-tree",
        "push",
    ],
)
def test_a_kill_after_any_command_that_changes_something(
    one, other, remote, tmp_path, monkeypatch, command
):
    """SIGKILL for who called this git command, when it is done: the next run has all."""
    other.take()
    other.release("b", "01")
    other.give()
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\n{GIT} "$@"; rc=$?\n'
        f'case " $* " in *" {command} "*) [ -e {tmp_path}/kill ] && kill -9 $PPID;; esac\n'
        "exit $rc\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    (tmp_path / "kill").touch()

    def night() -> None:
        one.take()
        one.release("a", "02")
        one.give()

    assert in_a_process(night) == -signal.SIGKILL
    (tmp_path / "kill").unlink()
    night()
    assert pushed(remote) == of("a@02", "b@01")
    assert record.read_index(one.record).releases == ["a", "b"]


@pytest.mark.parametrize("step", ["merge", "write nights", "write index", "move its branch"])
def test_a_kill_within_a_merge_loses_nothing(one, other, remote, step):
    other.take()
    other.release("b", "01")
    other.give()
    one.take()
    one.release("a", "02")
    other.release("c", "03")
    other.give()

    class Killing(Recorder):
        def detail(self, text: str) -> None:
            if text.startswith(step):
                os.kill(os.getpid(), signal.SIGKILL)

    assert in_a_process(lambda: one.take(Killing())) == -signal.SIGKILL
    one.take()
    one.give()
    assert pushed(remote) == of("a@02", "b@01", "c@03")
    assert record.read_index(one.record).releases == ["c", "a", "b"]


@pytest.mark.parametrize(
    "left",
    [
        "index.lock",
        "HEAD.lock",
        "config.lock",
        "builder-index.lock",
        "refs/heads/record.lock",
        "refs/remotes/origin/record.lock",
    ],
)
def test_locks_that_a_killed_git_left_are_in_nobodys_way(left, one, remote):
    one.take()
    one.release("a", "01")
    one.give()
    one.release("b", "02")
    (one.record / ".git" / left).touch()
    one.take()
    one.give()
    assert pushed(remote) == of("a@01", "b@02")


@pytest.mark.parametrize("cut", ["HEAD", "config", "refs/heads/record", "index", "objects"])
def test_a_repository_that_power_loss_cut_is_made_anew(cut, one, remote):
    one.take()
    one.release("a", "01")
    one.give()
    one.release("b", "02")
    inside = one.record / ".git"
    for path in (inside / cut).rglob("*") if cut == "objects" else [inside / cut]:
        if path.is_file():
            path.chmod(0o644)
            path.write_bytes(b"")
    one.take()
    one.give()
    assert pushed(remote) == of("a@01", "b@02")


@pytest.mark.parametrize("half", ["empty", "no HEAD", "no remote"])
def test_a_folder_that_is_half_made_is_made(half, one, other, remote):
    other.take()
    other.release("b", "01")
    other.give()
    one.record.mkdir(parents=True)
    if half == "empty":
        (one.record / ".git").mkdir()
    else:
        git(one.record, "init", "--quiet", "--initial-branch=record")
    if half == "no HEAD":
        (one.record / ".git" / "HEAD").unlink()
    one.release("a", "02")
    one.take()
    one.give()
    assert pushed(remote) == of("a@02", "b@01")
    # Nor was anything put into the checkout that the record lies in.
    assert git(one.folder, "log", "--all", "--format=%s", "main") == "first"


def test_a_rebase_in_which_an_older_builder_is_stuck_is_mended(one, other, remote):
    """As that builder left it: markers in index.json, committed in the middle of a rebase."""
    other.take()
    other.release("o", "01")
    other.give()
    one.take()
    other.release("b", "02")
    other.give()
    for name, at in (("a", "03"), ("c", "04")):
        one.release(name, at)
        git(one.record, "add", "--all")
        git(one.record, "commit", "--quiet", "-m", "What a run left")
    git(one.record, "fetch", "--quiet", str(remote), "refs/heads/record")
    with pytest.raises(subprocess.CalledProcessError):
        git(one.record, "rebase", "--quiet", "FETCH_HEAD")
    git(one.record, "add", "--all")
    git(one.record, "commit", "--quiet", "-m", "What a run left")
    assert "<<<<<<<" in (one.record / "index.json").read_text()
    one.take()
    one.give()
    assert pushed(remote) == of("a@03", "b@02", "c@04", "o@01")
    index = record.read_index(one.record)
    assert (index.floating, index.releases) == ({"tiny": "c"}, ["c", "a", "b", "o"])
    assert git(one.record, "status", "--porcelain", "--branch") == "## record"


def test_markers_that_somebody_pushed_are_mended_too(one, other, remote):
    other.take()
    other.release("b", "01")
    mine = (other.record / "index.json").read_text()
    theirs = mine.replace('"b"', '"a"')
    marked = f"<<<<<<< HEAD\n{mine}=======\n{theirs}>>>>>>> 1234567\n"
    (other.record / "index.json").write_text(marked)
    other.give()
    one.take()
    assert sorted(record.read_index(one.record).releases) == ["a", "b"]
    one.give()
    assert sorted(pushed(remote)) == of("b@01")


# --- What others may put there --------------------------------------------------------------------


def hostile(remote: Path, folder: Path, *rows: str) -> None:
    """A branch `record` with these rows of a tree: whatever git can be made to hold."""
    git(folder, "init", "--quiet", "hostile")
    made = folder / "hostile"
    (made / "file").write_text("{}")
    blob = git(made, "hash-object", "-w", "file")
    lines = "".join(f"{row.format(blob=blob)}\n" for row in rows)
    command = [GIT, "-C", str(made), "mktree", "--missing"]
    tree = subprocess.run(
        command, input=lines, check=True, capture_output=True, text=True
    ).stdout.strip()
    commit = git(made, "commit-tree", tree, "-m", "theirs")
    git(made, "push", "--quiet", "--force", str(remote), f"{commit}:refs/heads/record")


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("120000 blob {blob}\tindex.json", "'index.json', which is a link"),
        ("160000 commit " + "1" * 40 + "\tnights", "'nights', which is not a regular file"),
    ],
)
def test_a_link_on_the_branch_is_refused_by_its_name(one, remote, tmp_path, row, what):
    hostile(remote, tmp_path, row)
    with pytest.raises(UsageError, match=what) as caught:
        one.take()
    assert caught.value.hint.startswith("in a clone of it: `git rm ")
    assert sorted(path.name for path in one.record.iterdir()) == [".git"]


@pytest.mark.parametrize("name", ["..", ".git", ".GIT"])
def test_no_name_on_the_branch_leads_out_of_the_folder(one, remote, tmp_path, name):
    git(tmp_path, "init", "--quiet", "inner")
    (tmp_path / "inner" / "config").write_text("[core]\n\tsshCommand = evil\n")
    git(tmp_path / "inner", "add", "config")
    tree = git(tmp_path / "inner", "write-tree")
    commit = git(tmp_path / "inner", "commit-tree", tree, "-m", "x")
    git(tmp_path / "inner", "push", "--quiet", str(remote), f"{commit}:refs/heads/inner")
    row = f"040000 tree {tree}\t{name}"
    body = bytes.fromhex(tree)
    content = f"40000 {name}\0".encode() + body
    path = tmp_path / "tree"
    path.write_bytes(content)
    evil = git(remote, "hash-object", "-t", "tree", "-w", "--literally", str(path))
    made = git(remote, "commit-tree", evil, "-m", row)
    git(remote, "update-ref", "refs/heads/record", made)
    with pytest.raises(UsageError, match="which is no name of a file"):
        one.take()
    assert "evil" not in (one.record / ".git" / "config").read_text()


def test_attributes_and_ignored_names_on_the_branch_have_no_say(one, other, remote):
    other.take()
    other.release("b", "01")
    (other.record / ".gitignore").write_text("*\n")
    (other.record / ".gitattributes").write_text("* text eol=crlf ident filter=evil\n")
    other.give()
    one.take()
    one.release("a", "02")
    one.give()
    assert {*of("a@02", "b@01")} <= {*pushed(remote)}
    assert b"\r" not in (one.record / "index.json").read_bytes()


def test_settings_and_hooks_of_the_user_have_no_say(one, remote, tmp_path, monkeypatch):
    hooks = tmp_path / "templates" / "hooks"
    hooks.mkdir(parents=True)
    for name in ("pre-commit", "post-commit", "pre-push", "reference-transaction", "commit-msg"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\nexit 1\n")
        (hooks / name).chmod(0o755)
    (tmp_path / "gitconfig").write_text(
        f"[init]\n\ttemplateDir = {hooks.parent}\n[commit]\n\tgpgSign = true\n"
        "[core]\n\tautocrlf = true\n[push]\n\tdefault = nothing\n"
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    one.take()
    one.release("a", "01")
    one.give()
    assert pushed(remote) == of("a@01")
    assert not (tmp_path / "ran").exists()


def test_a_link_in_the_folder_is_refused_and_named(one):
    one.take()
    one.release("a", "01")
    (one.record / "nights" / "x.json").symlink_to("/etc/passwd")
    with pytest.raises(UsageError, match=r"x\.json is not a regular file"):
        one.give()


def test_another_branch_in_the_folder_is_not_pushed_as_the_record(one, remote):
    one.take()
    one.record.rename(one.record.with_name("other"))
    git(one.record.parent, "clone", "--quiet", str(remote), str(one.record))
    with pytest.raises(UsageError, match="has the branch main, not record"):
        one.take()


def test_the_remotes_login_is_in_no_file_and_no_message(one):
    login = "https://x-access-token:ghp_secret@127.0.0.1:1/me/images.git"
    git(one.folder, "remote", "set-url", "origin", login)
    with pytest.raises(RemoteUnavailableError) as caught:
        one.take()
    assert "ghp_secret" not in f"{caught.value.what}{caught.value.why}{caught.value.hint}"
    stored = [path for path in one.record.rglob("*") if path.is_file()]
    assert not [path for path in stored if b"ghp_secret" in path.read_bytes()]
    assert git(one.record, "remote", "get-url", "origin") == "https://127.0.0.1:1/me/images.git"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to have a folder of somebody else")
def test_a_repository_of_another_user_is_not_used(one, remote):
    one.record.mkdir(parents=True)
    git(one.record, "init", "--quiet", "--initial-branch=record")
    evil = one.record / ".git" / "config"
    evil.write_text(f"{evil.read_text()}[core]\n\tfsmonitor = touch {one.folder}/ran\n")
    os.chown(one.record / ".git", 65534, 65534)
    one.take()
    one.release("a", "01")
    one.give()
    assert pushed(remote) == of("a@01")
    assert not (one.folder / "ran").exists()
    assert one.record.with_name("record-git-broken").exists()


def test_a_full_disk_is_told_as_one_and_nothing_is_lost(one, remote):
    one.take()
    one.release("a", "01")
    (one.record / "big.json").write_text(os.urandom(64 << 10).hex())

    def small() -> None:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 10, 8 << 10))
        with pytest.raises((FileError, OSError)) as caught:
            one.give()
        assert "large" in str(caught.value) or "full" in str(caught.value)

    assert in_a_process(small) == 0
    one.give()
    assert "big.json" in pushed(remote)
