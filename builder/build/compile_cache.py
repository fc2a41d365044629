"""Which ccache a build has: one for each fork and purpose, as a fork's code can write into its own.

What is compiled runs the fork's build code, with its ccache at hand to write to. The compilations
in it are therefore believed no more than the commits that wrote them: a pinned commit reads what
the same commit wrote, and nothing else.
"""

import hashlib
import json
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from builder.common import paths
from builder.common.files import write_atomically
from builder.common.locks import locked
from builder.common.progress import Silent
from builder.model.pins import BaseImage

Purpose = Literal["pin", "commits", "bisect", "disk"]
"""`pin`: one commit, from git or an archive whose digest is pinned; nothing else writes there.
`commits`: those of a fork that were built well, each after the others. `bisect`: those that are
judged and never kept. `disk`: one folder or archive of --source.
"""

PREFIX = "turboquant-ccache"
_NAME = re.compile(PREFIX + r"-[A-Za-z0-9._-]+")
_KEY_LENGTH = 8


@dataclass(frozen=True, slots=True)
class CompileCache:
    """A fork's ccache for one purpose. `commit` is what is compiled; `name` holds no path."""

    name: str
    purpose: Purpose
    commit: str


def choose(
    fork: str, url: str | None, purpose: Purpose, commit: str, origin: str, devel: BaseImage
) -> CompileCache:
    """The cache for a tree of a fork, `origin` in the words of `source.Tree`.

    The devel image is part of the name: its compiler, too, writes what the next build reads.
    """
    which = {
        "pin": commit,
        "commits": _key(url or ""),
        "bisect": _key(url or ""),
        "disk": _key(origin),
    }[purpose]
    image = devel.reference if devel.origin == "bootstrap" else devel.digest
    return CompileCache(f"{PREFIX}-{fork}-{_key(image)}-{purpose}-{which}", purpose, commit)


def is_name(text: str) -> bool:
    """Whether a folder of this name holds a `CompileCache`."""
    return bool(_NAME.fullmatch(text))


def mount_id(cache: CompileCache, *, anew: bool) -> str:
    """The engine's cache mount for a build, written down as open until `settle` is told of it.

    `anew`: a mount of this commit's own, which BuildKit empties. A cache of several commits that
    another commit left open is not had: a new mount takes its place. Raises OSError.
    """
    if anew:
        return f"{cache.name}-{cache.commit}-anew"
    if cache.purpose != "commits":
        return cache.name
    file = _ledger(cache)
    with locked(file, "another build of the fork", Silent()):
        token, writer = _read(file)
        if writer not in {None, cache.commit}:
            token = ""
        token = token or secrets.token_hex(4)
        _write(file, token, cache.commit)
    return f"{cache.name}-{token}"


def settle(cache: CompileCache) -> None:
    """The commit is a good one: the next may read what it compiled. Raises OSError."""
    file = _ledger(cache)
    if cache.purpose != "commits" or not file.exists():
        return
    with locked(file, "another build of the fork", Silent()):
        token, writer = _read(file)
        if token and writer == cache.commit:
            _write(file, token, None)


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_KEY_LENGTH]


def _ledger(cache: CompileCache) -> Path:
    return paths.cache() / "ccache" / f"{cache.name}.json"


def _read(file: Path) -> tuple[str, str | None]:
    """The mount's own word, and the commit that has it open; "" where nothing usable is there."""
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        return str(kept["token"]), kept["open"]
    except (OSError, ValueError, KeyError, TypeError):
        return "", None


def _write(file: Path, token: str, writer: str | None) -> None:
    write_atomically(file, json.dumps({"token": token, "open": writer}) + "\n")
