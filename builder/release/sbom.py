"""What is in an image, as an SPDX 2.3 document. Pure.

The specification: https://spdx.github.io/spdx-spec/v2.3/. Licences are named only where the source
tree names one; everything else is NOASSERTION, SPDX's word for "nobody looked".
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from builder import __version__
from builder.image.contents import Contents, HashedFile, Package, compiled_by_us
from builder.model.pins import BaseImage, Receipt
from builder.sources.tree import FROM_DISK

MEDIA_TYPE = "application/spdx+json"
PREDICATE = "https://spdx.dev/Document"

_UNKNOWN = "NOASSERTION"
_FULL = re.compile(r"[0-9a-f]{40}")
_GITHUB = re.compile(r"https://github\.com/([^/]+)/([^/]+?)(?:\.git)?")
_IMAGE, _FORK = "SPDXRef-image", "SPDXRef-source"
_SERVER, _TOOLKIT = "SPDXRef-server", "SPDXRef-toolkit"


def document(
    repository: str,
    digest: str,
    receipt: Receipt,
    contents: Contents,
    *,
    url: str,
    licence: str | None,
    archive: str,
) -> dict[str, Any]:
    """The document about the image `repository@digest` that this receipt is of.

    `url` is the fork's, or ""; `licence` an SPDX identifier that the fork's own tree names;
    `archive` the SHA-256 of the packed source, which stands for a commit that nobody checked.
    """
    packages = [_package(one, contents.distribution) for one in contents.packages]
    ours = [one for one in contents.files if compiled_by_us(one.path)]
    toolkit = [one for one in contents.files if not compiled_by_us(one.path)]
    version = "" if receipt.commit_claimed else receipt.commit
    parts = [
        *([_part(_SERVER, "llama-server", version, ours)] if ours else []),
        *([_part(_TOOLKIT, "CUDA toolkit", "", toolkit)] if toolkit else []),
    ]
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"{repository}@{digest}",
        "documentNamespace": f"https://spdx.org/spdxdocs/turboquant-{digest.replace(':', '-')}",
        "creationInfo": {
            "created": f"{receipt.created[:19]}Z",
            "creators": [f"Tool: turboquant-builder-{__version__}"],
        },
        "packages": [
            _image(repository, digest, receipt),
            _fork(receipt, url, licence, archive),
            *(_base(one) for one in receipt.bases),
            *parts,
            *packages,
        ],
        "files": [_file(one) for one in contents.files],
        "relationships": [
            _relation("SPDXRef-DOCUMENT", "DESCRIBES", _IMAGE),
            *(_of_base(one) for one in receipt.bases),
            *(_relation(_IMAGE, "CONTAINS", str(one["SPDXID"])) for one in [*parts, *packages]),
            *([_relation(_SERVER, "GENERATED_FROM", _FORK)] if ours else []),
            *(_relation(_SERVER, "CONTAINS", _id("file", one.path)) for one in ours),
            *(_relation(_TOOLKIT, "CONTAINS", _id("file", one.path)) for one in toolkit),
        ],
    }


def licence(text: str) -> str | None:
    """The SPDX identifier of a LICENSE file's text, if it is one that is known here."""
    return "MIT" if text.lstrip().startswith("MIT License") else None


def _image(repository: str, digest: str, receipt: Receipt) -> dict[str, Any]:
    return {
        **_described(_IMAGE, repository, digest, "CONTAINER"),
        "summary": f"llama-server, {receipt.variant}",
        "checksums": [_sum("SHA256", digest.removeprefix("sha256:"))],
    }


