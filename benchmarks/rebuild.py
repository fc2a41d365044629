"""Rebuild times of mainline-cpu as ratios against named baselines, all in one run.

    .venv/bin/python benchmarks/rebuild.py

Needs a running engine and takes some seven minutes on 2 cores, most of it one cold build.
"""

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from builder.build import bases as base_images
from builder.build import buildx, render
from builder.common.progress import Silent
from builder.engine import client as engine
from builder.pins import load as pins
from builder.sources import sdist

ROOT = Path(__file__).parent.parent
VARIANT = "mainline-cpu"
RUNS = 5


def seconds(*command: object) -> float:
    words = [str(word) for word in command]
    started = time.monotonic()
    subprocess.run(words, check=True, capture_output=True)
    return time.monotonic() - started


def builder(*words: object) -> float:
    return seconds(sys.executable, "-m", "builder", *words)


def median(measure: object) -> float:
    return statistics.median(measure() for _ in range(RUNS))  # type: ignore[operator]


def bare(scratch: Path, tree: Path) -> list[str]:
    """The cached build of the same file, as a user of docker alone would type it."""
    everything = pins.load(ROOT / "pins.toml")
    images = base_images.choose(
        engine.connect(), everything, everything.variants[VARIANT].base, {}, Silent()
    )
    dockerfile = scratch / "Dockerfile"
    dockerfile.write_text(render.render(everything, VARIANT).text)
    order = buildx.Order(
        dockerfile=dockerfile,
        source=tree,
        context=scratch,
        tags=["turboquant:benchmark"],
        arguments={f"{image.role.upper()}_IMAGE": image.reference for image in images},
        labels={},
    )
    return buildx.command(order, scratch / "id")


def main() -> None:
    everything = pins.load(ROOT / "pins.toml")
    source = everything.sources["llama-cpp-python"]
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        tree = scratch / "tree"
        shutil.copytree(sdist.tree(source, Silent()), tree, symlinks=True)
        copy = scratch / "pins" / "pins.toml"
        copy.parent.mkdir()
        shutil.copy(ROOT / "pins.toml", copy)
        same = ("build", VARIANT, "--source", tree, "--ref", source.upstream, "--pins", copy)

        cold = builder(*same, "--no-cache")
        builder(*same)
        unchanged = median(lambda: builder(*same))
        context = scratch / "context"
        context.mkdir()
        command = bare(context, tree)
        seconds(*command)
        baseline = median(lambda: seconds(*command))
        touched = tree / "tools" / "server" / "server-http.cpp"
        touched.write_text(touched.read_text() + f"\nint benchmark_{time.time_ns()};\n")
        one_file = builder(*same)
        help_s = median(lambda: builder("--help"))
        render_s = median(lambda: builder("render", "--check"))

    print(f"bare cached `docker buildx build`   {baseline:8.2f} s")
    print(
        f"builder build, nothing changed      {unchanged:8.2f} s  "
        f"goal at most {1.3 * baseline + 1:.2f} s (1.3 × bare + 1 s)"
    )
    print(f"builder build --no-cache            {cold:8.2f} s")
    print(
        f"builder build, one server .cpp      {one_file:8.2f} s  "
        f"{cold / one_file:.1f} × faster than --no-cache, goal at least 8 ×"
    )
    print(f"builder --help                      {help_s:8.2f} s  goal under 0.30 s")
    print(f"builder render --check, all         {render_s:8.2f} s  goal under 1.00 s")


if __name__ == "__main__":
    main()
