"""Sizes of images on the engine: unpacked, and as the layers travel in gzip and in zstd.

    .venv/bin/python benchmarks/sizes.py turboquant:mainline-cpu …

Layer by layer, as a registry holds them: gzip at level 6 and zstd at level 3.
"""

import io
import json
import sys
import tarfile
import tempfile
import zlib
from typing import IO

import zstandard

from builder.engine import client as engine

CHUNK = 1 << 20


def compressed(layer: IO[bytes]) -> tuple[int, int]:
    """Bytes of one layer in gzip and in zstd."""
    gzip, zstd = zlib.compressobj(6, wbits=31), zstandard.ZstdCompressor(3).compressobj()
    small = smaller = 0
    while chunk := layer.read(CHUNK):
        small += len(gzip.compress(chunk))
        smaller += len(zstd.compress(chunk))
    return small + len(gzip.flush()), smaller + len(zstd.flush())


def sizes(name: str) -> tuple[int, int, int]:
    """Bytes unpacked, in gzip, in zstd."""
    image = engine.connect(timeout_s=600).images.get(name)
    with tempfile.TemporaryFile() as file:
        for chunk in image.save():
            file.write(chunk)
        file.seek(0)
        with tarfile.open(fileobj=file) as archive:
            manifest = json.load(archive.extractfile("manifest.json") or io.BytesIO())
            layers = [archive.extractfile(path) for path in manifest[0]["Layers"]]
            pairs = [compressed(layer) for layer in layers if layer is not None]
    return int(image.attrs["Size"]), sum(one for one, _ in pairs), sum(one for _, one in pairs)


def main() -> None:
    print("| image | unpacked | gzip | zstd |")
    print("|---|---|---|---|")
    for name in sys.argv[1:]:
        figures = " | ".join(f"{size / 1e6:.0f} MB" for size in sizes(name))
        print(f"| {name} | {figures} |")


if __name__ == "__main__":
    main()
