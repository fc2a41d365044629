"""Commits by what they touch: pure, from their file names and subjects."""

import datetime
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

GroupName = Literal["kv-cuda", "server", "build", "upstream", "other", "docs"]

TITLES: dict[GroupName, str] = {
    "kv-cuda": "KV cache and CUDA kernels",
    "server": "server and API",
    "build": "build files",
    "upstream": "upstream merges",
    "other": "other code",
    "docs": "docs",
}
"""The groups, most dangerous first, and how people call them."""

# The first line that matches a file's path decides; `*` spans folders. What a CMakeLists.txt says
# is a build file wherever it lies, and a README is a text even in tools/server.
_FILES: list[tuple[str, GroupName]] = [
    ("*CMakeLists.txt", "build"),
    ("*.cmake", "build"),
    ("*.cmake.in", "build"),
    ("*CMakePresets.json", "build"),
    ("*Makefile", "build"),
    ("*Dockerfile", "build"),
    (".devops/*", "build"),
    (".github/*", "build"),
    ("cmake/*", "build"),
    ("*.nix", "build"),
    ("*.md", "docs"),
    ("docs/*", "docs"),
    ("LICENSE*", "docs"),
    ("AUTHORS", "docs"),
    ("tests/*", "other"),
    ("codebooks/*", "kv-cuda"),
    ("ggml/src/ggml-cuda/*", "kv-cuda"),
    ("ggml/src/ggml-hip/*", "kv-cuda"),
    ("ggml/src/ggml-quants*", "kv-cuda"),
    ("ggml/*turbo*", "kv-cuda"),
    ("src/llama-kv-cache*", "kv-cuda"),
    ("src/llama-memory*", "kv-cuda"),
    # The graph writes K and V to the cache, and the forks rotate them there.
    ("src/llama-graph.*", "kv-cuda"),
    ("tools/server/*", "server"),
    ("common/*", "server"),
    ("include/*", "server"),
    ("ggml/include/*", "server"),
]

_LINE = 300
"""Characters of a subject or a name that are shown."""

_FIX = re.compile(
    r"\b(bug\w*|corrupt\w*|crash\w*|fix(e[sd])?|garbage|hotfix|leaks?|regression|revert\w*)\b", re.I
)
_UPSTREAM = re.compile(r"\bupstream\b", re.I)
_MAINLINE = re.compile(r"\b(ggml-org|ggerganov)[/:](llama\.cpp|master)\b", re.I)
_PULL_REQUEST = re.compile(r"Merge pull request #\d+ ")
# Mainline's numbers passed 1,000 in April 2023; a fork's own requests have few digits.
_SQUASHED = re.compile(r"\(#\d{4,}\)$")


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit, and the files that differ from its first parent. `date` is RFC 3339."""

    commit: str
    parents: tuple[str, ...]
    date: str
    committer: str
    subject: str
    files: tuple[str, ...] = ()

    @property
    def fix(self) -> bool:
        """Whether its subject says that something was wrong before."""
        return _FIX.search(self.subject) is not None


@dataclass(frozen=True, slots=True)
class Group:
    """Commits whose most dangerous file is of one kind, newest first."""

    name: GroupName
    commits: tuple[Commit, ...]

    @property
    def title(self) -> str:
        """The kind, as people call it."""
        return TITLES[self.name]

    @property
    def fixes(self) -> tuple[Commit, ...]:
        """Those that say they repair something."""
        return tuple(one for one in self.commits if one.fix)


def printable(text: str) -> str:
    """What a stranger wrote, such as a subject: nothing in it may move a terminal's cursor."""
    return "".join(char if char.isprintable() else "�" for char in text)


def shown(text: str) -> str:
    """A stranger's line as it is shown: printable, and cut where it is longer than a line."""
    return printable(text if len(text) <= _LINE else f"{text[: _LINE - 1]}…")


def readable_date(text: str) -> str:
    """RFC 3339 as it is; "" for what a commit can state and no calendar has, as a year of 11476."""
    try:
        moment = datetime.datetime.fromisoformat(text)
        # What is at a calendar's end has no place in other time zones.
        moment.astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        return ""
    return text if moment.tzinfo else ""


def same(one: str, other: str) -> bool:
    """Whether two SHAs agree as far as both are written out."""
    return one.startswith(other) or other.startswith(one)


def group_of(file: str) -> GroupName:
    """What kind of file this is, by its path in a llama.cpp tree."""
    return next((name for pattern, name in _FILES if fnmatchcase(file, pattern)), "other")


def grouped(commits: list[Commit], upstream: set[str]) -> tuple[Group, ...]:
    """The commits by their most dangerous file; groups without any are left out.

    `upstream` names those that merge mainline: one step each, whatever they touch.
    """
    order = list(TITLES)
    members: dict[GroupName, list[Commit]] = {name: [] for name in order}
    for one in commits:
        kinds = {group_of(file) for file in one.files} or {"other"}
        name = "upstream" if one.commit in upstream else min(kinds, key=order.index)
        members[name].append(one)
    return tuple(Group(name, tuple(members[name])) for name in order if members[name])


def merges_upstream(merge: Commit, tip: Commit | None) -> bool:
    """Whether a merge brought mainline into a fork; `tip` is what it merged, its second parent.

    By the merge's subject, or because the tip is a commit as mainline's own branch has them:
    squashed on GitHub's site, its number at the end of the subject.
    """
    if len(merge.parents) < 2:  # noqa: PLR2004
        return False
    if _MAINLINE.search(merge.subject):
        return True
    # A branch named "fix-upstream-bug" is somebody's pull request, not mainline.
    if _UPSTREAM.search(merge.subject) and not _PULL_REQUEST.match(merge.subject):
        return True
    return tip is not None and tip.committer == "GitHub" and bool(_SQUASHED.search(tip.subject))


def touching(files: Iterable[str], patterns: list[str]) -> dict[str, tuple[str, ...]]:
    """The files, each once, under each pattern that is met; `*` spans folders."""
    known = sorted(set(files))
    found = {pattern: tuple(f for f in known if fnmatchcase(f, pattern)) for pattern in patterns}
    return {pattern: met for pattern, met in found.items() if met}
