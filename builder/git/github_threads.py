"""Issues and pull requests of one repository: found again, and written over, never doubled.

Shapes: https://docs.github.com/rest/issues/issues and https://docs.github.com/rest/pulls/pulls
"""

from dataclasses import dataclass
from typing import Any

from builder.common.errors import RemoteUnavailableError
from builder.common.redaction import redacted
from builder.git.github import Github

LABEL = "builder-nightly"
"""On every issue that is written here; GitHub makes it when it is first used."""

LONGEST = 65_536
"""Characters that the text of an issue or a pull request may have."""


@dataclass(frozen=True, slots=True)
class Thread:
    """An issue or a pull request. `page` is its address for people."""

    number: int
    page: str
    open: bool


@dataclass(frozen=True, slots=True)
class Threads:
    """Those of `repository`, owner/name. All raise RefNotFoundError, RemoteUnavailableError."""

    host: Github
    repository: str

    def issue(self, mark: str) -> Thread | None:
        """The oldest of our issues with this mark in its text, open or closed."""
        query = {
            "labels": LABEL,
            "state": "all",
            "sort": "created",
            "direction": "asc",
            "per_page": "100",
        }
        listed = self.host.send("GET", f"/repos/{self.repository}/issues", params=query)
        for one in _list(listed):
            # GitHub lists pull requests as issues too.
            if mark in str(one.get("body") or "") and "pull_request" not in one:
                return _thread(one)
        return None

    def open_issue(self, title: str, text: str) -> Thread:
        """A new issue."""
        content = {"title": title, "body": _fitted(text), "labels": [LABEL]}
        return _thread(self.host.send("POST", f"/repos/{self.repository}/issues", content=content))

    def write_issue(self, number: int, title: str, text: str, *, closed: bool) -> Thread:
        """An issue with another title and text; opened again if it was closed and should not be."""
        state = "closed" if closed else "open"
        content = {"title": title, "body": _fitted(text), "state": state}
        path = f"/repos/{self.repository}/issues/{number}"
        return _thread(self.host.send("PATCH", path, content=content))

    def default_branch(self) -> str:
        """The branch that pull requests go to."""
        return self.host.page(self.repository).default_branch

    def pull(self, branch: str) -> Thread | None:
        """The open pull request of this branch."""
        owner = self.repository.partition("/")[0]
        query = {"head": f"{owner}:{branch}", "state": "open"}
        listed = self.host.send("GET", f"/repos/{self.repository}/pulls", params=query)
        return next((_thread(one) for one in _list(listed)), None)

    def open_pull(self, branch: str, base: str, title: str, text: str) -> Thread:
        """A new pull request."""
        content = {"head": branch, "base": base, "title": title, "body": _fitted(text)}
        return _thread(self.host.send("POST", f"/repos/{self.repository}/pulls", content=content))

    def write_pull(self, number: int, title: str, text: str) -> Thread:
        """A pull request with another title and text."""
        content = {"title": title, "body": _fitted(text)}
        path = f"/repos/{self.repository}/pulls/{number}"
        return _thread(self.host.send("PATCH", path, content=content))


def _fitted(text: str) -> str:
    """As much of the text as GitHub takes, without any login."""
    text = redacted(text)
    cut = "\n\n… the rest is longer than GitHub takes\n"
    return text if len(text) <= LONGEST else text[: LONGEST - len(cut)] + cut


def _list(answer: object) -> list[dict[str, Any]]:
    if not isinstance(answer, list):
        raise _odd("no list")
    return [one for one in answer if isinstance(one, dict)]


def _thread(answer: object) -> Thread:
    if not isinstance(answer, dict):
        raise _odd("no object")
    try:
        return Thread(int(answer["number"]), str(answer["html_url"]), answer["state"] == "open")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _odd(repr(error)) from error


def _odd(why: str) -> RemoteUnavailableError:
    return RemoteUnavailableError("GitHub's API answers in a shape that is not its own", why=why)
