"""A published image as its registry has it: labels, what goes with it, what its name stands for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from builder.build import attestations
from builder.common.errors import RefNotFoundError, RemoteUnavailableError, UsageError
from builder.common.progress import Progress
from builder.model import tags
from builder.model.labels import RECIPE, REVISION, VARIANT, VERSION
from builder.registry import answers as registry_answers
from builder.registry import referrers, registry
from builder.registry.answers import ImageConfig
from builder.release import attach as attest
from builder.release import published_documents as documents_of
from builder.release.record import Attachment

if TYPE_CHECKING:
    from builder.registry.client import Manifest, RegistryClient

SMALL = (attest.SBOM, attest.PROVENANCE, attest.AUDIT, attest.SMOKE, *attestations.NAMES)
"""The files that are read; the source archive is only seen to be there."""


@dataclass(frozen=True, slots=True)
class Published:
    """What was found. `ids` are what an engine may call the image: an ID, or its digest.

    `name` is the immutable tag that the labels make, None where they make none; `named` is what it
    stands for, None: there is no such tag. `sums` and `documents` are of the files that go with
    the image, by name; a document that cannot be read is in `broken`, with the reason.
    """

    repository: str
    tag: str
    digest: str
    ids: frozenset[str]
    labels: Mapping[str, str]
    name: str | None
    named: str | None
    attachments: list[Attachment]
    sums: Mapping[str, str]
    documents: Mapping[str, Any]
    broken: Mapping[str, str]


def locate(repository: "RegistryClient", reference: str) -> "tuple[str, Manifest]":
    """The tag of a reference ("" of a digest), and what it stands for.

    Raises RefNotFoundError when the registry has no such image, UsageError for what is no digest,
    RemoteUnavailableError.
    """
    digest = reference.partition("@")[2]
    if digest and not registry.is_digest(digest):
        raise UsageError(f"{digest[:80]!r} is not a valid digest", hint="sha256: and 64 hex digits")
    tag = "" if digest else registry.image(reference).tag
    found = repository.manifest(digest or tag)
    if found is None:
        raise RefNotFoundError(f"{repository.repository} has no {digest or tag}")
    return tag, found


def repository_of(reference: str) -> str:
    """The `host/name` of a reference."""
    named = registry.image(reference)
    return f"{named.host}/{named.repository}"


def labels(repository: "RegistryClient", manifest: "Manifest") -> dict[str, str]:
    """The labels of an image for x86-64 Linux. Raises RefNotFoundError, RemoteUnavailableError."""
    digest = _platform(repository, manifest).image.config.digest
    config = registry_answers.parse(ImageConfig, repository.blob(digest), digest).config
    return dict((config and config.Labels) or {})


def read(repository: "RegistryClient", reference: str, progress: Progress) -> Published:
    """All that the registry tells of an image. Raises RefNotFoundError, RemoteUnavailableError."""
    progress.step(f"read {reference}")
    tag, manifest = locate(repository, reference)
    own = _platform(repository, manifest)
    said = labels(repository, manifest)
    there = referrers.attached(repository, manifest.digest)
    sums, documents, broken = _documents(repository, there)
    name = release_name(said)
    return Published(
        repository=repository.repository,
        tag=tag,
        digest=manifest.digest,
        ids=frozenset({manifest.digest, own.digest, own.image.config.digest}),
        labels=said,
        name=name,
        named=repository.digest(name) if name else None,
        attachments=attest.recorded(repository, manifest.digest),
        sums=sums,
        documents=documents,
        broken=broken,
    )


def release_name(said: Mapping[str, str]) -> str | None:
    """The immutable tag of an image with these labels; None when one is missing or is no such."""
    number = tags.build_number(said.get(VERSION, ""))
    parts = [said.get(VARIANT), said.get(REVISION), said.get(RECIPE)]
    if not all(parts) or number is None:
        return None
    variant, commit, recipe = (str(part) for part in parts)
    made = tags.release(variant, number, commit, recipe)
    # It becomes a part of addresses and of paths.
    return made if tags.is_tag(made) else None


def _platform(repository: "RegistryClient", manifest: "Manifest") -> "Manifest":
    """The manifest itself, or that of an index for x86-64 Linux."""
    if manifest.index is None:
        return manifest
    for one in manifest.index.manifests or ():
        if one.platform and (one.platform.os, one.platform.architecture) == ("linux", "amd64"):
            found = repository.manifest(one.digest)
            if found is not None:
                return found
    raise RefNotFoundError(f"{repository.repository}: {manifest.digest} has no linux/amd64 image")


def _documents(
    repository: "RegistryClient", there: list[referrers.Attached]
) -> tuple[dict[str, str], dict[str, Any], dict[str, str]]:
    """The newest of each kind that `attest` makes: sums, contents, and what cannot be read."""
    newest = {one.kind: one for one in there if one.ours and one.kind in attest.OURS}
    sums = {name: sha256 for one in newest.values() for name, sha256 in one.files.items()}
    documents, broken = {}, {}
    for name, sha256 in sums.items():
        try:
            if name in SMALL:
                documents[name] = documents_of.parse(name, repository.blob(f"sha256:{sha256}"))
            elif not repository.has_blob(f"sha256:{sha256}"):
                broken[name] = "the registry lacks it"
        except (RefNotFoundError, ValueError) as error:
            broken[name] = str(error)
        except RemoteUnavailableError as error:
            # The registry's disk may hold other bytes than its name says: that is an answer.
            if "other bytes" not in error.what:
                raise
            broken[name] = error.what
    return sums, documents, broken
