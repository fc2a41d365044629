"""What an image weighs on its way to a registry: the sum of its layers in gzip.

A layer's digest stands for its bytes, so its weight is kept: a rebuild changes two layers of ten.
"""

import hashlib
import json
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING

from filelock import FileLock

from builder import engine, image_stream, paths

if TYPE_CHECKING:
    from docker.models.images import Image

_CHUNK = 1 << 20


def compressed(image: "Image") -> int:
    """Bytes of the image's layers as a push would send them: gzip at its default level.

    Reads what it does not know yet out of the engine: some 40 s a gigabyte. Raises EngineError.
    """
    wanted = list(image.attrs["RootFS"]["Layers"])
    paths.cache().mkdir(parents=True, exist_ok=True)
    with FileLock(paths.cache() / "layer-sizes.lock"):
        known = _load()
        if not known.keys() >= set(wanted):
            known |= _measured(image, known)
            _store(known)
    if not known.keys() >= set(wanted):
        # The containerd image store hands layers out as they came, perhaps compressed.
        return engine.compressed_size(image)
    return sum(known[digest] for digest in wanted)


def _measured(image: "Image", known: dict[str, int]) -> dict[str, int]:
    """The size of each layer that is not known, by the digest of its bytes as a tar archive."""
    layers = set(image.attrs["RootFS"]["Layers"])
    found: dict[str, int] = {}
    with engine.engine_errors("send the image"), image_stream.archive(image) as archive:
        for entry in archive:
            # Newer engines name a layer's file by its digest, older ones do not.
            named = f"sha256:{entry.name.rpartition('/')[2]}"
            content = archive.extractfile(entry) if named not in known else None
            if content is not None:
                digest, size = _weighed(content)
                found |= {digest: size} if digest in layers else {}
    return found


def _weighed(content: IO[bytes]) -> tuple[str, int]:
    hashed, gzip, size = hashlib.sha256(), zlib.compressobj(6, wbits=31), 0
    while chunk := content.read(_CHUNK):
        hashed.update(chunk)
        size += len(gzip.compress(chunk))
    return f"sha256:{hashed.hexdigest()}", size + len(gzip.flush())


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
    temporary = _file().with_suffix(".tmp")
    temporary.write_text(json.dumps(sizes), encoding="utf-8")
    temporary.replace(_file())
