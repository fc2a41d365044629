"""GitHub's API: what a repository's page tells, and how far apart two commits are.

An extra beside git, which answers the same in more round trips. Shapes and headers:
https://docs.github.com/rest/using-the-rest-api/best-practices-for-using-the-rest-api
"""

import contextlib
import datetime
import hashlib
import itertools
import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlsplit

from builder.common import http as web
from builder.common import outside_json, paths
from builder.common.errors import BuilderError, RefNotFoundError, RemoteUnavailableError, UsageError
from builder.common.files import write_atomically
from builder.git.commits import Commit, printable

if TYPE_CHECKING:
    import requests

_REPOSITORY = re.compile(r"/?(?P<name>[\w.-]+/[\w.-]+?)(\.git)?/?")
_SHA = re.compile(r"[0-9a-f]{40}")
_LISTED_FILES = 300
"""More a comparison does not list, and does not say so: https://docs.github.com/rest/commits"""


@dataclass(frozen=True, slots=True)
class Page:
    """What GitHub says of a repository. `url` is its address now, whatever it was asked by."""

    url: str
    default_branch: str
    archived: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """How far a head is from a pin. `lost` counts commits of the pin that the head has not.

    `commits` are the head's that the pin has not, the head last, without files; `files` what
    differs. Both None when GitHub lists only a part: of commits no more than 250.
    """

    ahead: int
    lost: int
    commits: tuple[Commit, ...] | None
    files: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Github:
    """GitHub's API at one address. `server` is the site whose repositories it knows.

    The token comes from the environment and goes nowhere but to the API.
    """

    api: str = "https://api.github.com"
    server: str = "https://github.com"
    token: str | None = None

    def name(self, url: str) -> str | None:
        """The owner/name of a repository on this site; None for one that lies elsewhere."""
        parts = urlsplit(url)
        found = _REPOSITORY.fullmatch(parts.path)
        here = parts.hostname == urlsplit(self.server).hostname
        return found["name"] if found and here else None

    def page(self, name: str) -> Page:
        """What GitHub says of the repository; one that was renamed is followed.

        Raises RefNotFoundError when it is gone or private, RemoteUnavailableError.
        """
        answer = self._get(f"/repos/{name}")
        try:
            return Page(
                str(answer["html_url"]), str(answer["default_branch"]), answer["archived"] is True
            )
        except KeyError as error:
            raise _unexpected(f"no {error}") from error

    def compare(self, name: str, pin: str, head: str) -> Comparison:
        """How far `head` is from the pin, both full SHAs.

        Raises RefNotFoundError when one of them is gone, RemoteUnavailableError.
        """
        answer = self._get(f"/repos/{name}/compare/{quote(pin)}...{quote(head)}", lasting=True)
        try:
            ahead, listed = int(answer["ahead_by"]), tuple(map(_commit, answer["commits"]))
            return Comparison(
                ahead=ahead,
                lost=int(answer["behind_by"]),
                commits=listed if 0 < len(listed) == ahead else None,
                files=_files(answer),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise _unexpected(repr(error)) from error

    def changed(self, name: str, parent: str, commit: str) -> tuple[str, ...]:
        """The files in which a commit, be it a merge, differs from one of its parents.

        By a comparison of the two: what "Get a commit" compares a merge with, GitHub does not say.
        It does say that a comparison's first page, here of one commit, has the files of all:
        https://docs.github.com/rest/commits/commits#compare-two-commits
        Raises as `compare` does, and RemoteUnavailableError when not all the files are listed.
        """
        between = f"{quote(parent)}...{quote(commit)}"
        answer = self._get(f"/repos/{name}/compare/{between}?per_page=1", lasting=True)
        try:
            files = _files(answer)
        except (KeyError, TypeError) as error:
            raise _unexpected(repr(error)) from error
        if files is None:
            raise RemoteUnavailableError(f"GitHub does not list all that {commit[:9]} changes")
        return files

    def send(
        self,
        method: Literal["GET", "POST", "PATCH"],
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        content: Mapping[str, object] | None = None,
    ) -> Any:  # noqa: ANN401 -- an object or a list of them
        """The answer to a question that is never kept, or to an order; `content` goes as JSON.

        Raises RefNotFoundError when it is gone or hidden, RemoteUnavailableError.
        """
        url = f"{self.api.rstrip('/')}{path}"
        with web.session() as session:
            session.headers["Accept"] = "application/vnd.github+json"
            session.auth = self._sign
            told = web.ask(session, url, method=method, params=params, json=content)
        if told.status not in {200, 201}:
            raise _refusal(url, told.status, told.headers, _message(told.body))
        try:
            return outside_json.read(told.body)
        except ValueError as error:
            raise _unexpected(str(error)) from error

    def _sign(self, request: "requests.PreparedRequest") -> "requests.PreparedRequest":
        if self.token:
            request.headers["Authorization"] = f"Bearer {self.token}"
        return request

    def _get(self, path: str, *, lasting: bool = False) -> dict[str, Any]:
        """The answer; one that is `lasting` can be no other, and is asked for once."""
        url = f"{self.api.rstrip('/')}{path}"
        kept = _Kept.of(url)
        if lasting and kept is not None:
            return kept.answer
        with web.session() as session:
            session.headers["Accept"] = "application/vnd.github+json"
            session.auth = self._sign
            if kept is not None:
                session.headers["If-None-Match"] = kept.etag
            told = web.ask(session, url)
        if told.status == 304 and kept is not None:  # noqa: PLR2004
            return kept.answer
        if told.status != 200:  # noqa: PLR2004
            raise _refusal(url, told.status, told.headers)
        answer = _parse(told.body)
        if "ETag" in told.headers:
            _Kept(told.headers["ETag"], answer).keep(url)
        return answer


def from_environment() -> Github:
    """The API that the variables of a GitHub job name, else github.com's; with GITHUB_TOKEN.

    https://docs.github.com/actions/reference/workflows-and-actions/variables
    Raises UsageError where the token would be sent by plain http to another machine.
    """
    standard = Github()
    found = Github(
        api=os.environ.get("GITHUB_API_URL") or standard.api,
        server=os.environ.get("GITHUB_SERVER_URL") or standard.server,
        token=os.environ.get("GITHUB_TOKEN") or None,
    )
    if found.token:
        _require_private(GITHUB_API_URL=found.api, GITHUB_SERVER_URL=found.server)
    return found


def _require_private(**addresses: str) -> None:
    """Raises UsageError where the token would go to one of these addresses in plain text."""
    from builder.common import sessions

    for name, address in addresses.items():
        try:
            readable = sessions.is_readable(address)
        except RemoteUnavailableError as error:
            raise UsageError(f"{name} is not an http(s) address") from error
        if readable:
            raise UsageError(
                f"{name} is a plain http address, and GITHUB_TOKEN would be sent there",
                hint="write it with https://, or run without the token: `env -u GITHUB_TOKEN …`",
            )


@dataclass(frozen=True, slots=True)
class _Kept:
    """An answer as it was, by which the next question costs no quota if nothing changed."""

    etag: str
    answer: dict[str, Any]

    @staticmethod
    def _file(url: str) -> Path:
        return paths.cache() / "github" / f"{hashlib.sha256(url.encode()).hexdigest()[:24]}.json"

    @classmethod
    def of(cls, url: str) -> "_Kept | None":
        try:
            etag, answer = json.loads(cls._file(url).read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError):
            return None
        return cls(etag, answer) if isinstance(etag, str) and isinstance(answer, dict) else None

    def keep(self, url: str) -> None:
        file = self._file(url)
        # Two runs may write at once: each its own file, the last one stays.
        with contextlib.suppress(OSError):  # an answer that is not kept is asked for again
            write_atomically(file, json.dumps([self.etag, self.answer]))


def _commit(one: dict[str, Any]) -> Commit:
    """A commit as a comparison lists it, without files."""
    told = one["commit"]
    date = str(told["committer"]["date"])
    datetime.datetime.strptime(date, "%Y-%m-%dT%H:%M:%SZ")  # its only form; any other raises
    lines = str(told["message"]).strip().split("\n")
    return Commit(
        commit=_sha(one),
        parents=tuple(map(_sha, one["parents"])),
        date=date,
        committer=str(told["committer"]["name"]),
        # As git has it: the first paragraph on one line.
        subject=printable(" ".join(itertools.takewhile(str.strip, lines))),
    )


def _sha(one: dict[str, Any]) -> str:
    """It becomes a part of the next question's address."""
    sha = str(one["sha"])
    if _SHA.fullmatch(sha) is None:
        raise ValueError(f"no SHA: {sha!r}")
    return sha


def _files(answer: dict[str, Any]) -> tuple[str, ...] | None:
    """What differs in a comparison, a file that was moved by both its names."""
    listed = answer.get("files")
    if not isinstance(listed, list) or len(listed) >= _LISTED_FILES:
        return None
    moved = [one["previous_filename"] for one in listed if one["status"] == "renamed"]
    return tuple(printable(str(name)) for name in [*(one["filename"] for one in listed), *moved])


def _parse(body: bytes) -> dict[str, Any]:
    try:
        answer = outside_json.read_object(body)
    except ValueError as error:
        raise _unexpected(str(error)) from error
    files = answer.get("files")
    for one in files if isinstance(files, list) else []:
        if isinstance(one, dict):
            # Patches are most of a comparison, and nobody reads them in an answer that is kept.
            one.pop("patch", None)
    return answer


def _unexpected(why: str) -> RemoteUnavailableError:
    return RemoteUnavailableError("GitHub's API answers in a shape that is not its own", why=why)


def _message(body: bytes) -> str:
    """Why GitHub refuses, in its own words, on one line; empty where it does not say."""
    try:
        said = outside_json.read_object(body).get("message", "")
    except ValueError:
        return ""
    return " ".join(str(said).split())[:200]


def _refusal(url: str, status: int, headers: Mapping[str, str], message: str = "") -> BuilderError:
    if status == 404:  # noqa: PLR2004
        return RefNotFoundError(f"{url}: gone, or private")
    wait = web.retry_after(headers)
    if headers.get("X-RateLimit-Remaining") == "0":
        why = f"its rate limit is used up {_until(headers.get('X-RateLimit-Reset', ''))}"
    elif wait is not None:
        why = f"it asks to wait {wait:.0f} s"
    else:
        why = f"HTTP {status}{': ' * bool(message)}{message}"
    hint = "GITHUB_TOKEN in the environment raises the limit"
    if message:
        hint = "the token needs the permission for this: see README.md, your own nightly images"
    return RemoteUnavailableError(f"{url} refuses", why=why, hint=hint)


def _until(reset: str) -> str:
    """When a rate limit ends, by the seconds since 1970 that the server gives."""
    try:
        return time.strftime("until %H:%M UTC", time.gmtime(int(reset)))
    except (ValueError, OverflowError, OSError):
        return "for now"
