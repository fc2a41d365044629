"""Whatever a commit of a stranger's fork holds is a judgement on that commit, in real git."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from builder.bisect import judge as bisect_judges
from builder.bump import fork as bump
from builder.bump.fork import RefusedError
from builder.common.errors import BuildFailedError
from builder.freshness import look as freshness
from builder.git import remote as git
from builder.git import run as git_run
from builder.model.pins import Fork, Pins, Policy, Release
from builder.nightly import nights
from builder.pins import load as pins
from tests.conftest import Recorder, Repository
from tests.support.night_world import World, ends
from tests.unit.bump.test_bump import stages
from tests.unit.freshness.test_freshness import NOWHERE, START

pytestmark = pytest.mark.usefixtures("private_cache")

GOOD = b"C <c@example.org> 1700000000 +0000"

DATES = {
    "a year of 11476": b"C <c@example.org> 300000000000 +0000",
    "none": b"C <c@example.org>",
    "before 1970": b"C <c@example.org> -86400 +0000",
    "letters": b"C <c@example.org> soon +0000",
    "after a NUL": b"C\0D <c@example.org> 1700000000 +0000",
    "no address": b"nobody at all",
    "nothing": b"",
}
READABLE = {
    "the last second of the year 9999": b"C <c@example.org> 253402300799 -1200",
    "a zone of 99 hours": b"C <c@example.org> 1700000000 +9999",
    "too many digits": b"C <c@example.org> 99999999999999999999999 +0000",
    "an escape sequence in the name": b"\x1b[2J\xff <c@example.org> 1700000000 +0000",
}
TREES = {
    "a name of 300 bytes": b"x" * 300,
    ".git": b".git",
    "git~1": b"git~1",
    ".GIT": b".GIT",
    ".git with a joiner": ".g\u200cit".encode(),
    "..": b"..",
    ".": b".",
}


def odd(repository: Repository, committer: bytes = GOOD, message: bytes = b"odd", **more) -> str:
    """A commit on top of the repository's branch, of any bytes; its full SHA."""
    head = repository.git("rev-parse", "HEAD")
    tree = more.get("tree") or repository.git("rev-parse", "HEAD^{tree}")
    lines = [f"tree {tree}\nparent {head}\n".encode(), b"author " + GOOD + b"\n"]
    lines += [b"committer " + committer + b"\n\n" + message + b"\n"]
    commit = store(repository, "commit", b"".join(lines))
    repository.git("update-ref", "refs/heads/master", commit)
    return commit


def store(repository: Repository, kind: str, content: bytes) -> str:
    command = ["git", "-C", str(repository.path)]
    command += ["hash-object", "-t", kind, "-w", "--literally", "--stdin"]
    said = subprocess.run(command, input=content, capture_output=True, check=True)
    return said.stdout.decode().strip()


def tree_with(repository: Repository, name: bytes, mode: bytes = b"100644") -> str:
    """A tree of the branch's files and one more, of any name."""
    blob = repository.git("rev-parse", "HEAD:server.cpp")
    listed = subprocess.run(
        ["git", "-C", str(repository.path), "cat-file", "tree", "HEAD^{tree}"],
        capture_output=True,
        check=True,
    ).stdout
    return store(repository, "tree", listed + mode + b" " + name + b"\0" + bytes.fromhex(blob))


def kinds(known: dict[str, bytes]):
    return pytest.mark.parametrize("what", known.values(), ids=known)


@pytest.fixture
def remote(repository: Repository) -> git.Remote:
    return git.Remote("tiny", repository.url)


@pytest.fixture
def home(tiny_pins: Path, repository: Repository) -> Path:
    """A folder with pins.toml, pinned to the first commit of three."""
    bump.bump(tiny_pins, bump.Request(to=repository.git("rev-parse", "HEAD~2")), None, Recorder())
    return tiny_pins.parent


# --- Dates


@kinds(DATES)
def test_a_commit_without_a_date_is_not_pinned_and_nothing_changes(home, repository, what):
    commit, file = odd(repository, what), home / "pins.toml"
    before = file.read_bytes()
    with pytest.raises(RefusedError, match=f"^{commit[:9]} cannot be pinned: it states no date"):
        bump.bump(file, bump.Request("tiny"), None, Recorder())
    assert file.read_bytes() == before


