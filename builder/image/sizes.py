"""What an image weighs on its way to a registry: the sum of its layers in gzip.

A layer's digest stands for its bytes, so its weight is kept: a rebuild changes two layers of ten.
"""

import contextlib
import json
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING

from filelock import FileLock

from builder.common import paths
from builder.common.files import write_atomically
from builder.image import stream as image_stream

if TYPE_CHECKING:
    from docker.models.images import Image

_CHUNK = 1 << 20


def compressed(image: "Image") -> int:
    """Bytes of the image's layers as a push would send them: gzip at its default level.

    Reads what it does not know yet out of the engine: some 40 s a gigabyte. Raises EngineError.
    """
    wanted = image_stream.digests(image)
    paths.cache().mkdir(parents=True, exist_ok=True)
    with FileLock(paths.cache() / "layer-sizes.lock"):
        known = _load()
        if not known.keys() >= set(wanted):
            known |= image_stream.layers(image, _weighed, known)
            _store(known)
    return sum(known[digest] for digest in wanted)


def _weighed(content: IO[bytes]) -> int:
    gzip, size = zlib.compressobj(6, wbits=31), 0
    while chunk := content.read(_CHUNK):
        size += len(gzip.compress(chunk))
    return size + len(gzip.flush())


def _file() -> Path:
    return paths.cache() / "layer-sizes.json"


def _load() -> dict[str, int]:
    try:
        found = json.loads(_file().read_text(encoding="utf-8"))
        return {str(digest): int(size) for digest, size in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        # Not there yet, or not ours: what is lost is measured again.
        return {}


def _store(sizes: dict[str, int]) -> None:
    with contextlib.suppress(OSError):  # what is not kept is measured again
        write_atomically(_file(), json.dumps(sizes))
