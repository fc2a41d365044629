"""What a bump did, as a value and as the formats that people and machines read."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal

from builder.common.errors import RemoteUnavailableError
from builder.common.markdown import code as _code
from builder.common.markdown import link as _link
from builder.common.markdown import text as _text
from builder.common.markdown import web as _web
from builder.git.commits import Commit, Group
from builder.model.pins import Receipt
from builder.pins.edit import Pin
from builder.smoke.history import Smoked

UNPROVEN = "nothing was built or served at this commit: `--build --smoke` prove a move"

_LISTED = 100  # GitHub takes 65,536 characters for the text of a pull request


@dataclass(frozen=True, slots=True)
class Proof:
    """What was passed at the new commit: one variant's receipt, and the lines of the verdicts.

    `earlier` is the newest receipt of the same variant at the old commit, if it was built here, and
    `earlier_smoked` what a bump's smoke measured there.
    """

    variant: str
    receipt: Receipt
    earlier: Receipt | None
    audit: str
    smoke: str
    smoked: Smoked | None = None
    earlier_smoked: Smoked | None = None


@dataclass(frozen=True, slots=True)
class BumpReport:
    """A move of one fork's pin. `old` is None for a fork that was not pinned.

    `written` says whether files were changed, `diff` is what changes in them. `overruled` are the
    reasons against the move that `--force` put aside. `groups` are the new pin's commits by what
    they touch, where that was asked for and is known. `commits` are those that the new pin has and
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
    groups: tuple[Group, ...] = ()
    schema: int = 1

    @property
    def headline(self) -> str:
        """The move in one line."""
        if self.verdict == "unchanged":
            return f"{self.fork} stays at {_long(self.new)}: nothing to change"
        old = _long(self.old) if self.old else "unpinned"
        return f"{self.fork}: {old} → {_long(self.new)}, {self.verdict}"


@dataclass(frozen=True, slots=True)
class ImageMove:
    """One image of a base: the digests that pins.toml had and that its tag stands for now."""

    role: Literal["devel", "runtime"]
    image: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class BaseReport:
    """A move of one base's images. `moves` are those whose tag is another image now."""

    base: str
    moves: list[ImageMove]
    verdict: Literal["unchanged", "unproven", "proven"]
    proof: Proof | None = None
    diff: str = ""
    written: bool = False
    schema: int = 1

    @property
    def headline(self) -> str:
        """The move in one line."""
        if not self.moves:
            return f"{self.base}: its tags stand for the pinned images: nothing to change"
        roles = " and ".join(one.role for one in self.moves)
        return f"{self.base}: {roles} moved to what the tag is now, {self.verdict}"


@dataclass(frozen=True, slots=True)
class NotMoved:
    """A fork or base whose move failed, in the error's words; it is as it was."""

    name: str
    what: str
    why: str
    hint: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class AllReport:
    """Every fork and base, each moved whole or not at all."""

    moves: list[BumpReport | BaseReport]
    not_moved: list[NotMoved]
    schema: int = 1

    @property
    def exit_code(self) -> int:
        """0; 6 where one did not answer; else the code of the first that was not moved."""
        codes = [one.exit_code for one in self.not_moved]
        unavailable = RemoteUnavailableError.exit_code
        return unavailable if unavailable in codes else next(iter(codes), 0)


AnyReport = BumpReport | BaseReport | AllReport


def to_json(report: AnyReport) -> str:
    """The report as indented JSON; dates are RFC 3339 in UTC."""
    page = asdict(report)
    if isinstance(report, AllReport):
        page["exit_code"] = report.exit_code
    return json.dumps(page, indent=2, default=_rfc3339)


def to_text(report: AnyReport) -> str:
    """The report for a terminal."""
    if isinstance(report, AllReport):
        failed = [f"{one.name} is not moved: {one.what}" for one in report.not_moved]
        return "\n".join([*map(to_text, report.moves), *failed])
    if isinstance(report, BaseReport):
        return _base_text(report)
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


def _base_text(report: BaseReport) -> str:
    lines = [report.headline]
    lines += [f"  {one.role}  {one.image}: {one.old} → {one.new}" for one in report.moves]
    if report.proof:
        lines += [f"  audit  {report.proof.audit}", f"  smoke  {report.proof.smoke}"]
    elif report.moves:
        lines += ["  unproven: nothing was built on the new images: `--build --smoke` prove a move"]
    if report.moves and not report.written:
        lines += ["  nothing was written"]
    return "\n".join(lines)


