"""`builder bisect` on the real engine: 64 commits of a small CMake project, one of them bad."""

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, SAMPLES, TINY_PINS, Repository, builder

pytestmark = pytest.mark.engine

COMMITS, BAD = 64, 41


@dataclass(frozen=True)
class Found:
    """What was answered after two steps, and after all of them; and what was there to find."""

    first: dict[str, Any]
    second: dict[str, Any]
    commits: list[str]
    folder: Path
    issue: str


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """The same question asked twice, the first time with room for two steps only."""
    folder = tmp_path_factory.mktemp("bisect")
    repository = Repository(folder / "fork")
    shutil.copytree(SAMPLES / "tiny", repository.path, dirs_exist_ok=True)
    source = (SAMPLES / "tiny" / "llama.c").read_text()
    # Not the answer of another run: what is compiled here was never compiled before.
    answer = str(int.from_bytes(os.urandom(3)))
    commits = [repository.commit("begin", llama_c=source.replace("42", answer))]
    for number in range(1, COMMITS + 1):
        changed = {"notes_md": str(number)}
        if number == BAD:
            changed = {"llama_c": source.replace("42", "forty_two")}
        commits.append(repository.commit(f"number {number}", **changed))
    pins = folder / "pins.toml"
    pins.write_text(TINY_PINS.format(url=repository.url, base=real_base()), encoding="utf-8")
    page = folder / "issue.md"
    words = ["bisect", "tiny", "--good", commits[0], "--bad", "master", "--pins", pins]
    words += ["--json", "--issue", page]
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    first = builder(*words, "--max-builds", 2, env=environment)
    assert (first.returncode, page.exists()) == (1, False), first.stderr
    second = builder(*words, env=environment)
    assert second.returncode == 0, second.stderr
    answers = json.loads(first.stdout), json.loads(second.stdout)
    return Found(*answers, commits, folder, page.read_text())


def real_base() -> str:
    real = (ROOT / "pins.toml").read_text(encoding="utf-8")
    start = real.index("[bases.debian-trixie]") + len("[bases.debian-trixie]")
    return real[start : real.index("[bases.nvidia-cuda126]")]


def test_two_steps_leave_a_quarter(found):
    assert (found.first["outcome"], len(found.first["suspects"])) == ("stopped", COMMITS // 4)


def test_the_commit_that_broke_the_build_is_found(found):
    assert found.second["first_bad"]["commit"] == found.commits[BAD]


def test_it_takes_at_most_seven_builds(found):
    assert found.first["steps"] + found.second["steps"] == len(found.second["judged"]) <= 7


def test_a_step_compiles_only_what_changed(found):
    logs = sorted((found.folder / "build" / "logs").glob("*.log"), key=lambda p: p.stat().st_mtime)
    # After the first it is the file that names the commit, one of four; a build that fails tells
    # no figures.
    told = [ccache(log) for log in logs[1:]]
    assert {} in told
    figures = [one for one in told if one]
    assert figures
    assert all(one == {"cache_miss": 1, "direct_cache_hit": 3} for one in figures)


def ccache(log: Path) -> dict[str, int]:
    """How many calls compiled something, and how many were answered by ccache."""
    found = re.findall(r"ccache-stats +(\d+) (cache_miss|direct_cache_hit)$", log.read_text(), re.M)
    return {name: int(count) for count, name in found}


def test_the_evidence_is_the_compilers_first_error_and_its_log(found):
    evidence = found.second["evidence"]
    assert "error: 'forty_two' undeclared" in evidence["reason"].replace("‘", "'").replace("’", "'")
    assert evidence["reason"] in Path(evidence["log"]).read_text()


def test_the_issue_names_the_commit_the_error_and_the_options(found):
    assert found.issue.startswith(f"# The build fails since {found.commits[BAD][:9]}\n")
    assert found.second["evidence"]["reason"] in found.issue
    assert "-DGGML_NATIVE=OFF" in found.issue
    assert "llama.c | 2 +-" in found.issue


def test_no_image_and_no_receipt_is_left(engine, found):
    tags = [tag for image in engine.images.list("turboquant") for tag in image.tags]
    assert not [tag for tag in tags if tag.startswith("turboquant:tiny")]
    assert not (found.folder / "build" / "receipts").exists()


@pytest.fixture
def two_kinds(tiny_pins: Path, repository: Repository) -> tuple[Path, list[str]]:
    """A commit that does not build, and then one that builds and does not serve."""
    source = (SAMPLES / "tiny" / "server.cpp").read_text()
    commits = [repository.git("rev-parse", "HEAD")]
    commits.append(repository.commit("does not build", server_cpp="int main() { return x; }\n"))
    commits.append(repository.commit("does not serve", server_cpp=source))
    return tiny_pins, commits


@pytest.mark.usefixtures("private_cache")
def test_a_build_that_fails_is_told_apart_from_a_smoke_that_fails(two_kinds):
    pins, commits = two_kinds
    words = ["--good", commits[0], "--bad", commits[2], "--stage", "smoke", "--pins", pins]
    result = builder("bisect", "tiny", *words, "--json")
    assert result.returncode == 1, result.stderr
    report = json.loads(result.stdout)
    verdicts = {one["commit"]: (one["verdict"], one["stage"]) for one in report["judged"]}
    assert verdicts == {commits[1]: ("skip", "build"), commits[2]: ("bad", "smoke")}
    assert report["evidence"]["reason"].startswith("ready: expected")
