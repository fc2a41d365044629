"""`builder bump --build --smoke` on the real engine: a commit that builds, and does not serve."""

from pathlib import Path

import pytest

from builder.pins import load as pins
from tests.conftest import SAMPLES, Repository, builder

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("private_cache", "tiny_tags")]

# All that an audit asks of a server, and nothing more.
HELP = r"""
#include <cstring>

int main(int argc, char ** argv) {
    if (argc > 1 && !std::strcmp(argv[1], "--help")) {
        for (const char * half = "kv"; *half; half++) {
            std::printf("--cache-type-%c TYPE   type of the cache\n", *half);
            std::puts("    allowed values: f32, f16, bf16, q8_0, q4_0, q4_1, iq4_nl, q5_0, q5_1");
            std::printf("    (default: f16)\n");
        }
        return 0;
    }
"""


@pytest.fixture
def home(tmp_path: Path, tiny_pins: Path, repository: Repository) -> Repository:
    """A repository that holds pins.toml, pinned to the first commit of the fork."""
    head, _, body = (SAMPLES / "tiny" / "server.cpp").read_text().partition("\nint main() {\n")
    repository.commit("does not serve", server_cpp=f"{head}{HELP}{body}")
    first, date = repository.git("log", "-1", "--format=%H %cI", "HEAD~3").split()
    made = Repository(tmp_path / "home")
    pin = f'commit = "{first}"\nbuild_number = 1\ndate = {date}'
    text = tiny_pins.read_text().replace('unpinned = "tests say which commit"', pin)
    (made.path / "pins.toml").write_text(text)
    (made.path / "dockerfiles" / "rendered").mkdir(parents=True)
    assert builder("render", "--pins", made.path / "pins.toml").returncode == 0
    (made.path / ".gitignore").write_text("/build/\n")
    made.commit("pinned to the first commit")
    return made


def test_a_bump_that_fails_its_smoke_changes_nothing_and_names_it(home, repository):
    file = home.path / "pins.toml"
    before = pins.load(file)
    result = builder("bump", "--build", "--smoke", "--pins", file)
    head = repository.git("rev-parse", "HEAD")
    assert result.returncode == 1, result.stderr
    assert f"smoke failed: tiny at {head[:9]}; the pin stays, nothing was changed" in result.stderr
    assert (home.git("status", "--short"), pins.load(file)) == ("", before)
