"""What stands behind a published image in tests: a receipt, contents, reports. Made up.

`push` and `release` make an image of them in a real registry, as publish does from the engine.
"""

import gzip
import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from builder.build import attestations, render
from builder.image.contents import Contents, HashedFile, Package
from builder.model import tags as names
from builder.model.labels import BUILT_AS, GPU, LABEL, NOT_PROVEN, PROVEN
from builder.model.pins import BaseImage, Pins, Receipt
from builder.registry import client as registry_client
from builder.registry.client import Manifest, RegistryClient
from builder.release import record
from builder.release.record import Index, Release
from builder.smoke.report import CONTRACT

COMMIT = "c" * 40
URL = "https://github.com/Somebody/llama-fork.git"
DIGEST = "sha256:" + "d" * 64
REPOSITORY = "ghcr.io/me/turboquant"

CONTENTS = Contents(
    packages=(
        Package("libstdc++6", "14.2.0-19+deb13u1", "amd64"),
        Package("tzdata", "2026a-0+deb13u1", "all"),
    ),
    files=(
        HashedFile("/opt/llama/libcublas.so.12", 9, "1" * 40, "1" * 64),
        HashedFile("/opt/llama/libllama.so.0.0.77", 5, "2" * 40, "2" * 64),
        HashedFile("/opt/llama/llama-server", 7, "3" * 40, "3" * 64),
    ),
    distribution="debian",
)


def a_receipt(**changes: Any) -> Receipt:
    made = Receipt(
        variant="tiny",
        fork="tiny",
        ref="master",
        commit=COMMIT,
        commit_claimed=False,
        source=URL,
        build_number=77,
        image="turboquant:tiny",
        image_id="sha256:" + "e" * 64,
        size_bytes=150_000_000,
        compressed_bytes=60_000_000,
        bases=[
            BaseImage("devel", "docker.io/nvidia/cuda:12@sha256:aa", "sha256:" + "a" * 64, "hub"),
            BaseImage("runtime", "turboquant-base:x", "sha256:" + "b" * 64, "bootstrap"),
        ],
        dockerfile_sha256="f" * 64,
        created="2026-11-20T10:20:30.123456Z",
        duration_s=90.0,
        stages=[],
        ccache=None,
        log="/home/me/build.log",
    )
    return replace(made, **changes)


def labels(receipt: Receipt, **changes: str) -> dict[str, str]:
    """What `builder build` writes into the image of this receipt."""
    oci = "org.opencontainers.image"
    runtime = receipt.bases[1]
    return {
        f"{oci}.revision": receipt.commit,
        f"{oci}.version": f"b{receipt.build_number}",
        f"{oci}.created": "2026-05-01T10:20:30Z",
        f"{oci}.base.name": runtime.reference,
        f"{oci}.base.digest": runtime.digest,
        f"{LABEL}.variant": receipt.variant,
        f"{LABEL}.kv-types": "",
        f"{LABEL}.commit-claimed": str(receipt.commit_claimed).lower(),
        f"{LABEL}.dockerfile-sha256": receipt.dockerfile_sha256,
    } | changes


def config(of: Mapping[str, str]) -> bytes:
    layer = hashlib.sha256(b"a layer").hexdigest()
    rootfs = {"type": "layers", "diff_ids": [f"sha256:{layer}"]}
    image = {"architecture": "amd64", "os": "linux", "config": {"Labels": dict(of)}}
    return json.dumps(image | {"rootfs": rootfs}).encode()


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def push(repository: RegistryClient, of: Mapping[str, str], *tags: str) -> Manifest:
    """An image of one small layer with these labels, under these tags."""
    layer, described = gzip.compress(b"a layer", mtime=0), config(of)
    for content in (layer, described):
        repository.upload(digest(content), content)
    manifest = registry_client.of(
        registry_client.MANIFEST,
        {
            "schemaVersion": 2,
            "mediaType": registry_client.MANIFEST,
            "config": {
                "mediaType": registry_client.CONFIG,
                "digest": digest(described),
                "size": len(described),
            },
            "layers": [
                {
                    "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                    "digest": digest(layer),
                    "size": len(layer),
                }
            ],
        },
    )
    repository.put(manifest)
    for tag in tags:
        repository.put(manifest, tag)
    return manifest


def an_audit(image_id: str) -> dict[str, Any]:
    findings = [{"probe": "size", "status": "pass", "expected": "", "observed": ""}]
    return {"schema": 1, "image_id": image_id, "passed": True, "findings": findings}


