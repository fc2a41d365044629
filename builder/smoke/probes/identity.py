"""Is it the server that was started: its name, and the commit that it was built from."""

import re
from collections.abc import Iterator

from builder.git import commits
from builder.llama.client import OK, SHORT, Answer, Server, get
from builder.model.finding import Finding

PROBE = "identity"

_BUILD = re.compile(r"b\d+-([0-9a-f]{7,40})")


def identity(server: Server) -> Finding:
    """Whether /v1/models has the alias and no other name, and build_info in /props the commit.

    `b0-unknown` is what a build without its commit says: a fault when we know the commit. When we
    do not, a server that names none is not told from any other.
    """
    name, name_fault = _name(server)
    commit, commit_fault, open_ = _commit(server)
    faults = [fault for fault in (name_fault, commit_fault) if fault]
    known = f"; /props names commit {server.commit[:9]}" if server.commit else ""
    return Finding(
        PROBE,
        "fail" if faults else "unproven" if open_ else "pass",
        expected=f"/v1/models names {server.profile.alias} alone{known}",
        observed="; ".join(faults or [name, commit]),
    )


def _name(server: Server) -> tuple[str, str | None]:
    """What is said of the name, and what is wrong with it.

    Several aliases of a model are a sorted set: the first is its id, all are in `aliases` [ran on
    mainline 0c1e57098].
    """
    answer = get(server, "/v1/models")
    if answer.status != OK or not isinstance(answer.at("data", 0, "id"), str):
        return "", f"/v1/models: {answer}"
    names = [*dict.fromkeys(_names(answer))]
    said = f"it names {', '.join(names)[:SHORT]}"
    return said, None if names == [server.profile.alias] else said


def _names(answer: Answer) -> Iterator[str]:
    """The ids and aliases of all models."""
    models = answer.at("data")
    for index in range(len(models) if isinstance(models, list) else 0):
        yield str(answer.at("data", index, "id"))
        aliases = answer.at("data", index, "aliases")
        yield from map(str, aliases if isinstance(aliases, list) else ())


def _commit(server: Server) -> tuple[str, str | None, bool]:
    """What is said of the commit, what is wrong with it, and whether it is left open."""
    answer = get(server, "/props")
    said = _build_info(answer)
    named = _BUILD.fullmatch(str(answer.at("build_info")).lower()) if answer.status == OK else None
    if server.commit is None:
        return f"{said}, and nobody knows which commit it should be", None, named is None
    same = named is not None and commits.same(named[1], server.commit.lower())
    return said, None if same else said, False


def _build_info(answer: Answer) -> str:
    info = answer.at("build_info")
    if answer.status == OK and isinstance(info, str):
        return f"build_info {info:.60}"
    return "no build_info in /props" if answer.status == OK else f"/props: {answer}"
