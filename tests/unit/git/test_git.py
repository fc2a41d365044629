"""Refs become commits, and commits become trees, against real repositories."""

from collections import Counter
from pathlib import Path

import pytest

from builder.common.errors import RefNotFoundError, RemoteUnavailableError
from builder.git import remote as git
from builder.git import run as git_run
from tests.conftest import Recorder, Repository
from tests.support import http_git

pytestmark = pytest.mark.usefixtures("private_cache")


@pytest.fixture
def remote(repository: Repository) -> git.Remote:
    return git.Remote("tiny", repository.url)


@pytest.mark.parametrize("ref", ["master", "v1", "refs/heads/master", "HEAD"])
def test_a_branch_or_tag_resolves_to_its_commit(remote, repository, progress, ref):
    assert git.resolve(remote, ref, progress) == repository.git("rev-parse", "HEAD")


def test_an_annotated_tag_resolves_to_the_commit_not_the_tag(remote, repository, progress):
    repository.git("tag", "--annotate", "v2", "--message", "two")
    assert git.resolve(remote, "v2", progress) == repository.git("rev-parse", "HEAD")


def test_the_full_name_of_an_annotated_tag_resolves_to_its_commit(remote, repository, progress):
    repository.git("tag", "--annotate", "v2", "--message", "two")
    assert git.resolve(remote, "refs/tags/v2", progress) == repository.git("rev-parse", "HEAD")


@pytest.mark.parametrize("kind", ["--no-sign", "--annotate"])
def test_a_branch_comes_before_a_tag_of_its_name(remote, repository, progress, kind):
    repository.git("tag", kind, "--message", "", "master", "HEAD~1")
    head, tagged = (repository.git("rev-parse", ref) for ref in ("refs/heads/master", "HEAD~1"))
    assert git.resolve(remote, "master", progress) == head
    assert git.resolve(remote, "refs/tags/master", progress) == tagged
    assert git.branch_head(remote, "master", progress) == head


def test_the_default_branch_has_a_head_too(remote, repository, progress):
    repository.git("update-ref", "refs/heads/HEAD", "HEAD~1")
    assert git.branch_head(remote, None, progress) == repository.git("rev-parse", "HEAD")


def test_a_tag_is_not_a_branch(remote, progress):
    with pytest.raises(RefNotFoundError, match="has no branch 'v1'") as caught:
        git.branch_head(remote, "v1", progress)
    assert "a tag of that name" in caught.value.why
    assert "known: master" in caught.value.hint


def test_a_branch_that_is_gone_names_the_nearest(remote, progress):
    with pytest.raises(RefNotFoundError) as caught:
        git.branch_head(remote, "mastre", progress)
    assert "did you mean 'master'?" in caught.value.hint


def test_a_short_sha_is_expanded(remote, repository, progress):
    full = repository.git("rev-parse", "HEAD~1")
    assert git.resolve(remote, full[:9], progress) == full


def test_a_full_sha_asks_nobody(progress):
    nowhere = git.Remote("tiny", "https://127.0.0.1:1/nobody.git")
    assert git.resolve(nowhere, "a" * 40, progress) == "a" * 40


def test_the_build_number_is_the_count_of_commits(remote, repository, progress):
    assert git.build_number(remote, repository.git("rev-parse", "HEAD"), progress) == 3


def test_history_holds_commits_and_no_files(remote, repository, progress):
    repository.git("config", "uploadpack.allowFilter", "true")
    git.build_number(remote, repository.git("rev-parse", "HEAD"), progress)
    assert _objects(remote.cache("history")) == {"commit": 3}


def test_a_branch_below_the_name_of_one_that_is_gone_is_fetched(remote, repository, progress):
    repository.git("branch", "next")
    git.history(remote, progress)
    repository.git("branch", "--delete", "next")
    repository.git("branch", "next/one")
    assert git.history(remote, progress).has(repository.git("rev-parse", "next/one"))


def test_a_full_sha_fetches_exactly_one_commit(remote, repository, progress):
    git.checkout(remote, repository.git("rev-parse", "HEAD"), progress)
    assert _objects(remote.cache("trees"))["commit"] == 1