@kinds(READABLE)
def test_a_commit_with_a_date_that_a_calendar_has_is_pinned(home, repository, what):
    commit, file = odd(repository, what), home / "pins.toml"
    bump.bump(file, bump.Request("tiny"), None, Recorder())
    fork = pins.load(file).forks["tiny"]
    assert (fork.commit, fork.date.utcoffset().total_seconds()) == (commit, 0)


@kinds(DATES)
def test_a_night_whose_candidate_states_no_date_is_a_verdict_on_it(home, repository, what):
    commit = odd(repository, what)
    report = nights.run([World(home).case()], ends(), Recorder())
    (night,) = report.nights
    assert (night.outcome, night.failed_step, report.exit_code) == ("failed", "candidate", 1)
    assert commit[:9] in night.steps[-1].detail


@kinds(DATES)
def test_a_head_without_a_date_may_be_too_many_days_behind_and_is_not_fresh(repository, what):
    fork = Fork("backend-dl", url=repository.url, branch="master", date=START)
    odd_one = replace(fork, commit=repository.git("rev-parse", "HEAD~1"))
    odd(repository, what)
    report = freshness.look(_pins(odd=odd_one), ["odd"], NOWHERE, Recorder())
    (found,) = report.forks
    assert (found.verdict, found.drift.commits_behind, found.drift.days_behind) == (
        "unknown",
        2,
        None,
    )
    assert "states no date that can be read" in found.failure.what


def test_a_head_without_a_date_that_other_rules_call_stale_is_stale(repository):
    pin = repository.git("rev-parse", "HEAD~1")
    fork = Fork("backend-dl", url=repository.url, branch="master", commit=pin, date=START)
    odd(repository, DATES["none"])
    everything = _pins(odd=fork)
    strict = replace(everything, policy=replace(everything.policy, max_commits=1))
    (found,) = freshness.look(strict, ["odd"], NOWHERE, Recorder()).forks
    assert (found.verdict, [one.rule for one in found.reasons]) == ("stale", ["max_commits"])


@kinds(DATES)
def test_a_commit_without_a_date_is_built_with_none(remote, repository, progress, what):
    tree, created = git.checkout(remote, odd(repository, what), progress)
    assert (created, (tree / "server.cpp").is_file()) == ("", True)


# --- Subjects and names


@pytest.mark.parametrize(
    "message",
    [b"x" * 5_000_000, b"a\0b", b"\x1b]0;title\x07", b"\xff\xfe", "a\u2028b\x85c".encode(), b""],
    ids=["megabytes", "NUL", "escape", "no UTF-8", "line ends", "empty"],
)
def test_a_subject_of_any_bytes_is_one_printable_line(home, repository, message):
    commit = odd(repository, message=message)
    odd(repository, message=b"after it")
    wanted = bump.Request("tiny", grouped=True, dry_run=True)
    report = bump.bump(home / "pins.toml", wanted, None, Recorder())
    found = {one.commit: one.subject for one in report.commits}
    assert len(found) == 4
    assert len(found[commit]) <= 300
    assert found[commit].isprintable() or not found[commit]
    (group,) = [one for one in report.groups if one.name == "docs"]
    assert len(group.commits) == 2


@pytest.mark.parametrize("name", ["one\u2028two", "next\x85line", "ünï"])
def test_a_branch_of_any_name_hides_no_other(remote, repository, progress, name):
    repository.git("branch", name)
    head = repository.git("rev-parse", "HEAD")
    assert git.resolve(remote, "master", progress) == head
    assert git.resolve(remote, name, progress) == head
    assert git.branch_head(remote, name, progress) == head


def test_a_branch_that_is_no_commit_is_told(home, repository):
    blob = repository.git("rev-parse", "HEAD:server.cpp")
    (repository.path / ".git" / "refs" / "heads" / "master").write_text(f"{blob}\n")
    report = nights.run([World(home).case()], ends(), Recorder())
    assert [one.exit_code for one in report.not_judged] == [6]


# --- Files


@kinds(TREES)
def test_a_tree_that_no_disk_can_hold_is_the_commits_fault(remote, repository, progress, what):
    good = repository.git("rev-parse", "HEAD")
    commit = odd(repository, tree=tree_with(repository, what))
    with pytest.raises(BuildFailedError, match=f"{commit[:9]}: its files cannot") as caught:
        git.checkout(remote, commit, progress)
    assert caught.value.commits_fault
    assert caught.value.why
    tree, _ = git.checkout(remote, good, progress)
    names = sorted(path.name for path in tree.iterdir())
    assert names == sorted(repository.git("ls-tree", "--name-only", good).split())


