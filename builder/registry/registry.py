"""What a registry says of an image: the digest of a tag now, and the labels behind it.

Asked as anybody may ask, without credentials: a private image does not answer here. The API and the
way to a token: https://distribution.github.io/distribution/spec/api/ and …/spec/auth/token/
"""

import hashlib
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from builder.common import http as web
from builder.common.errors import RefNotFoundError, RemoteUnavailableError, UsageError
from builder.registry import answers as registry_answers
from builder.registry.answers import Descriptor, IndexContent

_HUBS = {"docker.io": "registry-1.docker.io", "index.docker.io": "registry-1.docker.io"}
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_FIELD = re.compile(r'(\w+)="([^"]*)"')
_OK, _UNAUTHORIZED, _NOT_FOUND = 200, 401, 404


@dataclass(frozen=True, slots=True)
class Image:
    """A name in a registry, as in `host/repository:tag`."""

    host: str
    repository: str
    tag: str

    def __str__(self) -> str:
        return f"{self.host}/{self.repository}:{self.tag}"


# https://github.com/distribution/reference/blob/main/regexp.go
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:(?:(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?/)?"
    rf"{_PART}(?:/{_PART})*)(?::[A-Za-z0-9_][A-Za-z0-9._-]{{0,127}})?"
    rf"(?:@[a-z0-9]+:[0-9a-f]+)?"
)


def image(reference: str) -> Image:
    """The name in a reference, with what Docker adds to a short one; a digest is left aside.

    Raises UsageError for what is no such name: it becomes a part of addresses.
    """
    if not _REFERENCE.fullmatch(reference):
        raise UsageError(
            f"{reference[:200]!r} is not a valid name of an image",
            hint="HOST/NAME:TAG or HOST/NAME@sha256:DIGEST, such as ghcr.io/me/llama:latest",
        )
    first, slash, rest = reference.partition("@")[0].partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        first, rest = "docker.io", reference.partition("@")[0]
    repository, _, tag = rest.partition(":")
    if first == "docker.io" and "/" not in repository:
        repository = f"library/{repository}"
    return Image(first, repository, tag or "latest")


def address(host: str) -> str:
    """Where the registry of this name answers, as a URL without a path."""
    host = _HUBS.get(host, host)
    return f"{'http' if _is_here(host) else 'https'}://{host}"


def _is_here(host: str) -> bool:
    """Whether it is on this machine and needs no certificate: 127.0.0.0/8 and ::1, as the engine's.

    https://docs.docker.com/reference/cli/dockerd/#insecure-registries
    """
    name = re.sub(r":\d+$", "", host)
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def token_server(asked: str, realm: str) -> str:
    """The address that a registry, asked at `asked`, names for tokens: on any host, as Docker's.

    Raises RemoteUnavailableError for http, but from a registry on this machine to this machine.
    """
    from builder.common import sessions

    url = sessions.named_by(asked, realm)
    if sessions.is_readable(url):
        raise RemoteUnavailableError(
            f"{asked.partition('?')[0]}: its login would go over plain http",
            why=f"it wants it at {url.partition('?')[0]}"[:300],
        )
    return url


def is_digest(text: str) -> bool:
    """Whether that is the only kind of digest that builder hashes by."""
    return bool(_DIGEST.fullmatch(text))


def digest(wanted: Image) -> str:
    """The digest that the tag stands for now: an index's where the image has several platforms.

    Raises RefNotFoundError when the registry has no such tag, RemoteUnavailableError.
    """
    with _Session(wanted) as session:
        return session.digest(wanted.tag)


def holds(wanted: Image, pinned: str) -> bool:
    """Whether the registry still gives out this digest. Raises RemoteUnavailableError."""
    with _Session(wanted) as session:
        try:
            session.digest(pinned)
        except RefNotFoundError:
            return False
        return True


