"""GitHub's API: followed, cached, refused and broken, each said as what it is."""

import copy
import time
from collections.abc import Iterator
from email.utils import formatdate

import pytest

from builder.common import http as web
from builder.common.errors import RefNotFoundError, RemoteUnavailableError, UsageError
from builder.git import github
from builder.git.commits import Commit
from builder.git.github import Github, Page
from tests.support import github_api
from tests.support.github_api import Answer, Api, page

pytestmark = pytest.mark.usefixtures("private_cache")

PIN, HEAD = "a" * 40, "b" * 40
COMPARE = f"/repos/me/fork/compare/{PIN}...{HEAD}"
STEP = f"{COMPARE}?per_page=1"
FINE = Page("https://github.com/me/fork", "master", archived=False)


@pytest.fixture
def api() -> Iterator[Api]:
    with github_api.serve() as served:
        served.on("/repos/me/fork", Answer(body=page("me/fork")))
        yield served


@pytest.fixture
def host(api: Api) -> Github:
    return Github(api=api.url, token="a-token")  # noqa: S106


def compared(ahead: int, behind: int = 0, *, listed: int | None = None, files: int = 1) -> Answer:
    """A comparison in GitHub's shape: a commit a day, each the next one's parent."""
    shas = [PIN, *(f"{number:040x}" for number in range(1, ahead)), HEAD]
    commits = [
        {
            "sha": sha,
            "commit": {
                "message": f"step {day}",
                "committer": {"name": "GitHub", "date": f"2026-05-{1 + day % 28:02d}T00:00:00Z"},
            },
            "parents": [{"sha": shas[day]}],
        }
        for day, sha in enumerate(shas[1:])
    ]
    body = {
        "ahead_by": ahead,
        "behind_by": behind,
        "commits": commits[:listed],
        "files": [
            {"filename": f"src/{number}.cpp", "status": "modified", "patch": "@@ -1 +1 @@"}
            for number in range(files)
        ],
    }
    return Answer(body=body, headers={"ETag": '"1"'})


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://github.com/me/fork", "me/fork"),
        ("https://github.com/me/fork.git", "me/fork"),
        ("https://github.com/me/fork/", "me/fork"),
        ("ssh://git@github.com/me/fork.git", "me/fork"),
        ("https://example.org/me/fork", None),
        ("https://github.com.example.org/me/fork", None),
        ("https://github.com/me", None),
        ("file:///srv/me/fork", None),
    ],
)
def test_a_repository_of_the_site_is_known_by_its_address(url, name):
    assert Github().name(url) == name


def test_a_repository_tells_its_address_branch_and_whether_it_is_archived(api, host):
    api.on("/repos/me/fork", Answer(body=page("me/fork", archived=True)))
    assert host.page("me/fork") == Page("https://github.com/me/fork", "master", archived=True)


def test_a_renamed_repository_is_followed(api, host):
    api.on("/repos/me/old", Answer(301, headers={"Location": f"{api.url}/repositories/7"}))
    api.on("/repositories/7", Answer(body=page("me/fork")))
    assert host.page("me/old").url == "https://github.com/me/fork"


def test_redirects_in_a_circle_end(api, host):
    api.on("/repos/me/fork", Answer(301, headers={"Location": f"{api.url}/repos/me/fork"}))
    with pytest.raises(RemoteUnavailableError, match="does not answer"):
        host.page("me/fork")


def test_the_token_goes_to_the_api(api, host):
    host.page("me/fork")
    assert api.asked[0][1]["Authorization"] == "Bearer a-token"


def test_the_token_is_not_sent_on_to_another_host(api, host):
    with github_api.serve() as other:
        elsewhere = other.url.replace("127.0.0.1", "localhost")
        other.on("/x", Answer(body=page("me/fork")))
        api.on("/repos/me/fork", Answer(301, headers={"Location": f"{elsewhere}/x"}))
        host.page("me/fork")
        assert "Authorization" not in other.asked[0][1]


