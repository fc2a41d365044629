"""An image in an archive on disk, as BuildKit's OCI exporter and `docker save` write it."""

import contextlib
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from builder.common.errors import EngineError

# BuildKit's attestations lie beside the image that they are about:
# https://docs.docker.com/build/metadata/attestations/attestation-storage/
_ATTESTATION = "vnd.docker.reference.type"
_ABOUT = "vnd.docker.reference.digest"
_PREDICATE = "in-toto.io/predicate-type"


@dataclass(frozen=True, slots=True)
class Archive:
    """An image of one platform. `manifest` is its manifest's digest, None where there is none.

    `layers` are their names in the archive, lowest first; a blob's name says its content.
    `config_digest` is that of `config`, None where nobody says it. `statements` are what BuildKit
    states of the image: the type of an in-toto predicate → the whole statement.
    """

    path: Path
    manifest: str | None
    config: dict[str, Any]
    layers: tuple[str, ...]
    config_digest: str | None = None
    statements: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @contextlib.contextmanager
    def layer(self, name: str) -> Iterator[IO[bytes]]:
        """A layer's bytes, read out of the archive."""
        with tarfile.open(self.path) as archive:
            yield _member(archive, name)


def read(path: Path) -> Archive:
    """What the archive holds.

    By the image layout of OCI (https://github.com/opencontainers/image-spec/blob/main/image-layout.md),
    or the manifest.json of engines before 25. Raises EngineError for any other archive.
    """
    try:
        with tarfile.open(path) as archive:
            if "index.json" in archive.getnames():
                return _oci(path, archive)
            return _saved(path, archive)
    except (tarfile.TarError, KeyError, IndexError, ValueError) as error:
        raise EngineError(
            "BuildKit or the engine wrote an archive that cannot be read",
            why=f"{type(error).__name__}: {error}",
        ) from error


def _oci(path: Path, archive: tarfile.TarFile) -> Archive:
    digest = ""
    beside: list[dict[str, Any]] = []
    document = _json(archive, "index.json")
    while "manifests" in document:
        beside = [one for one in document["manifests"] if _ATTESTATION in _annotations(one)]
        (image,) = (one for one in document["manifests"] if one not in beside)
        digest = image["digest"]
        document = _json(archive, _blob(digest))
    about = [one for one in beside if _annotations(one).get(_ABOUT) == digest]
    return Archive(
        path=path,
        manifest=digest,
        config=_json(archive, _blob(document["config"]["digest"])),
        layers=tuple(_blob(layer["digest"]) for layer in document["layers"]),
        config_digest=document["config"]["digest"],
        statements={kind: content for one in about for kind, content in _statements(archive, one)},
    )


def _statements(
    archive: tarfile.TarFile, described: Mapping[str, Any]
) -> Iterator[tuple[str, bytes]]:
    if _annotations(described)[_ATTESTATION] != "attestation-manifest":
        return
    for layer in _json(archive, _blob(described["digest"]))["layers"]:
        kind = _annotations(layer).get(_PREDICATE)
        if kind:
            with _member(archive, _blob(layer["digest"])) as file:
                yield kind, file.read()


def _annotations(described: Mapping[str, Any]) -> Mapping[str, str]:
    return described.get("annotations") or {}


def _saved(path: Path, archive: tarfile.TarFile) -> Archive:
    document = _json(archive, "manifest.json")[0]
    return Archive(path, None, _json(archive, document["Config"]), tuple(document["Layers"]))


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _json(archive: tarfile.TarFile, name: str) -> Any:  # noqa: ANN401 -- what JSON holds
    with _member(archive, name) as file:
        return json.load(file)


def _member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    file = archive.extractfile(name)
    if file is None:
        raise KeyError(name)
    return file
