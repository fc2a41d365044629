"""Branches that builder writes on the remote of a checkout; nobody's work tree is touched."""

import base64
import re
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from builder.common.errors import RemoteUnavailableError
from builder.common.progress import Progress
from builder.git import remote as git
from builder.git.github import Github

NAME = "builder nightly"
ADDRESS = "nightly@builder.invalid"
"""Who commits: no person's address, and none that a host gives to somebody."""

_REACHES = re.compile(
    r"(credential|http|ssh|url)\.|core\.(gitproxy|sshcommand)$|remote\.origin\.(url|pushurl|proxy)"
)
"""The settings of a checkout by which its remote is reached."""
_LOGIN = re.compile(r"authorization\s*:", re.I)

IDENTITY = {
    "GIT_AUTHOR_NAME": NAME,
    "GIT_AUTHOR_EMAIL": ADDRESS,
    "GIT_COMMITTER_NAME": NAME,
    "GIT_COMMITTER_EMAIL": ADDRESS,
}


class NotOursError(RemoteUnavailableError):
    """The branch holds a commit of somebody else's, and was left as it is."""


@dataclass(frozen=True, slots=True)
class Checkout:
    """A git work tree with a remote `origin`. `host`: whose token it is pushed with, if any."""

    root: Path
    host: Github

    @property
    def origin(self) -> str | None:
        """The remote's address; None when there is none."""
        with suppress(git.CommandError):
            return self._git("remote", "get-url", "origin")
        return None

    def write(
        self,
        branch: str,
        base: str,
        message: str,
        date: str,
        edit: Callable[[Path], bool],
        progress: Progress,
    ) -> str | None:
        """Make `branch` one commit on top of the remote's `base`, as `edit` changes its tree.

        The same edit of the same base is the same commit, by `date` (RFC 3339). Returns it; None
        when `edit` says that there is nothing to change. Raises NotOursError,
        RemoteUnavailableError.
        """
        progress.step(f"push {branch}")
        try:
            # In a repository of its own: the checkout stays as it is.
            with tempfile.TemporaryDirectory(prefix="turboquant-builder-") as scratch:
                tree = Path(scratch) / "tree"
                self._apart(Path(scratch), "init", "--quiet", "--template=", str(tree))
                kept = f"refs/builder/{base}"
                wanted = f"+refs/heads/{base}:{kept}"
                self._apart(tree, "fetch", "--no-tags", "--depth=1", "origin", wanted)
                self._apart(tree, "checkout", "--quiet", "--detach", kept)
                return self._push(tree, branch, message, date) if edit(tree) else None
        except git.CommandError as error:
            raise failed(f"{branch} could not be pushed to {self.origin}", error) from error

    def _push(self, tree: Path, branch: str, message: str, date: str) -> str:
        dates = {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
        self._apart(tree, "add", "--all")
        self._apart(tree, "commit", "--quiet", "--no-verify", "-m", message, more=dates)
        made = self._apart(tree, "rev-parse", "HEAD")
        listed = self._apart(tree, "ls-remote", "origin", f"refs/heads/{branch}")
        there = listed.partition("\t")[0]
        if there == made:
            return made
        if there:
            self._check_ours(tree, branch, there)
        lease = f"--force-with-lease=refs/heads/{branch}:{there}"
        self._apart(tree, "push", "--quiet", lease, "origin", f"{made}:refs/heads/{branch}")
        return made

    def _check_ours(self, tree: Path, branch: str, there: str) -> None:
        self._apart(tree, "fetch", "--no-tags", "--depth=1", "origin", there)
        who = self._apart(tree, "show", "--no-patch", "--no-show-signature", "--format=%ce", there)
        if who != ADDRESS:
            raise NotOursError(
                f"the branch {branch} holds a commit of {who}: it was left as it is",
                hint="merge its pull request, or delete the branch",
            )

    def _git(self, *words: str, at: Path | None = None, more: dict[str, str] | None = None) -> str:
        environment = {**IDENTITY, **signed(self.host), **(more or {})}
        return git.command(at or self.root, words, environment)

    def _apart(self, tree: Path, *words: str, more: dict[str, str] | None = None) -> str:
        """What git says in a repository that has no remote of its own."""
        environment = {**IDENTITY, **signed(self.host), **(more or {})}
        return git.command(tree, words, environment, self.reached())

    def reached(self) -> list[tuple[str, str]]:
        """How the checkout reaches its remote: another repository of ours reaches it so too."""
        words = ("config", "--local", "--includes", "--list", "-z")
        listed = git.output(self.root, words, {}).decode(errors="replace").split("\0")
        found = [(key, value) for key, _, value in (one.partition("\n") for one in listed)]
        places = {"remote.origin.url", "remote.origin.pushurl"}
        return [
            (key, self._absolute(value) if key in places else value)
            for key, value in found
            # Two logins in one question are refused: GitHub's own checkout leaves one here.
            if _REACHES.match(key) and not (self.host.token and _LOGIN.match(value))
        ]

    def _absolute(self, url: str) -> str:
        """A path is of the checkout's folder."""
        local = ":" not in url.partition("/")[0] and (self.root / url).exists()
        return str(self.root / url) if local else url


def failed(what: str, error: git.CommandError) -> RemoteUnavailableError:
    """The error of a command that asked the remote."""
    hint = "a push needs the permission contents: write; then run it again"
    return RemoteUnavailableError(what, why=error.why, hint=hint)


def signed(host: Github) -> dict[str, str]:
    """The environment in which git shows the host's token to its site, and to no other.

    Not an argument: those stand in the list of processes.
    """
    if host.token is None:
        return {}
    word = base64.b64encode(f"x-access-token:{host.token}".encode()).decode()
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"http.{host.server.rstrip('/')}/.extraHeader",
        "GIT_CONFIG_VALUE_0": f"Authorization: Basic {word}",
    }
