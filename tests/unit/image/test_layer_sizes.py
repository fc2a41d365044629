"""What an image weighs in gzip, from its layers, each weighed once."""

import hashlib
import io
import tarfile
import zlib

import pytest
import zstandard

from builder.common import paths
from builder.image import sizes as layer_sizes

LAYERS = [b"base" * 5000, b"server" * 3000]

pytestmark = pytest.mark.usefixtures("private_cache")


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def gzip(data: bytes) -> int:
    compressor = zlib.compressobj(6, wbits=31)
    return len(compressor.compress(data)) + len(compressor.flush())


class Image:
    """An image as the engine's client has it; `sent` counts how often it was read."""

    def __init__(self, layers: list[bytes], names: list[str]) -> None:
        self.attrs = {"RootFS": {"Layers": [digest(layer) for layer in layers]}}
        self.sent = 0
        self._files = dict(zip(names, layers, strict=True)) | {"manifest.json": b"[]"}

    def save(self, chunk_size: int = 0) -> "list[bytes]":  # noqa: ARG002 -- docker's own
        self.sent += 1
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, data in self._files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
        return iter([buffer.getvalue()])


def by_digest(layers: list[bytes]) -> Image:
    return Image(layers, [f"blobs/sha256/{hashlib.sha256(one).hexdigest()}" for one in layers])


@pytest.mark.parametrize(
    "names",
    [[f"blobs/sha256/{hashlib.sha256(one).hexdigest()}" for one in LAYERS], ["a/layer.tar", "b"]],
    ids=["Docker 25 and later", "before"],
)
def test_an_image_weighs_what_its_layers_do(names):
    assert layer_sizes.compressed(Image(LAYERS, names)) == sum(map(gzip, LAYERS))


def test_a_layer_that_stands_twice_is_sent_twice():
    image = by_digest(LAYERS[:1])
    image.attrs["RootFS"]["Layers"] *= 2
    assert layer_sizes.compressed(image) == 2 * gzip(LAYERS[0])


def test_what_is_known_is_not_read_again():
    image = by_digest(LAYERS)
    first = layer_sizes.compressed(image)
    assert layer_sizes.compressed(image) == first
    assert image.sent == 1


def test_of_a_rebuild_only_the_new_layer_is_weighed(monkeypatch):
    layer_sizes.compressed(by_digest(LAYERS))
    weighed = []
    weigh = layer_sizes._weighed
    monkeypatch.setattr(
        layer_sizes, "_weighed", lambda content: weighed.append(weigh(content)) or weighed[-1]
    )
    new = b"newer" * 2000
    assert layer_sizes.compressed(by_digest([LAYERS[0], new])) == gzip(LAYERS[0]) + gzip(new)
    assert gzip(new) in weighed
    assert gzip(LAYERS[0]) not in weighed


def test_a_broken_memory_is_made_anew(private_cache):
    private_cache.mkdir(parents=True, exist_ok=True)
    (paths.cache() / "layer-sizes.json").write_text("[half")
    assert layer_sizes.compressed(by_digest(LAYERS)) == sum(map(gzip, LAYERS))


def test_packed_layers_weigh_what_they_do_unpacked():
    image = by_digest(LAYERS)
    packed = Image([zstandard.compress(layer) for layer in LAYERS], ["a", "b"])
    packed.attrs = image.attrs
    assert layer_sizes.compressed(packed) == sum(map(gzip, LAYERS))
