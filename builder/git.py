"""Git remotes, and a local cache of what they hold. The only importer of GitPython.

Two bare repositories a fork: `trees` holds single commits with their files, `history` commits
without files (`--filter=tree:0`), which is enough to expand a short SHA and to count.
"""

import hashlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from builder import paths
from builder.errors import EngineError, RefNotFoundError, RemoteUnavailableError
from builder.pins_problems import suggestion
from builder.progress import Progress

if TYPE_CHECKING:
    from git import Repo
    from git.cmd import Git

_FULL = re.compile(r"[0-9a-f]{40}")
_SHORT = re.compile(r"[0-9a-f]{7,39}")
_REDIRECT = re.compile(r"warning: redirecting to (\S+)")
_REFUSED = re.compile(
    r"unadvertised object|not our ref|no such remote ref|couldn't find remote ref"
)

# A remote that asks for a password or sends nothing for 30 s is a remote that does not answer.
_ENVIRONMENT = {"GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": "ssh -oBatchMode=yes"}
_PATIENCE = {"http.lowSpeedLimit": "1000", "http.lowSpeedTime": "30"}


# GitPython fails on import where git is missing; `require` says so in words.
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")


@dataclass(frozen=True, slots=True)
class Remote:
    """A fork's repository; `url` may be a mirror's by git's own `url.<base>.insteadOf`."""

    fork: str
    url: str

    def cache(self, kind: str) -> Path:
        """The folder of one of the fork's local repositories."""
        key = hashlib.sha256(self.url.encode()).hexdigest()[:8]
        return paths.cache() / "git" / f"{self.fork}-{key}" / kind


def require() -> None:
    """Raises EngineError when git is not installed."""
    if shutil.which("git") is None:
        raise EngineError(
            "git is not installed", hint="`builder doctor --fix`, or `apt-get install git`"
        )


def resolve(remote: Remote, ref: str, progress: Progress) -> str:
    """The full SHA of a branch, tag, short or full SHA.

    A full SHA asks nobody; a branch or tag costs one `ls-remote`; a short SHA needs the history.
    Raises RemoteUnavailableError, RefNotFoundError.
    """
    if _FULL.fullmatch(ref):
        return ref
    progress.step(f"resolve {ref} at {remote.url}")
    names = _ls_remote(remote, progress)
    for name in (ref, f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}", f"refs/heads/{ref}"):
        if name in names:
            return names[name]
    if _SHORT.fullmatch(ref):
        return _expand(remote, ref, progress)
    shown = (name for name in names if not name.startswith("refs/pull/"))
    known = [name.removeprefix("refs/heads/").removeprefix("refs/tags/") for name in shown]
    raise RefNotFoundError(
        f"{remote.url} has no branch, tag or commit {ref!r}",
        hint=suggestion(ref, known),
    )


def build_number(remote: Remote, commit: str, progress: Progress) -> int | None:
    """`git rev-list --count`, llama.cpp's build number; None when the remote does not tell."""
    from git.exc import GitCommandError

    try:
        return int(_history(remote, progress).git.rev_list("--count", commit))
    except (RemoteUnavailableError, GitCommandError):
        return None


def checkout(remote: Remote, commit: str, progress: Progress) -> tuple[Path, str]:
    """The commit's files in the fork's one work tree, and the commit's date (RFC 3339, UTC).

    Only files that differ are rewritten, so that a rebuild sends BuildKit only those. The caller
    holds the fork's lock for as long as it reads the tree.
    """
    repository = _repository(remote, "trees")
    if not _has(repository, commit):
        progress.step(f"fetch {commit[:9]} from {remote.url}")
        _fetch_commit(repository, remote, commit, progress)
    tree = remote.cache("checkout")
    tree.mkdir(exist_ok=True)
    git = repository.git
    git.update_environment(GIT_DIR=str(repository.git_dir), GIT_WORK_TREE=str(tree))
    git.checkout("--force", "--detach", commit)
    git.clean("-ffdxq")
    return tree, commit_date(repository, commit)


def commit_date(repository: "Repo", commit: str) -> str:
    """The commit's date as RFC 3339 in UTC."""
    return str(
        repository.git.show(
            "-s",
            "--format=%cd",
            "--date=format-local:%Y-%m-%dT%H:%M:%SZ",
            commit,
            env={"TZ": "UTC"},
        )
    )


