"""Commits are told apart by the files they touch and the words they use."""

import pytest

from builder.git import commits
from builder.git.commits import Commit


def commit(sha: str, subject: str = "work", *files: str, **more: object) -> Commit:
    given = {"parents": ("p",), "date": "2026-05-01T00:00:00Z", "committer": "Somebody", **more}
    return Commit(commit=sha, subject=subject, files=files, **given)


def merge(subject: str) -> Commit:
    return commit("m", subject, parents=("p", "q"))


@pytest.mark.parametrize(
    ("file", "group"),
    [
        ("ggml/src/ggml-cuda/fattn-mma-turbo.cuh", "kv-cuda"),
        ("ggml/src/ggml-turbo-quant.c", "kv-cuda"),
        ("src/llama-kv-cache-iswa.cpp", "kv-cuda"),
        ("src/llama-memory-recurrent.cpp", "kv-cuda"),
        ("codebooks/k3.bin", "kv-cuda"),
        ("tools/server/server-context.cpp", "server"),
        ("common/arg.cpp", "server"),
        ("include/llama.h", "server"),
        ("CMakeLists.txt", "build"),
        ("ggml/src/ggml-cuda/CMakeLists.txt", "build"),
        (".github/workflows/build.yml", "build"),
        (".devops/cuda.Dockerfile", "build"),
        ("README.md", "docs"),
        ("tools/server/README.md", "docs"),
        ("tests/test-turbo-quant.cpp", "other"),
        ("src/models/qwen35.cpp", "other"),
    ],
)
def test_a_file_is_grouped_by_its_path(file, group):
    assert commits.group_of(file) == group


def test_a_commit_belongs_to_its_most_dangerous_file():
    both = commit("a", "work", "README.md", "common/arg.cpp", "ggml/src/ggml-cuda/mmq.cuh")
    assert [one.name for one in commits.grouped([both], set())] == ["kv-cuda"]


def test_groups_come_most_dangerous_first_and_empty_ones_are_left_out():
    found = commits.grouped(
        [
            commit("a", "docs", "README.md"),
            commit("b", "flag", "common/arg.cpp"),
            commit("c", "Merge upstream", "src/llama-kv-cache.cpp"),
            commit("d", "kernel", "ggml/src/ggml-cuda/mmq.cu"),
        ],
        upstream={"c"},
    )
    assert [one.name for one in found] == ["kv-cuda", "server", "upstream", "docs"]


def test_a_merge_of_mainline_is_no_kernel_work_whatever_it_touches():
    (found,) = commits.grouped([commit("c", "sync", "ggml/src/ggml-cuda/mmq.cu")], upstream={"c"})
    assert found.title == "upstream merges"


def test_a_commit_without_files_is_other_code():
    assert commits.grouped([commit("a")], set())[0].name == "other"


@pytest.mark.parametrize(
    ("subject", "fix"),
    [
        ("fix: MTP server KV rollback", True),
        ("CUDA: fixes garbage on multi-GPU", True),
        ("Fix drafter OOM", True),
        ('Revert "faster kernel"', True),
        ("server: crash when grammar is active", True),
        ("feat: prefix caching", False),
        ("debugging flag", False),
    ],
)
def test_a_fix_is_known_by_its_subject(subject, fix):
    assert commit("a", subject).fix is fix


def test_a_groups_fixes_are_among_its_commits():
    (found,) = commits.grouped([commit("a", "fix leak"), commit("b", "feat")], set())
    assert ([c.commit for c in found.commits], [c.commit for c in found.fixes]) == (
        ["a", "b"],
        ["a"],
    )


@pytest.mark.parametrize(
    "subject",
    [
        "Merge upstream llamacpp/master (325 commits, 2026-04-05 to 2026-04-30)",
        "merge: sync with ggml-org/llama.cpp (58 commits, MoE GEMV optimization)",
        "Merge branch 'ggml-org:master' into master",
        "Merge pull request #7 from ggml-org/master",
    ],
)
def test_a_merge_of_mainline_is_known_by_its_subject(subject):
    assert commits.merges_upstream(merge(subject), None)


def test_a_merge_of_mainline_is_known_by_what_it_merged():
    tip = commit("q", "cuda : flat-mat for MUL_MAT_ID (#22464)", committer="GitHub")
    assert commits.merges_upstream(merge("Merge branch 'master' of elsewhere"), tip)


@pytest.mark.parametrize(
    ("subject", "tip"),
    [
        ("Merge pull request #50 from Nowayz/fix-upstream-port", commit("q", "port")),
        ("Merge pull request #10788 from ggerganov/gg/gguf-py-0.11.0", commit("q", "bump")),
        ("merge: ggerganov PR #21038 — Hadamard rotation", commit("q", "rotate")),
        ("Merge experiment", commit("q", "a request of the fork (#12)", committer="GitHub")),
        ("Merge experiment", commit("q", "ported (#21451)", committer="spiritbuun")),
    ],
)
def test_other_merges_are_not_mainlines(subject, tip):
    assert not commits.merges_upstream(merge(subject), tip)


def test_a_commit_with_one_parent_merges_nothing():
    assert not commits.merges_upstream(commit("a", "Merge upstream"), None)


def test_files_are_found_under_patterns_that_span_folders():
    files = ["src/llama-kv-cache.cpp", "ggml/src/ggml-cuda/turbo-quant.cuh", "README.md"]
    patterns = ["src/llama-kv-cache*", "ggml/src/*turbo-quant*", "vendor/*"]
    assert commits.touching([*files, *files], patterns) == {
        "src/llama-kv-cache*": ("src/llama-kv-cache.cpp",),
        "ggml/src/*turbo-quant*": ("ggml/src/ggml-cuda/turbo-quant.cuh",),
    }
