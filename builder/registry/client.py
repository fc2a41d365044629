"""One repository of a registry, to read and to write: blobs, manifests, tags.

The API: https://distribution.github.io/distribution/spec/api/ and, for logins, …/spec/auth/token/
What is asked here is asked with the login of `registry_login`; `registry.py` asks as anybody may.
"""

import base64
import contextlib
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import quote, urljoin

from builder.common import http as web
from builder.common import outside_json
from builder.common.errors import (
    FileError,
    NotAllowedError,
    RefNotFoundError,
    RemoteUnavailableError,
)
from builder.registry import answers, registry
from builder.registry import login as registry_login
from builder.registry.answers import IndexContent, ManifestContent

if TYPE_CHECKING:
    import requests

    from builder.common.limited_http import Body, Limits

T = TypeVar("T")

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"

_CONNECT_S = 5.0
_READ_S, _WRITE_S = 30.0, 120.0
"""Until an answer has begun: to a question; to what is brought there, which the registry hashes."""
_SLOWEST = 20_000
"""Bytes a second: a body that comes at less is given up, at the latest after `_LONGEST_S`."""
_LONGEST_S = 3600.0
_PAUSES_S = (0.5, 1.0, 2.0)
"""Between the tries of one question, where the registry does not say how long to wait."""
_PATIENCE_S = 60.0
"""The longest Retry-After that is waited for."""
_LARGEST = 16 * 1024 * 1024
"""Bytes of an answer that is held in memory."""
_PAGE = 1000
"""Tags of a page."""
_MOST_PAGES = 1000
_MOST_TAGS = 100_000
_MOST_MANIFESTS = 1000
"""Of one image, through all its indexes."""
_SHOWN = 200
_LARGEST_BLOB = 16 * 1024**3
_AGAIN = {429, 500, 502, 503, 504}
_OK, _UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND = 200, 401, 403, 404
_DONE = {_OK, 201, 202, 204}
"""The specification has 201 and 202, some registries another of these."""
_REFUSED = {400, _UNAUTHORIZED, _FORBIDDEN, 405, 406, 410, 501}
"""The ways to say that this login may not, or that the registry has no such thing."""
_FIELD = re.compile(r'(\w+)="([^"]*)"')
_NEXT = re.compile(r'<([^>]+)>;\s*rel="?next"?')


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest or index: its digest, its media type and its very bytes."""

    digest: str
    media_type: str
    body: bytes

    @property
    def content(self) -> dict[str, Any]:
        """What the bytes say. Raises RemoteUnavailableError when that is no object."""
        try:
            return outside_json.read_object(self.body)
        except ValueError as error:
            raise RemoteUnavailableError(f"{self.digest}: no manifest", why=str(error)) from error

    @property
    def parsed(self) -> ManifestContent | IndexContent:
        """What they say as its media type has it. Raises RemoteUnavailableError."""
        return answers.content_of(self.media_type, self.body, self.digest)

    @property
    def image(self) -> ManifestContent:
        """The same of a manifest. Raises RefNotFoundError for an index."""
        found = self.parsed
        if isinstance(found, IndexContent):
            raise RefNotFoundError(f"{self.digest} is an index, not an image")
        return found

    @property
    def index(self) -> IndexContent | None:
        """The same of an index; None for a manifest."""
        found = self.parsed
        return found if isinstance(found, IndexContent) else None

    @property
    def children(self) -> list[str]:
        """The digests of an index's manifests; empty for a manifest."""
        return [one.digest for one in self.index.manifests or ()] if self.index else []


def of(media_type: str, content: Mapping[str, Any]) -> Manifest:
    """The manifest of this content."""
    body = json.dumps(content, separators=(",", ":"), sort_keys=True).encode()
    return Manifest(f"sha256:{hashlib.sha256(body).hexdigest()}", media_type, body)


@dataclass(frozen=True, slots=True)
class _Answer:
    """`url`: where it came from at last; `redirected`: not where the question was sent to."""

    url: str
    redirected: bool
    status: int
    headers: Mapping[str, str]
    body: bytes


