"""Documents that go with an image in its registry, as OCI artifacts that name it as their subject.

Found again by the referrers API, and where a registry has none (Debian's docker-registry, GHCR) by
the tag `sha256-<hex>` with an index of them, which whoever pushes one keeps up:
https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#referrers-tag-schema
"""

import hashlib
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from builder.common.errors import NotAllowedError, RemoteUnavailableError
from builder.common.files import file_sha256
from builder.common.progress import Progress, Silent
from builder.model.labels import LABEL
from builder.registry import client as registries
from builder.registry.answers import Descriptor, IndexContent

if TYPE_CHECKING:
    from builder.registry.client import Manifest, RegistryClient

EMPTY = "application/vnd.oci.empty.v1+json"
TITLE = "org.opencontainers.image.title"
CREATED = "org.opencontainers.image.created"
OURS = f"{LABEL}.attached"
"""The annotation of what `attach` makes. Others attach documents of the same types."""

_NOTHING = b"{}"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,254}")
_LARGEST = 512 * 1024**2
"""Bytes of a file that is fetched: ten times llama.cpp's source."""
_TRIES = 5
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Document:
    """One file of an artifact: bytes, or a file on disk."""

    name: str
    media_type: str
    content: bytes | Path

    @property
    def sha256(self) -> str:
        """64 hex digits."""
        if isinstance(self.content, bytes):
            return hashlib.sha256(self.content).hexdigest()
        return file_sha256(self.content)

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


@dataclass(frozen=True, slots=True)
class Artifact:
    """What is attached: its kind in OCI's words, and its files."""

    kind: str
    documents: Sequence[Document]


@dataclass(frozen=True, slots=True)
class Attached:
    """An artifact as the registry has it. `files`: name → SHA-256 in hex of each of its files.

    `sizes`: name → bytes, of those whose size it tells. `ours`: builder attached it, and not a
    scanner, a signer or somebody else.
    """

    kind: str
    digest: str
    created: str
    files: Mapping[str, str]
    manifest: "Manifest" = field(repr=False)
    sizes: Mapping[str, int] = field(default_factory=dict)
    ours: bool = True


def fallback_tag(digest: str) -> str:
    """The tag under which the referrers of a manifest are listed without the API."""
    return digest.replace(":", "-")


def attach(
    repository: "RegistryClient",
    subject: "Manifest",
    artifacts: Sequence[Artifact],
    created: str,
    progress: Progress = Silent(),  # noqa: B008 -- it holds nothing
) -> list[Attached]:
    """Bring artifacts to the registry, in place of others of their kinds that builder attached.

    One that is there with the same files stays as it is; what a run that was killed has left does
    not, but where this login may not delete: that comes last in what is returned. `created` is
    RFC 3339. Raises RemoteUnavailableError.
    """
    there = [one for one in attached(repository, subject.digest) if one.ours]
    newest = {one.kind: one for one in there}
    made: list[Attached] = []
    for artifact in artifacts:
        files = {one.name: one.sha256 for one in artifact.documents}
        same = newest.get(artifact.kind)
        if same is None or same.files != files:
            same = _attached(_push(repository, subject, artifact, created))
        made.append(same)
    kinds, kept = {one.kind for one in artifacts}, {one.digest for one in made}
    old = [one for one in there if one.kind in kinds and one.digest not in kept]
    if not lists(repository, subject.digest, made):
        _list(
            repository, subject.digest, [one.manifest for one in made], {one.digest for one in old}
        )
        return made
    return [*made, *(one for one in old if not _deleted(repository, one, progress))]


def lists(repository: "RegistryClient", digest: str, beside: Sequence[Attached]) -> bool:
    """Whether the registry itself lists these: some answer the question, and do not know them."""
    index = repository.referrers(digest)
    return index is not None and {one.digest for one in beside} <= set(index.children)


def _deleted(repository: "RegistryClient", old: Attached, progress: Progress) -> bool:
    """Whether it could be deleted: to publish, a login has to push, not to delete."""
    try:
        repository.delete(old.digest)
    except NotAllowedError as error:
        progress.warn(f"an older {old.kind} stays beside the image: {error.what}; {error.why}")
        return False
    return True


def leave_out(repository: "RegistryClient", digest: str, gone: Set[str]) -> None:
    """Keep in the fallback tag's list what others attached; delete a list of which nothing is left.

    Raises RemoteUnavailableError.
    """
    found = repository.manifest(fallback_tag(digest))
    if found is None:
        return
    if all(one in gone or repository.digest(one) is None for one in found.children):
        repository.delete(found.digest)
    else:
        _list(repository, digest, [], gone)


def attached(repository: "RegistryClient", digest: str) -> list[Attached]:
    """All artifacts of a manifest, oldest first; what names another subject is none of them.

    Raises RemoteUnavailableError.
    """
    found = [
        one
        for name in _listed(repository, digest)
        if (one := repository.manifest(name))
        and (subject := one.parsed.subject)
        and subject.digest == digest
    ]
    return sorted((_attached(one) for one in found), key=lambda one: (one.created, one.digest))


def read(repository: "RegistryClient", artifact: Attached, name: str) -> bytes:
    """A small file of an artifact. Raises RefNotFoundError, RemoteUnavailableError."""
    return repository.blob(f"sha256:{artifact.files[name]}")


