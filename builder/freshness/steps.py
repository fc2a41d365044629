"""A branch's steps since a pin by GitHub's comparisons: quicker than a history that is not here."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from builder.common.errors import BuilderError
from builder.common.progress import Progress
from builder.git.commits import Commit, merges_upstream
from builder.git.github import Github

_AT_ONCE = 8
"""Of a hundred that GitHub allows in all; several forks are asked about side by side."""
_PATIENCE_S = 10.0
"""For the files of all steps; what takes longer is left to the history."""


@dataclass(frozen=True, slots=True)
class Steps:
    """A branch's own steps since a pin, newest first, each with its files, as `git.Branch.steps`.

    `behind` counts all that the head has and the pin has not; `upstream` names the merges of
    mainline.
    """

    behind: int
    steps: list[Commit]
    upstream: set[str]


def most(host: Github, forks: int) -> int:
    """For how many steps of each fork GitHub is asked: each costs a request of its quota.

    An hour has 60 without a token, and 1,000 with a job's own:
    https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api
    """
    return 100 if host.token else 30 // forks


def steps(
    host: Github, name: str, pin: str, head: str, limit: int, progress: Progress
) -> Steps | None:
    """The steps of the repository `name` (owner/name) from the pin to the head, both full SHAs.

    None when GitHub does not tell all of them, and when the pin is no part of the head: whether it
    is anywhere else, the history tells.
    """
    progress.step(f"ask GitHub how far {name} has moved")
    try:
        told = host.compare(name, pin, head)
        listed = {one.commit: one for one in told.commits or ()}
        found = _first_parents(listed, head)
        if told.lost or not 0 < len(found) <= limit or not _whole(listed, found):
            return None
        plural = "s" * (len(found) != 1)
        progress.step(f"ask GitHub for the files of {len(found)} step{plural} of {name}")
        found = _with_files(host, name, found)
    except (BuilderError, TimeoutError):
        return None
    merged = {one.commit for one in found if merges_upstream(one, _tip(listed, one))}
    return Steps(told.ahead, found, merged)


def _first_parents(listed: dict[str, Commit], head: str) -> list[Commit]:
    """The head and its first parents, as far as they are listed, without files."""
    rest, found = dict(listed), []
    one = rest.pop(head, None)
    while one is not None:
        found.append(one)
        one = rest.pop(one.parents[0], None) if one.parents else None
    return found


def _whole(listed: dict[str, Commit], found: list[Commit]) -> bool:
    """Whether each step has a parent to differ from, and each merge's tip is listed too."""
    return all(one.parents and (len(one.parents) == 1 or _tip(listed, one)) for one in found)


def _tip(listed: dict[str, Commit], merge: Commit) -> Commit | None:
    return listed.get(merge.parents[1]) if len(merge.parents) > 1 else None


def _with_files(host: Github, name: str, found: list[Commit]) -> list[Commit]:
    """The steps with their files. Raises BuilderError, TimeoutError."""

    def asked(one: Commit) -> Commit:
        return replace(one, files=host.changed(name, one.parents[0], one.commit))

    workers = ThreadPoolExecutor(max_workers=_AT_ONCE)
    try:
        return list(workers.map(asked, found, timeout=_PATIENCE_S))
    finally:
        workers.shutdown(wait=False, cancel_futures=True)
