"""An image as `docker save` sends it: a tar archive that is read once, from front to back."""

import io
import tarfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from docker.models.images import Image

_CHUNK = 1 << 20


def archive(image: "Image") -> tarfile.TarFile:
    """The archive, open for one pass. Raises what the engine's client and tarfile raise."""
    return opened(image.save(chunk_size=_CHUNK))


def opened(chunks: Iterator[bytes]) -> tarfile.TarFile:
    """A tar archive that the engine sends in chunks, open for one pass."""
    stream = io.BufferedReader(_Stream(chunks), _CHUNK)
    return tarfile.open(fileobj=stream, mode="r|", bufsize=_CHUNK)


class _Stream(io.RawIOBase):
    """The engine's chunks as a file."""

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
