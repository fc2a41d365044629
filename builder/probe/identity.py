"""Is it the server that was started: its name, and the commit that it was built from."""

import re

from builder.probe.finding import Finding, verdict
from builder.probe.server import OK, Answer, Server, get

PROBE = "identity"

_BUILD = re.compile(r"b\d+-([0-9a-f]{7,40})")


def identity(server: Server) -> Finding:
    """Whether the first id in /v1/models is the alias, and build_info in /props names the commit.

    Several aliases are a sorted set, so the first id is the alphabetically first. `b0-unknown` is
    what a build without its commit says: a fault when we know the commit.
    """
    name, name_fault = _name(server)
    commit, commit_fault = _commit(server)
    faults = [fault for fault in (name_fault, commit_fault) if fault]
    known = f"; /props names commit {server.commit[:9]}" if server.commit else ""
    return verdict(
        PROBE,
        holds=not faults,
        expected=f"/v1/models names {server.profile.alias}{known}",
        observed="; ".join(faults or [name, commit]),
    )


def _name(server: Server) -> tuple[str, str | None]:
    """What is said of the name, and what is wrong with it."""
    answer = get(server, "/v1/models")
    name = answer.at("data", 0, "id")
    if answer.status != OK or not isinstance(name, str):
        return "", f"/v1/models: {answer}"
    said = f"it names {name}"
    return said, None if name == server.profile.alias else said


def _commit(server: Server) -> tuple[str, str | None]:
    """What is said of the commit, and what is wrong with it."""
    answer = get(server, "/props")
    said = _build_info(answer)
    if server.commit is None:
        return f"{said}, and nobody knows which commit it should be", None
    found = _BUILD.fullmatch(str(answer.at("build_info")).lower())
    same = found is not None and _same(found[1], server.commit.lower())
    return said, None if answer.status == OK and same else said


def _build_info(answer: Answer) -> str:
    info = answer.at("build_info")
    if answer.status == OK and isinstance(info, str):
        return f"build_info {info:.60}"
    return "no build_info in /props" if answer.status == OK else f"/props: {answer}"


def _same(one: str, other: str) -> bool:
    """Whether two commits agree as far as both are written out."""
    return one.startswith(other) or other.startswith(one)
