"""Pins against their forks: real repositories that moved, were rewritten, renamed or went away."""

import dataclasses
import datetime
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.common import http as web
from builder.common.errors import UsageError
from builder.freshness import look as freshness
from builder.freshness import steps as freshness_steps
from builder.freshness.report import (
    Failure,
    ForkReport,
    Report,
    badge,
    group_rows,
    rows,
    to_json,
    to_markdown,
    write_badge,
)
from builder.git import remote as git
from builder.git.github import Github
from builder.model.pins import Fork, Pins, Policy, Release
from tests.conftest import Recorder, Repository, builder
from tests.support import github_api, http_git
from tests.support.github_api import Answer, Api, page

pytestmark = pytest.mark.usefixtures("private_cache")

POLICY = Policy("tiny", 14, 50, Release([]))
NOWHERE = Github(api="http://127.0.0.1:1")
START = datetime.datetime(2026, 5, 1, tzinfo=datetime.UTC)


class Moving(Repository):
    """A repository whose commits are a day apart, as a server that filters."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.git("config", "uploadpack.allowFilter", "true")
        self.day = 0

    def add(self, message: str, *files: str, committer: str = "Test") -> str:
        """Commit a change of these files, a day after the commit before."""
        for name in files:
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            (self.path / name).write_text(message)
        self.git("add", "--all")
        return self.dated("commit", "--quiet", "--allow-empty", "-m", message, committer=committer)

    def dated(self, *words: str, committer: str = "Test") -> str:
        date = (START + datetime.timedelta(days=self.day)).isoformat()
        self.day += 1
        identity = ["-c", f"user.name={committer}", "-c", "user.email=test@example.org"]
        subprocess.run(
            ["git", *identity, "-C", str(self.path), *words],
            check=True,
            capture_output=True,
            env=os.environ | {"GIT_COMMITTER_DATE": date, "GIT_AUTHOR_DATE": date},
        )
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def fork(tmp_path: Path) -> Moving:
    made = Moving(tmp_path / "me" / "fork")
    made.add("first", "README.md")
    return made


@pytest.fixture
def api() -> Iterator[Api]:
    with github_api.serve() as served:
        yield served


@pytest.fixture
def progress() -> Recorder:
    return Recorder()


def pinned(url: str, pin: str, branch: str | None = "master") -> Fork:
    return Fork("backend-dl", url=url, branch=branch, commit=pin, date=START)


def look(
    progress: Recorder, host: Github = NOWHERE, policy: Policy = POLICY, **forks: Fork
) -> Report:
    everything = Pins(policy=policy, forks=forks, bases={}, variants={})
    return freshness.look(everything, list(forks), host, progress)


def one(progress: Recorder, fork: Fork, **more: object) -> ForkReport:
    return look(progress, tiny=fork, **more).forks[0]


def rules(report: ForkReport) -> list[str]:
    return [reason.rule for reason in report.reasons]


# --- Where the pin stands


def test_a_pin_that_is_the_head_is_fresh(fork, progress):
    found = one(progress, pinned(fork.url, fork.git("rev-parse", "HEAD")))
    assert (found.verdict, found.drift.pin, found.drift.commits_behind) == ("fresh", "head", 0)


def test_when_nothing_moved_no_history_is_fetched(fork, progress, private_cache):
    one(progress, pinned(fork.url, fork.git("rev-parse", "HEAD")))
    assert not (private_cache / "git").exists()
    assert progress.steps == ["ask 1 fork"]


def test_a_pin_that_is_behind_says_by_how_much(fork, progress):
    pin = fork.git("rev-parse", "HEAD")
    head = [fork.add("work") for _ in range(3)][-1]
    found = one(progress, pinned(fork.url, pin))
    assert (found.verdict, found.head, found.reasons) == ("fresh", head, ())
    assert found.drift.pin == "on branch"
    assert (found.drift.commits_behind, found.drift.days_behind) == (3, 3)


def test_a_pin_of_the_default_branch_needs_no_branch(fork, progress):
    pin = fork.git("rev-parse", "HEAD")
    fork.add("work")
    found = one(progress, pinned(fork.url, pin, branch=None))
    assert (found.drift.commits_behind, found.default_branch) == (1, "master")


def test_a_look_at_the_history_transfers_no_files_contents(fork, progress):
    pin = fork.git("rev-parse", "HEAD")
    fork.add("work", "common/arg.cpp")
    one(progress, pinned(fork.url, pin))
    cache = git.Remote("tiny", fork.url).cache("names")
    command = ["cat-file", "--batch-all-objects", "--batch-check=%(objecttype)"]
    listed = subprocess.run(
        ["git", "-C", str(cache), *command], check=True, capture_output=True, text=True
    ).stdout
    assert set(listed.split()) == {"commit", "tree"}


def test_a_second_look_sees_what_came_since(fork, progress):
    pin = fork.git("rev-parse", "HEAD")
    behind = []
    for _ in range(2):
        fork.add("work")
        behind.append(one(progress, pinned(fork.url, pin)).drift.commits_behind)
    assert behind == [1, 2]


def test_a_pin_that_a_force_push_dropped_is_orphaned(fork, progress):
    fork.git("config", "uploadpack.allowAnySHA1InWant", "true")
    pin = fork.add("lost")
    fork.git("reset", "--hard", "HEAD~1")
    fork.add("kept", "common/arg.cpp")
    found = one(progress, pinned(fork.url, pin))
    assert (found.verdict, found.drift.pin, rules(found)) == ("stale", "orphaned", ["orphaned"])
    assert found.drift.served
    assert "the host still gives it out" in found.reasons[0].text
    assert found.drift.commits_behind == 1


def test_an_orphaned_pin_that_the_host_has_no_more_is_said_to_be_lost(fork, progress):
    fork.add("work")
    found = one(progress, pinned(fork.url, "d" * 40))
    assert (found.verdict, found.drift.served) == ("stale", False)
    assert "the host does not give it out" in found.reasons[0].text


def test_a_pin_on_another_branch_is_found_there(fork, progress):
    fork.git("checkout", "--quiet", "-b", "rescued")
    pin = fork.add("lost")
    fork.git("checkout", "--quiet", "master")
    fork.add("kept")
    found = one(progress, pinned(fork.url, pin))
    assert found.drift.elsewhere == ("rescued",)
    assert "not on master any more, but on rescued" in found.reasons[0].text


def test_a_pin_rewound_behind_its_head_is_orphaned(fork, progress):
    fork.add("second")
    pin = fork.add("third")
    fork.git("reset", "--hard", "HEAD~1")
    fork.git("config", "uploadpack.allowAnySHA1InWant", "true")
    found = one(progress, pinned(fork.url, pin))
    assert (found.verdict, found.drift.pin, found.drift.commits_behind) == ("stale", "orphaned", 0)


def test_a_branch_that_is_gone_is_stale_and_names_the_default(fork, progress):
    pin = fork.git("rev-parse", "HEAD")
    fork.git("branch", "--move", "main")
    found = one(progress, pinned(fork.url, pin))
    assert (found.verdict, rules(found)) == ("stale", ["branch gone"])
    assert found.reasons[0].text == "there is no branch master; the default branch is main"


def test_a_branch_with_the_pins_end_for_a_name_is_another(fork, progress):
    fork.git("branch", "deep/master")
    pin = fork.git("rev-parse", "HEAD")
    fork.git("checkout", "--quiet", "--detach")
    fork.git("branch", "--delete", "--force", "master")
    assert rules(one(progress, pinned(fork.url, pin))) == ["branch gone"]


def test_a_repository_that_is_gone_is_unknown_not_fresh(tmp_path, progress):
    found = one(progress, pinned((tmp_path / "gone").as_uri(), "a" * 40))
    assert (found.verdict, found.drift) == ("unknown", None)
    assert "does not answer as a git repository" in found.failure.what


def test_a_renamed_repository_is_followed_and_its_new_address_said(fork, tmp_path, progress):
    pin = fork.git("rev-parse", "HEAD")
    fork.add("work")
    with http_git.serve(tmp_path / "me", moved={"old": "fork"}) as address:
        found = one(progress, pinned(f"{address}/old", pin))
    assert (found.verdict, found.drift.commits_behind) == ("fresh", 1)
    assert found.moved_to == f"{address}/fork"
    assert f"write {address}/fork into pins.toml, forks.tiny.url" in found.notes[0]


def test_a_shallow_repository_is_unknown_until_it_is_whole(fork, tmp_path, progress):
    pin = fork.git("rev-parse", "HEAD")
    fork.add("work")
    fork.add("work")
    shallow = tmp_path / "shallow"
    subprocess.run(["git", "clone", "-q", "--depth=1", fork.url, str(shallow)], check=True)
    found = one(progress, pinned(shallow.as_uri(), pin))
    assert (found.verdict, found.failure.why) == ("unknown", "it is a shallow clone itself")
    subprocess.run(["git", "-C", str(shallow), "fetch", "-q", "--unshallow"], check=True)
    assert one(progress, pinned(shallow.as_uri(), pin)).drift.commits_behind == 2


def test_a_default_branch_that_changed_since_the_first_look_is_stale(fork, progress):
    pin = fork.git("rev-parse", "HEAD")
    assert one(progress, pinned(fork.url, pin)).verdict == "fresh"
    fork.git("checkout", "--quiet", "-b", "main")
    for _ in range(2):  # a second look does not forget it
        found = one(progress, pinned(fork.url, pin))
        assert (found.verdict, rules(found)) == ("stale", ["default_branch"])
    assert found.reasons[0].text == "the default branch was master, and is main now"


def test_a_moved_pin_takes_the_default_branch_for_what_it_is(fork, progress):
    one(progress, pinned(fork.url, fork.git("rev-parse", "HEAD")))
    fork.git("checkout", "--quiet", "-b", "main")
    head = fork.add("work")
    assert one(progress, pinned(fork.url, head, branch="main")).verdict == "fresh"


def test_a_pinned_branch_beside_the_default_one_is_a_note_and_no_more(fork, progress):
    fork.git("checkout", "--quiet", "-b", "session/23")
    pin = fork.add("own work")
    fork.git("checkout", "--quiet", "master")
    for _ in range(2):
        found = one(progress, pinned(fork.url, pin, branch="session/23"))
        assert (found.verdict, found.notes) == ("fresh", ("its default branch is another: master",))


# --- What came since the pin


def test_steps_are_grouped_most_dangerous_first_with_their_fixes(fork, progress):
    pin = fork.git("rev-parse", "HEAD")
    fork.add("words", "docs/a.md")
    fork.add("flag", "common/arg.cpp")
    fork.add("fix kernel", "ggml/src/ggml-cuda/mmq.cu")
    found = one(progress, pinned(fork.url, pin))
    groups = [(g.name, len(g.commits), len(g.fixes)) for g in found.drift.groups]
    assert groups == [("kv-cuda", 1, 1), ("server", 1, 0), ("docs", 1, 0)]


def test_a_merge_is_one_step_with_all_it_brings(fork, progress):
    pin = fork.git("rev-parse", "HEAD")
    fork.git("checkout", "--quiet", "-b", "topic")
    fork.add("words", "docs/a.md")
    fork.add("kernel", "ggml/src/ggml-cuda/mmq.cu")
    fork.git("checkout", "--quiet", "master")
    fork.dated("merge", "--no-ff", "topic", "-m", "Merge topic")
    found = one(progress, pinned(fork.url, pin))
    assert [(g.name, [c.subject for c in g.commits]) for g in found.drift.groups] == [
        ("kv-cuda", ["Merge topic"])
    ]
    assert found.drift.commits_behind == 3


@pytest.mark.parametrize("name", ["größe.cu", 'tab\tand "quote".cu', "a\u2028b.cu"])
def test_a_file_named_in_any_letters_is_grouped(fork, progress, name):
    pin = fork.git("rev-parse", "HEAD")
    fork.add("odd", f"ggml/src/ggml-cuda/{name}")
    (group,) = one(progress, pinned(fork.url, pin)).drift.groups
    assert (group.name, len(group.commits[0].files)) == ("kv-cuda", 1)


def test_a_file_is_known_by_its_own_letters(fork, progress):
    pin = fork.git("rev-parse", "HEAD")
    fork.add("odd", "größe.cu")
    policy = dataclasses.replace(POLICY, alert_paths=["größe.cu"])
    assert rules(one(progress, pinned(fork.url, pin), policy=policy)) == ["alert_paths"]


def test_a_kernel_that_is_moved_away_is_a_change_of_kernels(fork, progress):
    pin = fork.add("kernel", "ggml/src/ggml-cuda/mmq.cu")
    fork.git("mv", "ggml/src/ggml-cuda/mmq.cu", "elsewhere.txt")
    fork.add("tidy")
    (group,) = one(progress, pinned(fork.url, pin)).drift.groups
    assert group.name == "kv-cuda"


def test_a_head_that_is_older_than_the_pin_is_no_days_behind(fork, progress):
    pin = fork.git("rev-parse", "HEAD")
    fork.add("work")
    later = dataclasses.replace(pinned(fork.url, pin), date=START + datetime.timedelta(days=9))
    assert one(progress, later).drift.days_behind == 0


def test_a_subject_cannot_move_the_terminals_cursor(fork, progress):
    pin = fork.git("rev-parse", "HEAD")
    fork.add("x\x1b[2Jy\x1ez")
    (group,) = one(progress, pinned(fork.url, pin)).drift.groups
    assert group.commits[0].subject == "x�[2Jy�z"


def upstream_merge(fork: Moving) -> tuple[str, str]:
    """Two commits of mainline, merged: the merged commit, and the merge."""
    fork.git("checkout", "--quiet", "-b", "mainline", "HEAD~1")
    fork.add("cuda : one (#20001)", "ggml/src/ggml-cuda/mmq.cu", committer="GitHub")
    tip = fork.add("kv : two (#20002)", "src/llama-kv-cache.cpp", committer="GitHub")
    fork.git("checkout", "--quiet", "master")
    return tip, fork.dated("merge", "--no-ff", "mainline", "-m", "bring it over")


def test_the_last_merge_of_mainline_is_told_from_the_forks_own_history(fork, progress):
    pin = fork.add("own")
    tip, merge = upstream_merge(fork)
    fork.add("own again")
    found = one(progress, pinned(fork.url, pin)).drift
    upstream = found.upstream
    assert (upstream.merge, upstream.merged, upstream.ahead, upstream.since) == (merge, tip, 2, 1)
    assert upstream.date.startswith("2026-05-05")
    assert [group.name for group in found.groups] == ["upstream", "other"]


def test_the_table_tells_the_last_merge_of_mainline(fork, progress):
    pin = fork.add("own")
    _, merge = upstream_merge(fork)
    ((*_, shown, _),) = rows(look(progress, tiny=pinned(fork.url, pin)))
    assert shown == f"2026-05-05 {merge[:9]}; 1 ahead, 0 since"


@pytest.fixture
def both(fork: Moving, tmp_path: Path) -> tuple[dict[str, Fork], Moving]:
    """A fork that merged mainline once, and mainline, which went two commits on."""
    pin = fork.add("own")
    upstream_merge(fork)
    subprocess.run(["git", "clone", "-q", fork.url, str(tmp_path / "up")], check=True)
    mainline = object.__new__(Moving)
    mainline.path, mainline.url, mainline.day = tmp_path / "up", (tmp_path / "up").as_uri(), 10
    mainline.git("checkout", "--quiet", "-b", "trunk", "origin/mainline")
    first = mainline.add("third (#20003)")
    mainline.add("fourth (#20004)")
    mainline.git("config", "uploadpack.allowFilter", "true")
    forks = {
        "tiny": pinned(fork.url, pin),
        "mainline": pinned(mainline.url, first, branch="trunk"),
    }
    return forks, mainline


def behind_mainline(progress: Recorder, forks: dict[str, Fork]) -> int | None:
    everything = Pins(policy=POLICY, forks=forks, bases={}, variants={})
    found = freshness.look(everything, list(forks), NOWHERE, progress, whole=True)
    return found.forks[0].drift.upstream.behind


def test_with_all_a_fork_is_measured_by_mainlines_own_history(both, progress):
    forks, _ = both
    assert behind_mainline(progress, forks) == 2


def test_a_mainline_that_is_at_its_pin_is_measured_by_too(both, progress):
    forks, mainline = both
    head = dataclasses.replace(forks["mainline"], commit=mainline.git("rev-parse", "HEAD"))
    assert behind_mainline(progress, forks | {"mainline": head}) == 2


def test_without_mainline_nobody_knows_how_far_a_fork_is_behind_it(both, progress, tmp_path):
    forks, _ = both
    gone = dataclasses.replace(forks["mainline"], url=(tmp_path / "gone").as_uri())
    assert behind_mainline(progress, forks | {"mainline": gone}) is None
    assert one(progress, forks["tiny"]).drift.upstream.behind is None


def test_the_table_tells_how_far_a_fork_is_behind_mainline(both, progress):
    everything = Pins(policy=POLICY, forks=both[0], bases={}, variants={})
    found = freshness.look(everything, ["tiny", "mainline"], NOWHERE, progress, whole=True)
    assert rows(found)[0][4].endswith("1 ahead, 0 since, 2 behind")


def test_a_fork_that_never_merged_mainline_says_nothing_of_it(fork, progress):
    pin = fork.git("rev-parse", "HEAD")
    fork.add("own")
    assert one(progress, pinned(fork.url, pin)).drift.upstream is None


def test_mainline_is_not_measured_against_itself(fork, progress):
    pin = fork.add("own")
    upstream_merge(fork)
    (found,) = look(progress, mainline=pinned(fork.url, pin)).forks
    assert found.drift.upstream is None


def test_the_last_merge_is_still_known_when_nothing_moved_since_the_last_look(fork, progress):
    pin = fork.add("own")
    _, merge = upstream_merge(fork)
    one(progress, pinned(fork.url, pin))
    assert one(progress, pinned(fork.url, merge)).drift.upstream.merge == merge


# --- The policy


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"max_days": 2}, "max_days"),
        ({"max_commits": 2}, "max_commits"),
        ({"alert_paths": ["src/llama-kv-cache*"]}, "alert_paths"),
    ],
)
def test_each_rule_makes_a_pin_stale_and_is_named(fork, progress, changes, rule):
    pin = fork.git("rev-parse", "HEAD")
    for name in ("src/llama-kv-cache.cpp", "a.txt", "b.txt"):
        fork.add("work", name)
    policy = dataclasses.replace(POLICY, **changes)
    found = one(progress, pinned(fork.url, pin), policy=policy)
    assert (found.verdict, rules(found)) == ("stale", [rule])


def test_a_limit_that_is_met_is_kept(fork, progress):
    pin = fork.git("rev-parse", "HEAD")
    for _ in range(3):
        fork.add("work")
    policy = dataclasses.replace(POLICY, max_days=3, max_commits=3, alert_paths=["*.cu"])
    assert one(progress, pinned(fork.url, pin), policy=policy).verdict == "fresh"


def test_the_real_pins_name_alert_paths(real_pins):
    assert "src/llama-kv-cache*" in real_pins.policy.alert_paths


# --- GitHub's API beside git


@pytest.fixture
def hosted(fork, api, monkeypatch) -> Github:
    """The same fork, on a GitHub whose git is a mirror and whose API is local."""
    for name, value in (
        ("COUNT", "1"),
        ("KEY_0", f"url.{fork.path.parent.as_uri()}/.insteadOf"),
        ("VALUE_0", "https://github.com/me/"),
    ):
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    return Github(api=api.url)


URL = "https://github.com/me/fork"


def test_an_archived_repository_is_said_to_be(fork, api, hosted, progress):
    api.on("/repos/me/fork", Answer(body=page("me/fork", archived=True)))
    found = one(progress, pinned(URL, fork.git("rev-parse", "HEAD")), host=hosted)
    assert (found.verdict, found.archived) == ("fresh", True)
    assert "archived: nothing more will come" in found.notes


def test_a_rename_is_known_from_the_api_where_git_goes_by_a_mirror(fork, api, hosted, progress):
    api.on("/repos/me/fork", Answer(301, headers={"Location": f"{api.url}/repositories/7"}))
    api.on("/repositories/7", Answer(body=page("me/buun")))
    found = one(progress, pinned(URL, fork.git("rev-parse", "HEAD")), host=hosted)
    assert found.moved_to == "https://github.com/me/buun"


def test_a_name_in_other_capitals_is_no_rename(fork, api, hosted, progress):
    api.on("/repos/me/fork", Answer(body=page("Me/Fork")))
    found = one(progress, pinned(URL, fork.git("rev-parse", "HEAD")), host=hosted)
    assert (found.moved_to, found.notes) == (None, ())


@pytest.mark.parametrize(
    "answer",
    [
        Answer(403, headers={"X-RateLimit-Remaining": "0"}),
        Answer(404),
        Answer(429, headers={"Retry-After": "3600"}),
        Answer(500),
        Answer(body=page("me/fork"), cut=9),
        Answer(body={}),
    ],
)
def test_a_failure_of_the_api_does_not_matter_when_git_answers(fork, api, hosted, progress, answer):
    api.on("/repos/me/fork", answer)
    pin = fork.git("rev-parse", "HEAD")
    fork.add("work")
    found = one(progress, pinned(URL, pin), host=hosted)
    assert (found.verdict, found.drift.commits_behind, found.archived) == ("fresh", 1, None)
    assert len(found.notes) == 1


def lose(fork: Moving, commit: str) -> None:
    """From now on the repository cannot send the histories of which this commit is a part."""
    (fork.path / ".git" / "objects" / commit[:2] / commit[2:]).unlink()


def broken(fork: Moving, api: Api | None = None) -> tuple[str, str]:
    """A repository that names its head and cannot send its history: the pin, and the path of the
    comparison that the API has, if one is given; of the steps it has none."""
    pin = fork.git("rev-parse", "HEAD")
    middle = fork.add("lost")
    head = fork.add("work")
    whole = ""
    if api is not None:
        whole, *steps = api.compares("me/fork", fork.path, pin, head)
        for path in steps:
            api.on(path, github_api.NOT_FOUND)
    lose(fork, middle)
    return pin, whole


def test_a_history_that_does_not_come_is_unknown(fork, hosted, progress):
    pin, _ = broken(fork)
    found = one(progress, pinned(URL, pin), host=hosted)
    assert (found.verdict, found.drift) == ("unknown", None)


FILE = {"filename": "src/llama-kv-cache.cpp", "status": "modified"}


@pytest.mark.parametrize(
    ("changes", "verdict", "broken_rules"),
    [
        ({}, "fresh", []),
        ({"behind_by": 1}, "stale", ["orphaned"]),
        ({"files": [FILE]}, "stale", ["alert_paths"]),
        ({"ahead_by": 300}, "unknown", []),
        ({"files": [FILE] * 300}, "unknown", []),
        ({"files": None}, "unknown", []),
    ],
)
def test_githubs_comparison_stands_in_for_a_history_that_does_not_come(
    fork, api, hosted, progress, changes, verdict, broken_rules
):
    pin, whole = broken(fork, api)
    api.on(whole, Answer(body=api.take(whole).body | changes))
    policy = dataclasses.replace(POLICY, alert_paths=["src/llama-kv-cache*"])
    found = one(progress, pinned(URL, pin), host=hosted, policy=policy)
    assert (found.verdict, rules(found)) == (verdict, broken_rules)


def test_a_comparison_that_stands_in_says_why_and_has_no_groups(fork, api, hosted, progress):
    pin, _ = broken(fork, api)
    found = one(progress, pinned(URL, pin), host=hosted)
    assert "by GitHub's comparison: the history did not come" in found.notes
    assert (found.drift.history_failed, found.drift.groups) == (True, ())


# --- GitHub's comparisons, where no history is here


def asked_to_compare(api: Api) -> int:
    return sum("/compare/" in path for path, _ in api.asked)


def names(fork: str = "tiny") -> Path:
    """The folder of the history that a look at the fork on GitHub fetches."""
    return git.Remote(fork, URL).cache("names")


@pytest.fixture
def eventful(fork: Moving) -> str:
    """The pin of a fork that then saw each kind of step."""
    fork.add("kernel", "ggml/src/ggml-cuda/mmq.cu")
    pin = fork.add("own", "README.md")
    upstream_merge(fork)
    fork.git("mv", "ggml/src/ggml-cuda/mmq.cu", "elsewhere.txt")
    fork.add("tidy")
    fork.git("checkout", "--quiet", "-b", "topic")
    fork.add("words", "docs/a.md")
    fork.add("flag", "common/arg.cpp")
    fork.git("checkout", "--quiet", "master")
    fork.dated("merge", "--no-ff", "topic", "-m", "Merge topic")
    fork.add("fix flag\n\nbecause", "common/arg.cpp")
    return pin


def told(report: ForkReport) -> list[object]:
    drift = report.drift
    groups = [
        (group.name, [(c.commit, c.subject, c.fix, set(c.files)) for c in group.commits])
        for group in drift.groups
    ]
    return [
        report.verdict,
        drift.pin,
        drift.commits_behind,
        drift.days_behind,
        drift.alerts,
        groups,
    ]


def test_githubs_comparisons_tell_what_the_history_tells(fork, api, hosted, progress, eventful):
    api.compares("me/fork", fork.path, eventful, fork.git("rev-parse", "HEAD"))
    policy = dataclasses.replace(POLICY, alert_paths=["*.cu", "src/llama-kv-cache*"])
    quick = one(progress, pinned(URL, eventful), host=hosted, policy=policy)
    by_history = one(progress, pinned(fork.url, eventful), policy=policy)
    assert (quick.drift.compared, by_history.drift.compared) == (True, False)
    assert told(quick) == told(by_history)
    assert [group.name for group in quick.drift.groups] == ["kv-cuda", "server", "upstream"]


def test_where_github_compares_no_history_is_fetched(fork, api, hosted, progress, eventful):
    api.compares("me/fork", fork.path, eventful, fork.git("rev-parse", "HEAD"))
    one(progress, pinned(URL, eventful), host=hosted)
    assert not names().exists()
    assert progress.steps == [
        "ask 1 fork",
        "ask GitHub how far me/fork has moved",
        "ask GitHub for the files of 4 steps of me/fork",
    ]


def test_a_change_that_was_taken_back_is_an_alert_all_the_same(fork, api, hosted, progress):
    pin = fork.add("own", "src/llama-kv-cache.cpp")
    fork.add("broken", "src/llama-kv-cache.cpp")
    head = fork.add("own", "src/llama-kv-cache.cpp")
    api.compares("me/fork", fork.path, pin, head)
    policy = dataclasses.replace(POLICY, alert_paths=["src/llama-kv-cache*"])
    found = one(progress, pinned(URL, pin), host=hosted, policy=policy)
    assert (found.drift.compared, rules(found)) == (True, ["alert_paths"])


@pytest.mark.parametrize(
    ("name", "note"),
    [
        (
            "tiny",
            "by GitHub's comparison; the last merge of mainline is told by the history: "
            "`builder freshness --all`",
        ),
        ("mainline", "by GitHub's comparison"),
    ],
)
def test_a_comparison_says_what_it_does_not_tell(fork, api, hosted, progress, name, note):
    pin = fork.git("rev-parse", "HEAD")
    api.on("/repos/me/fork", Answer(body=page("me/fork")))
    api.compares("me/fork", fork.path, pin, fork.add("work"))
    (found,) = look(progress, hosted, **{name: pinned(URL, pin)}).forks
    assert (found.notes, found.drift.upstream) == ((note,), None)


def test_the_json_tells_that_a_comparison_told(fork, api, hosted, progress):
    pin = fork.git("rev-parse", "HEAD")
    api.compares("me/fork", fork.path, pin, fork.add("work"))
    shown = json.loads(to_json(look(progress, hosted, tiny=pinned(URL, pin))))
    drift = shown["forks"][0]["drift"]
    assert (drift["compared"], drift["history_failed"], shown["schema"]) == (True, False, 1)


NO_ANSWERS = {
    "rate limit used up": Answer(403, {"message": "x"}, {"X-RateLimit-Remaining": "0"}),
    "gone": Answer(404),
    "asked to wait": Answer(429, headers={"Retry-After": "3600"}),
    "server error": Answer(502),
    "cut": Answer(body={"files": []}, cut=3),
    "strange": Answer(body={"message": "Server Error"}),
    "slow": Answer(body={"files": [], "commits": [], "x": "y" * 9000}, drip=True),
}


@pytest.mark.parametrize("answer", NO_ANSWERS.values(), ids=NO_ANSWERS)
@pytest.mark.parametrize("question", ["whole", "step"])
def test_where_github_does_not_compare_the_history_tells(
    fork, api, hosted, progress, monkeypatch, question, answer
):
    monkeypatch.setattr(web, "_DEADLINE_S", 0.1)
    pin = fork.git("rev-parse", "HEAD")
    fork.add("work")
    whole, _, step = api.compares("me/fork", fork.path, pin, fork.add("work", "common/arg.cpp"))
    api.on({"whole": whole, "step": step}[question], answer)
    found = one(progress, pinned(URL, pin), host=hosted)
    assert (found.verdict, found.drift.compared, found.drift.commits_behind) == ("fresh", False, 2)
    assert progress.steps[-1] == f"fetch the history of {URL}"


def test_steps_that_are_told_too_slowly_are_not_waited_for(
    fork, api, hosted, progress, monkeypatch
):
    monkeypatch.setattr(freshness_steps, "_PATIENCE_S", 0.1)
    pin = fork.git("rev-parse", "HEAD")
    _, step = api.compares("me/fork", fork.path, pin, fork.add("work"))
    api.on(step, Answer(body=api.take(step).body | {"x": "y" * 9000}, drip=True))
    begun = time.monotonic()
    found = one(progress, pinned(URL, pin), host=hosted)
    assert (found.drift.compared, found.drift.commits_behind) == (False, 1)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    ("question", "changes"),
    [
        ("whole", {"ahead_by": 251}),
        ("whole", {"behind_by": 1}),
        ("whole", {"commits": []}),
        ("step", {"files": [FILE] * 300}),
        ("step", {"files": None}),
    ],
)
def test_what_github_tells_in_part_the_history_tells_whole(
    fork, api, hosted, progress, question, changes
):
    pin = fork.git("rev-parse", "HEAD")
    whole, step = api.compares("me/fork", fork.path, pin, fork.add("work"))
    path = {"whole": whole, "step": step}[question]
    api.on(path, Answer(body=api.take(path).body | changes))
    found = one(progress, pinned(URL, pin), host=hosted)
    assert (found.verdict, found.drift.compared, found.drift.pin) == ("fresh", False, "on branch")


def test_a_merge_of_what_the_pin_has_is_left_to_the_history(fork, api, hosted, progress):
    first = fork.git("rev-parse", "HEAD")
    pin = fork.add("own")
    words = ["-p", pin, "-p", first, "-m", "Merge again"]
    fork.git("reset", "--hard", fork.git("commit-tree", *words, f"{pin}^{{tree}}"))
    api.compares("me/fork", fork.path, pin, fork.git("rev-parse", "HEAD"))
    found = one(progress, pinned(URL, pin), host=hosted)
    assert (found.drift.compared, found.drift.commits_behind) == (False, 1)


def test_where_a_lost_pin_went_the_history_tells(fork, api, hosted, progress):
    fork.git("checkout", "--quiet", "-b", "rescued")
    pin = fork.add("lost")
    fork.git("checkout", "--quiet", "master")
    api.compares("me/fork", fork.path, pin, fork.add("kept"))
    found = one(progress, pinned(URL, pin), host=hosted)
    assert (found.drift.pin, found.drift.elsewhere) == ("orphaned", ("rescued",))


def test_more_steps_than_the_quota_allows_are_not_asked_for(fork, api, hosted, progress):
    pin = fork.git("rev-parse", "HEAD")
    fork.add("work")
    head = fork.add("work")
    api.compares("me/fork", fork.path, pin, head)
    found = [freshness_steps.steps(hosted, "me/fork", pin, head, n, progress) for n in (1, 2)]
    assert [one is not None for one in found] == [False, True]
    assert asked_to_compare(api) == 3


def test_without_a_token_the_forks_share_a_part_of_the_hours_60_requests():
    assert [freshness_steps.most(Github(), forks) for forks in (1, 6)] == [30, 5]
    assert freshness_steps.most(Github(token="a-token"), 6) == 100  # noqa: S106


def test_a_step_is_asked_for_once(fork, api, hosted, progress):
    pin = fork.git("rev-parse", "HEAD")
    for _ in range(2):
        api.compares("me/fork", fork.path, pin, fork.add("work"))
        one(progress, pinned(URL, pin), host=hosted)
    assert asked_to_compare(api) == 4  # the whole twice, and each of the two steps


def test_with_all_it_is_the_history_that_tells(fork, api, hosted, progress):
    pin = fork.git("rev-parse", "HEAD")
    api.compares("me/fork", fork.path, pin, fork.add("work"))
    everything = Pins(policy=POLICY, forks={"tiny": pinned(URL, pin)}, bases={}, variants={})
    (found,) = freshness.look(everything, ["tiny"], hosted, progress, whole=True).forks
    assert (found.drift.compared, asked_to_compare(api)) == (False, 0)


def test_where_a_history_is_here_github_need_not_compare(fork, api, hosted, progress):
    pin = fork.git("rev-parse", "HEAD")
    fork.add("work")
    one(progress, pinned(URL, pin), host=hosted)
    api.asked.clear()
    api.compares("me/fork", fork.path, pin, fork.add("work"))
    found = one(progress, pinned(URL, pin), host=hosted)
    assert (found.drift.commits_behind, asked_to_compare(api)) == (2, 0)


def test_a_history_that_did_not_come_is_no_history(fork, api, hosted, progress):
    pin = fork.git("rev-parse", "HEAD")
    middle = fork.add("lost")
    head = fork.add("work")
    answers = dict.fromkeys(api.compares("me/fork", fork.path, pin, head))
    answers = {path: api.answers.pop(path) for path in answers}
    lose(fork, middle)
    assert one(progress, pinned(URL, pin), host=hosted).verdict == "unknown"
    assert names().exists()
    api.answers.update(answers)
    found = one(progress, pinned(URL, pin), host=hosted).drift
    assert (found.compared, found.history_failed) == (True, False)


# --- A history that is here


def test_a_history_that_holds_the_head_is_not_fetched_again(fork, progress):
    pin = fork.git("rev-parse", "HEAD")
    middle = fork.add("work", "common/arg.cpp")
    fork.add("work")
    first, second = (one(progress, pinned(fork.url, start)) for start in (pin, middle))
    assert [found.drift.commits_behind for found in (first, second)] == [2, 1]
    assert progress.steps.count(f"fetch the history of {fork.url}") == 1


def test_a_head_that_was_rewound_is_not_taken_for_the_one_that_is_here(fork, progress):
    start = fork.git("rev-parse", "HEAD")
    fork.add("second")
    pin = fork.add("third")
    assert one(progress, pinned(fork.url, start)).verdict == "fresh"
    fork.git("reset", "--hard", "HEAD~1")
    fork.git("config", "uploadpack.allowAnySHA1InWant", "true")
    assert one(progress, pinned(fork.url, pin)).drift.pin == "orphaned"


def test_a_history_that_cannot_be_read_is_fetched(fork, progress):
    pin = fork.git("rev-parse", "HEAD")
    fork.add("work")
    one(progress, pinned(fork.url, pin))
    cache = git.Remote("tiny", fork.url).cache("names")
    for pack in (cache / "objects" / "pack").iterdir():
        pack.unlink()
    assert one(progress, pinned(fork.url, pin)).drift.commits_behind == 1


# --- Several forks


def test_a_fork_that_fails_does_not_hide_the_others(fork, tmp_path, progress):
    gone = pinned((tmp_path / "gone").as_uri(), "a" * 40)
    good = pinned(fork.url, fork.git("rev-parse", "HEAD"))
    found = look(progress, bad=gone, good=good)
    assert [(each.fork, each.verdict) for each in found.forks] == [
        ("bad", "unknown"),
        ("good", "fresh"),
    ]


def test_a_fork_without_a_pin_is_neither_fresh_nor_a_failure(progress):
    loose = Fork("backend-dl", unpinned="its URL is unknown")
    found = look(progress, loose=loose)
    assert (found.forks[0].verdict, found.verdict, found.exit_code) == ("unpinned", "unpinned", 0)
    assert "its URL is unknown" in rows(found)[0]


def verdicts(*words: str) -> Report:
    forks = tuple(ForkReport("f", "u", "b", "a" * 40, None, word) for word in words)
    return Report("2026-05-01T00:00:00Z", forks)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["fresh", "unpinned"], 0),
        (["fresh", "stale"], 1),
        (["stale", "unknown", "fresh"], 6),
        (["unpinned"], 0),
    ],
)
def test_the_worst_of_the_forks_is_the_answer(words, code):
    assert verdicts(*words).exit_code == code


def test_the_forks_to_ask_are_those_named_or_all_or_the_default_variants(real_pins):
    assert freshness.chosen(real_pins, [], whole=False) == ["spiritbuun"]
    assert freshness.chosen(real_pins, ["thetom", "thetom"], whole=False) == ["thetom"]
    assert freshness.chosen(real_pins, [], whole=True) == list(real_pins.forks)


def test_an_unknown_fork_is_refused_with_the_nearest(real_pins):
    with pytest.raises(UsageError) as caught:
        freshness.chosen(real_pins, ["spiritbun"], whole=False)
    assert "did you mean 'spiritbuun'?" in caught.value.hint


def test_all_and_names_do_not_go_together(real_pins):
    with pytest.raises(UsageError):
        freshness.chosen(real_pins, ["thetom"], whole=True)


# --- How it is shown


@pytest.fixture
def behind(fork, progress) -> Report:
    pin = fork.git("rev-parse", "HEAD")
    fork.add("fix `a` | <b> [c](d)", "common/arg.cpp")
    return look(progress, tiny=pinned(fork.url, pin))


def test_the_table_tells_distance_and_pin(behind):
    ((name, verdict, distance, pin, upstream, _),) = rows(behind)
    assert (name, verdict, distance, upstream) == ("tiny", "fresh", "1 commit, 1 d", "–")
    assert pin.endswith("on branch")


def test_the_table_of_groups_tells_steps_fixes_and_the_newest(behind):
    ((_, title, steps, fixes, newest),) = group_rows(behind)
    assert (title, steps, fixes) == ("server and API", "1", "1")
    assert newest.endswith("fix `a` | <b> [c](d)")


def test_the_json_has_a_schema_and_the_groups(behind):
    page = json.loads(to_json(behind))
    assert (page["schema"], page["verdict"], page["exit_code"]) == (1, "fresh", 0)
    (group,) = page["forks"][0]["drift"]["groups"]
    assert (group["name"], group["steps"], group["fixes"]) == ("server", 1, 1)
    assert set(group["commits"][0]) == {"commit", "date", "subject", "fix"}


def test_markdown_takes_no_markup_from_strangers(behind):
    assert r"fix \`a\` \| &lt;b&gt; \[c\](d)" in to_markdown(behind)


def test_the_table_gives_the_line_of_git_that_tells_most():
    failure = Failure("does not answer", "warning: x\nfatal: no such host\nand more", "")
    (report,) = verdicts("unknown").forks
    found = dataclasses.replace(report, failure=failure)
    assert rows(Report("", (found,)))[0][-1] == "does not answer: fatal: no such host"


@pytest.mark.parametrize(
    ("words", "message", "colour"),
    [
        (["fresh"], "fresh", "brightgreen"),
        (["stale", "stale", "fresh"], "2 stale", "orange"),
        (["unknown", "stale"], "unknown", "lightgrey"),
        (["unpinned"], "unpinned", "lightgrey"),
    ],
)
def test_the_badge_says_the_verdict(words, message, colour):
    assert badge(verdicts(*words)) == {
        "schemaVersion": 1,
        "label": "pins",
        "message": message,
        "color": colour,
    }


def test_the_badges_file_is_whole_and_alone(tmp_path):
    write_badge(verdicts("fresh"), tmp_path / "badge.json")
    assert json.loads((tmp_path / "badge.json").read_text())["message"] == "fresh"
    assert [file.name for file in tmp_path.iterdir()] == ["badge.json"]


# --- The command


@pytest.fixture
def file(tiny_pins: Path, fork: Moving) -> Path:
    """A pins.toml whose fork is pinned to the repository's only commit."""
    head = fork.git("rev-parse", "HEAD")
    text = tiny_pins.read_text().replace(
        'unpinned = "tests say which commit"', f'commit = "{head}"\ndate = 2026-05-01T00:00:00Z'
    )
    start = text.index('url = "')
    text = text[:start] + f'url = "{fork.url}"' + text[text.index("\n", start) :]
    tiny_pins.write_text(text)
    return tiny_pins