def test_a_tree_of_folders_deeper_than_a_path_may_be_is_the_commits_fault(
    remote, repository, progress
):
    good, tree = repository.git("rev-parse", "HEAD"), tree_with(repository, b"f")
    for _ in range(2100):
        tree = store(repository, "tree", b"40000 d\0" + bytes.fromhex(tree))
    commit = odd(repository, tree=tree)
    with pytest.raises(BuildFailedError):
        git.checkout(remote, commit, progress)
    assert (git.checkout(remote, good, progress)[0] / "server.cpp").is_file()


@pytest.mark.parametrize("kind", ["files", "bytes"])
def test_a_tree_that_would_fill_the_disk_is_not_written(
    remote, repository, progress, monkeypatch, kind
):
    """Ten folders of ten folders, and so on: a few kilobytes name a hundred million files."""
    good = repository.git("rev-parse", "HEAD")
    if kind == "files":
        tree = tree_with(repository, b"f")
        for _ in range(8):
            entries = [b"40000 %d\0" % number + bytes.fromhex(tree) for number in range(10)]
            tree = store(repository, "tree", b"".join(entries))
        commit = odd(repository, tree=tree)
        monkeypatch.setattr(git_run, "_LARGEST", 5_000_000)
    else:
        commit = odd(repository)
        monkeypatch.setattr(git, "_MOST_BYTES", 100)
    with pytest.raises(BuildFailedError) as caught:
        git.checkout(remote, commit, progress)
    assert caught.value.commits_fault
    assert "files" in caught.value.why
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(remote.cache("trees").parents[3]))
    assert (git.checkout(remote, good, progress)[0] / "server.cpp").is_file()


def test_a_submodule_and_a_filter_of_the_tree_are_nothing_that_is_run(
    remote, repository, progress, tmp_path, monkeypatch
):
    """The user has a filter of the name that a fork's attributes ask for, and takes submodules."""
    settings = tmp_path / "gitconfig"
    ran = tmp_path / "ran"
    settings.write_text(
        f'[filter "lfs"]\n\tsmudge = touch {ran}; cat\n\tprocess = touch {ran}\n\trequired = true\n'
        "[submodule]\n\trecurse = true\n[core]\n\tautocrlf = true\n"
        f"\tattributesFile = {tmp_path / 'attributes'}\n"
    )
    (tmp_path / "attributes").write_text("*.md filter=lfs\n")
    files = {".gitattributes": "*.cpp filter=lfs\n", ".gitmodules": SUBMODULE}
    for name, text in files.items():
        (repository.path / name).write_text(text)
    repository.git("add", ".gitattributes", ".gitmodules")
    repository.git("commit", "--quiet", "-m", "attributes")
    commit = odd(repository, tree=tree_with(repository, b"zz", b"160000"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    tree, _ = git.checkout(remote, commit, progress)
    assert not ran.exists()
    assert list((tree / "zz").iterdir()) == []
    assert b"\r" not in (tree / "notes.md").read_bytes()


SUBMODULE = '[submodule "zz"]\n\tpath = zz\n\turl = https://127.0.0.1:1/nobody.git\n'


@pytest.mark.parametrize("stage", ["build", "run"])
def test_a_bisect_skips_a_commit_whose_files_cannot_be_written(
    remote, repository, tiny_pins, tmp_path, progress, stage
):
    commit = odd(repository, tree=tree_with(repository, b".git"))
    variant, command = ("tiny", []) if stage == "build" else ("", ["true"])
    case = bisect_judges.Case(pins.load(tiny_pins), remote, variant, stage, command, tmp_path)
    built = bisect_judges.Stages(stages().build, stages().smoke, lambda _: None)
    found = bisect_judges.judge(case, commit, built, progress)
    assert (found.verdict, found.stage) == ("skip", "fetch")


def test_a_night_whose_candidates_files_cannot_be_written_is_a_verdict_on_it(home, repository):
    commit = odd(repository, tree=tree_with(repository, b"git~1"))
    world = World(home)

    def build(_, order, __, progress):
        git.checkout(git.Remote("tiny", repository.url), order.ref, progress)

    world.build = build
    report = nights.run([world.case()], ends(), Recorder())
    (night,) = report.nights
    assert (night.failed_step, night.commit, report.exit_code) == ("build", commit, 1)


def _pins(**forks: Fork) -> Pins:
    return Pins(policy=Policy("tiny", 14, 50, Release([])), forks=forks, bases={}, variants={})
