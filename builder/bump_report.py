"""What a bump did, as a value and as the formats that people and machines read."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal

from builder.commits import Commit
from builder.markdown import code as _code
from builder.markdown import link as _link
from builder.markdown import web as _web
from builder.model import Receipt
from builder.pins_edit import Pin

UNPROVEN = "nothing was built or served at this commit: `--build --smoke` prove a move"

_LISTED = 100  # GitHub takes 65,536 characters for the text of a pull request


@dataclass(frozen=True, slots=True)
class Proof:
    """What was passed at the new commit: one variant's receipt, and the lines of the verdicts.

    `earlier` is the newest receipt of the same variant at the old commit, if it was built here.
    """

    variant: str
    receipt: Receipt
    earlier: Receipt | None
    audit: str
    smoke: str


@dataclass(frozen=True, slots=True)
class BumpReport:
    """A move of one fork's pin. `old` is None for a fork that was not pinned.

    `written` says whether files were changed, `diff` is what changes in them. `overruled` are the
    reasons against the move that `--force` put aside. `commits` are those that the new pin has and
    the old one lacks, `left_out` the other way round, each newest first, a merge as one; both are
    empty when the old commit is known no more.
    """

    fork: str
    url: str
    branch: str
    old: Pin | None
    new: Pin
    verdict: Literal["unchanged", "unproven", "proven"]
    overruled: list[str]
    commits: list[Commit]
    left_out: list[Commit]
    proof: Proof | None
    diff: str
    written: bool
    schema: int = 1

    @property
    def headline(self) -> str:
        """The move in one line."""
        if self.verdict == "unchanged":
            return f"{self.fork} stays at {_long(self.new)}: nothing to change"
        old = _long(self.old) if self.old else "unpinned"
        return f"{self.fork}: {old} → {_long(self.new)}, {self.verdict}"


def to_json(report: BumpReport) -> str:
    """The report as indented JSON; dates are RFC 3339 in UTC."""
    return json.dumps(asdict(report), indent=2, default=_rfc3339)


def to_text(report: BumpReport) -> str:
    """The report for a terminal."""
    lines = [report.headline]
    if report.verdict == "unchanged":
        return lines[0]
    lines += [f"  forced although {reason}" for reason in report.overruled]
    lines += [f"  {_counted(report.commits)} in, {_counted(report.left_out)} out (a merge as one)"]
    if report.proof:
        lines += [f"  audit  {report.proof.audit}", f"  smoke  {report.proof.smoke}"]
    else:
        lines += [f"  unproven: {UNPROVEN}"]
    return "\n".join([*lines, "" if report.written else "  nothing was written"]).rstrip()


def to_markdown(report: BumpReport) -> str:
    """The report as the text of a pull request."""
    web = _web(report.url)
    lines = [f"### {report.headline}", "", *_table(report, web), ""]
    lines += [f"**Forced** although {reason}." for reason in report.overruled]
    if report.proof:
        lines += [
            f"**Proven** on `{report.proof.variant}`:",
            "",
            f"- build: {_code(report.proof.receipt.image_id)}",
            f"- audit: {_code(report.proof.audit)}",
            f"- smoke: {_code(report.proof.smoke)}",
        ]
    else:
        lines += [f"**Unproven**: {UNPROVEN}."]
    if report.old and web:
        address = f"{web}/compare/{report.old.commit}...{report.new.commit}"
        lines += ["", f"[Compare the two commits]({address})"]
    lines += _listing("in the new pin", report.commits, web)
    lines += _listing("**no longer** in it", report.left_out, web)
    return "\n".join([*lines, ""])


def _table(report: BumpReport, web: str | None) -> list[str]:
    old, new, proof = report.old, report.new, report.proof
    rows = [
        ("commit", _link(old.commit, web) if old else "none", _link(new.commit, web)),
        ("build number", _number(old), _number(new)),
        ("date", _rfc3339(old.date) if old else "–", _rfc3339(new.date)),
    ]
    if proof:
        rows += zip(
            ("image", "compressed", "build time"),
            _figures(proof.earlier),
            _figures(proof.receipt),
            strict=True,
        )
    return ["| | before | after |", "|---|---|---|", *(f"| {a} | {b} | {c} |" for a, b, c in rows)]


def _figures(receipt: Receipt | None) -> tuple[str, str, str]:
    if receipt is None:
        return ("no receipt",) * 3
    return (
        f"{receipt.size_bytes / 1e6:.0f} MB",
        f"{receipt.compressed_bytes / 1e6:.0f} MB",
        f"{receipt.duration_s:.0f} s",
    )


def _listing(what: str, commits: list[Commit], web: str | None) -> list[str]:
    if not commits:
        return []
    shown = [
        f"- {_link(c.commit, web)} {c.date[:10]} {_code(c.subject)}" for c in commits[:_LISTED]
    ]
    more = len(commits) - len(shown)
    tail = [f"- … and {more} older ones"] if more else []
    return ["", f"{_counted(commits)} {what} (a merge as one):", "", *shown, *tail]


def _counted(commits: list[Commit]) -> str:
    return f"{len(commits)} commit{'' if len(commits) == 1 else 's'}"


def _long(pin: Pin) -> str:
    return f"{pin.commit[:9]} (build {_number(pin)}, {_rfc3339(pin.date)[:10]})"


def _number(pin: Pin | None) -> str:
    return str(pin.build_number) if pin and pin.build_number else "–"


def _rfc3339(date: datetime) -> str:
    return date.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