def a_smoke(image_id: str, kv: str = "pass") -> dict[str, Any]:
    statuses = dict.fromkeys(CONTRACT, "pass") | {"kv": kv, "offload": "unproven"}
    findings = [
        {"probe": probe, "status": status, "expected": "", "observed": ""}
        for probe, status in statuses.items()
    ]
    return {"schema": 2, "image_id": image_id, "kv": {"status": kv}, "findings": findings}


def a_receipt_of(tree: Path, pins: Pins) -> Receipt:
    """Of the variant `tiny` as these pins render it, built from a folder."""
    recipe = render.render(pins, "tiny").sha256
    return a_receipt(
        source=f"--source {tree}",
        commit_claimed=True,
        dockerfile_sha256=recipe,
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    )


def a_release(receipt: Receipt, repository: str, digest: str, kv: str = "pass") -> Release:
    """A release of which audit and smoke say what the record promises."""
    return Release(
        name=names.release(
            receipt.variant, receipt.build_number, receipt.commit, receipt.dockerfile_sha256
        ),
        repository=repository,
        variant=receipt.variant,
        fork=receipt.fork,
        commit=receipt.commit,
        build_number=receipt.build_number,
        digest=digest,
        published=record.now(),
        receipt=receipt,
        audit=an_audit(receipt.image_id),
        smoke=a_smoke(receipt.image_id, kv),
        required=["contract", "audit"],
        proven=["contract", "audit", *(["kv"] if kv == "pass" else [])],  # type: ignore[list-item]
        not_proven=[] if kv == "pass" else ["kv"],
    )


def of_publish(receipt: Receipt, kv: str = "pass") -> dict[str, str]:
    """The labels that publishing adds to the image of this receipt."""
    return {
        BUILT_AS: receipt.image_id,
        PROVEN: "contract,audit" + ",kv" * (kv == "pass"),
        NOT_PROVEN: "" if kv == "pass" else "kv",
        GPU: "none",
    }


def released(
    repository: RegistryClient, receipt: Receipt, kv: str = "pass", **more: str
) -> Release:
    """An image of this receipt under its immutable tag and its floating one, and its release.

    `more` are labels that it has too, or that say something else.
    """
    name = names.release(
        receipt.variant, receipt.build_number, receipt.commit, receipt.dockerfile_sha256
    )
    said = labels(receipt) | of_publish(receipt, kv) | more
    manifest = push(repository, said, name, receipt.variant)
    built = replace(receipt, image_id=str(manifest.content["config"]["digest"]))
    return a_release(built, repository.repository, manifest.digest, kv)


def kept_statements(results: Path, release: Release, *names: str) -> dict[str, Any]:
    """What BuildKit states of a release's image, as a build keeps it under `results`."""
    folder = attestations.folder(results, release.receipt.image_id)
    stated = {}
    for name in names:
        stated[name] = {"predicateType": f"{attestations.NAMES[name]}v0.2", "predicate": {}}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(stated[name]), encoding="utf-8")
    return stated


def write_record(folder: Path, release: Release) -> Path:
    index = Index(release.repository, {release.variant: release.name}, releases=[release.name])
    record.write_release(folder, release, index)
    return folder


def attach_as_a_scanner(repository: RegistryClient, subject: Manifest, kind: str) -> str:
    """A document of somebody else beside an image, of a kind that builder attaches too: its digest.

    As `oras attach` makes it: an artifact with the image as its subject, listed under the tag.
    """
    content = b"{}"
    repository.upload(digest(content), content)
    blob = {"mediaType": kind, "digest": digest(content), "size": len(content)}
    made = registry_client.of(
        registry_client.MANIFEST,
        {
            "schemaVersion": 2,
            "mediaType": registry_client.MANIFEST,
            "artifactType": kind,
            "config": {**blob, "mediaType": "application/vnd.oci.empty.v1+json"},
            "layers": [blob],
            "subject": {
                "mediaType": subject.media_type,
                "digest": subject.digest,
                "size": len(subject.body),
            },
            "annotations": {"org.opencontainers.image.created": "2030-01-01T00:00:00Z"},
        },
    )
    repository.put(made)
    tag = subject.digest.replace(":", "-")
    listed = repository.manifest(tag)
    entries = list(listed.content["manifests"]) if listed else []
    entry = {"mediaType": made.media_type, "digest": made.digest, "size": len(made.body)}
    index = {"schemaVersion": 2, "mediaType": registry_client.INDEX, "manifests": [*entries, entry]}
    repository.put(registry_client.of(registry_client.INDEX, index), tag)
    return made.digest