def test_the_machines_netrc_is_not_sent(api, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    Github(api=api.url).page("me/fork")
    assert "Authorization" not in api.asked[0][1]


def test_an_answer_that_did_not_change_is_taken_from_the_cache(api, host):
    fresh = Answer(body=page("me/fork"), headers={"ETag": 'W/"1"'})
    api.on("/repos/me/fork", fresh, Answer(304))
    assert [host.page("me/fork"), host.page("me/fork")] == [FINE, FINE]
    assert api.asked[1][1]["If-None-Match"] == 'W/"1"'


def test_an_answer_that_changed_replaces_the_cached_one(api, host):
    old = Answer(body=page("me/fork"), headers={"ETag": '"1"'})
    new = Answer(body=page("me/fork", archived=True), headers={"ETag": '"2"'})
    api.on("/repos/me/fork", old, new, Answer(304))
    assert [host.page("me/fork").archived for _ in range(3)] == [False, True, True]


@pytest.mark.parametrize("text", ["", "{", "[1, 2, 3]", '[1, "x"]', "null"])
def test_a_broken_cache_is_no_cache(api, host, private_cache, text):
    api.on("/repos/me/fork", Answer(body=page("me/fork"), headers={"ETag": '"1"'}))
    host.page("me/fork")
    (kept,) = (private_cache / "github").iterdir()
    kept.write_text(text)
    assert host.page("me/fork") == FINE
    assert "If-None-Match" not in api.asked[1][1]


def test_a_repository_that_is_gone_is_not_found(host):
    with pytest.raises(RefNotFoundError, match="gone, or private"):
        host.page("me/gone")


def test_a_used_up_rate_limit_is_said_with_the_time_it_ends(api, host):
    headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1770000000"}
    api.on("/repos/me/fork", Answer(403, {"message": "API rate limit exceeded"}, headers))
    with pytest.raises(RemoteUnavailableError) as caught:
        host.page("me/fork")
    assert caught.value.why == "its rate limit is used up until 02:40 UTC"
    assert "GITHUB_TOKEN" in caught.value.hint


@pytest.mark.parametrize("after", ["0", formatdate(0, usegmt=True)])
def test_a_short_retry_after_is_waited_for(api, host, after):
    api.on("/repos/me/fork", Answer(429, headers={"Retry-After": after}), Answer(body=page("x/y")))
    assert host.page("me/fork").url == "https://github.com/x/y"


def test_a_long_retry_after_is_not_waited_for(api, host):
    api.on("/repos/me/fork", Answer(429, headers={"Retry-After": "3600"}))
    with pytest.raises(RemoteUnavailableError) as caught:
        host.page("me/fork")
    assert (caught.value.why, len(api.asked)) == ("it asks to wait 3600 s", 1)


def test_it_is_asked_again_once_and_no_more(api, host):
    api.on("/repos/me/fork", Answer(429, headers={"Retry-After": "0"}))
    with pytest.raises(RemoteUnavailableError):
        host.page("me/fork")
    assert len(api.asked) == 2


@pytest.mark.parametrize("reset", ["", "soon", "²", "9" * 30])
def test_a_used_up_rate_limit_may_tell_no_time(api, host, reset):
    headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset}
    api.on("/repos/me/fork", Answer(403, headers=headers))
    with pytest.raises(RemoteUnavailableError) as caught:
        host.page("me/fork")
    assert caught.value.why == "its rate limit is used up for now"


@pytest.mark.parametrize("status", [401, 403, 500, 502, 503])
def test_any_other_refusal_is_unavailable(api, host, status):
    api.on("/repos/me/fork", Answer(status))
    with pytest.raises(RemoteUnavailableError) as caught:
        host.page("me/fork")
    assert caught.value.why == f"HTTP {status}"


def test_a_truncated_answer_is_no_answer(api, host):
    api.on("/repos/me/fork", Answer(body=page("me/fork"), cut=5))
    with pytest.raises(RemoteUnavailableError, match="does not answer"):
        host.page("me/fork")


