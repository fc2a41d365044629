"""Forks behind git's own servers, in the shapes that hosts show: force-pushed, renamed, shallow."""

import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.bump import fork as bump
from builder.bump.fork import RefusedError, Request
from builder.common.errors import RefNotFoundError, RemoteUnavailableError
from builder.freshness import look as freshness
from builder.git import remote as git
from builder.model.pins import Fork, Pins
from builder.pins import load as pins
from tests.conftest import Recorder
from tests.support import git_daemon, http_git
from tests.unit.freshness.test_freshness import NOWHERE, POLICY, Moving, one, pinned, rules

pytestmark = pytest.mark.usefixtures("private_cache")


@pytest.fixture
def fork(tmp_path: Path) -> Moving:
    made = Moving(tmp_path / "me" / "fork")
    made.add("first", "README.md")
    return made


@pytest.fixture(params=["http-backend", "daemon"])
def url(request: pytest.FixtureRequest, fork: Moving) -> Iterator[str]:
    """The fork's address at one of git's two servers."""
    root = fork.path.parent
    served = git_daemon.serve(root) if request.param == "daemon" else http_git.serve(root, {})
    with served as address:
        yield f"{address}/fork"


@pytest.fixture
def refusing(fork: Moving) -> Iterator[str]:
    """The same at a server that gives out branches and no single commit."""
    with http_git.serve(fork.path.parent, {}, protocol=0) as address:
        yield f"{address}/fork"


def force_push(fork: Moving) -> str:
    """Drop the newest commit of master, and put another in its place: the one that was dropped."""
    lost = fork.git("rev-parse", "HEAD")
    fork.git("reset", "--hard", "HEAD~1")
    fork.add("kept", "common/arg.cpp")
    return lost


def forget(fork: Moving) -> None:
    """Throw away what no branch holds, as a host does in time."""
    fork.git("reflog", "expire", "--expire=now", "--all")
    fork.git("gc", "--quiet", "--prune=now")


def shallow(fork: Moving) -> None:
    """Leave the fork's newest commit and nothing before it."""
    (fork.path / ".git" / "shallow").write_text(f"{fork.git('rev-parse', 'HEAD')}\n")


def bump_through(
    address: str, file: Path, monkeypatch: pytest.MonkeyPatch, **words: object
) -> bump.BumpReport:
    """Move the pin of a pins.toml whose fork is reached at this address."""
    (known,) = (one.url for one in pins.load(file).forks.values())
    for name, value in (
        ("COUNT", "1"),
        ("KEY_0", f"url.{address}.insteadOf"),
        ("VALUE_0", known),
    ):
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    return bump.bump(file, Request(**words), None, Recorder())


@pytest.fixture
def file(tiny_pins: Path, fork: Moving, tmp_path: Path) -> Path:
    """A pins.toml whose fork is pinned to the fork's newest commit."""
    (tmp_path / "fork").rename(tmp_path / "not this one")
    pin = fork.git("rev-parse", "HEAD")
    lines = f'commit = "{pin}"\nbuild_number = 1\ndate = 2026-05-01T00:00:00Z'
    text = tiny_pins.read_text().replace('unpinned = "tests say which commit"', lines)
    tiny_pins.write_text(text)
    return tiny_pins


# --- History


def test_a_refresh_of_the_history_transfers_no_file(url, fork, progress):
    pin = fork.git("rev-parse", "HEAD")
    for number in range(2):
        fork.add(f"work {number}", "common/arg.cpp", "ggml/src/ggml-cuda/mmq.cu")
        assert one(progress, pinned(url, pin)).drift.commits_behind == number + 1
        assert kinds(git.Remote("tiny", url).cache("names")) == kinds(fork.path) - Counter(
            blob=1 + 2 * (number + 1)
        )


def kinds(repository: Path) -> Counter[str]:
    """How many objects of each kind a repository holds."""
    command = ["cat-file", "--batch-all-objects", "--batch-check=%(objecttype)", "--unordered"]
    listed = subprocess.run(
        ["git", "-C", str(repository), *command], check=True, capture_output=True, text=True
    )
    return Counter(listed.stdout.split())


def test_forks_are_asked_side_by_side(fork, progress):
    # Each server waits with its first answer until both were asked.
    both = threading.Barrier(2)
    met: list[int] = []

    def wait() -> None:
        if not met:
            met.append(both.wait(timeout=60))

    pin = fork.git("rev-parse", "HEAD")
    root = fork.path.parent
    with http_git.serve(root, {}, before=wait) as a, http_git.serve(root, {}, before=wait) as b:
        forks = {"a": pinned(f"{a}/fork", pin), "b": pinned(f"{b}/fork", pin)}
        assert [each.verdict for each in look(progress, forks)] == ["fresh", "fresh"]


def look(progress: Recorder, forks: dict[str, Fork]) -> tuple[freshness.ForkReport, ...]:
    everything = Pins(policy=POLICY, forks=forks, bases={}, variants={})
    return freshness.look(everything, list(forks), NOWHERE, progress).forks


