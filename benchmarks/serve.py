"""What `builder serve` and `builder swap` add to the server's own stop and load.

    .venv/bin/python benchmarks/serve.py [IMAGE] [MODEL]

The baseline is `docker run` with the same words, `docker rm` after `docker stop` before it where
one is swapped, and a look at /health each 50 ms; in turns, in the same run. The goals: under 1 s
for serve, under 2 s for swap. Default: turboquant:mainline-cpu and the scripted model.
"""

import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

from builder.common import paths
from builder.llama.gguf.scripted import scripted_model

ROUNDS = 7
PORT = "18970"
NAME = "turboquant-bench-bare"
ENVIRONMENT = os.environ | {"BUILDER_STACK": "turboquant-bench"}


def main() -> None:
    image, file, *_ = [*sys.argv[1:], "", ""]
    image = image or "turboquant:mainline-cpu"
    model = Path(file) if file else scripted_model(paths.cache() / "models")
    served = ("--model", str(model), "--image", image, "--port", PORT)
    words = {name: _words(name, served) for name in ("haiku", "sonnet")}
    times: dict[str, list[float]] = {key: [] for key in ("run", "serve", "run, run", "swap")}
    try:
        for _ in range(ROUNDS):
            times["run"].append(_seconds(lambda: _bare(image, model, words["haiku"])))
            times["run, run"].append(_seconds(lambda: _bare(image, model, words["sonnet"])))
            _docker("rm", "-f", NAME)
            times["serve"].append(_seconds(lambda: _builder("serve", "haiku", *served)))
            times["swap"].append(_seconds(lambda: _builder("swap", "sonnet", "--port", PORT)))
            _builder("stop", "--all")
    finally:
        _docker("rm", "-f", NAME)
        _builder("stop", "--all")
    _show("serve", times["serve"], "docker run", times["run"], 1.0)
    _show("swap", times["swap"], "docker stop, run", times["run, run"], 2.0)


def _show(name: str, ours: list[float], bare_name: str, bare: list[float], goal: float) -> None:
    mine, theirs = statistics.median(ours), statistics.median(bare)
    print(
        f"builder {name:6} {mine:5.2f} s; {bare_name:16} {theirs:5.2f} s: "
        f"{mine / theirs:.2f} ×, {mine - theirs:+.2f} s; goal {goal:.0f} s"
    )


def _words(profile: str, served: tuple[str, ...]) -> list[str]:
    """What llama-server is told for a profile."""
    found = json.loads(_builder("serve", profile, *served, "--dry-run", "--json"))
    return list(found["starts"]["arguments"])


def _bare(image: str, model: Path, words: list[str]) -> None:
    """In place of the one before, if there is one."""
    if _docker("ps", "-aq", "--filter", f"name={NAME}"):
        _docker("stop", NAME)
        _docker("rm", NAME)
    place = ("-p", f"127.0.0.1:{PORT}:8080", "-v", f"{model.resolve()}:/models/model.gguf:ro")
    _docker("run", "-d", "--name", NAME, *place, image, *words)
    while not _healthy():
        time.sleep(0.05)


def _healthy() -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=2) as answer:
            return bool(answer.status == HTTPStatus.OK)
    except OSError:
        return False


def _docker(*words: str) -> str:
    return subprocess.run(["docker", *words], check=False, capture_output=True, text=True).stdout


def _builder(*words: str) -> str:
    command = [sys.executable, "-m", "builder", *words]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env=ENVIRONMENT
    ).stdout


def _seconds(act: Callable[[], object]) -> float:
    started = time.monotonic()
    act()
    return time.monotonic() - started


if __name__ == "__main__":
    main()