def test_an_answer_that_drips_is_given_up(api, host, monkeypatch):
    monkeypatch.setattr(web, "_DEADLINE_S", 0.1)
    api.on("/repos/me/fork", Answer(body=page("me/fork") | {"x": "y" * 2000}, drip=True))
    begun = time.monotonic()
    with pytest.raises(RemoteUnavailableError, match="does not answer") as caught:
        host.page("me/fork")
    assert "no end after" in caught.value.why
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("body", [[], "text", {}, {"html_url": "x"}])
def test_an_answer_of_another_shape_is_unavailable(api, host, body):
    api.on("/repos/me/fork", Answer(body=body))
    with pytest.raises(RemoteUnavailableError, match="shape"):
        host.page("me/fork")


def test_a_host_that_does_not_listen_is_unavailable():
    with pytest.raises(RemoteUnavailableError, match="does not answer"):
        Github(api="http://127.0.0.1:1").page("me/fork")


def test_a_comparison_tells_the_distance_and_the_files(api, host):
    api.on(COMPARE, compared(3))
    found = host.compare("me/fork", PIN, HEAD)
    assert (found.ahead, found.lost, found.files) == (3, 0, ("src/0.cpp",))


def test_a_comparison_tells_the_commits_the_head_last(api, host):
    api.on(COMPARE, compared(2))
    first, last = host.compare("me/fork", PIN, HEAD).commits
    assert first.commit == f"{1:040x}"
    assert last == Commit(HEAD, (f"{1:040x}",), "2026-05-02T00:00:00Z", "GitHub", "step 1")


@pytest.mark.parametrize(
    ("message", "subject"),
    [
        ("fix a\n\nbecause", "fix a"),
        ("\nfix a\nand b\n \nbecause", "fix a and b"),
        ("", ""),
        ("x\x1b[2Jy", "x�[2Jy"),
    ],
)
def test_a_compared_commit_has_the_subject_that_git_gives_it(api, host, message, subject):
    answer = compared(1)
    answer.body["commits"][0]["commit"]["message"] = message
    api.on(COMPARE, answer)
    assert host.compare("me/fork", PIN, HEAD).commits[0].subject == subject


def test_a_file_that_was_moved_is_told_by_both_its_names(api, host):
    answer = compared(1)
    moved = {"filename": "b.cu", "status": "renamed", "previous_filename": "a.cu"}
    answer.body["files"] = [moved]
    api.on(COMPARE, answer)
    assert set(host.compare("me/fork", PIN, HEAD).files) == {"a.cu", "b.cu"}


def test_a_file_that_was_copied_leaves_the_other_as_it_was(api, host):
    answer = compared(1)
    answer.body["files"] = [{"filename": "b", "status": "copied", "previous_filename": "a"}]
    api.on(COMPARE, answer)
    assert host.compare("me/fork", PIN, HEAD).files == ("b",)


def test_a_files_name_cannot_move_the_terminals_cursor(api, host):
    answer = compared(1)
    answer.body["files"][0]["filename"] = "x\x1b[2Jy"
    api.on(COMPARE, answer)
    assert host.compare("me/fork", PIN, HEAD).files == ("x�[2Jy",)


@pytest.mark.parametrize("files", [None, {}, ""])
def test_files_that_are_not_listed_are_not_known(api, host, files):
    answer = compared(1)
    answer.body["files"] = files
    api.on(COMPARE, answer)
    assert host.compare("me/fork", PIN, HEAD).files is None


def test_a_comparison_tells_what_a_force_push_dropped(api, host):
    api.on(COMPARE, compared(3, behind=2))
    assert host.compare("me/fork", PIN, HEAD).lost == 2


