"""What is asked of a tree before anything is compiled, and what its failure then tells."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from builder.common.errors import BuildFailedError
from builder.sources import checks as tree_checks
from builder.sources.tree import Tree

VARIANT = "spiritbuun-cuda12-sm86"
COMMIT = "1" * 40
OWN = ["turbo4", "turbo3", "turbo2", "turbo3_tcq", "turbo2_tcq"]


def tree(folder: Path, kv_types: list[str], **changes: object) -> Tree:
    """A tree whose table of types is written as upstream and the forks write it."""
    (folder / "codebooks").mkdir(parents=True)
    table = folder / "ggml" / "src" / "ggml.c"
    table.parent.mkdir(parents=True)
    rows = [
        f"    [GGML_TYPE_{i}] = {{\n"
        f'        .type_name                = "{name}",\n'
        f"        .blck_size                = 1,\n    }},\n"
        for i, name in enumerate(kv_types)
    ]
    text = "static const struct ggml_type_traits type_traits[GGML_TYPE_COUNT] = {\n"
    table.write_text(text + "".join(rows) + "};\n", encoding="utf-8")
    made = Tree(folder, COMMIT, COMMIT, False, None, "", "https://example.org/fork")
    return replace(made, **changes)


def check(pins, tree, progress, error: Exception | None = None) -> None:
    with tree_checks.checked(pins, VARIANT, tree, progress):
        if error is not None:
            raise error


def told(pins, tree, progress, error: BuildFailedError) -> BuildFailedError:
    with pytest.raises(BuildFailedError) as caught:
        check(pins, tree, progress, error)
    return caught.value


REFUSED = BuildFailedError(
    "the build failed at a.c:1", why="a.c:1:2: error: x", hint="the log", commits_fault=True
)
KILLED = BuildFailedError("the build failed", why="Killed", hint="more memory")


def test_a_tree_with_every_kv_type_of_the_fork_is_built(real_pins, tmp_path, progress):
    check(real_pins, tree(tmp_path, ["f16", "q4_0", *OWN]), progress)
    assert progress.warnings == []


def test_a_tree_without_the_type_that_is_smoked_is_not_built(real_pins, tmp_path, progress):
    made = tree(tmp_path, ["f16", "q4_0"])
    found = told(real_pins, made, progress, AssertionError("built"))
    assert found.exit_code == 5
    assert found.what.startswith("spiritbuun at 111111111: has no KV type turbo4")
    assert "TheTom/llama-cpp-turboquant#56" in found.why


def test_what_is_left_of_the_forks_types_is_named(real_pins, tmp_path, progress):
    made = tree(tmp_path, ["f16", "turbo3", "turbo2"])
    assert "names only turbo3, turbo2" in told(real_pins, made, progress, REFUSED).why


def test_what_else_is_missing_is_left_out_with_a_warning(real_pins, tmp_path, progress):
    made = tree(tmp_path, ["f16", *OWN[:4]])
    (tmp_path / "codebooks").rmdir()
    with tree_checks.checked(real_pins, VARIANT, made, progress) as left_out:
        assert left_out == ("codebooks", "kv_types.turbo2_tcq")
    assert progress.warnings == [
        "spiritbuun at 111111111 has no codebooks, kv_types.turbo2_tcq: left out"
    ]


@pytest.mark.usefixtures("private_cache")
def test_the_first_commit_with_the_type_that_is_smoked_is_named(
    real_pins, repository, tmp_path, progress
):
    def commit(number: int, *types: str) -> str:
        table = repository.path / "ggml" / "src" / "ggml.c"
        table.parent.mkdir(parents=True, exist_ok=True)
        rows = "".join(f'    .type_name = "{name}",\n' for name in types)
        table.write_text(f"{rows}// {number}\n")
        return repository.commit(f"table {number}")

    old = commit(0, "f16")
    commit(1, "f16", "turbo3")
    repository.git("checkout", "--quiet", "-b", "side", old)
    first = commit(2, "f16", "turbo4")
    repository.git("checkout", "--quiet", "master")
    repository.git("merge", "--quiet", "--no-edit", "--strategy-option=theirs", "side")
    repository.commit("of something else")
    head = [commit(number, "f16", "turbo3", "turbo4") for number in range(3, 6)][-1]
    fork = replace(real_pins.forks["spiritbuun"], url=repository.url, commit=head)
    pins = replace(real_pins, forks=real_pins.forks | {"spiritbuun": fork})
    made = tree(tmp_path / "tree", ["f16"], commit=old)
    found = told(pins, made, progress, REFUSED)
    assert found.why.endswith(f"The first commit on the way to the pin that has it is {first}")
    assert f"a commit from {first[:9]} on with --ref" in found.hint
    # Where the pin itself lacks it there is none on the way.
    older = replace(fork, commit=old)
    pins = replace(real_pins, forks=real_pins.forks | {"spiritbuun": older})
    assert "first commit" not in told(pins, replace(made, commit=head), progress, REFUSED).why


@pytest.mark.parametrize("text", [None, "no table of types any more\n"])
def test_a_tree_without_a_table_of_types_is_not_judged(real_pins, tmp_path, progress, text):
    made = tree(tmp_path, [])
    table = tmp_path / "ggml" / "src" / "ggml.c"
    table.unlink() if text is None else table.write_text(text)
    check(real_pins, made, progress)
    assert progress.warnings == []


def test_a_failure_names_the_fork_and_the_commit(real_pins, tmp_path, progress):
    found = told(real_pins, tree(tmp_path, OWN), progress, REFUSED)
    assert found.what == "spiritbuun at 111111111: the build failed at a.c:1"
    assert found.why == "a.c:1:2: error: x"


def test_a_source_that_is_refused_may_build_at_another_commit(real_pins, tmp_path, progress):
    found = told(real_pins, tree(tmp_path, OWN), progress, REFUSED)
    pin = real_pins.forks["spiritbuun"].commit[:9]
    assert (
        found.hint == f"another commit may build: --ref REF, or without it the pin {pin}; the log"
    )


def test_a_pin_that_is_refused_is_not_offered_again(real_pins, tmp_path, progress):
    pin = real_pins.forks["spiritbuun"].commit
    found = told(real_pins, tree(tmp_path, OWN, commit=pin), progress, REFUSED)
    assert found.hint == "another commit may build: --ref REF; the log"


@pytest.mark.parametrize(("claimed", "error"), [(True, REFUSED), (False, KILLED)])
def test_no_commit_is_offered_where_none_would_help(real_pins, tmp_path, progress, claimed, error):
    found = told(real_pins, tree(tmp_path, OWN, claimed=claimed), progress, error)
    assert found.hint == error.hint


def test_what_is_known_of_a_commit_is_told_before_and_after(real_pins, tmp_path, progress):
    fork = replace(real_pins.forks["spiritbuun"], broken={COMMIT: "fixed by abc"})
    pins = replace(real_pins, forks={"spiritbuun": fork})
    found = told(pins, tree(tmp_path, OWN), progress, REFUSED)
    assert progress.warnings == ["spiritbuun at 111111111 is known to be broken: fixed by abc"]
    assert found.why.splitlines() == ["a.c:1:2: error: x", "known of this commit: fixed by abc"]


def test_what_is_known_of_a_commit_is_no_reason_for_a_kill(real_pins, tmp_path, progress):
    fork = replace(real_pins.forks["spiritbuun"], broken={COMMIT: "fixed by abc"})
    pins = replace(real_pins, forks={"spiritbuun": fork})
    assert told(pins, tree(tmp_path, OWN), progress, KILLED).why == "Killed"


HOSTILE = {
    "an endless table": ("ggml/src/ggml.c", lambda path: path.symlink_to("/dev/zero")),
    "a table from the terminal": ("ggml/src/ggml.c", lambda path: path.symlink_to("/dev/stdin")),
    "a table of nobody": ("ggml/src/ggml.c", os.mkfifo),
    "a large table": ("ggml/src/ggml.c", lambda path: path.write_bytes(bytes(5 << 20))),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_tree_is_a_judgement_on_its_commit(real_pins, tmp_path, progress, name):
    made = tree(tmp_path, ["f16", "q4_0", *OWN])
    within, make = HOSTILE[name]
    (tmp_path / within).unlink(missing_ok=True)
    make(tmp_path / within)
    found = told(real_pins, made, progress, AssertionError("built"))
    assert found.commits_fault
    assert found.what.startswith(f"spiritbuun at 111111111: {within} ")
    assert found.what.endswith("; nothing was compiled")


def test_cmake_files_that_are_links_are_not_read(real_pins, tmp_path, progress):
    made = tree(tmp_path, ["f16", "q4_0", *OWN])
    (tmp_path / "CMakeLists.txt").symlink_to("/dev/zero")
    (tmp_path / "more.cmake").symlink_to("/dev/stdin")
    (tmp_path / "back").symlink_to(".")
    os.mkfifo(tmp_path / "pipe.cmake")
    check(real_pins, made, progress)