# --- Force-push, and the pin that it orphans


def test_a_dropped_pin_is_orphaned_while_the_host_still_gives_it_out(url, fork, progress):
    fork.add("lost")
    pin = force_push(fork)
    found = one(progress, pinned(url, pin))
    assert (found.verdict, rules(found), found.drift.served) == ("stale", ["orphaned"], True)
    assert [group.name for group in found.drift.groups] == ["server"]


def test_a_dropped_pin_that_the_host_threw_away_is_orphaned(url, fork, progress):
    fork.add("lost")
    pin = force_push(fork)
    forget(fork)
    found = one(progress, pinned(url, pin))
    assert (found.verdict, rules(found), found.drift.served) == ("stale", ["orphaned"], False)


def test_a_bump_from_a_dropped_pin_tells_what_is_left_out(url, fork, file, monkeypatch):
    fork.add("lost")
    bump_through(url, file, monkeypatch)
    force_push(fork)
    report = bump_through(url, file, monkeypatch)
    assert [one.subject for one in report.left_out] == ["lost"]
    assert [one.subject for one in report.commits] == ["kept"]


# --- A server that refuses single commits


def test_a_server_that_refuses_single_commits_leaves_a_dropped_pin_orphaned(
    refusing, fork, progress
):
    fork.add("lost")
    pin = force_push(fork)
    found = one(progress, pinned(refusing, pin))
    assert (found.verdict, rules(found), found.drift.served) == ("stale", ["orphaned"], False)
    assert "the host does not give it out" in found.reasons[0].text


def test_a_server_that_refuses_single_commits_gives_those_of_its_branches(
    refusing, fork, progress: Recorder
):
    first = fork.git("rev-parse", "HEAD")
    fork.add("work", "README.md")
    tree, _ = git.checkout(git.Remote("tiny", refusing), first, progress)
    assert (tree / "README.md").read_text() == "first"
    assert "fetching its branches" in progress.warnings[-1]


def test_a_server_that_refuses_single_commits_has_no_dropped_one(refusing, fork, progress):
    fork.add("lost")
    pin = force_push(fork)
    with pytest.raises(RefNotFoundError, match=pin):
        git.checkout(git.Remote("tiny", refusing), pin, progress)


def test_a_bump_from_a_pin_that_is_refused_goes_by_its_date(refusing, fork, file, monkeypatch):
    fork.add("lost")
    bump_through(refusing, file, monkeypatch)
    force_push(fork)
    monkeypatch.setenv("XDG_CACHE_HOME", str(fork.path.parent / "another cache"))
    assert bump_through(refusing, file, monkeypatch).written


# --- A server that is a shallow clone


def test_a_shallow_server_makes_a_pin_unknown_and_never_fresh(url, fork, progress):
    pin = fork.git("rev-parse", "HEAD")
    fork.add("work")
    shallow(fork)
    found = one(progress, pinned(url, pin))
    assert (found.verdict, found.failure.why) == ("unknown", "it is a shallow clone itself")


def test_a_shallow_server_moves_no_pin(url, fork, file, monkeypatch):
    fork.add("work")
    shallow(fork)
    before = file.read_bytes()
    with pytest.raises(RemoteUnavailableError, match="only a part of its history"):
        bump_through(url, file, monkeypatch)
    assert file.read_bytes() == before


def test_a_shallow_servers_newest_commit_can_be_built(url, fork, progress):
    head = fork.add("work", "README.md")
    shallow(fork)
    tree, _ = git.checkout(git.Remote("tiny", url), head, progress)
    assert (tree / "README.md").read_text() == "work"


# --- A rename


@pytest.fixture
def renamed(fork: Moving) -> Iterator[str]:
    """The fork's old address, from which the server redirects to the new one."""
    with http_git.serve(fork.path.parent, moved={"old": "fork"}) as address:
        yield f"{address}/old"


def test_a_renamed_fork_at_its_pin_is_fresh_with_its_new_address(renamed, fork, progress):
    found = one(progress, pinned(renamed, fork.git("rev-parse", "HEAD")))
    assert (found.verdict, found.moved_to) == ("fresh", renamed.replace("/old", "/fork"))


def test_a_renamed_fork_is_bumped(renamed, fork, file, monkeypatch):
    head = fork.add("work")
    report = bump_through(renamed, file, monkeypatch)
    assert (report.new.commit, report.written) == (head, True)


def test_what_is_not_on_a_renamed_forks_branch_is_refused_still(renamed, fork, file, monkeypatch):
    stray = force_push_back(fork)
    with pytest.raises(RefusedError, match="not on the branch"):
        bump_through(renamed, file, monkeypatch, to=stray)


def force_push_back(fork: Moving) -> str:
    """Put a commit on master and take it away again: the one that was there."""
    stray = fork.add("stray")
    fork.git("reset", "--hard", "HEAD~1")
    return stray
