"""A registry in memory whose answers a test bends: consistent in its digests, odd in all else.

It takes the place of the network below `requests`, so that all of builder's own code is asked.
"""

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from builder.common import limited_http, sessions
from builder.model import tags as names
from builder.model.pins import Pins
from builder.registry import referrers
from builder.release import attach as attest
from builder.release import cosign, provenance, sbom
from builder.release.record import Release
from tests.support import published

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
HOST = "registry.example.org"
REPOSITORY = f"{HOST}/me/llama"
TIMES = "2026-11-20T00:00:00Z"

Bend = Callable[[str, Any], bytes]
"""A document's name and what it says → its bytes."""


def straight(_name: str, content: Any) -> bytes:
    return json.dumps(content).encode()


def digest(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


@dataclass
class Answer:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class World:
    """An image with all that goes with it, as `bend` makes its documents.

    `api`: the registry lists referrers itself; else under the fallback tag. `twist` changes an
    answer, by the kind of thing that was asked for.
    """

    def __init__(
        self,
        release: Release,
        bend: Bend = straight,
        *,
        api: bool = False,
        multi: bool = False,
        twist: Callable[[str, Answer], Answer] | None = None,
    ) -> None:
        self.api, self.twisted, self.bend = api, twist is not None, bend
        self.twist = twist or (lambda _kind, answer: answer)
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.tags: dict[str, str] = {}
        self.referrers = b""
        self._image(release, multi=multi)
        self._documents(release)

    def _blob(self, name: str, content: Any) -> dict[str, Any]:
        body = content if isinstance(content, bytes) else self.bend(name, content)
        self.blobs[digest(body)] = body
        return {"mediaType": "application/json", "digest": digest(body), "size": len(body)}

    def _manifest(self, name: str, kind: str, content: Any) -> dict[str, Any]:
        body = self.bend(name, {"schemaVersion": 2, "mediaType": kind, **content})
        self.manifests[digest(body)] = (kind, body)
        return {"mediaType": kind, "digest": digest(body), "size": len(body)}

    def _image(self, release: Release, *, multi: bool) -> None:
        labels = published.labels(release.receipt) | published.of_publish(release.receipt)
        said = json.loads(published.config(labels))
        config, layer = self._blob("config", said), self._blob("layer", b"a layer")
        self.subject = self._manifest("image", MANIFEST, {"config": config, "layers": [layer]})
        if multi:
            platform = {"os": "linux", "architecture": "amd64"}
            other = self._manifest("other", MANIFEST, {"config": config, "layers": []})
            listed = [
                other | {"platform": {"os": "linux", "architecture": "arm64"}},
                self.subject | {"platform": platform},
            ]
            self.subject = self._manifest("index", INDEX, {"manifests": listed})
        for tag in ("tiny", release.name):
            self.tags[tag] = self.subject["digest"]

    def _documents(self, release: Release) -> None:
        of = self.subject["digest"]
        parts = sbom.document(
            REPOSITORY,
            of,
            release.receipt,
            published.CONTENTS,
            url=published.URL,
            licence="MIT",
            archive="a" * 64,
        )
        files = {
            attest.ARCHIVE: self._blob("archive", b"the source"),
            attest.SBOM: self._blob("sbom", parts),
            attest.AUDIT: self._blob("audit", release.audit | {"image_id": of}),
            attest.SMOKE: self._blob("smoke", release.smoke | {"image_id": of}),
        }
        sums = {name: one["digest"].removeprefix("sha256:") for name, one in files.items()}
        stated = provenance.statement(
            REPOSITORY, of, release.receipt, url=published.URL, beside=sums
        )
        files[attest.PROVENANCE] = self._blob("provenance", stated)
        artifacts = {
            attest.SOURCE: [attest.ARCHIVE],
            sbom.MEDIA_TYPE: [attest.SBOM],
            attest.EVIDENCE: [attest.AUDIT, attest.SMOKE],
            provenance.MEDIA_TYPE: [attest.PROVENANCE],
            cosign.BUNDLE: [],
        }
        listed = [
            self._artifact(kind, {name: files[name] for name in contained})
            for kind, contained in artifacts.items()
        ]
        page = {"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}
        self.referrers = self.bend("referrers", page)
        if not self.api:
            self.manifests[digest(self.referrers)] = (INDEX, self.referrers)
            self.tags[referrers.fallback_tag(of)] = digest(self.referrers)

    def _artifact(self, kind: str, files: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
        titled = [one | {"annotations": {referrers.TITLE: name}} for name, one in files.items()]
        content = {
            "artifactType": kind,
            "config": self._blob("empty", b"{}"),
            "layers": titled,
            "subject": self.subject,
            "annotations": {referrers.CREATED: TIMES, referrers.OURS: "yes"},
        }
        made = self._manifest("artifact", MANIFEST, content)
        return made | {"artifactType": kind, "annotations": {referrers.CREATED: TIMES}}

    def answer(self, method: str, url: str, body: bytes) -> Answer:
        path = urlsplit(url).path.removeprefix("/v2/me/llama/")
        what, _, name = path.partition("/")
        if method == "PUT" and what == "manifests":
            kind = INDEX if b'"manifests"' in body else MANIFEST
            self.manifests.setdefault(digest(body), (kind, body))
            self.tags[name] = digest(body)
        asked = what if method in {"GET", "HEAD"} else method
        return self.twist(asked, self._found(asked, name))

    def _found(self, asked: str, name: str) -> Answer:
        place = f"https://{HOST}/v2/me/llama/blobs/uploads/1"
        found = self.manifests.get(self.tags.get(name, name))
        page = {"name": "me/llama", "tags": sorted(self.tags)}
        answers = {
            "POST": Answer(202, headers={"Location": place}),
            "PUT": Answer(201),
            "DELETE": Answer(202),
            "tags": Answer(200, self.bend("tags", page)),
            "token": Answer(200, self.bend("token", {"token": "a-token"})),
        }
        if found:
            told = {"Content-Type": found[0], "Docker-Content-Digest": digest(found[1])}
            answers["manifests"] = Answer(200, found[1], told)
        if name in self.blobs:
            answers["blobs"] = Answer(200, self.blobs[name])
        if self.api:
            answers["referrers"] = Answer(200, self.referrers, {"Content-Type": INDEX})
        gone = b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "none"}]}'
        return answers.get(asked, Answer(404, gone))