def test_the_command_is_0_when_fresh(file):
    result = builder("freshness", "--pins", file)
    assert (result.returncode, result.stderr.count("error")) == (0, 0)
    assert "FRESH  1 fresh" in result.stdout


def test_the_command_is_1_when_stale_and_writes_its_badge(file, fork, tmp_path):
    fork.git("branch", "--move", "main")
    result = builder("freshness", "--pins", file, "--badge", tmp_path / "badge.json")
    assert (result.returncode, "branch gone" in result.stdout) == (1, True)
    assert json.loads((tmp_path / "badge.json").read_text())["message"] == "1 stale"


def test_the_command_is_6_when_the_remote_is_gone_and_its_json_is_whole(file, fork):
    fork.path.rename(fork.path.with_name("elsewhere"))
    result = builder("freshness", "tiny", "--json", "--pins", file)
    assert (result.returncode, json.loads(result.stdout)["verdict"]) == (6, "unknown")


def test_the_command_is_2_for_an_unknown_fork(file):
    assert builder("freshness", "tinny", "--pins", file).returncode == 2


def test_the_commands_summary_goes_to_the_jobs_page(file, tmp_path, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    assert builder("freshness", "--github-summary", "--pins", file).returncode == 0
    assert "### Pins: FRESH  1 fresh" in (tmp_path / "summary.md").read_text()
