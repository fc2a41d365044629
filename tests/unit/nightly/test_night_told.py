"""A night that failed is told in one issue a fork, and one that passed in one pull request."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from builder.bump import fork as bump
from builder.bump.report import BumpReport
from builder.common.errors import RemoteUnavailableError
from builder.git.github import Github
from builder.git.github_threads import LONGEST, Threads
from builder.git.pushed_branches import ADDRESS, NotOursError, signed
from builder.nightly import issue as night_issue
from builder.nightly import nights
from builder.nightly import pull_request as propose
from builder.nightly.issue import Issue
from builder.release.record import Index, Night, NightStep
from tests.conftest import Recorder, Repository, builder
from tests.support import github_api
from tests.support.github_api import Answer, Api, page
from tests.support.night_world import World

pytestmark = pytest.mark.usefixtures("private_cache")

BRANCH = "builder/bump-tiny"


@pytest.fixture
def api() -> Iterator[Api]:
    with github_api.serve() as served:
        served.on("/repos/me/images", Answer(body=page("me/images")))
        yield served


@pytest.fixture
def threads(api: Api) -> Threads:
    return Threads(Github(api=api.url, token="a-token"), "me/images")  # noqa: S106


def a_night(date: str = "2026-11-20", variant: str = "tiny", **changes: object) -> Night:
    step = NightStep("build", "failed", f"{date}T01:00:00Z", 9.0, "a.cu(7): error: @everyone")
    night = Night(date, variant, "tiny", "failed", [step], "a" * 40, failed_step="build")
    return replace(night, **changes)


def passed(date: str = "2026-11-21", **changes: object) -> Night:
    return a_night(date, outcome="promoted", failed_step=None, steps=[], **changes)


def told(*seen: Night) -> Issue:
    return night_issue.issue("https://github.com/me/fork", list(seen), None)


# --- The issue ------------------------------------------------------------------------------------


def test_a_fork_has_one_issue_that_is_written_over(api, threads, tmp_path, progress):
    for date in ("2026-11-20", "2026-11-21"):
        night_issue.tell(threads, "tiny", told(a_night(date)), tmp_path, progress)
    assert api.written == ["POST /repos/me/images/issues", "PATCH /repos/me/images/issues/1"]
    assert "2026-11-21" in api.threads["issues"][0]["body"]


def test_another_fork_has_another_issue(api, threads, tmp_path, progress):
    other = night_issue.issue(None, [a_night(fork="tinier")], None)
    night_issue.tell(threads, "tiny", told(a_night()), tmp_path, progress)
    night_issue.tell(threads, "tinier", other, tmp_path, progress)
    assert len(api.threads["issues"]) == 2


def test_an_issue_is_closed_when_all_pass_and_opened_again_when_one_fails(
    api, threads, tmp_path, progress
):
    states = []
    for night in (a_night(), passed(), passed(), a_night("2026-11-23")):
        night_issue.tell(threads, "tiny", told(night), tmp_path, progress)
        states.append(api.threads["issues"][0]["state"])
    assert states == ["open", "closed", "closed", "open"]
    assert len(api.threads["issues"]) == 1


def test_a_fork_that_always_passed_has_no_issue(api, threads, tmp_path, progress):
    assert night_issue.tell(threads, "tiny", told(passed()), tmp_path, progress) == ""
    assert api.written == []


def test_an_issue_of_somebody_else_is_left_alone(api, threads, tmp_path, progress):
    theirs = {
        "number": 7,
        "state": "open",
        "html_url": "",
        "labels": [],
        "body": told(a_night()).mark,
    }
    api.threads["issues"].append(theirs)
    night_issue.tell(threads, "tiny", told(a_night()), tmp_path, progress)
    assert api.written == ["POST /repos/me/images/issues"]


def test_one_variant_that_passes_does_not_close_anothers_failure():
    issue = told(a_night(variant="tiny-cuda"), passed(variant="tiny"))
    assert issue.failing
    assert "| tiny | 2026-11-21 | " in issue.text
    assert "### tiny-cuda: build failed at" in issue.text


def test_the_issue_names_the_stage_the_error_the_log_and_since_when(tmp_path):
    log = tmp_path / "build.log"
    log.write_text("\n".join(f"line {n}" for n in range(100)))
    step = replace(a_night().steps[0], log=str(log))
    issue = told(a_night("2026-11-19"), a_night(steps=[step], page="https://example.org/1"))
    assert "build failed at [`aaaaaaaaa`](https://github.com/me/fork/commit/" in issue.text
    assert "For 2 nights, since 2026-11-19. The floating tags were not moved." in issue.text
    assert "line 99" in issue.text
    assert "line 50" not in issue.text
    assert "[The job that ran it](https://example.org/1)" in issue.text


def test_a_job_is_known_by_its_address(monkeypatch):
    for name, value in (("SERVER_URL", "https://github.com"), ("REPOSITORY", "me/images")):
        monkeypatch.setenv(f"GITHUB_{name}", value)
    monkeypatch.delenv("GITHUB_RUN_ID", raising=False)
    assert night_issue.job_page() == ""
    monkeypatch.setenv("GITHUB_RUN_ID", "7")
    assert night_issue.job_page() == "https://github.com/me/images/actions/runs/7"


def test_what_strangers_wrote_is_code():
    block = told(a_night()).text.partition("```text\n")[2].partition("\n```")[0]
    assert block == "a.cu(7): error: @everyone"


def test_the_issue_has_what_a_bisect_found():
    issue = told(a_night(bisect="# The build fails since abc\n\nIts first error:"))
    assert "**The build fails since abc**\n\nIts first error:" in issue.text


def test_the_issue_says_what_the_tag_stands_for():
    index = Index("r", floating={"tiny": "tiny-b1-aaaaaaaaa-r0"})
    assert "`tiny-b1-aaaaaaaaa-r0`" in night_issue.issue(None, [a_night()], index).text


def test_a_text_that_is_longer_than_github_takes_is_cut(api, threads, tmp_path, progress):
    long = a_night(bisect="# x\n" + "y" * LONGEST)
    night_issue.tell(threads, "tiny", told(long), tmp_path, progress)
    assert len(api.threads["issues"][0]["body"]) == LONGEST


def test_without_a_token_the_issue_goes_to_a_file_and_says_so(tmp_path, progress):
    where = night_issue.tell(None, "tiny", told(a_night()), tmp_path, progress)
    file = tmp_path / "build" / "nights" / "tiny-issue.md"
    assert str(file) in where
    assert "tiny failed" in file.read_text()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Answer(403, {"message": "Resource not accessible by integration"}), "HTTP 403: Resource"),
        (Answer(200, {"no": "list"}), "no list"),
        (Answer(429, None, {"Retry-After": "900"}), "it asks to wait 900 s"),
    ],
)
def test_an_api_that_refuses_keeps_the_night_open(api, threads, tiny_pins, repository, answer, why):
    bump.bump(tiny_pins, bump.Request(to=repository.git("rev-parse", "HEAD~2")), None, Recorder())
    world = World(tiny_pins.parent, broken="smoke")
    api.on("/repos/me/images/issues", answer)
    ends = nights.Ends(lambda *_: None, lambda *words: night_issue.tell(threads, *words))
    report = nights.run([world.case()], ends, Recorder())
    assert report.exit_code == 6
    assert why in report.not_judged[0].why
    del api.answers["/repos/me/images/issues"]
    assert nights.run([world.case()], ends, Recorder()).exit_code == 1
    # Only the telling was done again.
    assert world.done == ["freshness", "build", "audit", "smoke"]


def test_the_summary_has_every_step_and_the_failures_log(tmp_path):
    log = tmp_path / "build.log"
    log.write_text("the last words\n")
    step = replace(a_night().steps[0], log=str(log))
    text = night_issue.summary([a_night(steps=[step])], [("other", "no engine")])
    assert "### tiny: build failed at `aaaaaaaaa`" in text
    assert "| build | failed | 9.0 |" in text
    assert "the last words" in text
    assert "### other: not judged: `no engine`" in text


# --- The pull request -----------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, tiny_pins: Path, repository: Repository) -> Repository:
    """A clone of a remote repository that has pins.toml, pinned to the first of three commits."""
    remote = Repository(tmp_path / "remote")
    tiny_pins.rename(remote.path / "pins.toml")
    (remote.path / "dockerfiles" / "rendered").mkdir(parents=True)
    first = repository.git("rev-parse", "HEAD~2")
    bump.bump(remote.path / "pins.toml", bump.Request(to=first), None, Recorder())
    remote.commit("pinned")
    clone = object.__new__(Repository)
    clone.path = tmp_path / "clone"
    remote.git("clone", "--quiet", str(remote.path), str(clone.path))
    return clone


@pytest.fixture
def remote(home: Repository) -> Repository:
    found = object.__new__(Repository)
    found.path = home.path.with_name("remote")
    return found


def a_move(home: Repository, ref: str | None = None) -> BumpReport:
    request = bump.Request(to=ref, grouped=True, dry_run=True)
    return bump.bump(home.path / "pins.toml", request, None, Recorder())


def proposed(home: Repository, move: BumpReport, threads: Threads | None) -> str:
    file = home.path / "pins.toml"
    return propose.propose(file, move, "tiny-b3", threads, home.path, Recorder())


def test_a_move_is_a_branch_with_one_commit_and_a_pull_request(home, remote, api, threads):
    move = a_move(home)
    where = proposed(home, move, threads)
    assert where == "opened https://github.com/me/images/pulls/1"
    (pull,) = api.threads["pulls"]
    assert (pull["head"], pull["base"]) == (BRANCH, "master")
    changed = remote.git("diff", "--name-only", "master", BRANCH).split()
    assert changed == ["dockerfiles/rendered/tiny.Dockerfile", "pins.toml"]
    assert remote.git("rev-list", "--count", f"master..{BRANCH}") == "1"
    assert f'commit = "{move.new.commit}"' in remote.git("show", f"{BRANCH}:pins.toml")
    assert "`third`" in pull["body"]
    assert "`tiny-b3`" in pull["body"]


def test_the_checkout_itself_stays_as_it_is(home, threads):
    (home.path / "pins.toml").touch()
    before = home.git("rev-parse", "HEAD"), home.git("status", "--short", "--branch")
    proposed(home, a_move(home), threads)
    assert (home.git("rev-parse", "HEAD"), home.git("status", "--short", "--branch")) == before
    assert home.git("worktree", "list").count("\n") == 0


def test_the_same_move_again_pushes_nothing_and_opens_nothing(home, remote, api, threads):
    proposed(home, a_move(home), threads)
    first = remote.git("rev-parse", BRANCH)
    proposed(home, a_move(home), threads)
    assert remote.git("rev-parse", BRANCH) == first
    assert len(api.threads["pulls"]) == 1


def test_the_next_move_is_the_same_pull_request(home, remote, repository, api, threads):
    proposed(home, a_move(home), threads)
    head = repository.commit("fourth", notes_md="fourth")
    proposed(home, a_move(home), threads)
    (pull,) = api.threads["pulls"]
    assert pull["title"] == f"tiny: pin {head[:9]}"
    assert remote.git("rev-list", "--count", f"master..{BRANCH}") == "1"


def test_a_branch_that_somebody_else_has_worked_on_is_left(home, remote, repository, threads):
    proposed(home, a_move(home), threads)
    remote.git("checkout", "--quiet", BRANCH)
    theirs = remote.commit("a fix by hand", notes_md="by hand")
    remote.git("checkout", "--quiet", "master")
    repository.commit("fourth", notes_md="fourth")
    with pytest.raises(NotOursError, match=r"a commit of test@example\.org"):
        proposed(home, a_move(home), threads)
    assert remote.git("rev-parse", BRANCH) == theirs


def test_a_default_branch_that_has_the_pin_needs_nothing(home, remote, api, threads):
    move = a_move(home)
    bump.bump(remote.path / "pins.toml", bump.Request(), None, Recorder())
    remote.commit("moved by hand")
    assert proposed(home, move, threads) == f"master has the pin {move.new.commit[:9]} already"
    assert api.threads["pulls"] == []


def test_without_a_token_the_text_goes_to_a_file_and_says_so(home, remote):
    where = proposed(home, a_move(home), None)
    file = home.path / "build" / "nights" / "tiny-pull-request.md"
    assert str(file) in where
    assert "`third`" in file.read_text()
    assert remote.git("branch", "--list", BRANCH) == ""


def test_a_remote_that_refuses_the_push_is_exit_6(home, remote, threads):
    (remote.path / ".git" / "hooks" / "pre-receive").write_text("#!/bin/sh\nexit 1\n")
    (remote.path / ".git" / "hooks" / "pre-receive").chmod(0o755)
    with pytest.raises(RemoteUnavailableError, match="could not be pushed"):
        proposed(home, a_move(home), threads)


def test_the_token_is_in_no_argument_and_for_its_site_alone():
    environment = signed(Github(server="https://github.com", token="a-token"))  # noqa: S106
    assert environment["GIT_CONFIG_KEY_0"] == "http.https://github.com/.extraHeader"
    assert "a-token" not in str(environment)


def test_who_commits_is_nobody(home, remote, threads):
    proposed(home, a_move(home), threads)
    assert remote.git("log", "-1", "--format=%ae %ce", BRANCH) == f"{ADDRESS} {ADDRESS}"


# --- The record in a branch -----------------------------------------------------------------------


def test_a_record_branch_wants_a_checkout(tiny_pins):
    words = ["nightly", "tiny", "--to", "example.org/me/llama", "--record-branch", "record"]
    made = builder(*words, "--dry-run", "--pins", tiny_pins)
    assert (made.returncode, "lies in no git checkout" in made.stderr) == (2, True)


def test_a_record_that_cannot_be_pushed_is_exit_6_after_the_nights_are_told(home, remote):
    (remote.path / ".git" / "hooks" / "pre-receive").write_text("#!/bin/sh\nexit 1\n")
    (remote.path / ".git" / "hooks" / "pre-receive").chmod(0o755)
    # The branch that it asks for is gone: not judged, and the record has nothing but its folder.
    text = (home.path / "pins.toml").read_text().replace('branch = "master"', 'branch = "gone"')
    (home.path / "pins.toml").write_text(text)
    record = home.path / "build" / "record"
    record.mkdir(parents=True)
    (record / "index.json").write_text("{}")
    words = ["nightly", "tiny", "--to", "example.org/me/llama", "--record-branch", "record"]
    made = builder(*words, "--pins", home.path / "pins.toml")
    assert made.returncode == 6
    assert "tiny: not judged: " in made.stdout
    assert "the record: not judged: the branch record of " in made.stdout
