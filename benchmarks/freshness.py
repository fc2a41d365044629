"""`builder freshness` over six forks against the slowest `git ls-remote` of them, nothing moved.

    .venv/bin/python -m benchmarks.freshness

Then the same six, ten commits on: by GitHub's comparisons, by histories fetched anew, and by these
once they are here.

Six repositories of 9,000 commits each, every one behind an HTTP server of its own (git's
http-backend on loopback) that waits before each answer, as a network does; GitHub's API is a local
server too. Needs git, and an idle machine.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.support import github_api, http_git

DELAYS_S = {
    "near": [0.01, 0.02, 0.03, 0.04, 0.05, 0.06],
    "far": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
    "one is slow": [0.05, 0.05, 0.05, 0.05, 0.05, 1.0],
}
"""Before each answer of each server; one `ls-remote` takes two answers."""
API_DELAY_S = 0.2
COMMITS, UPSTREAM, MOVED = 9000, 8700, 10
RUNS = 5
PINS = """
[policy]
default_variant = "fork0"
max_days = 14
max_commits = 50
alert_paths = ["src/llama-kv-cache*"]
release = { require = ["contract"] }

[bases.debian]
devel_glibc = "2.41"
runtime_glibc = "2.41"
devel_packages = []
runtime_packages = []
compiler = { c = "gcc", cxx = "g++", version = "14" }

[bases.debian.bootstrap]
devel = { suite = "trixie", packages = [] }
runtime = { suite = "trixie", packages = [] }
"""
FORK = """
[forks.fork{number}]
url = "https://github.com/me/fork{number}"
branch = "master"
commit = "{commit}"
date = 2026-05-01T00:00:00Z
linkage = "backend-dl"

[variants.fork{number}]
fork = "fork{number}"
base = "debian"
cpu = "all"
smoke_kv = "q4_0"
"""


def history(folder: Path, number: int) -> list[str]:
    """A repository in which a fork goes on after a merge of mainline: a pin, and its head."""
    lines = []
    for mark in range(1, COMMITS + 1):
        name = "upstream" if mark <= UPSTREAM else "master"
        subject = f"fork {number}, commit {mark}"
        lines += [f"commit refs/heads/{name}", f"mark :{mark}"]
        lines += [f"committer Test <test@example.org> {1_700_000_000 + 600 * mark} +0000"]
        if mark == UPSTREAM + 100:
            subject = "Merge upstream llamacpp/master"
        lines += [f"data {len(subject)}", subject]
        if mark == UPSTREAM + 1:
            lines += [f"from :{UPSTREAM - 1000}"]
        if mark == UPSTREAM + 100:
            lines += [f"merge :{UPSTREAM}"]
        text = f"{mark}"
        lines += [f"M 100644 inline src/{mark % 97}/{mark % 11}.cpp", f"data {len(text)}", text, ""]
    subprocess.run(["git", "init", "-q", "--bare", "-b", "master", folder], check=True)
    command = ["git", "-C", str(folder), "fast-import", "--quiet"]
    subprocess.run(command, input="\n".join(lines).encode(), check=True)
    for setting in ("uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant"):
        subprocess.run(["git", "-C", str(folder), "config", setting, "true"], check=True)
    listed = subprocess.run(
        ["git", "-C", str(folder), "rev-parse", f"master~{MOVED}", "master"],
        check=True,
        capture_output=True,
        text=True,
    )
    return listed.stdout.split()


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds: from start to end, and of processor time of the command and all that it started."""

    wall: float
    processor: float


def run(*command: object) -> Took:
    """How long a command takes; it has to end with 0."""
    started = time.monotonic()
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command}: exit code {process.returncode}")
    return Took(time.monotonic() - started, used.ru_utime + used.ru_stime)