class RegistryClient:
    """`host/name` without a tag. Every method raises RemoteUnavailableError.

    That is for a registry that does not answer, refuses, or answers in a shape not its own; what is
    worth another try is tried four times.
    """

    def __init__(self, repository: str) -> None:
        from builder.common import sessions

        wanted = registry.image(repository)
        self.repository = repository
        self.host, self.name = wanted.host, wanted.repository
        self._base = f"{registry.address(wanted.host)}/v2/{wanted.repository}/"
        self._login = registry_login.login(wanted.host)
        self._authorization: str | None = None
        self._session = sessions.Session(_limits(_LARGEST))
        self._date: str | None = None

    def __enter__(self) -> "RegistryClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    @property
    def login(self) -> dict[str, str] | None:
        """The login as the engine takes it; None: nobody's."""
        if self._login is None:
            return None
        if self._login.identity:
            return {"identitytoken": self._login.identity}
        return {"username": self._login.user, "password": self._login.password}

    def clock_ahead_s(self) -> float | None:
        """Seconds that this machine's clock is ahead of the registry's; None: it tells no time."""
        then = web.moment(self._date or "")
        return None if then is None else time.time() - then

    # --- manifests and tags

    def digest(self, name: str) -> str | None:
        """What a tag (or digest) stands for now; None: there is none."""
        found = self.manifest(name)
        return found.digest if found else None

    def manifest(self, name: str) -> Manifest | None:
        """The manifest or index of a tag or digest; None: there is none."""
        headers = {"Accept": answers.ACCEPT}
        answer = self._ask("GET", f"manifests/{name}", {_OK, _NOT_FOUND}, headers=headers)
        if answer.status == _NOT_FOUND:
            return None
        checked = answers.manifest(answer.body, answer.headers, answer.url, name)
        return Manifest(checked.digest, checked.media_type, answer.body)

    def put(self, manifest: Manifest, name: str | None = None) -> None:
        """Put a manifest under a tag; without one under nothing but its digest."""
        headers = {"Content-Type": manifest.media_type}
        path = f"manifests/{name or manifest.digest}"
        self._ask("PUT", path, _DONE, headers=headers, data=manifest.body)

    def delete(self, digest: str) -> None:
        """Delete a manifest, and with it the tags that stand for it; gone already is no error.

        Raises NotAllowedError where this login may not, or the registry deletes nothing.
        """
        self._ask("DELETE", f"manifests/{digest}", {*_DONE, _NOT_FOUND})

    def tags(self) -> list[str]:
        """All tags of the repository; none for one that is not there.

        Some registries end a page without naming the next one: a full page is asked for more.
        """
        found: dict[str, None] = {}
        wanted = f"tags/list?n={_PAGE}"
        while wanted:
            before, page, answer = len(found), [], None
            for answer in self._pages(wanted):
                page = answers.parse(answers.TagList, answer.body, answer.url).tags or []
                found |= dict.fromkeys(page)
                if len(found) > _MOST_TAGS:
                    raise RemoteUnavailableError(f"{self.repository} lists over {_MOST_TAGS} tags")
            if before and answer is None:
                raise RemoteUnavailableError(f"{self.repository}: a page of its tags is missing")
            more = len(page) >= _PAGE and len(found) > before
            wanted = f"tags/list?n={_PAGE}&last={quote(page[-1])}" if more else ""
        return [*found]

    def referrers(self, digest: str) -> Manifest | None:
        """The index of what names a manifest as its subject; None: the registry has no such API.

        Registries refuse the question in as many ways as there are.
        """
        try:
            return self._referrers(digest)
        except NotAllowedError:
            return None

    def _referrers(self, digest: str) -> Manifest | None:
        listed: list[Any] = []
        pages = 0
        for pages, page in enumerate(self._pages(f"referrers/{digest}"), 1):  # noqa: B007
            if page.headers.get("Content-Type", "").partition(";")[0].strip() == "text/html":
                return None  # whatever answers there knows no such question
            answers.parse(answers.IndexContent, page.body, page.url)
            listed += outside_json.read_object(page.body)["manifests"] or []
            if len(listed) > answers.MOST_LISTED:
                raise answers.odd(page.url, f"it lists over {answers.MOST_LISTED} documents")
        content = {"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}
        return of(INDEX, content) if pages else None

    def _pages(self, path: str) -> Iterator["_Answer"]:
        """Every page of a list, none of one that is not there."""
        seen: set[str] = set()
        while path:
            answer = self._ask("GET", path, {_OK, _NOT_FOUND})
            if answer.status == _NOT_FOUND and seen:
                raise RemoteUnavailableError(f"{answer.url}: a page of the list is missing")
            if answer.status == _NOT_FOUND:
                return
            yield answer
            seen.add(answer.url)
            following = _NEXT.search(answer.headers.get("Link", ""))
            path = self._own(answer.url, following[1]) if following else ""
            if path in seen or len(seen) > _MOST_PAGES:
                raise RemoteUnavailableError(
                    f"{answer.url}: the list has no end", why=f"{len(seen)} pages were read"
                )

    # --- blobs

    def has_blob(self, digest: str) -> bool:
        """Whether the repository has this blob."""
        return self._ask("HEAD", f"blobs/{digest}", {_OK, _NOT_FOUND}).status == _OK

    def blob(self, digest: str) -> bytes:
        """A small blob. Raises RefNotFoundError when there is none."""
        answer = self._ask("GET", f"blobs/{digest}", {_OK, _NOT_FOUND})
        if answer.status == _NOT_FOUND:
            raise RefNotFoundError(f"{self.repository} has no blob {digest}")
        if f"sha256:{hashlib.sha256(answer.body).hexdigest()}" != digest:
            raise RemoteUnavailableError(f"{self.repository}: other bytes than {digest}")
        return answer.body

    def read(self, digest: str, use: Callable[[IO[bytes]], T], most: int = _LARGEST_BLOB) -> T:
        """What `use` makes of a blob, read front to back, and anew if it breaks off.

        `most` is in bytes. Raises RefNotFoundError when there is none.
        """
        for pause in (*_PAUSES_S, None):
            # This question finds what to show, so that the next one asks but once.
            if not self.has_blob(digest):
                raise RefNotFoundError(f"{self.repository} has no blob {digest}")
            url = urljoin(self._base, f"blobs/{digest}")
            try:
                with self._response("GET", url, headers=self._shown(url)) as response:
                    response.raise_for_status()
                    cast("Body", response.raw).allow(_limits(most))
                    return use(cast("IO[bytes]", response.raw))
            except _TransientError:
                if pause is None:
                    raise
                time.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def upload(self, digest: str, content: bytes | IO[bytes]) -> None:
        """Bring a blob there, whole or not at all: a broken connection begins it anew."""
        for pause in (*_PAUSES_S, None):
            begun = self._ask("POST", "blobs/uploads/", _DONE)
            place = self._named(begun.headers.get("Location", ""))
            place += f"{'&' if '?' in place else '?'}digest={digest}"
            try:
                # One try: after a failure the registry wants a new place to upload to.
                self._ask("PUT", place, _DONE, data=content, tries=1)
            except _TransientError as error:
                if pause is None:
                    raise
                time.sleep(pause if error.wait_s is None else error.wait_s)
            else:
                return

    def complete(self, digest: str) -> Manifest:
        """The manifest of this digest, if all that it needs is there.

        Raises RefNotFoundError naming what is missing.
        """
        whole = [*self.below(digest)]
        for one in whole:
            image = None if one.index else one.image
            needed = (
                [image.config.digest, *(layer.digest for layer in image.layers)] if image else []
            )
            for blob in needed:
                if not self.has_blob(blob):
                    raise RefNotFoundError(f"{self.repository}: {one.digest} lacks {blob}")
        return whole[0]

    def below(self, digest: str) -> Iterator[Manifest]:
        """A manifest, and all that it names through indexes, each once.

        Raises RefNotFoundError when one is not there.
        """
        wanted, seen = [digest], {digest}
        while wanted:
            named = wanted.pop(0)
            found = self.manifest(named)
            if found is None:
                raise RefNotFoundError(f"{self.repository} has no {named}")
            yield found
            new = [one for one in dict.fromkeys(found.children) if one not in seen]
            seen.update(new)
            wanted += new
            if len(seen) > _MOST_MANIFESTS:
                raise RemoteUnavailableError(
                    f"{self.repository}: {digest} names over {_MOST_MANIFESTS} manifests"
                )

    # --- questions

    def _ask(
        self,
        method: str,
        path: str,
        expected: set[int],
        *,
        headers: Mapping[str, str] | None = None,
        data: bytes | IO[bytes] | None = None,
        tries: int = len(_PAUSES_S) + 1,
    ) -> _Answer:
        url = urljoin(self._base, path)
        for pause in _PAUSES_S[: tries - 1]:
            try:
                return self._authorized(method, url, expected, headers, data)
            except _TransientError as error:
                time.sleep(pause if error.wait_s is None else error.wait_s)
        return self._authorized(method, url, expected, headers, data)

    def _authorized(
        self,
        method: str,
        url: str,
        expected: set[int],
        headers: Mapping[str, str] | None,
        data: bytes | IO[bytes] | None,
    ) -> _Answer:
        answer = self._once(method, url, headers, data)
        challenge = answer.headers.get("WWW-Authenticate", "")
        if answer.status == _UNAUTHORIZED and challenge:
            # Nobody asked before, or a token has expired: once more, with a new one.
            self._require_own(answer)
            self._authorize(challenge)
            answer = self._once(method, url, headers, data)
        if answer.status in expected:
            return answer
        if answer.status == _UNAUTHORIZED:
            self._require_own(answer)
        raise _refusal(method, url, answer, self.host)

    def _once(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        data: bytes | IO[bytes] | None,
    ) -> _Answer:
        if data is not None and not isinstance(data, bytes):
            data.seek(0)
        return self._send(method, url, headers={**(headers or {}), **self._shown(url)}, data=data)

    def _shown(self, url: str) -> dict[str, str]:
        """What is shown to the registry, and to no other place that it names."""
        own = self._authorization and self._is_own(url)
        return {"Authorization": self._authorization} if own and self._authorization else {}

    def _is_own(self, url: str) -> bool:
        """Whether an address has the registry's own scheme, host and port."""
        from builder.common import sessions

        return sessions.origin(url) == sessions.origin(self._base)

    def _named(self, place: str) -> str:
        """The address of an upload, wherever the registry wants to have it."""
        from builder.common import sessions

        if not place:
            raise RemoteUnavailableError(
                f"{self.repository}: the registry names no place to upload to"
            )
        return sessions.named_by(self._base, place)

    def _own(self, page: str, following: str) -> str:
        """The address of a list's next page, which no other place may go on with."""
        from builder.common import sessions

        url = sessions.named_by(page, following)
        if not self._is_own(url):
            raise RemoteUnavailableError(
                f"{self.repository}: the list of tags goes on at another place",
                why=f"Link names {url.partition('?')[0]}"[:300],
            )
        return url

    def _require_own(self, challenge: "_Answer") -> None:
        """Only the registry itself may ask for its login, not who it sends to (CVE-2020-15157)."""
        if challenge.redirected or not self._is_own(challenge.url):
            raise RemoteUnavailableError(
                f"{self.host} sends to {challenge.url.partition('?')[0]}, which wants a login",
                why="a registry's login goes to no other place",
            )

    def _send(self, method: str, url: str, **more: Any) -> _Answer:  # noqa: ANN401 -- requests' own
        with self._response(method, url, **more) as response:
            body = response.raw.read(decode_content=True)
            self._date = response.headers.get("Date", self._date)
            url, redirected = str(response.url), bool(response.history)
            return _Answer(url, redirected, response.status_code, response.headers, body)

    @contextlib.contextmanager
    def _response(self, method: str, url: str, **more: Any) -> "Iterator[requests.Response]":  # noqa: ANN401
        import requests
        import urllib3

        from builder.common.limited_http import EndlessError

        timeout = (_CONNECT_S, _READ_S if method in {"GET", "HEAD"} else _WRITE_S)
        silent = f"{url.partition('?')[0]} does not answer"
        try:
            with self._session.request(
                method, url, timeout=timeout, stream=True, **more
            ) as response:
                yield response
        except EndlessError as error:
            raise RemoteUnavailableError(silent, why=str(error)) from error
        except requests.exceptions.InvalidURL as error:
            raise RemoteUnavailableError(silent, why="it leads to what is no address") from error
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            if isinstance(error, OSError) and FileError.of(error):
                raise  # it is this machine's disk
            # Its own text is a paragraph of class names and pool addresses.
            raise _TransientError(
                silent, why=f"no whole answer ({type(error).__name__})"
            ) from error

    def _authorize(self, challenge: str) -> None:
        """Find what to show, from what the registry asks for."""
        import requests

        scheme, fields = challenge.partition(" ")[0].lower(), dict(_FIELD.findall(challenge))
        login = self._login
        basic = (login.user, login.password) if login and not login.identity else None
        if scheme == "basic":
            if basic is None:
                raise _no_login(self.host)
            shown = base64.b64encode(":".join(basic).encode()).decode()
            self._authorization = f"Basic {shown}"
            return
        if scheme != "bearer" or not fields.get("realm"):
            raise RemoteUnavailableError(f"{self.host} wants a login", why=challenge[:200])
        realm = registry.token_server(self._base, fields["realm"])
        params = {name: fields[name] for name in ("service", "scope") if name in fields}
        if login and login.identity:
            answer = self._exchange(realm, params, login.identity)
        else:
            auth = requests.auth.HTTPBasicAuth(*basic) if basic else None
            answer = self._send("GET", realm, params=params, auth=auth)
        if answer.status != _OK:
            raise _refusal("GET", realm, answer, self.host)
        self._authorization = f"Bearer {answers.token(answer.body, realm)}"

    def _exchange(self, realm: str, params: Mapping[str, str], identity: str) -> _Answer:
        """A token for an identity token.

        https://distribution.github.io/distribution/spec/auth/oauth/
        A redirect is not followed: with the body the identity would go along.
        """
        form = {
            "grant_type": "refresh_token",
            "client_id": "turboquant-builder",
            "refresh_token": identity,
            **params,
        }
        return self._send("POST", realm, data=form, allow_redirects=False)


def _limits(most: int) -> "Limits":
    from builder.common.limited_http import Limits

    return Limits(most, _READ_S, _SLOWEST, _LONGEST_S)


class _TransientError(RemoteUnavailableError):
    """What another try may mend; `wait_s` is what the registry asked for."""

    def __init__(
        self, what: str, *, why: str = "", hint: str = "", wait_s: float | None = None
    ) -> None:
        super().__init__(what, why=why, hint=hint)
        self.wait_s = wait_s


def _no_login(host: str) -> RemoteUnavailableError:
    return RemoteUnavailableError(
        f"{host} wants a login, and there is none",
        hint=registry_login.how_to(host),
    )


def _refusal(method: str, url: str, answer: _Answer, host: str) -> RemoteUnavailableError:
    what = f"{method} {url.partition('?')[0]}: HTTP {answer.status}"
    why = _said(answer.body)
    if answer.status == _UNAUTHORIZED:
        return NotAllowedError(
            what,
            why=f"the login is missing, wrong or expired; {why}",
            hint=registry_login.how_to(host),
        )
    if answer.status == _FORBIDDEN:
        hint = f"`docker login {host}` as somebody who may write there"
        return NotAllowedError(what, why=f"the login lacks the right; {why}", hint=hint)
    if answer.status in _REFUSED:
        return NotAllowedError(what, why=why)
    wait = web.retry_after(answer.headers)
    if answer.status in _AGAIN and (wait is None or wait <= _PATIENCE_S):
        return _TransientError(what, why=why, wait_s=wait)
    if wait is not None:
        why = f"it asks to wait {wait:.0f} s; {why}"
    return RemoteUnavailableError(what, why=why)


def _said(body: bytes) -> str:
    """The registry's own words, in one line."""
    return answers.refusal(body) or body[:_SHOWN].decode(errors="replace").strip()
