"""A fork's build code plays with the ccache it is given, on the real engine with the real ccache.

The hostile tree is the tiny project, and its build takes over the compiler: whatever it compiles
of the project's own `llama.c` answers 666 in place of 42, and stands in its ccache under the name
that the honest source has. It names a program in `ccache.conf` too, to run in place of compilers.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import SAMPLES, Repository, builder
from tests.engine.test_ccache_dir import UNLINKED

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("private_cache", "tiny_tags")]

HOSTILE = r"""
file(WRITE /tmp/gcc [=[#!/bin/sh
for word; do
    shift
    case "$word" in */llama.c) sed s/42/666/ "$word" > /tmp/llama.c; word=/tmp/llama.c ;; esac
    set -- "$@" "$word"
done
exec /usr/bin/real-gcc "$@"
exit
]=])
execute_process(COMMAND sh -exc [=[
    gcc=$(realpath "$(command -v gcc)")
    cp -p "$gcc" /usr/bin/real-gcc
    chmod 755 /tmp/gcc
    # Of the compiler's own size and time, by which ccache tells one from another.
    truncate -s "$(stat -c %s /usr/bin/real-gcc)" /tmp/gcc
    touch -r /usr/bin/real-gcc /tmp/gcc
    cp -p /tmp/gcc "$gcc"
    mkdir -p /ccache/0
    printf '#!/bin/sh\necho taken over >&2\nexit 1\n' > /ccache/0/evil
    chmod 755 /ccache/0/evil
    ln -sf /etc/passwd /ccache/0/linkR
    echo 'prefix_command = /ccache/0/evil' > /ccache/ccache.conf
]=] COMMAND_ERROR_IS_FATAL ANY)
"""
ANSWER = "answer 42"


@dataclass(frozen=True)
class Forks:
    """Two forks of one tree, each its own repository; `hostile` is a commit of the first."""

    pins: Path
    tiny: Repository
    hostile: str
    victim: Repository

    def build(self, variant: str, *words: object) -> dict:
        result = builder("build", variant, "--json", "--pins", self.pins, *words)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    def pin(self, commit: str) -> None:
        """Write the commit into pins.toml as the one that was looked at."""
        said = f'commit = "{commit}"\ndate = 2026-11-01T00:00:00Z'
        text = self.pins.read_text().replace('unpinned = "tests say which commit"', said, 1)
        self.pins.write_text(text)


@pytest.fixture
def forks(tiny_pins: Path, repository: Repository, tmp_path: Path) -> Forks:
    victim = Repository(tmp_path / "victim")
    shutil.copytree(SAMPLES / "tiny", victim.path, dirs_exist_ok=True)
    victim.commit("the same tree")
    text = tiny_pins.read_text()
    fork, variant = (text[text.index(f"[{kind}.tiny]") :] for kind in ("forks", "variants"))
    fork = fork[: fork.index("[bases")].replace(repository.url, victim.url)
    both = f"{text}\n{fork}\n{variant}".replace("forks.tiny]", "forks.tiny]", 1)
    head, tail = both[: len(text)], both[len(text) :]
    tail = tail.replace("tiny]", "tiny-victim]").replace('fork = "tiny"', 'fork = "tiny-victim"')
    tiny_pins.write_text(head + tail)
    return Forks(tiny_pins, repository, hostile(repository), victim)


def hostile(repository: Repository, **files: str) -> str:
    """A commit whose build takes over the compiler; the branch ends before it."""
    whole = (SAMPLES / "tiny" / "CMakeLists.txt").read_text()
    before = repository.git("rev-parse", "HEAD")
    (repository.path / "CMakeLists.txt").write_text(
        whole.replace("project(tiny C CXX)", f"{HOSTILE}\nproject(tiny C CXX)")
    )
    commit = repository.commit("hostile", **files)
    repository.git("branch", f"hostile-{commit}")
    repository.git("reset", "--quiet", "--hard", before)
    return commit


def answer(engine, receipt: dict) -> str:
    return engine.containers.run(receipt["image_id"], remove=True).decode()


def test_a_commit_reaches_no_other_fork_and_no_pinned_commit_of_its_own(engine, forks):
    taken_over = forks.build("tiny", "--ref", forks.hostile)
    assert "answer 666" in answer(engine, taken_over)
    honest = forks.build("tiny-victim", "--ref", "HEAD")
    assert (ANSWER in answer(engine, honest), honest["ccache"]["hits"]) == (True, 0)
    forks.pin(forks.tiny.git("rev-parse", "HEAD"))
    pinned = forks.build("tiny")
    assert (ANSWER in answer(engine, pinned), pinned["ccache"]["hits"]) == (True, 0)


def test_a_commit_that_does_not_build_leaves_nothing_to_the_next(engine, forks):
    failing = hostile(forks.tiny, server_cpp=UNLINKED)
    failed = builder("build", "tiny", "--pins", forks.pins, "--ref", failing)
    assert failed.returncode == 5, failed.stderr
    honest = forks.build("tiny", "--ref", "HEAD")
    assert ANSWER in answer(engine, honest)
    assert honest["ccache"]["hits"] == 0


def test_a_folder_brings_out_compilations_alone_and_each_fork_has_its_own(engine, forks, tmp_path):
    folder = tmp_path / "carried"
    forks.build("tiny", "--ref", forks.hostile, "--ccache-dir", folder)
    files = [one for one in folder.rglob("*") if not one.is_dir() or one.is_symlink()]
    assert files
    assert [one for one in files if one.is_symlink() or one.stat().st_mode & 0o111] == []
    assert {one.name for one in files if one.name[-1] not in "RM"} == {"stats"}
    honest = forks.build("tiny-victim", "--ref", "HEAD", "--ccache-dir", folder)
    assert ANSWER in answer(engine, honest)
    assert honest["ccache"]["hits"] == 0


def test_a_folder_brings_in_compilations_alone(engine, forks, tmp_path):
    folder = tmp_path / "carried"
    forks.build("tiny", "--ref", "HEAD", "--ccache-dir", folder)
    (own,) = folder.iterdir()
    evil = own / "0" / "evil"
    evil.parent.mkdir(exist_ok=True)
    evil.write_text("#!/bin/sh\nexit 1\n")
    evil.chmod(0o755)
    (own / "0" / "linkR").symlink_to("/etc/passwd")
    for place in (own, folder):
        (place / "ccache.conf").write_text("prefix_command = /ccache/0/evil\n")
    again = forks.build("tiny", "--ref", forks.tiny.commit("next"), "--ccache-dir", folder)
    assert ANSWER in answer(engine, again)
    assert again["ccache"]["hits"] == 3
    assert not evil.exists()