def head(tree: Path) -> str | None:
    """The commit that a work tree on disk says it is, or None when it is no git work tree."""
    from git import Repo
    from git.exc import GitError

    if not (tree / ".git").is_dir():
        return None
    try:
        return str(Repo(tree).head.commit.hexsha)
    except (GitError, ValueError):
        return None


def _repository(remote: Remote, kind: str) -> "Repo":
    from git import Repo

    folder = remote.cache(kind)
    repository = Repo(folder) if folder.exists() else Repo.init(folder, mkdir=True, bare=True)
    repository.git.update_environment(**_ENVIRONMENT)
    with repository.config_writer() as config:
        config.set_value("core", "autocrlf", "false")
        config.set_value('remote "origin"', "url", remote.url)
        for name, value in _PATIENCE.items():
            config.set_value(*name.split("."), value)
    return repository


def _has(repository: "Repo", commit: str) -> bool:
    from git.exc import GitCommandError

    try:
        repository.git.cat_file("-e", f"{commit}^{{commit}}")
    except GitCommandError:
        return False
    return True


def _fetch_commit(repository: "Repo", remote: Remote, commit: str, progress: Progress) -> None:
    try:
        _fetch(repository, remote, ["--depth=1", "origin", commit], progress)
    except RefNotFoundError:
        progress.warn(f"{remote.url} does not give out {commit[:9]} alone: fetching its branches")
    else:
        return
    _fetch(repository, remote, ["--refetch", "origin", "+refs/*:refs/remotes/origin/*"], progress)
    if not _has(repository, commit):
        raise RefNotFoundError(
            f"{remote.url} has no commit {commit}",
            why="it is on none of the branches and tags; a force-push may have dropped it",
            hint="`--ref BRANCH` builds what the branch holds now",
        )


def _history(remote: Remote, progress: Progress) -> "Repo":
    repository = _repository(remote, "history")
    progress.step(f"fetch the history of {remote.url}")
    arguments = ["--filter=tree:0", "origin", "+refs/heads/*:refs/remotes/origin/*"]
    _fetch(repository, remote, arguments, progress)
    return repository


def _expand(remote: Remote, short: str, progress: Progress) -> str:
    from git.exc import GitCommandError

    repository = _history(remote, progress)
    try:
        return str(repository.git.rev_parse("--verify", f"{short}^{{commit}}"))
    except GitCommandError as error:
        ambiguous = "ambiguous" in str(error)
        raise RefNotFoundError(
            f"{remote.url}: {short} is {'ambiguous' if ambiguous else 'on none of its branches'}",
            hint="give all 40 digits",
        ) from error


def _fetch(repository: "Repo", remote: Remote, arguments: list[str], progress: Progress) -> None:
    words = ["fetch", "--no-tags", "--no-write-fetch-head", *arguments]
    _ask(repository.git, remote, words, progress)


def _ls_remote(remote: Remote, progress: Progress) -> dict[str, str]:
    from git.cmd import Git

    git = Git()
    git.update_environment(**_ENVIRONMENT)
    output = _ask(git, remote, ["ls-remote", remote.url], progress)
    pairs = (line.split("\t") for line in output.splitlines())
    return {name: commit for commit, name in pairs}


def _ask(git: "Git", remote: Remote, words: list[str], progress: Progress) -> str:
    """What git printed after talking to the remote."""
    from git.exc import GitCommandError

    try:
        answer = git.execute(["git", *words], with_extended_output=True, env=git.environment())
    except GitCommandError as error:
        raise _failure(remote, str(error.stderr)) from error
    _, output, stderr = answer
    _tell_redirect(remote, stderr, progress)
    return output


def _tell_redirect(remote: Remote, stderr: str, progress: Progress) -> None:
    found = _REDIRECT.search(stderr)
    if found:
        progress.warn(
            f"{remote.url} has moved to {found[1].rstrip('/')}: "
            f"write that into pins.toml, forks.{remote.fork}.url"
        )


def _failure(remote: Remote, stderr: str) -> RemoteUnavailableError | RefNotFoundError:
    text = stderr.strip().removeprefix("stderr: '").rstrip("'").strip()
    why = "\n".join(line for line in text.splitlines() if line.strip())[-1000:]
    if _REFUSED.search(text):
        return RefNotFoundError(f"{remote.url} does not give out that commit", why=why)
    return RemoteUnavailableError(
        f"{remote.url} does not answer as a git repository",
        why=why,
        hint=f"try `git ls-remote {remote.url}`; `--source DIR` builds a tree from disk",
    )
