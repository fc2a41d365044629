"""Attach to a published image what goes with it: its source, what it is made of, how it was proven.

Each is an OCI artifact beside the image. The provenance names the sums of all the others, so that
its signature is theirs too.
"""

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.build import attestations
from builder.common import files, paths
from builder.common.errors import RefNotFoundError
from builder.common.files import as_kept
from builder.common.locks import locked
from builder.common.progress import Progress
from builder.image import contents as image_contents
from builder.model.pins import Pins, git_address
from builder.registry import referrers
from builder.registry.client import RegistryClient
from builder.registry.referrers import Artifact, Document
from builder.release import cosign, provenance, sbom
from builder.release.record import Attachment, Release
from builder.sources import archive as source_archive
from builder.sources import tree as source
from builder.sources.archive import Known

if TYPE_CHECKING:
    from docker import DockerClient

SOURCE = "application/vnd.turboquant-builder.source.v1"
EVIDENCE = "application/vnd.turboquant-builder.evidence.v1"
KINDS: Mapping[str, Any] = {
    SOURCE: "source",
    sbom.MEDIA_TYPE: "sbom",
    provenance.MEDIA_TYPE: "provenance",
    EVIDENCE: "evidence",
    cosign.BUNDLE: "signature",
}
"""An artifact's type → its kind in the record."""

OURS = (SOURCE, sbom.MEDIA_TYPE, provenance.MEDIA_TYPE, EVIDENCE)
"""The types that `attach` makes."""

ARCHIVE = provenance.ARCHIVE
SBOM, PROVENANCE = "sbom.spdx.json", "provenance.json"
AUDIT, SMOKE = "audit.json", "smoke.json"

_TAGS = (".sig", ".att")
"""What cosign 2 adds to the digest: the tags of signatures and of signed statements."""


@dataclass(frozen=True, slots=True)
class _Documents:
    """What goes with one image. The predicates are signed, the artifacts attached."""

    artifacts: list[Artifact]
    predicates: Mapping[str, Mapping[str, Any]]


def attach(
    client: "DockerClient",
    release: Release,
    pins: Pins,
    signer: cosign.Signer | None,
    progress: Progress,
    *,
    results: Path | None = None,
) -> list[Attachment]:
    """Attach everything to a release whose image is in the registry, and on the engine.

    What is there already stays as it is. `signer` None: nothing is signed. `results` is the folder
    under which the build has kept what BuildKit states of the image, None: nothing of that goes
    with it. Raises UsageError when the source or the key cannot be had, EngineError without cosign,
    RefNotFoundError when the registry lacks the image, RemoteUnavailableError.
    """
    program = cosign.require(signer) if signer else None
    with RegistryClient(release.repository) as repository:
        subject = repository.manifest(release.digest)
        if subject is None:
            raise RefNotFoundError(f"{release.repository} has no {release.digest}")
        with _packed(pins, release, progress) as archive:
            kept = attestations.read(results, release.receipt.image_id) if results else {}
            made = _documents(client, release, pins, archive, kept, progress)
            progress.step("attach source, parts, provenance and evidence")
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            there = referrers.attach(repository, subject, made.artifacts, now, progress)
        if signer and program:
            _sign(program, release, made.predicates, signer, progress)
        ours = {one.digest for one in there}
        found = recorded(repository, release.digest)
        return [one for one in found if one.kind == "signature" or one.digest in ours]


def recorded(repository: RegistryClient, digest: str) -> list[Attachment]:
    """What is beside an image, as the record has it: ours, and cosign's by its versions 2 and 3.

    Raises RemoteUnavailableError.
    """
    index = repository.referrers(digest)
    by_itself = set(index.children) if index else set()
    tag = referrers.fallback_tag(digest)
    found = [
        Attachment(KINDS[one.kind], one.digest, one.kind, None if one.digest in by_itself else tag)
        for one in referrers.attached(repository, digest)
        if one.kind in KINDS and (one.ours or one.kind == cosign.BUNDLE)
    ]
    for ending in _TAGS:
        tag = referrers.fallback_tag(digest) + ending
        manifest = repository.manifest(tag)
        if manifest is not None:
            found.append(Attachment("signature", manifest.digest, manifest.media_type, tag))
    return found


