"""How an image came to be, as an in-toto statement with SLSA's predicate. Pure.

https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md, https://slsa.dev/spec/v1.0/provenance
"""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from builder import __version__
from builder.model.pins import Receipt
from builder.sources.tree import FROM_DISK

MEDIA_TYPE = "application/vnd.in-toto+json"
PREDICATE = "https://slsa.dev/provenance/v1"
STATEMENT = "https://in-toto.io/Statement/v1"
BUILD_TYPE = "https://turboquant-builder.github.io/build/v1"
"""What the parameters below mean: those of `builder build`."""

ARCHIVE = "source.tar.gz"
"""What the packed source is called among the documents beside an image."""

_BUILDER = "https://turboquant-builder.github.io/builder"
_FULL = re.compile(r"[0-9a-f]{40}")

Sums = Mapping[str, str]
"""A document's name → its SHA-256 in hex."""


def statement(
    repository: str, digest: str, receipt: Receipt, *, url: str, beside: Sums
) -> dict[str, Any]:
    """What is stated of the image `repository@digest` that this receipt is of.

    `url` is the fork's, or ""; `beside` are the documents that go with the image: they are as
    trustworthy as this statement, which names their sums. A commit that nobody checked stands in
    annotations alone, where no policy takes it for the source: that is the archive, by its sum.
    """
    finished = datetime.fromisoformat(receipt.created)
    started = finished - timedelta(seconds=receipt.duration_s)
    return {
        "_type": STATEMENT,
        "subject": [{"name": repository, "digest": {"sha256": digest.removeprefix("sha256:")}}],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "variant": receipt.variant,
                    "fork": receipt.fork,
                    **({} if receipt.commit_claimed else _asked(receipt)),
                },
                "resolvedDependencies": [_source(receipt, url, beside), *_inputs(receipt)],
            },
            "runDetails": {
                "builder": {"id": _BUILDER, "version": {"turboquant-builder": __version__}},
                "metadata": {"startedOn": _time(started), "finishedOn": _time(finished)},
                "byproducts": [
                    {"name": name, "digest": {"sha256": sha256}} for name, sha256 in beside.items()
                ],
            },
        },
    }


def _asked(receipt: Receipt) -> dict[str, Any]:
    return {"ref": receipt.ref, "buildNumber": receipt.build_number}


def _source(receipt: Receipt, url: str, beside: Sums) -> dict[str, Any]:
    # A path of the machine that built is nobody's business.
    origin = "a tree from disk" if receipt.source.startswith(FROM_DISK) else receipt.source
    said = {"commit": receipt.commit, "claimed": receipt.commit_claimed, "origin": origin}
    source: dict[str, Any] = {"name": "source"}
    if receipt.commit_claimed:
        if ARCHIVE in beside:
            source["digest"] = {"sha256": beside[ARCHIVE]}
        return {**source, "annotations": {**said, **_asked(receipt)}}
    if url:
        source["uri"] = f"git+{url}@{receipt.commit}"
    if _FULL.fullmatch(receipt.commit):
        source["digest"] = {"gitCommit": receipt.commit}
    return {**source, "annotations": said}


def _inputs(receipt: Receipt) -> Iterator[dict[str, Any]]:
    for one in receipt.bases:
        yield {
            "name": one.role,
            "uri": f"docker://{one.reference.partition('@')[0]}",
            "digest": {"sha256": one.digest.removeprefix("sha256:")},
            "annotations": {"origin": one.origin},
        }
    yield {"name": "Dockerfile", "digest": {"sha256": receipt.dockerfile_sha256}}


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