def fetch(repository: "RegistryClient", sha256: str, file: Path, size: int | None = None) -> None:
    """Write a file of an artifact, whole or not at all. Raises RemoteUnavailableError.

    `size` is what its artifact says, in bytes: no more is written.
    """
    if size is not None and size > _LARGEST:
        raise RemoteUnavailableError(
            f"{repository.repository}: the file {sha256[:12]} is too large to be fetched",
            why=f"it has {size} bytes, and at most {_LARGEST} are taken",
        )
    scratch = file.with_name(f"{file.name}.part")

    def written(content: IO[bytes]) -> str:
        hashed = hashlib.sha256()
        with scratch.open("wb") as target:
            while chunk := content.read(_CHUNK):
                hashed.update(chunk)
                target.write(chunk)
        return hashed.hexdigest()

    try:
        if (
            repository.read(f"sha256:{sha256}", written, _LARGEST if size is None else size)
            != sha256
        ):
            raise RemoteUnavailableError(f"{repository.repository}: other bytes than {sha256}")
        scratch.replace(file)
    finally:
        scratch.unlink(missing_ok=True)


def _listed(repository: "RegistryClient", digest: str) -> list[str]:
    """By the registry, and by the tag that is written where it lists nothing."""
    indexes = (repository.referrers(digest), repository.manifest(fallback_tag(digest)))
    return [*dict.fromkeys(child for index in indexes if index for child in index.children)]


def _push(
    repository: "RegistryClient", subject: "Manifest", artifact: Artifact, created: str
) -> "Manifest":
    empty = f"sha256:{hashlib.sha256(_NOTHING).hexdigest()}"
    _upload(repository, empty, _NOTHING)
    for one in artifact.documents:
        _upload(repository, f"sha256:{one.sha256}", one.content)
    manifest = registries.of(
        registries.MANIFEST,
        {
            "schemaVersion": 2,
            "mediaType": registries.MANIFEST,
            "artifactType": artifact.kind,
            "config": {"mediaType": EMPTY, "digest": empty, "size": len(_NOTHING), "data": "e30="},
            "layers": [
                {
                    "mediaType": one.media_type,
                    "digest": f"sha256:{one.sha256}",
                    "size": one.size,
                    "annotations": {TITLE: one.name},
                }
                for one in artifact.documents
            ],
            "subject": {
                "mediaType": subject.media_type,
                "digest": subject.digest,
                "size": len(subject.body),
            },
            "annotations": {CREATED: created, OURS: "yes"},
        },
    )
    repository.put(manifest)
    return manifest


def _upload(repository: "RegistryClient", digest: str, content: bytes | Path) -> None:
    if repository.has_blob(digest):
        return
    if isinstance(content, bytes):
        repository.upload(digest, content)
        return
    with content.open("rb") as file:
        repository.upload(digest, file)


def _attached(manifest: "Manifest") -> Attached:
    content = manifest.parsed
    layers = [] if isinstance(content, IndexContent) else content.layers
    files = {_title(one, number): one for number, one in enumerate(layers, 1)}
    kind = content.artifactType
    if not kind and not isinstance(content, IndexContent):
        kind = content.config.mediaType
    return Attached(
        kind,
        manifest.digest,
        (content.annotations or {}).get(CREATED, ""),
        {name: one.digest.removeprefix("sha256:") for name, one in files.items()},
        manifest,
        {name: one.size for name, one in files.items() if one.size is not None},
        (content.annotations or {}).get(OURS) == "yes",
    )


def _title(layer: Descriptor, number: int) -> str:
    """What a file is called, if that is a file's name."""
    name = (layer.annotations or {}).get(TITLE, "")
    return name if _NAME.fullmatch(name) else f"file {number}"


def _list(
    repository: "RegistryClient", digest: str, new: "Sequence[Manifest]", old: Set[str]
) -> None:
    """Change the index under the fallback tag. Others may write it too: what they lost comes back.

    A registry has no compare-and-swap, so what was written is read back.
    """
    tag = fallback_tag(digest)
    for _ in range(_TRIES):
        found = repository.manifest(tag)
        if found and not found.index:
            raise RemoteUnavailableError(
                f"{repository.repository}:{tag} is not a list of what goes with {digest[:19]}"
            )
        there = list(found.content["manifests"] or []) if found else []
        # A registry takes no list that names what is gone, as a killed prune leaves one.
        kept = [
            one for one in there if one["digest"] not in old and repository.digest(one["digest"])
        ]
        known = {one["digest"] for one in kept}
        wanted = kept + [_entry(one) for one in new if one.digest not in known]
        if wanted == there:
            return
        content = {
            "schemaVersion": 2,
            "mediaType": registries.INDEX,
            "manifests": wanted,
        }
        repository.put(registries.of(registries.INDEX, content), tag)
    raise RemoteUnavailableError(
        f"{repository.repository}:{tag} does not keep what is written to it",
        why=f"{_TRIES} times another list was read back",
    )


def _entry(manifest: "Manifest") -> dict[str, Any]:
    content = manifest.content
    return {
        "mediaType": manifest.media_type,
        "digest": manifest.digest,
        "size": len(manifest.body),
        "artifactType": content["artifactType"],
        "annotations": content["annotations"],
    }