class _Raw:
    """A body for `requests`, or for who reads it at once."""

    def __init__(self, body: bytes) -> None:
        self.left = io.BytesIO(body)

    def read(self, amount: int | None = None, **_: Any) -> bytes:
        return self.left.read(amount)

    def readinto(self, buffer: Any) -> int:
        return self.left.readinto(buffer)

    def allow(self, limits: limited_http.Limits) -> None: ...

    def release_conn(self) -> None: ...

    def close(self) -> None: ...


def stand_in(monkeypatch: pytest.MonkeyPatch, world: Callable[[], World]) -> None:
    """The world answers whatever builder asks by HTTP; redirects are followed by `requests`."""

    def answer(method: str, url: str, body: object) -> requests.Response:
        made = world().answer(method, url, body if isinstance(body, bytes) else b"")
        response = requests.Response()
        response.status_code, response.url = made.status, url
        response.headers.update(made.headers)
        response.raw = _Raw(b"" if method == "HEAD" else made.body)
        return response

    def send(_self: object, request: requests.PreparedRequest, **_: Any) -> requests.Response:
        made = answer(str(request.method), str(request.url), request.body)
        made.request = request
        return made

    whole = sessions.Session.request

    def request(
        self: sessions.Session, method: str, url: str, *words: Any, **more: Any
    ) -> requests.Response:
        if world().twisted:
            return whole(self, method, url, *words, **more)
        # Ten times as quick, and nothing is lost: the headers and the status are good ones.
        return answer(method, url, more.get("data"))

    monkeypatch.setattr(limited_http._Adapter, "send", send)
    monkeypatch.setattr(sessions.Session, "request", request)


def a_release(everything: Pins) -> Release:
    from builder.build import render

    recipe = render.render(everything, "tiny").sha256
    receipt = published.a_receipt(dockerfile_sha256=recipe)
    assert names.release("tiny", 77, published.COMMIT, recipe)
    return published.a_release(receipt, REPOSITORY, published.DIGEST)