def labels(wanted: Image) -> Mapping[str, str]:
    """The labels of the tag's image for x86-64 Linux.

    Raises RefNotFoundError when there is no such tag or platform, RemoteUnavailableError.
    """
    with _Session(wanted) as session:
        content = session.manifest(wanted.tag).content
        if isinstance(content, IndexContent):
            chosen = next((one.digest for one in content.manifests or () if _ours(one)), None)
            content = session.manifest(chosen).content if chosen else content
        if isinstance(content, IndexContent):
            raise RefNotFoundError(f"{wanted} has no image for linux/amd64")
        return session.labels(content.config.digest)


def _ours(manifest: Descriptor) -> bool:
    platform = manifest.platform
    return platform is not None and (platform.os, platform.architecture) == ("linux", "amd64")


class _Session:
    """Questions about one repository, with the token that its registry sends for."""

    def __init__(self, wanted: Image) -> None:
        self._url = f"{address(wanted.host)}/v2/{wanted.repository}"
        self._wanted = wanted
        self._session = web.session()

    def __enter__(self) -> "_Session":
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def digest(self, name: str) -> str:
        """The digest of this tag or digest."""
        answer = self._ask("HEAD", f"manifests/{name}")
        told = answer.headers.get("Docker-Content-Digest", "")
        if not told:
            return self.manifest(name).digest
        if not _DIGEST.fullmatch(told):
            raise registry_answers.odd(f"{self._url}/manifests/{name}", f"its digest is {told!r}")
        return told

    def manifest(self, name: str) -> registry_answers.Checked:
        """The manifest or index of this tag or digest."""
        answer = self._ask("GET", f"manifests/{name}")
        url = f"{self._url}/manifests/{name}"
        return registry_answers.manifest(answer.body, answer.headers, url, name)

    def labels(self, name: str) -> dict[str, str]:
        """The labels in a configuration."""
        answer = self._ask("GET", f"blobs/{name}")
        url = f"{self._url}/blobs/{name}"
        if f"sha256:{hashlib.sha256(answer.body).hexdigest()}" != name:
            raise registry_answers.odd(url, f"other bytes than {name}")
        found = registry_answers.parse(registry_answers.ImageConfig, answer.body, url).config
        return dict((found and found.Labels) or {})

    def _ask(self, method: Literal["GET", "HEAD"], path: str) -> web.Answer:
        url = f"{self._url}/{path}"
        answer = web.ask(
            self._session, url, method=method, headers={"Accept": registry_answers.ACCEPT}
        )
        if answer.status == _UNAUTHORIZED and "Authorization" not in self._session.headers:
            self._authorize(answer.headers.get("WWW-Authenticate", ""))
            answer = web.ask(
                self._session, url, method=method, headers={"Accept": registry_answers.ACCEPT}
            )
        if answer.status == _NOT_FOUND:
            raise RefNotFoundError(f"{self._wanted}: the registry has no {path.partition('/')[2]}")
        if answer.status != _OK:
            raise _refusal(url, answer)
        return answer

    def _authorize(self, challenge: str) -> None:
        fields = dict(_FIELD.findall(challenge))
        if not challenge.lower().startswith("bearer ") or not fields.get("realm"):
            raise RemoteUnavailableError(
                f"{self._wanted}: the registry wants a login", why=challenge[:200]
            )
        realm = token_server(self._url, fields["realm"])
        params = {name: fields[name] for name in ("service", "scope") if name in fields}
        answer = web.ask(self._session, realm, params=params)
        if answer.status != _OK:
            raise _refusal(realm, answer)
        token = registry_answers.token(answer.body, realm)
        self._session.headers["Authorization"] = f"Bearer {token}"


def _refusal(url: str, answer: web.Answer) -> RemoteUnavailableError:
    wait = web.retry_after(answer.headers)
    waiting = "" if wait is None else f", it asks to wait {wait:.0f} s"
    return RemoteUnavailableError(f"{url} refuses", why=f"HTTP {answer.status}{waiting}")