def _fork(receipt: Receipt, url: str, known: str | None, archive: str) -> dict[str, Any]:
    """The source. Where nobody checked the commit that is said; no path of a machine is told."""
    origin = receipt.source
    if origin.startswith(FROM_DISK):
        origin = "a tree from disk"
    name = f"llama.cpp ({receipt.fork})"
    if receipt.commit_claimed:
        made = _described(_FORK, name, "", "SOURCE")
        return {
            **{key: value for key, value in made.items() if key != "versionInfo"},
            "checksums": [_sum("SHA256", archive)],
            "sourceInfo": f"{origin}; its commit is claimed, not checked: {receipt.commit}",
            "licenseDeclared": known or _UNKNOWN,
        }
    address = f"git+{url}@{receipt.commit}" if url else _UNKNOWN
    found = {
        **_described(_FORK, name, receipt.commit, "SOURCE"),
        "downloadLocation": address,
        "sourceInfo": origin,
        "licenseDeclared": known or _UNKNOWN,
    }
    on_github = _GITHUB.fullmatch(url)
    if on_github and _FULL.fullmatch(receipt.commit):
        owner, name = (part.lower() for part in on_github.groups())
        found["externalRefs"] = [_purl(f"pkg:github/{owner}/{name}@{receipt.commit}")]
    return found


def _base(image: BaseImage) -> dict[str, Any]:
    reference = image.reference.partition("@")[0]
    return {
        **_described(f"SPDXRef-base-{image.role}", reference, image.digest, "CONTAINER"),
        "comment": f"origin: {image.origin}",
        "checksums": [_sum("SHA256", image.digest.removeprefix("sha256:"))],
    }


def _part(key: str, name: str, version: str, files: list[HashedFile]) -> dict[str, Any]:
    """Files of `/opt/llama` that came the same way, all of them listed in the document."""
    sums = "".join(sorted(one.sha1 for one in files))
    code = hashlib.sha1(sums.encode(), usedforsecurity=False).hexdigest()
    made = _described(key, name, version, "APPLICATION" if key == _SERVER else "LIBRARY")
    return {
        **{name: value for name, value in made.items() if value},
        "filesAnalyzed": True,
        "packageVerificationCode": {"packageVerificationCodeValue": code},
        "licenseInfoFromFiles": [_UNKNOWN],
        "hasFiles": [_id("file", one.path) for one in files],
    }


def _package(one: Package, distribution: str) -> dict[str, Any]:
    made = _described(_id("deb", one.name, one.architecture), one.name, one.version, None)
    if distribution:
        version = one.version.replace("+", "%2B").replace(":", "%3A")
        place = f"pkg:deb/{distribution}/{one.name.replace('+', '%2B')}@{version}"
        made["externalRefs"] = [_purl(f"{place}?arch={one.architecture}")]
    return made


def _file(one: HashedFile) -> dict[str, Any]:
    return {
        "SPDXID": _id("file", one.path),
        "fileName": f".{one.path}",
        "checksums": [_sum("SHA1", one.sha1), _sum("SHA256", one.sha256)],
        "licenseConcluded": _UNKNOWN,
        "licenseInfoInFiles": [_UNKNOWN],
        "copyrightText": _UNKNOWN,
    }


def _of_base(one: BaseImage) -> dict[str, str]:
    if one.role == "runtime":
        return _relation(_IMAGE, "DESCENDANT_OF", "SPDXRef-base-runtime")
    return _relation("SPDXRef-base-devel", "BUILD_TOOL_OF", _IMAGE)


def _described(key: str, name: str, version: str, purpose: str | None) -> dict[str, Any]:
    made: dict[str, Any] = {
        "SPDXID": key,
        "name": name,
        "versionInfo": version,
        "downloadLocation": _UNKNOWN,
        "filesAnalyzed": False,
        "licenseConcluded": _UNKNOWN,
        "licenseDeclared": _UNKNOWN,
        "copyrightText": _UNKNOWN,
    }
    return made | ({"primaryPackagePurpose": purpose} if purpose else {})


def _relation(one: str, kind: str, other: str) -> dict[str, str]:
    return {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}


def _sum(algorithm: str, value: str) -> Mapping[str, str]:
    return {"algorithm": algorithm, "checksumValue": value}


def _purl(locator: str) -> Mapping[str, str]:
    return {
        "referenceCategory": "PACKAGE-MANAGER",
        "referenceType": "purl",
        "referenceLocator": locator,
    }


def _id(*words: str) -> str:
    """An SPDX identifier: letters, digits, dots and dashes."""
    return "SPDXRef-" + re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(words)).strip("-")
