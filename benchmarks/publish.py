"""What publishing sends and how long it takes, to Debian's docker-registry on loopback.

    .venv/bin/python -m benchmarks.publish IMAGE…

The images are pushed one after the other, as releases of one variant would be: name consecutive
builds, the oldest first. The last one is then published twice by `builder publish`, if a receipt of
it lies beside pins.toml: the second run has nothing to send and nothing to prove.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from builder.build import receipts as receipt
from builder.common.progress import Silent
from builder.engine import client as engine
from builder.registry.client import RegistryClient
from builder.release import push as image_push
from tests.support import docker_registry

ROOT = Path(__file__).parent.parent
HEADER = f"{'image':<62} {'unpacked':>9} {'there':>8} {'sent':>8} {'layers':>7} {'time':>7}"


def pushed(host: str, names: list[str]) -> None:
    client = engine.connect()
    like: list[str] = []
    print(HEADER)
    with RegistryClient(f"{host}/benchmark") as repository:
        for name in names:
            image = client.images.get(name)
            started = time.monotonic()
            done = image_push.push(image, repository, like, {}, {}, Silent())
            took = time.monotonic() - started
            like = [done.manifest.digest]
            print(
                f"{name:<62} {image.attrs['Size'] / 1e6:6.0f} MB {done.size / 1e6:5.0f} MB "
                f"{done.uploaded / 1e6:5.1f} MB {done.uploaded_layers:>2} of {done.layers:<2} "
                f"{took:5.1f} s"
            )


def published(host: str, name: str, record: Path) -> None:
    repository = f"{host}/published"
    words = ["publish", name, "--to", repository, "--record", str(record)]
    for what in ("published first", "published again, unchanged"):
        started = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "builder", *words], cwd=ROOT, check=True, capture_output=True
        )
        print(f"{what}: {time.monotonic() - started:.1f} s")


def main() -> None:
    names = sys.argv[1:] or ["turboquant:mainline-cpu"]
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, zstd -{image_push.LEVEL}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        program = docker_registry.install(folder)
        with docker_registry.serve(program, folder / "registry") as registry:
            pushed(registry.host, names)
            image = engine.connect().images.get(names[-1])
            if receipt.of_image(ROOT, str(image.id)):
                published(registry.host, names[-1], folder / "record")


if __name__ == "__main__":
    main()
