"""Whether what goes with the image is of this image, and is what its provenance names."""

from typing import Any

from builder.build import attestations
from builder.model.finding import Finding
from builder.release import attach as attest
from builder.release import provenance
from builder.verify.claims.subject import SHOWN, Claimed, unproven

_SOURCE = "the archive of its source is there, as the provenance names it"
_SBOM = "an SPDX document of this digest, as the provenance names it"
_PROVENANCE = "an in-toto statement about this digest"
_EVIDENCE = "audit and smoke of this image, as the provenance names them, and as in the record"
_ATTESTATION = "the provenance is the one that the signer attested"


def source(claimed: Claimed) -> Finding:
    """Whether the source goes with the image."""
    return _beside("source", _SOURCE, claimed, attest.ARCHIVE) or Finding(
        "source", "pass", _SOURCE, f"sha256 {claimed.image.sums[attest.ARCHIVE][:12]}…"
    )


def sbom(claimed: Claimed) -> Finding:
    """Whether the list of parts is about this image."""
    fault = _beside("sbom", _SBOM, claimed, attest.SBOM)
    if fault:
        return fault
    packages = _at(claimed.image.documents[attest.SBOM], "packages") or []
    own = [_at(one, "versionInfo") for one in packages if _at(one, "SPDXID") == "SPDXRef-image"]
    if own != [claimed.image.digest]:
        return Finding("sbom", "fail", _SBOM, f"it is of {str(own)[:_MOST]}")
    fault = _buildkits("sbom", _SBOM, claimed, attestations.SBOM)
    if fault:
        return fault
    return Finding("sbom", "pass", _SBOM, f"{len(packages)} packages")


def statement(claimed: Claimed) -> Finding:
    """Whether the provenance is about this image."""
    name, image = "provenance", claimed.image
    if attest.PROVENANCE in image.broken:
        return Finding(name, "fail", _PROVENANCE, image.broken[attest.PROVENANCE])
    found = image.documents.get(attest.PROVENANCE)
    if found is None:
        return unproven(name, _PROVENANCE, "none goes with it")
    if _at(found, "predicateType") != provenance.PREDICATE:
        return Finding(name, "fail", _PROVENANCE, "it is no SLSA provenance")
    subjects = [_at(one, "digest", "sha256") for one in _at(found, "subject") or []]
    if image.digest.removeprefix("sha256:") not in subjects:
        return Finding(name, "fail", _PROVENANCE, f"it is of {str(subjects)[:_MOST]}")
    fault = _buildkits(name, _PROVENANCE, claimed, attestations.PROVENANCE)
    return fault or Finding(name, "pass", _PROVENANCE, "it is")


def attestation(claimed: Claimed) -> Finding:
    """Whether the provenance, and through it all that it names, is the signer's."""
    name, signed = "attestation", claimed.signed
    if signed.status != "pass":
        return unproven(name, _ATTESTATION, "there is no signature that was checked")
    own = _at(claimed.image.documents.get(attest.PROVENANCE), "predicate")
    if own is None or own not in signed.predicates:
        count = len(signed.predicates)
        other = f"it is none of the {count} that were signed" if count else "none was signed"
        return Finding(name, "fail", _ATTESTATION, other)
    return Finding(name, "pass", _ATTESTATION, "it is")


def evidence(claimed: Claimed) -> Finding:
    """Whether audit and smoke were of this very image, and the record has the same."""
    image, release = claimed.image, claimed.release
    for name in (attest.AUDIT, attest.SMOKE):
        fault = _beside("evidence", _EVIDENCE, claimed, name)
        if fault:
            return fault
        asked = _at(image.documents[name], "image_id")
        if asked not in image.ids:
            return Finding("evidence", "fail", _EVIDENCE, f"{name} is of {str(asked)[:SHOWN]}")
    recorded = {attest.AUDIT: release.audit, attest.SMOKE: release.smoke} if release else {}
    other = [name for name, one in recorded.items() if one != image.documents[name]]
    if other:
        return Finding("evidence", "fail", _EVIDENCE, f"the record has another {other[0]}")
    return Finding("evidence", "pass", _EVIDENCE, "both are")


def _beside(claim: str, expected: str, claimed: Claimed, name: str) -> Finding | None:
    """What is wrong with a file beside the image, or why that is not known; None: nothing."""
    image = claimed.image
    if name in image.broken:
        return Finding(claim, "fail", expected, f"{name}: {image.broken[name]}")
    if name not in image.sums:
        return unproven(claim, expected, f"no {name} goes with it")
    if attest.PROVENANCE not in image.documents:
        return unproven(claim, expected, "no provenance names it")
    named = _named(claimed)
    if named.get(name) != image.sums[name]:
        other = f"{name} is {image.sums[name][:12]}…, the provenance names {named.get(name)}"
        return Finding(claim, "fail", expected, other)
    return None


def _buildkits(claim: str, expected: str, claimed: Claimed, name: str) -> Finding | None:
    """What is wrong with a statement of BuildKit's, which not every image has; None: nothing.

    Its subject is the manifest that BuildKit would have pushed, with layers in another compression:
    that it is of this image is what the builder has seen, and what the provenance vouches for.
    """
    if name not in {*claimed.image.sums, *_named(claimed)}:
        return None
    fault = _beside(claim, expected, claimed, name)
    if fault:
        return fault
    kind = str(_at(claimed.image.documents[name], "predicateType"))
    if not kind.startswith(attestations.NAMES[name]):
        return Finding(claim, "fail", expected, f"{name} states {kind[:_MOST]}")
    return None


def _named(claimed: Claimed) -> dict[Any, Any]:
    """The documents that the provenance names: name → SHA-256."""
    stated = claimed.image.documents.get(attest.PROVENANCE)
    byproducts = _at(stated, "predicate", "runDetails", "byproducts") or []
    return {_at(one, "name"): _at(one, "digest", "sha256") for one in byproducts}


_MOST = 80


def _at(value: Any, *path: str) -> Any:  # noqa: ANN401 -- JSON of whatever shape
    """What lies at this path of a JSON document; None when there is nothing."""
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value
