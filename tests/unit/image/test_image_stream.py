"""Layers out of what `docker save` sends: which files they are, and each way to pack them."""

import gzip
import hashlib
import io
import json
import os
import tarfile
from types import SimpleNamespace

import pytest
import zstandard

from builder.common.errors import EngineError
from builder.image import stream as image_stream

# A frame's worth of bytes that no packing makes small, so that a cut is a cut.
TAR = os.urandom(300_000) + bytes(100_000)


def skipped(content: bytes = b"of whoever packed it") -> bytes:
    """A frame of zstd without data."""
    return b"\x5a\x2a\x4d\x18" + len(content).to_bytes(4, "little") + content


def frames(*parts: bytes) -> bytes:
    return b"".join(zstandard.compress(part) for part in parts)


PACKED = {
    "as it is": TAR,
    "gzip": gzip.compress(TAR),
    "gzip in members": gzip.compress(TAR[:1000]) + gzip.compress(TAR[1000:]),
    "zstd": frames(TAR),
    "zstd in frames": frames(TAR[:1000], TAR[1000:]),
    "zstd, its size not told": b"".join(
        [(packer := zstandard.ZstdCompressor().compressobj()).compress(TAR), packer.flush()]
    ),
    "zstd after a frame without data": skipped() + frames(TAR),
    "zstd before one": frames(TAR) + skipped(),
    "zstd around one": frames(TAR[:1000]) + skipped(bytes(20_000)) + frames(TAR[1000:]),
}


def unpacked(packed: bytes) -> bytes:
    return image_stream.unpacked(io.BytesIO(packed)).read()


@pytest.mark.parametrize("how", PACKED)
def test_a_layer_is_unpacked(how):
    assert unpacked(PACKED[how]) == TAR


@pytest.mark.parametrize("how", [how for how in PACKED if how != "as it is"])
@pytest.mark.parametrize("lost", [1, 5, 200_000])
def test_a_layer_that_ends_too_early_is_never_taken_for_whole(how, lost):
    with pytest.raises(tarfile.ReadError, match=r"^broken (gzip|zstd): "):
        unpacked(PACKED[how][:-lost])


@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_what_follows_a_packed_layer_is_a_fault(how):
    with pytest.raises(tarfile.ReadError):
        unpacked(PACKED[how] + b"and more")


def test_an_empty_file_is_an_empty_layer():
    assert unpacked(b"") == b""


# --- which files are layers

ONE, TWO, MORE = b"one" * 500, b"two" * 500, b"more" * 500


def digest(layer: bytes) -> str:
    return f"sha256:{hashlib.sha256(layer).hexdigest()}"


class Image:
    """An image of these layers, sent as files of these names; `others` are on the engine too."""

    def __init__(self, layers, files, others=()):
        self.client = SimpleNamespace(images=SimpleNamespace(list=lambda: [*others, self]))
        self.attrs = {"RootFS": {"Layers": [digest(layer) for layer in layers]}}
        self._files = files

    def save(self, chunk_size):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, content in self._files.items():
                entry = tarfile.TarInfo(name)
                if isinstance(content, str):
                    entry.type, entry.linkname = tarfile.SYMTYPE, content
                    archive.addfile(entry)
                else:
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))
        data = buffer.getvalue()
        return (data[n : n + chunk_size] for n in range(0, len(data), chunk_size))


def content(image, known=()):
    return image_stream.layers(image, lambda file: file.read(), known)


def test_layers_are_known_by_their_bytes():
    files = {"x/layer.tar": TWO, "manifest.json": b"[]", "y/layer.tar": ONE}
    assert content(Image([ONE, TWO], files)) == {digest(ONE): ONE, digest(TWO): TWO}


def test_a_packed_layer_goes_by_the_digest_of_what_is_in_it():
    packed = frames(ONE)
    name = f"blobs/sha256/{hashlib.sha256(packed).hexdigest()}"
    assert content(Image([ONE], {name: packed})) == {digest(ONE): ONE}


def test_what_else_is_in_the_archive_is_no_layer():
    # Of another platform, BuildKit's statements, an index.
    statement = json.dumps({"_type": "https://in-toto.io/Statement/v0.1"}).encode()
    files = {"a": ONE, "b": MORE, "c": statement, "index.json": b"{}", "repositories": b"{}"}
    assert content(Image([ONE], files)) == {digest(ONE): ONE}


def test_a_layer_that_stands_twice_is_sent_once():
    # Engines before 25 send a link in the second one's place.
    files = {"a/layer.tar": ONE, "b/layer.tar": "../a/layer.tar"}
    assert content(Image([ONE, ONE], files)) == {digest(ONE): ONE}


def test_an_image_without_files_has_no_layers():
    image = Image([], {"manifest.json": b"[]"})
    del image.attrs["RootFS"]["Layers"]  # as the engine says it
    assert content(image) == {}


def test_a_known_layer_is_not_read():
    read = []
    files = {f"blobs/sha256/{digest(one)[7:]}": one for one in (ONE, TWO)}
    image_stream.layers(
        Image([ONE, TWO], files), lambda file: read.append(file.read()), {digest(ONE)}
    )
    assert read == [TWO]


def test_a_layer_that_another_image_brought_is_read_from_there():
    # containerd's store sends of a pulled image only the layers that it had to pull.
    unlike, built = Image([MORE], {}), Image([ONE, TWO], {"a": ONE, "b": TWO})
    pulled = Image([ONE, TWO], {"manifest.json": b"[]"}, others=[unlike, built])
    assert content(pulled) == {digest(ONE): ONE, digest(TWO): TWO}


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        ({"manifest.json": b"[]"}, "no file is layer sha256:"),
        ({"a": ONE + b"bent"}, "no file is layer sha256:"),
        ({"a": frames(TAR)[:-1]}, "a: broken zstd: it ends within a frame"),
        ({"a": gzip.compress(ONE)[:-1]}, "a: broken gzip"),
    ],
    ids=["not sent", "other bytes", "cut zstd", "cut gzip"],
)
def test_a_layer_that_is_missing_or_broken_is_an_error_of_the_engine(sent, why):
    with pytest.raises(EngineError, match="layers cannot be read") as raised:
        content(Image([ONE], sent))
    assert why in raised.value.why
