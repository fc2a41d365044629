"""An image from the engine to a registry, by digest: nothing gets a name here.

The engine's own push takes a tag, so the layers go from `docker save` to the registry by our hands,
in zstd. A layer that one of the repository's releases has is taken from there: neither read out of
the engine, nor compressed, nor uploaded. Labels are added on the way.
"""

import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from builder.common import paths
from builder.common.errors import EngineError, RemoteUnavailableError
from builder.common.progress import Progress
from builder.engine import client as engine
from builder.image import stream as image_stream
from builder.registry import answers as registry_answers
from builder.registry import client as registries
from builder.registry.answers import ImageConfig

if TYPE_CHECKING:
    from docker.models.images import Image

    from builder.registry.client import Manifest, RegistryClient

LEVEL = 9
"""Of zstd: benchmarks/README.md has the sizes and times of others."""

_LAYER = "application/vnd.oci.image.layer.v1.tar+zstd"
_CHUNK = 1 << 20
_SMALL = 1 << 20

# Seen with containerd's image store, of a pulled image beside the one that it was pushed from.
_NOT_WHOLE = (
    "an engine sends no part that it shares with another image: build the image again there"
)

Descriptor = Mapping[str, Any]
"""What a manifest says of a blob: `mediaType`, `digest`, `size`."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """`manifest` is in the registry, under no tag. Sizes in bytes.

    `size` is that of all layers as they are there, `uploaded` of those that had to be sent. `sent`
    are the layers that came from the engine, by the digest of their unpacked bytes.
    """

    manifest: "Manifest"
    layers: int
    size: int
    uploaded_layers: int
    uploaded: int
    sent: "Mapping[str, Descriptor]" = field(default_factory=dict)


def push(
    image: "Image",
    repository: "RegistryClient",
    like: Sequence[str],
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    progress: Progress,
) -> Pushed:
    """Push the image with these labels more; `like` are tags and digests whose layers it may share.

    The same image, labels and annotations make the same digest. Raises EngineError,
    RemoteUnavailableError.
    """
    there = [one for name in like if (one := repository.manifest(name))]
    known = _known(there, repository)
    wanted = image_stream.digests(image)
    lacking = set(wanted) - known.keys()
    sent: dict[str, Descriptor] = {}
    uploaded: list[Descriptor] = []
    config = b""
    progress.step("upload the layers")
    for part in _sent_by_engine(image, set(wanted) & known.keys(), progress):
        if isinstance(part, bytes):
            config = part
        elif part.diff in lacking and part.diff not in sent:
            place = f"layer {wanted.index(part.diff) + 1} of {len(wanted)}"
            sent[part.diff] = part.descriptor
            if _upload(part, repository, place, progress):
                uploaded.append(part.descriptor)
    lost = lacking - sent.keys()
    if lost or not config:
        why = "\n".join(sorted(lost))
        raise EngineError("the engine did not send the whole image", why=why, hint=_NOT_WHOLE)
    layers = [known.get(one) or sent[one] for one in wanted]
    config = _labelled(config, labels)
    manifest = _manifest(config, layers, annotations)
    repository.upload(manifest.image.config.digest, config)
    repository.put(manifest)
    return Pushed(manifest, len(layers), _size(layers), len(uploaded), _size(uploaded), sent)


def read_back(repository: "RegistryClient", pushed: Pushed, progress: Progress) -> None:
    """Read each sent layer out of the registry, unpack it, and see that it is what was built.

    The engine may not: it pulls no layer that it knows by its digest, be it from another registry.
    Raises RemoteUnavailableError.
    """
    for number, (diff, layer) in enumerate(pushed.sent.items(), start=1):
        progress.detail(f"read layer {number} of {len(pushed.sent)} back")
        if repository.read(str(layer["digest"]), _unpacked_digest, int(layer["size"])) != diff:
            raise RemoteUnavailableError(
                f"{repository.repository} gives out another {layer['digest']} than it took"
            )


def _unpacked_digest(content: IO[bytes]) -> str:
    """What its bytes unpack to; "" where they do not."""
    try:
        hashed = hashlib.file_digest(image_stream.unpacked(content), "sha256")  # type: ignore[arg-type]
    except tarfile.ReadError:
        return ""
    return f"sha256:{hashed.hexdigest()}"


def _known(there: "Sequence[Manifest]", repository: "RegistryClient") -> "dict[str, Descriptor]":
    """The layers that the repository has, by the digest of their unpacked bytes."""
    known: dict[str, Descriptor] = {}
    for one in there:
        if one.media_type != registries.MANIFEST:
            continue
        digest = one.image.config.digest
        config = registry_answers.parse(ImageConfig, repository.blob(digest), digest)
        layers: list[Descriptor] = one.content.get("layers", [])
        unpacked = config.rootfs.diff_ids if config.rootfs else []
        if len(unpacked) == len(layers) and all(
            layer.size is not None for layer in one.image.layers
        ):
            known |= dict(zip(unpacked, layers, strict=True))
    return known


@dataclass(frozen=True, slots=True)
class _Layer:
    """A layer in zstd. `diff` is the digest of its unpacked bytes, `digest` and `size` its own."""

    diff: str
    digest: str
    size: int
    file: IO[bytes]

    @property
    def descriptor(self) -> Descriptor:
        return {"mediaType": _LAYER, "digest": self.digest, "size": self.size}


def _sent_by_engine(
    image: "Image", known: set[str], progress: Progress
) -> Iterator[_Layer | bytes]:
    """Every layer that is not known, as the engine sends it, and at last the configuration."""
    small: dict[str, bytes] = {}
    paths.cache().mkdir(parents=True, exist_ok=True)
    with engine.engine_errors("send the image"), image_stream.archive(image) as archive:
        for entry in archive:
            content = archive.extractfile(entry)
            if content is None or image_stream.named_after(entry) in known:
                continue
            if entry.size <= _SMALL:
                small[entry.name] = content.read()
                content = io.BytesIO(small[entry.name])
            progress.detail(f"compress {entry.size / 1e6:.0f} MB")
            # Without a name: nothing is left of it, however this program ends.
            with tempfile.TemporaryFile(dir=paths.cache()) as file:
                yield _packed(content, file)
    try:
        (described,) = json.loads(small["manifest.json"])
        config = small[described["Config"]]
    except (KeyError, TypeError, ValueError) as error:
        why = f"{type(error).__name__}: {error}"
        what = "the engine sent no configuration of the image"
        raise EngineError(what, why=why, hint=_NOT_WHOLE) from error
    yield config


def _packed(content: IO[bytes], file: IO[bytes]) -> _Layer:
    """Write a layer to the file, in zstd: the same bytes for the same layer on every machine."""
    import zstandard

    unpacked, packed, size = hashlib.sha256(), hashlib.sha256(), 0
    # One thread and more give different bytes; two and more the same.
    compressor = zstandard.ZstdCompressor(level=LEVEL, threads=2).compressobj()
    plain = image_stream.unpacked(content)
    while chunk := plain.read(_CHUNK):
        unpacked.update(chunk)
        size += _write(compressor.compress(chunk), packed, file)
    size += _write(compressor.flush(), packed, file)
    return _Layer(f"sha256:{unpacked.hexdigest()}", f"sha256:{packed.hexdigest()}", size, file)


def _write(piece: bytes, hashed: "hashlib._Hash", file: IO[bytes]) -> int:
    hashed.update(piece)
    return file.write(piece)


def _upload(layer: _Layer, repository: "RegistryClient", place: str, progress: Progress) -> bool:
    """Send a layer that the repository lacks; whether it lacked it."""
    if repository.has_blob(layer.digest):
        return False
    repository.upload(layer.digest, _Told(layer, place, progress))  # type: ignore[arg-type]
    return True


class _Told:
    """A layer's file that tells how much of it was sent."""

    def __init__(self, layer: _Layer, place: str, progress: Progress) -> None:
        self._layer, self._place, self._progress = layer, place, progress

    def __len__(self) -> int:
        return self._layer.size

    def seek(self, offset: int) -> int:
        return self._layer.file.seek(offset)

    def read(self, size: int = -1) -> bytes:
        file = self._layer.file
        sent = f"{file.tell() / 1e6:.0f} of {self._layer.size / 1e6:.0f} MB"
        self._progress.detail(f"{self._place}: {sent}")
        return file.read(size)


def _labelled(config: bytes, labels: Mapping[str, str]) -> bytes:
    """An image's configuration with labels more."""
    image = json.loads(config)
    settings = image.get("config") or {}
    image["config"] = {**settings, "Labels": {**(settings.get("Labels") or {}), **labels}}
    return json.dumps(image).encode()


def _manifest(
    config: bytes, layers: Sequence[Descriptor], annotations: Mapping[str, str]
) -> "Manifest":
    described = {
        "mediaType": registries.CONFIG,
        "digest": f"sha256:{hashlib.sha256(config).hexdigest()}",
        "size": len(config),
    }
    return registries.of(
        registries.MANIFEST,
        {
            "schemaVersion": 2,
            "mediaType": registries.MANIFEST,
            "config": described,
            "layers": [dict(one) for one in layers],
            "annotations": dict(annotations),
        },
    )


def _size(blobs: Sequence[Descriptor]) -> int:
    return sum(int(one["size"]) for one in blobs)