def to_markdown(report: AnyReport) -> str:
    """The report as the text of a pull request."""
    if isinstance(report, AllReport):
        moved = [to_markdown(one) for one in report.moves if one.verdict != "unchanged"]
        failed = [
            f"- **{_text(one.name)}** is not moved: {_code(one.what)}" for one in report.not_moved
        ]
        return "\n".join([*moved, *failed, ""])
    if isinstance(report, BaseReport):
        rows: list[tuple[str, ...]] = [("image", "before", "after"), ("---",) * 3]
        rows += [(f"{m.role} `{m.image}`", f"`{m.old}`", f"`{m.new}`") for m in report.moves]
        rows += _measured(report.proof)
        table = [f"| {' | '.join(row)} |" for row in rows]
        title = f"### {_text(report.headline)}"
        return "\n".join([title, "", *table, "", *_verdict(report.proof), ""])
    web = _web(report.url)
    lines = [f"### {_text(report.headline)}", "", *_table(report, web), ""]
    lines += [f"**Forced** although {_text(reason)}." for reason in report.overruled]
    lines += _verdict(report.proof)
    if report.old and web:
        address = f"{web}/compare/{report.old.commit}...{report.new.commit}"
        lines += ["", f"[Compare the two commits]({address})"]
    if report.groups:
        lines += _by_group(report, web)
    else:
        lines += _listing("in the new pin", report.commits, web)
    lines += _listing("**no longer** in it", report.left_out, web)
    return "\n".join([*lines, ""])


def _verdict(proof: Proof | None) -> list[str]:
    if proof is None:
        return [f"**Unproven**: {UNPROVEN}."]
    return [
        f"**Proven** on {_code(proof.variant)}:",
        "",
        f"- build: {_code(proof.receipt.image_id)}",
        f"- audit: {_code(proof.audit)}",
        f"- smoke: {_code(proof.smoke)}",
    ]


def _table(report: BumpReport, web: str | None) -> list[str]:
    old, new = report.old, report.new
    rows = [
        ("commit", _link(old.commit, web) if old else "none", _link(new.commit, web)),
        ("build number", _number(old), _number(new)),
        ("date", _rfc3339(old.date) if old else "–", _rfc3339(new.date)),
        *_measured(report.proof),
    ]
    return ["| | before | after |", "|---|---|---|", *(f"| {a} | {b} | {c} |" for a, b, c in rows)]


def _measured(proof: Proof | None) -> list[tuple[str, ...]]:
    """The two receipts and smokes side by side: what, before, after."""
    if proof is None:
        return []
    names = ("image", "compressed", "build time", "compiler calls", "KV against f16", "probes")
    return list(
        zip(
            names,
            (*_figures(proof.earlier), *_smoked(proof.earlier_smoked)),
            (*_figures(proof.receipt), *_smoked(proof.smoked)),
            strict=True,
        )
    )


def _figures(receipt: Receipt | None) -> tuple[str, str, str, str]:
    if receipt is None:
        return ("no receipt",) * 4
    cache = receipt.ccache
    return (
        f"{receipt.size_bytes / 1e6:.0f} MB",
        f"{receipt.compressed_bytes / 1e6:.0f} MB",
        f"{receipt.duration_s:.0f} s",
        f"{cache.misses} compiled, {cache.hits} from ccache" if cache else "nothing compiled",
    )


def _smoked(smoked: Smoked | None) -> tuple[str, str]:
    if smoked is None:
        return ("no smoke kept",) * 2
    return (_text(smoked.numbers) or "–", _text(smoked.probes))


def _by_group(report: BumpReport, web: str | None) -> list[str]:
    """The commits under what they touch, most dangerous first; fixes are named as such."""
    lines = ["", f"{_counted(report.commits)} in the new pin (a merge as one):"]
    left = _LISTED
    for group in report.groups:
        fixes = f", {_number_of(len(group.fixes), 'fix', 'fixes')}" * bool(group.fixes)
        lines += ["", f"**{group.title}** ({_counted(list(group.commits))}{fixes})", ""]
        shown = group.commits[:left]
        left -= len(shown)
        lines += [f"{_line(one, web)}{' (fix)' * one.fix}" for one in shown]
        more = len(group.commits) - len(shown)
        lines += [f"- … and {more} older ones"] * bool(more)
    return lines


def _listing(what: str, commits: list[Commit], web: str | None) -> list[str]:
    if not commits:
        return []
    shown = [_line(one, web) for one in commits[:_LISTED]]
    more = len(commits) - len(shown)
    tail = [f"- … and {more} older ones"] if more else []
    return ["", f"{_counted(commits)} {what} (a merge as one):", "", *shown, *tail]


def _line(commit: Commit, web: str | None) -> str:
    return f"- {_link(commit.commit, web)} {commit.date[:10]} {_code(commit.subject)}"


def _counted(commits: list[Commit]) -> str:
    return _number_of(len(commits), "commit", "commits")


def _number_of(count: int, one: str, several: str) -> str:
    return f"{count} {one if count == 1 else several}"


def _long(pin: Pin) -> str:
    return f"{pin.commit[:9]} (build {_number(pin)}, {_rfc3339(pin.date)[:10]})"


def _number(pin: Pin | None) -> str:
    return str(pin.build_number) if pin and pin.build_number else "–"


def _rfc3339(date: datetime) -> str:
    return date.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