def fetch_source(repository: RegistryClient, digest: str, progress: Progress) -> Path:
    """The source archive of an image in the registry, in the cache.

    Raises RefNotFoundError when none goes with it, RemoteUnavailableError.
    """
    beside = referrers.attached(repository, digest)
    there = [one for one in beside if one.ours and one.kind == SOURCE]
    sha256 = there[-1].files.get(ARCHIVE) if there else None
    if sha256 is None:
        raise RefNotFoundError(
            f"no source goes with {repository.repository}@{digest}",
            hint="`builder build --source ARCHIVE` takes one from elsewhere",
        )
    file = paths.cache() / "published" / f"{sha256}.tar.gz"
    with locked(file, f"another fetch of {file.name}", progress):
        # A cache that somebody else wrote, or a disk that bent it, is not the published source.
        if not file.is_file() or files.file_sha256(file) != sha256:
            progress.step(f"fetch the source of {digest[:19]}")
            referrers.fetch(repository, sha256, file, there[-1].sizes.get(ARCHIVE))
    return file


@contextlib.contextmanager
def _packed(pins: Pins, release: Release, progress: Progress) -> Iterator[Path]:
    """The archive of what a release was built from; a commit that was checked is packed once."""
    receipt = release.receipt
    name = f"{receipt.fork}-{receipt.commit[:9]}"
    kept = paths.cache() / "published" / f"{receipt.fork}-{receipt.commit}.tar.gz"
    with contextlib.ExitStack() as stack:
        if receipt.source.startswith(source.FROM_DISK):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="turboquant-builder-"))
            kept = Path(folder) / "source.tar.gz"
        stack.enter_context(locked(kept, f"another archive of {name}", progress))
        if not kept.exists():
            progress.step(f"pack the source {name}")
            kept.parent.mkdir(parents=True, exist_ok=True)
            with source.again(pins, receipt, progress) as tree:
                known = Known(receipt.commit, receipt.build_number or None, tree.created)
                source_archive.write(tree.path, kept, name, known)
        yield kept


def _documents(
    client: "DockerClient",
    release: Release,
    pins: Pins,
    archive: Path,
    buildkits: Mapping[str, bytes],
    progress: Progress,
) -> _Documents:
    progress.step("list what the image is made of")
    contents = image_contents.read(client, f"{release.repository}@{release.digest}")
    address = pins.forks[release.fork].url
    url = git_address(address) if address else ""
    source_of = Document(ARCHIVE, source_archive.MEDIA_TYPE, archive)
    parts = sbom.document(
        release.repository,
        release.digest,
        release.receipt,
        contents,
        url=url,
        licence=sbom.licence(source_archive.text(archive, "LICENSE")),
        archive=source_of.sha256,
    )
    listed = _json(SBOM, sbom.MEDIA_TYPE, parts)
    evidence = [
        _json(AUDIT, "application/json", release.audit),
        _json(SMOKE, "application/json", release.smoke),
    ]
    theirs = [Document(name, provenance.MEDIA_TYPE, one) for name, one in buildkits.items()]
    beside = {one.name: one.sha256 for one in (source_of, listed, *evidence, *theirs)}
    stated = provenance.statement(
        release.repository, release.digest, release.receipt, url=url, beside=beside
    )
    ours = _json(PROVENANCE, provenance.MEDIA_TYPE, stated)
    return _Documents(
        artifacts=[
            Artifact(SOURCE, [source_of]),
            Artifact(sbom.MEDIA_TYPE, [listed]),
            Artifact(EVIDENCE, evidence),
            Artifact(provenance.MEDIA_TYPE, [ours, *theirs]),
        ],
        predicates={provenance.PREDICATE: stated["predicate"], sbom.PREDICATE: parts},
    )


def _json(name: str, media_type: str, content: Mapping[str, Any]) -> Document:
    return Document(name, media_type, as_kept(json.dumps(content, indent=2) + "\n"))


def _sign(
    program: cosign.Cosign,
    release: Release,
    predicates: Mapping[str, Mapping[str, Any]],
    signer: cosign.Signer,
    progress: Progress,
) -> None:
    """Sign the image, its provenance and its parts, as far as this key has not done so yet."""
    reference = f"{release.repository}@{release.digest}"
    progress.step("sign")
    with tempfile.TemporaryDirectory(prefix="turboquant-builder-") as folder:
        public = (
            cosign.public_key(program, signer, Path(folder))
            if isinstance(signer, cosign.Key)
            else None
        )
        if public is None or cosign.verify(program, reference, public):
            cosign.sign(program, reference, signer)
        for kind, predicate in predicates.items():
            done = cosign.attested(program, reference, kind, public) if public else []
            if isinstance(done, cosign.Refusal) or predicate not in done:
                cosign.attest(program, reference, predicate, kind, signer)