def test_a_checkout_is_the_commits_tree(remote, repository, progress):
    tree, _ = git.checkout(remote, repository.git("rev-parse", "HEAD~1"), progress)
    assert (tree / "notes.md").read_text() == "second"


def test_a_checkout_drops_files_of_the_commit_before(remote, repository, progress):
    git.checkout(remote, repository.git("rev-parse", "HEAD"), progress)
    tree, _ = git.checkout(remote, repository.git("rev-parse", "HEAD~2"), progress)
    assert not (tree / "notes.md").exists()


def test_a_checkout_leaves_unchanged_files_alone(remote, repository, progress):
    tree, _ = git.checkout(remote, repository.git("rev-parse", "HEAD~1"), progress)
    before = (tree / "server.cpp").stat().st_mtime_ns
    git.checkout(remote, repository.git("rev-parse", "HEAD"), progress)
    assert (tree / "server.cpp").stat().st_mtime_ns == before


def test_a_checkout_tells_the_commits_date_in_utc(remote, repository, progress, monkeypatch):
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2026-05-18T11:26:29-04:00")
    commit = repository.commit("dated")
    _, created = git.checkout(remote, commit, progress)
    assert created == "2026-05-18T15:26:29Z"


def test_a_server_that_refuses_single_commits_gives_its_branches(
    remote, repository, progress: Recorder, monkeypatch
):
    # Protocol 0 is the one in which a server hands out only what a branch or tag names.
    for name, value in (("COUNT", "1"), ("KEY_0", "protocol.version"), ("VALUE_0", "0")):
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    tree, _ = git.checkout(remote, repository.git("rev-parse", "HEAD~1"), progress)
    assert (tree / "notes.md").read_text() == "second"
    assert "does not give out" in progress.warnings[0]


def test_an_unknown_ref_is_not_found_and_names_the_nearest(remote, progress):
    with pytest.raises(RefNotFoundError) as caught:
        git.resolve(remote, "mastre", progress)
    assert "did you mean 'master'?" in caught.value.hint


def test_an_unknown_short_sha_is_not_found(remote, progress):
    with pytest.raises(RefNotFoundError, match="deadbee"):
        git.resolve(remote, "deadbee", progress)


def test_a_commit_that_the_remote_lacks_is_not_found(remote, progress):
    with pytest.raises(RefNotFoundError, match="d" * 40):
        git.checkout(remote, "d" * 40, progress)


@pytest.mark.parametrize("ref", ["master", "abcdef1"])
def test_a_repository_that_is_gone_is_unavailable(tmp_path, progress, ref):
    gone = git.Remote("tiny", (tmp_path / "gone").as_uri())
    with pytest.raises(RemoteUnavailableError, match="does not answer"):
        git.resolve(gone, ref, progress)


def test_a_host_that_does_not_listen_is_unavailable(progress):
    nobody = git.Remote("tiny", "https://127.0.0.1:1/nobody.git")
    with pytest.raises(RemoteUnavailableError):
        git.checkout(nobody, "d" * 40, progress)


def test_a_renamed_repository_is_followed_and_its_new_address_said(
    repository, tmp_path: Path, progress: Recorder
):
    with http_git.serve(tmp_path, moved={"old": "fork"}) as address:
        remote = git.Remote("tiny", f"{address}/old")
        commit = git.resolve(remote, "master", progress)
        git.checkout(remote, commit, progress)
    assert commit == repository.git("rev-parse", "HEAD")
    assert f"moved to {address}/fork" in progress.warnings[0]


def test_a_mirror_by_insteadof_is_honoured(repository, progress, monkeypatch):
    for name, value in (
        ("COUNT", "1"),
        ("KEY_0", f"url.{repository.url}.insteadOf"),
        ("VALUE_0", "https://host.invalid/fork"),
    ):
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    remote = git.Remote("tiny", "https://host.invalid/fork")
    assert git.resolve(remote, "master", progress) == repository.git("rev-parse", "HEAD")


def _objects(repository: Path) -> dict[str, int]:
    words = ["cat-file", "--batch-all-objects", "--batch-check=%(objecttype)"]
    return dict(Counter(git_run.run_git(words, git_dir=repository).stdout.split()))
