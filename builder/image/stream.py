"""An image as `docker save` sends it: a tar archive that is read once, from front to back.

A file of the archive is a layer when its unpacked bytes have a digest that the image's
configuration names: engines differ in the names of the files, in their order and in what else they
send, and containerd's image store sends layers packed, as they were pulled.
"""

import gzip
import hashlib
import io
import tarfile
import zlib
from collections.abc import Callable, Collection, Iterator
from typing import IO, TYPE_CHECKING, TypeVar

from builder.common.errors import EngineError
from builder.engine import client as engine

if TYPE_CHECKING:
    from docker.models.images import Image

T = TypeVar("T")

_CHUNK = 1 << 20
# So much of a hostile zstd layer unpacks to a few hundred megabytes, not to all the memory.
_PIECE = 8 << 10

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
# A frame without data may come first: https://www.rfc-editor.org/rfc/rfc8878#section-3.1.2
_SKIPPABLE = tuple(bytes([0x50 + number]) + b"\x2a\x4d\x18" for number in range(16))


def layers(
    image: "Image", use: Callable[[IO[bytes]], T], known: Collection[str] = ()
) -> dict[str, T]:
    """What `use` makes of the unpacked bytes of each layer, by their digest (sha256:…).

    `use` also gets files that are no layers, and may raise tarfile.TarError for them. Of `known`
    layers the result may lack any. Raises EngineError when another is missing or broken.
    """
    wanted = set(digests(image)) - set(known)
    broken: list[str] = []
    with engine.engine_errors("send the image"):
        found = _sent(image, use, known, broken) if wanted else {}
        if wanted - found.keys():
            for other in _others(image):
                if (wanted - found.keys()).intersection(digests(other)):
                    found |= _sent(other, use, {*known, *found}, broken)
    if lost := wanted - found.keys():
        raise EngineError(
            "the engine sent an image whose layers cannot be read",
            why="\n".join([*(f"no file is layer {one}" for one in sorted(lost)), *broken]),
            hint="remove the image from the engine, and pull or build it again",
        )
    return {digest: made for digest, made in found.items() if digest in wanted}


def digests(image: "Image") -> list[str]:
    """Those of the image's layers, lowest first; none of an image without files."""
    return list(image.attrs["RootFS"].get("Layers") or ())


def _others(image: "Image") -> "list[Image]":
    """The engine's images, those that share most layers with this one first.

    containerd's store does not pull a layer that it has unpacked for another image already, and
    then sends it with that one alone: seen with engine 26.1.5 and containerd 1.7.24.
    """
    client = image.client
    others = client.images.list() if client else []
    own = set(digests(image))
    return sorted(others, key=lambda one: len(own.intersection(digests(one))), reverse=True)


def _sent(
    image: "Image", use: Callable[[IO[bytes]], T], known: Collection[str], broken: list[str]
) -> dict[str, T]:
    """What `use` makes of each file of the archive, but for those named after a known layer."""
    found: dict[str, T] = {}
    with archive(image) as files:
        for member in files:
            content = files.extractfile(member) if member.isfile() else None
            if content is None or named_after(member) in known:
                continue
            plain = _Hashed(content)
            try:
                made = use(plain)  # type: ignore[arg-type]
                plain.drain()
            except tarfile.TarError as error:
                broken.append(f"{member.name}: {error}")
            else:
                found[plain.digest] = made
    return found


def archive(image: "Image") -> tarfile.TarFile:
    """The archive, open for one pass. Raises what the engine's client and tarfile raise."""
    return opened(image.save(chunk_size=_CHUNK))


def opened(chunks: Iterator[bytes]) -> tarfile.TarFile:
    """A tar archive that the engine sends in chunks, open for one pass."""
    return tarfile.open(fileobj=_buffered(chunks), mode="r|", bufsize=_CHUNK)


def named_after(member: tarfile.TarInfo) -> str:
    """The digest that the file's name says, as engines since Docker 25 name them.

    In containerd's store it is that of the layer as it is packed.
    """
    return f"sha256:{member.name.rpartition('/')[2]}"


def unpacked(content: IO[bytes]) -> IO[bytes]:
    """A layer's bytes as a tar archive: OCI has layers as they are, in gzip and in zstd.

    https://github.com/opencontainers/image-spec/blob/main/layer.md. Reading raises
    tarfile.ReadError where packed bytes are broken or end too early.
    """
    packed = io.BufferedReader(content)  # type: ignore[type-var]
    head = packed.peek(4)[:4]
    if head.startswith(_GZIP):
        return _buffered(_of_gzip(packed))
    if head.startswith((_ZSTD, *_SKIPPABLE)):
        return _buffered(_of_zstd(packed))
    return packed


def _of_gzip(packed: IO[bytes]) -> Iterator[bytes]:
    plain = gzip.GzipFile(fileobj=packed)
    try:
        while chunk := plain.read(_CHUNK):
            yield chunk
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise tarfile.ReadError(f"broken gzip: {error}") from error


def _of_zstd(packed: IO[bytes]) -> Iterator[bytes]:
    """All frames, one after the other. zstandard's own reader takes a cut frame for a whole one."""
    import zstandard

    frames = zstandard.ZstdDecompressor()
    frame = None
    while piece := packed.read(_PIECE):
        while piece:
            frame = frame or frames.decompressobj()
            try:
                chunk = frame.decompress(piece)
            except zstandard.ZstdError as error:
                raise tarfile.ReadError(f"broken zstd: {error}") from error
            if chunk:
                yield chunk
            piece, frame = (frame.unused_data, None) if frame.eof else (b"", frame)
    if frame is not None:
        raise tarfile.ReadError("broken zstd: it ends within a frame")


def _buffered(chunks: Iterator[bytes]) -> IO[bytes]:
    return io.BufferedReader(_Stream(chunks), _CHUNK)


class _Stream(io.RawIOBase):
    """Chunks as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, target: object) -> int:
        view = memoryview(target)  # type: ignore[arg-type]
        if not self._left:
            self._left = memoryview(next(self._chunks, b""))
        size = min(len(view), len(self._left))
        view[:size] = self._left[:size]
        self._left = self._left[size:]
        return size


class _Hashed:
    """A layer's unpacked bytes, hashed as they are read."""

    def __init__(self, content: IO[bytes]) -> None:
        self._plain = unpacked(content)
        self._hash = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        chunk = self._plain.read(size)
        self._hash.update(chunk)
        return chunk

    def drain(self) -> None:
        """Read what is left: a tar archive ends before its file does."""
        while self.read(_CHUNK):
            pass

    @property
    def digest(self) -> str:
        """Of all that was read."""
        return f"sha256:{self._hash.hexdigest()}"