def test_a_comparison_that_lists_only_a_part_has_no_commits_and_no_files(api, host):
    api.on(COMPARE, compared(456, listed=250, files=300))
    found = host.compare("me/fork", PIN, HEAD)
    assert (found.ahead, found.commits, found.files) == (456, None, None)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (["commits"], 1),
        (["ahead_by"], None),
        (["behind_by"], "few"),
        (["files", 0], "a.cpp"),
        (["files", 0], {"filename": "b", "status": "renamed"}),
        (["commits", 0, "sha"], "../../secrets"),
        (["commits", 0, "parents", 0, "sha"], PIN[:39]),
        (["commits", 0, "commit", "committer"], None),
        (["commits", 0, "commit", "committer", "date"], "2026-05-01"),
    ],
)
def test_a_comparison_of_another_shape_is_unavailable(api, host, place, value):
    body = copy.deepcopy(compared(1).body)
    *way, last = place
    inner = body
    for step in way:
        inner = inner[step]
    inner[last] = value
    api.on(COMPARE, Answer(body=body))
    with pytest.raises(RemoteUnavailableError, match="shape"):
        host.compare("me/fork", PIN, HEAD)


def test_two_commits_are_compared_once(api, host):
    api.on(COMPARE, compared(3))
    assert host.compare("me/fork", PIN, HEAD) == host.compare("me/fork", PIN, HEAD)
    assert len(api.asked) == 1


def test_no_patches_are_kept(api, host, private_cache):
    api.on(COMPARE, compared(1))
    host.compare("me/fork", PIN, HEAD)
    (kept,) = (private_cache / "github").iterdir()
    assert "@@" not in kept.read_text()


def test_what_a_commit_changes_is_its_comparison_with_a_parent(api, host):
    api.on(STEP, compared(400, listed=1, files=2))
    assert host.changed("me/fork", PIN, HEAD) == ("src/0.cpp", "src/1.cpp")


@pytest.mark.parametrize("files", [300, 0])
def test_files_of_a_commit_are_told_whole_or_not_at_all(api, host, files):
    answer = compared(1, files=files)
    api.on(STEP, answer if files else Answer(body={"ahead_by": 1}))
    with pytest.raises(RemoteUnavailableError, match="does not list all"):
        host.changed("me/fork", PIN, HEAD)


def test_files_of_a_commit_in_another_shape_are_unavailable(api, host):
    api.on(STEP, Answer(body={"files": [{"name": "a.cpp"}]}))
    with pytest.raises(RemoteUnavailableError, match="shape"):
        host.changed("me/fork", PIN, HEAD)


def test_the_environment_names_the_api_and_gives_the_token(monkeypatch):
    monkeypatch.setenv("GITHUB_API_URL", "https://git.example.org/api/v3")
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://git.example.org")
    monkeypatch.setenv("GITHUB_TOKEN", "a-token")
    host = github.from_environment()
    assert host == Github("https://git.example.org/api/v3", "https://git.example.org", "a-token")
    # That server knows nothing of github.com's repositories, and would call them gone.
    assert host.name("https://github.com/me/fork") is None


@pytest.mark.parametrize("name", ["GITHUB_API_URL", "GITHUB_SERVER_URL"])
@pytest.mark.parametrize(
    "address", ["http://git.example.org/api/v3", "HTTP://git.example.org", "http://10.0.0.1", "x"]
)
def test_no_token_goes_out_in_plain_text(monkeypatch, name, address):
    monkeypatch.setenv("GITHUB_TOKEN", "a-token")
    monkeypatch.setenv(name, address)
    with pytest.raises(UsageError, match=name) as caught:
        github.from_environment()
    assert "a-token" not in f"{caught.value.what}{caught.value.why}{caught.value.hint}"


@pytest.mark.parametrize("address", ["http://127.0.0.1:3000", "http://localhost", "http://[::1]"])
def test_this_machine_needs_no_https(monkeypatch, address):
    monkeypatch.setenv("GITHUB_TOKEN", "a-token")
    monkeypatch.setenv("GITHUB_API_URL", address)
    assert github.from_environment().api == address


def test_without_a_token_nothing_is_lost_in_plain_text(monkeypatch):
    monkeypatch.delenv("GITHUB_TOKEN", raising=False)
    monkeypatch.setenv("GITHUB_API_URL", "http://git.example.org")
    assert github.from_environment().api == "http://git.example.org"


def test_without_an_environment_it_is_githubs_own(monkeypatch):
    for name in ("GITHUB_API_URL", "GITHUB_SERVER_URL", "GITHUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    assert github.from_environment() == Github("https://api.github.com", "https://github.com")
