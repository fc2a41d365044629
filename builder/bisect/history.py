"""The commits that a bisect goes through, and what they change: what it asks git."""

from collections.abc import Iterator
from contextlib import contextmanager

from builder.common.errors import UsageError
from builder.common.locks import locked
from builder.common.progress import Progress
from builder.git import remote as git
from builder.git.cache import anew
from builder.git.commits import Commit


def resolve(remote: git.Remote, refs: list[str], progress: Progress) -> list[str]:
    """The full SHAs of refs. Raises RemoteUnavailableError, RefNotFoundError."""
    with _alone(remote, progress):
        return [git.resolve(remote, ref, progress) for ref in refs]


@anew
def line(remote: git.Remote, good: str, bad: str, progress: Progress) -> list[Commit]:
    """What led from the good commit to the bad one, oldest first, a merge as one step.

    Raises UsageError when the good one is no ancestor, RemoteUnavailableError, RefNotFoundError.
    """
    with _history(remote, progress) as history:
        for commit in (good, bad):
            history.bring(commit, progress)
        if good == bad or not history.is_ancestor(good, bad):
            raise _no_way(history, good, bad)
        return history.between(good, bad)[::-1]


@anew
def inside(remote: git.Remote, merge: Commit, progress: Progress) -> list[Commit]:
    """The commits that a merge of two brought, along their own first parents, oldest first."""
    with _history(remote, progress) as history:
        return history.between(*merge.parents)[::-1]


def stat(remote: git.Remote, old: str, new: str, progress: Progress) -> str:
    """`git diff --stat` of two commits. Raises RemoteUnavailableError, RefNotFoundError."""
    with locked(remote.cache("checkout"), f"another build of fork {remote.fork}", progress):
        return git.diff_stat(remote, old, new, progress)


def _no_way(history: git.History, good: str, bad: str) -> UsageError:
    where = f"--good {good[:9]}, --bad {bad[:9]}"
    if good == bad:
        return UsageError(f"{where}: the same commit")
    if history.is_ancestor(bad, good):
        return UsageError(f"{where}: the bad one is the older", hint="exchange them")
    return UsageError(
        f"{where}: the good commit is no ancestor of the bad one",
        hint=f"`git merge-base {good[:9]} {bad[:9]}` names one that is",
    )


@contextmanager
def _history(remote: git.Remote, progress: Progress) -> Iterator[git.History]:
    with _alone(remote, progress):
        yield git.history(remote, progress)


@contextmanager
def _alone(remote: git.Remote, progress: Progress) -> Iterator[None]:
    with locked(remote.cache("history"), f"another look-up of fork {remote.fork}", progress):
        yield