def median(*command: object) -> Took:
    """The run of the middle, by the time from start to end."""
    return sorted((run(*command) for _ in range(RUNS)), key=lambda one: one.wall)[RUNS // 2]


def freshness(folder: Path, commits: list[str]) -> list[object]:
    """The command line, with pins at these commits."""
    forks = [FORK.format(number=number, commit=commit) for number, commit in enumerate(commits)]
    file = folder / "pins.toml"
    file.write_text("".join([PINS, *forks]))
    names = [f"fork{number}" for number in range(len(commits))]
    return [sys.executable, "-m", "builder", "freshness", *names, "--pins", file]


def connect(folder: Path, addresses: list[str], api: github_api.Api) -> None:
    """Let GitHub be these servers, one a fork, for all that is started from here."""
    lines = [
        f'[url "{address}/fork{number}.git"]\n\tinsteadOf = https://github.com/me/fork{number}\n'
        for number, address in enumerate(addresses)
    ]
    (folder / "gitconfig").write_text("".join(lines))
    for number in range(len(addresses)):
        page = github_api.page(f"me/fork{number}")
        api.on(f"/repos/me/fork{number}", github_api.Answer(body=page))
    os.environ |= {
        "GIT_CONFIG_GLOBAL": str(folder / "gitconfig"),
        "GITHUB_API_URL": api.url,
        "GITHUB_TOKEN": "of nobody",
        "XDG_CACHE_HOME": str(folder / "cache"),
    }


def after_a_move(
    folder: Path, root: Path, api: github_api.Api, tips: list[list[str]]
) -> dict[str, Took]:
    """A look at forks that moved, by each way that tells it whole; no history is here yet."""
    look = freshness(folder, [before for before, _ in tips])
    for number, (before, head) in enumerate(tips):
        api.compares(f"me/fork{number}", root / f"fork{number}.git", before, head)
    compared = run(*look)
    if any((folder / "cache").rglob("names")):
        raise SystemExit("a history was fetched where GitHub compares")
    shutil.rmtree(folder / "cache" / "turboquant-builder" / "github")
    api.answers = {path: told for path, told in api.answers.items() if "/compare/" not in path}
    return {
        "by GitHub's comparisons": compared,
        "histories fetched anew": run(*look),
        "histories that hold the heads": run(*look),
    }


def measure(title: str, delays: list[float], root: Path, tips: list[list[str]]) -> None:
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as servers:
        folder = Path(scratch)
        addresses = [
            servers.enter_context(http_git.serve(root, {}, before=partial(time.sleep, delay)))
            for delay in delays
        ]
        api = servers.enter_context(github_api.serve(partial(time.sleep, API_DELAY_S)))
        connect(folder, addresses, api)
        urls = [f"https://github.com/me/fork{number}" for number in range(len(delays))]
        alone = max(
            median("git", "ls-remote", "--symref", url, "HEAD", "master").wall for url in urls
        )
        heads = [head for _, head in tips]
        empty = median(*freshness(folder, heads))
        moved = after_a_move(folder, root, api, tips)
        kept = median(*freshness(folder, heads))
    limit = 1.5 * alone + 1
    print(f"{title}: slowest git ls-remote {alone:.2f} s, goal at most {limit:.2f} s (1.5 × + 1 s)")
    for what, took in (("no history yet", empty), ("histories kept", kept)):
        verdict = "met" if took.wall <= limit else "MISSED"
        print(
            f"  six forks, {what}  {took.wall:6.2f} s, {took.wall / alone:5.2f} ×: {verdict}; "
            f"{took.processor:.2f} s of processor time"
        )
    for what, took in moved.items():
        print(
            f"  six forks that moved       {took.wall:6.2f} s, {what}; "
            f"{took.processor:.2f} s of processor time"
        )


def main() -> None:
    with tempfile.TemporaryDirectory() as served:
        root = Path(served)
        tips = [history(root / f"fork{number}.git", number) for number in range(6)]
        for title, delays in DELAYS_S.items():
            measure(title, delays, root, tips)


if __name__ == "__main__":
    main()
