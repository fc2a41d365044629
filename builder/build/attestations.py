"""What BuildKit itself states of an image, kept under build/attestations/ beside the receipts.

Only an engine with containerd's image store gives it, and an image that carries it gets another ID
with every build, as it holds times. So the image is built without, and BuildKit is asked after it:
the same build once more, out of its cache, into an archive.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from builder.build import buildx
from builder.build.buildx import Order
from builder.common import paths
from builder.common.errors import BuilderError, EngineError
from builder.common.files import write_atomically
from builder.common.progress import Progress, Silent
from builder.engine import client as engine
from builder.image import archive as image_archive

if TYPE_CHECKING:
    from docker import DockerClient

PROVENANCE, SBOM = "buildkit-provenance.json", "buildkit-sbom.json"
NAMES: Mapping[str, str] = {
    PROVENANCE: "https://slsa.dev/provenance/",
    SBOM: "https://spdx.dev/Document",
}
"""A statement's file → how the type of its predicate begins; a version comes after it."""

SCANNER = "docker/buildkit-syft-scanner"
"""The image by which BuildKit makes an SBOM unless another is named."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image that was just built: its ID, and the digest of its configuration."""

    image_id: str
    config: str


def folder(results: Path, image_id: str) -> Path:
    """Where those of an image lie."""
    return results / "build" / "attestations" / image_id.removeprefix("sha256:")


def read(results: Path, image_id: str) -> dict[str, bytes]:
    """What is kept of this image: a statement's file → what is in it."""
    files = {name: folder(results, image_id) / name for name in NAMES}
    return {name: file.read_bytes() for name, file in files.items() if file.is_file()}


def keep(
    client: "DockerClient", order: Order, image: Image, results: Path, log: Path, progress: Progress
) -> None:
    """Keep what BuildKit states of an image that this order has just made.

    What is kept of it already stays, so that it is published the same each time. An engine without
    containerd's image store gives none; that one gives none all the same is a warning.
    """
    try:
        if not engine.has_containerd_store(client):
            return
        scanner = _scanner(client)
        wanted = {PROVENANCE, SBOM} if scanner else {PROVENANCE}
        if wanted <= read(results, image.image_id).keys():
            return
        progress.step("ask BuildKit for what it states of the image")
        _write(folder(results, image.image_id), _stated(order, image, scanner, log))
    except (BuilderError, OSError) as error:
        what = f"{error}: {error.why}" if isinstance(error, BuilderError) else str(error)
        progress.warn(f"no attestation of BuildKit's goes with the image: {what}")


def _scanner(client: "DockerClient") -> str | None:
    """A name of the scanner, if the engine holds it: nothing is pulled."""
    with engine.engine_errors("list its images"):
        found = [tag for image in client.images.list(SCANNER) for tag in image.tags]
    return min(found, default=None)


def _stated(order: Order, image: Image, scanner: str | None, log: Path) -> dict[str, bytes]:
    paths.cache().mkdir(parents=True, exist_ok=True)
    # The archive is as large as the image, and /tmp may lie in memory.
    with tempfile.TemporaryDirectory(prefix="attested-", dir=paths.cache()) as scratch:
        path = Path(scratch) / "image.tar"
        buildx.build(buildx.attested(order, path, scanner), log, Silent())
        archive = image_archive.read(path)
        if archive.config_digest != image.config:
            raise EngineError(
                "BuildKit's cache gave another image than the one that was built",
                why=f"its configuration is {archive.config_digest}, not {image.config}",
            )
    found = {
        name: content
        for kind, content in archive.statements.items()
        for name, beginning in NAMES.items()
        if kind.startswith(beginning)
    }
    if PROVENANCE not in found:
        raise EngineError("BuildKit gave no provenance", why=", ".join(archive.statements))
    return found


def _write(place: Path, statements: Mapping[str, bytes]) -> None:
    for name, content in statements.items():
        # A build's arguments are in it, such as a proxy's address.
        write_atomically(place / name, content.decode(errors="replace"))
