"""How long a smoke and an audit take, and how much of it is builder's own, all in one run.

    .venv/bin/python benchmarks/verdicts.py

Needs a running engine that holds turboquant:mainline-cpu, and an idle machine: llama-server's
threads spin, so whatever else runs multiplies its times.
"""

import io
import os
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

from docker import DockerClient

from builder.audit import run as audit
from builder.common.progress import Silent
from builder.engine import client as engine
from builder.pins import load as pins
from builder.smoke import run as smoke
from builder.smoke.options import Options

ROOT = Path(__file__).parent.parent
IMAGE = "turboquant:mainline-cpu"
LARGE = "turboquant:benchmark-1gb"
PADDING_MB = 870
"""Beside the 129 MB of the image: 1 GB."""


def spent(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds that passed, and seconds of this process's own processor time."""
    started, before = time.monotonic(), os.times()
    work()
    after = os.times()
    own = after.user + after.system - before.user - before.system
    return time.monotonic() - started, own


def large(client: DockerClient) -> None:
    """The image with one layer of bytes that do not compress."""
    made = client.containers.create(IMAGE)
    try:
        for number in range(PADDING_MB // 87):
            made.put_archive("/srv", _tar(f"padding-{number}", 87_000_000))
        made.commit(*LARGE.split(":"))
    finally:
        made.remove()


def _tar(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = size
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(entry, io.BytesIO(os.urandom(size)))
    return buffer.getvalue()


def main() -> None:
    client, everything = engine.connect(), pins.load(ROOT / "pins.toml")

    def smoked() -> None:
        report = smoke.smoke_image(client, IMAGE, everything, Options(), ROOT, Silent())
        assert report.passed, report.headline  # noqa: S101

    def audited(image: str) -> None:
        audit.audit(client, image, everything, results=ROOT, progress=Silent())

    smoked()  # the model is written, files are in the page cache
    whole, own = spent(smoked)
    print(f"smoke, scripted model, all servers   {whole:6.2f} s  goal under 20 s")
    print(f"  builder's own processor time       {own:6.2f} s  goal under 2 s")
    small, _ = spent(lambda: audited(IMAGE))
    print(f"audit of {IMAGE}     {small:6.2f} s")
    large(client)
    try:
        big, _ = spent(lambda: audited(LARGE))
    finally:
        client.images.remove(LARGE, force=True)
    print(f"audit of the same with 1 GB in all   {big:6.2f} s  goal under 10 s")


if __name__ == "__main__":
    main()
