"""Move a fork's pin: pins.toml and the rendered Dockerfiles beside it, all or nothing."""

import difflib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from builder.build import receipts as receipt
from builder.build import render, rendered
from builder.build.run import Request as BuildRequest
from builder.bump.report import BaseReport, BumpReport, Proof, to_markdown
from builder.common import paths
from builder.common.errors import (
    BuilderError,
    BuildFailedError,
    PinsError,
    RefNotFoundError,
    RemoteUnavailableError,
    UsageError,
)
from builder.common.files import replace_files
from builder.common.locks import locked
from builder.common.progress import Progress
from builder.common.suggest import suggestion
from builder.git import remote as git
from builder.git.cache import anew
from builder.git.commits import Commit, Group
from builder.model import tags
from builder.model.pins import Fork, Pins, Receipt
from builder.pins import edit as pins_edit
from builder.pins import load as pins
from builder.pins.edit import Pin
from builder.smoke import history as kept_smoke
from builder.smoke.options import SMOKE_CAN_REQUIRE, Options

if TYPE_CHECKING:
    from builder.audit.run import AuditReport
    from builder.model.finding import Finding
    from builder.smoke.report import SmokeReport

_WRITABLE = 0o222

Report = TypeVar("Report", BumpReport, BaseReport)


class RefusedError(BuilderError):
    """The pin was not moved, and nothing else was changed. `log`: of the stage that failed."""

    exit_code = 1

    def __init__(self, what: str, *, why: str = "", hint: str = "", log: str = "") -> None:
        super().__init__(what, why=why, hint=hint)
        self.log = log


@dataclass(frozen=True, slots=True)
class Request:
    """What `builder bump` was asked for. `fork` None: the default variant's.

    `to` None: the fork's branch. `grouped`: tell the commits by what they touch, as with a
    `pr_body`; that fetches the names of their files. `variant` None: the default variant if it is
    the fork's, else the fork's first; it is built only when stages are given.
    """

    fork: str | None = None
    to: str | None = None
    variant: str | None = None
    grouped: bool = False
    dry_run: bool = False
    force: bool = False
    pr_body: Path | None = None


@dataclass(frozen=True, slots=True)
class Stages:
    """What proves a commit: each takes the pins as they would be, and the folder of results."""

    build: "Callable[[Pins, BuildRequest, Path, Progress], Receipt]"
    audit: "Callable[[Pins, Receipt, Path, Progress], AuditReport]"
    smoke: "Callable[[Pins, Receipt, Options, Path, Progress], SmokeReport]"


def bump(file: Path, request: Request, stages: Stages | None, progress: Progress) -> BumpReport:
    """Pin a fork of this pins.toml to what a ref means now; a second bump of the file waits.

    `stages` None: the move is not proven. After an error everything is as it was. Raises
    RefusedError (backwards, not on the branch, a stage failed, the file was edited meanwhile),
    UsageError, PinsError, RemoteUnavailableError, RefNotFoundError, and EngineError by a stage.
    """
    file = file.resolve()
    with alone(file, progress):
        text = read(file)
        everything = pins.parse(text, str(file))
        name, fork, url = _fork(everything, request)
        variant = pins.variant_of(everything, "fork", name, request.variant) if stages else None
        move = _look_up(git.Remote(name, url), fork, request.to, progress)
        edited = pins_edit.with_pin(text, name, move.new)
        report = _report(name, url, move)
        if edited == text:
            return replace(report, verdict="unchanged", overruled=[])
        if report.overruled and not request.force:
            raise RefusedError(
                f"{name} is not moved to {move.new.commit[:9]}: {report.overruled[0]}",
                why="\n".join(report.overruled[1:]),
                hint="`--force` moves it all the same",
            )
        edit = Edit.of(file, edited, "fork", name)
        report = replace(report, diff=edit.diff)
        if request.pr_body or request.grouped:
            report = replace(report, groups=_groups(git.Remote(name, url), fork, move, progress))
        if stages and variant:
            commit = move.new.commit
            tag = f"{tags.local(variant)}-{commit[:9]}"
            order = BuildRequest(variant, ref=commit, tag=tag)
            old = move.old.commit if move.old else None
            proof = prove(edit.candidate, order, old, stages, file.parent, progress)
            report = replace(report, verdict="proven", proof=proof)
        return written(file, text, edit, report, request)


@dataclass(frozen=True, slots=True)
class Edit:
    """What a move changes: the pins as they would be, and the texts of all files."""

    candidate: Pins
    files: dict[Path, str]
    diff: str

    @classmethod
    def of(cls, file: Path, edited: str, kind: Literal["fork", "base"], name: str) -> "Edit":
        """Of this text of pins.toml, in which a fork's or a base's pin is another."""
        candidate = pins.parse(edited, str(file))
        own = [key for key, one in candidate.variants.items() if getattr(one, kind) == name]
        files = _rendered(candidate, own, file.parent) | {file: edited}
        return cls(candidate, files, _difference(files, file.parent))


def written(file: Path, text: str, edit: Edit, report: Report, request: Request) -> Report:
    """The report of a move that is made, or that is only shown when a dry run was asked for.

    `text` is pins.toml as it was read. Raises RefusedError when it is another now, PinsError when a
    file cannot be written.
    """
    if request.dry_run:
        return report
    report = replace(report, written=True)
    body = {request.pr_body: to_markdown(report)} if request.pr_body else {}
    replace_all(file, text, body | edit.files)
    return report


@dataclass(frozen=True, slots=True)
class _Move:
    old: Pin | None
    new: Pin
    branch: str
    objections: list[str]
    commits: list[Commit]
    left_out: list[Commit]


@anew
def _look_up(remote: git.Remote, fork: Fork, ref: str | None, progress: Progress) -> _Move:
    git.require()
    branch = fork.branch or "HEAD"
    with locked(remote.cache("history"), f"another look-up of fork {remote.fork}", progress):
        head = git.branch_head(remote, fork.branch, progress)
        target = head if ref in {None, branch} else git.resolve(remote, ref, progress)
        history = git.history(remote, progress)
        for commit in (head, target):
            history.bring(commit, progress)
        number = history.build_number(target)
        new = Pin(target, number, _date(history, target))
        old = _pinned(fork)
        known = old is not None and _bring(history, old.commit, progress)
        objections = list(_objections(history, old, new, head, branch, known=known))
        broken = pins.broken(fork, target)
        objections += [f"pins.toml knows it as broken: {broken}"] if broken else []
        both = (old.commit, target) if old is not None and known else (target, target)
        commits, left_out = history.between(*both), history.between(*reversed(both))
    if left_out and not objections:
        progress.warn(
            f"the pin {both[0][:9]} is not part of {target[:9]}: {branch} was rewritten, and "
            f"{len(left_out)} commits are left out"
        )
    return _Move(old, new, branch, objections, commits, left_out)


def _date(history: git.History, commit: str) -> datetime:
    """Raises RefusedError for a commit of which pins.toml could not say when it was made."""
    text = history.date(commit)
    if not text:
        raise RefusedError(
            f"{commit[:9]} cannot be pinned: it states no date that can be read",
            why="`git cat-file commit` shows what it states",
            hint="another commit: --to REF",
        )
    return datetime.fromisoformat(text)


def _groups(remote: git.Remote, fork: Fork, move: _Move, progress: Progress) -> tuple[Group, ...]:
    """The commits of a move by what they touch; none where the remote does not tell."""
    if not move.commits or move.old is None:
        return ()
    try:
        with locked(remote.cache("names"), f"another look-up of fork {remote.fork}", progress):
            return _touched(remote, fork, move.old.commit, move.new.commit, progress)
    except (RemoteUnavailableError, RefNotFoundError) as error:
        progress.warn(f"what the commits touch is not told: {error.what}")
        return ()


@anew
def _touched(
    remote: git.Remote, fork: Fork, old: str, new: str, progress: Progress
) -> tuple[Group, ...]:
    progress.step(f"fetch the history of {remote.url}")
    history = git.Branch(remote)
    history.fetch(fork.branch)
    for commit in (new, old):
        if not history.holds(commit):
            history.fetch_commit(commit)
    return history.groups(history.steps(old, new))


def _objections(
    history: git.History, old: Pin | None, new: Pin, head: str, branch: str, *, known: bool
) -> Iterator[str]:
    """Why a move should not be made without `--force`."""
    if not history.is_ancestor(new.commit, head):
        yield f"it is not on the branch {branch}"
    if old is None or old.commit == new.commit:
        return
    if known and history.is_ancestor(new.commit, old.commit):
        yield f"that is backwards: the pin {old.commit[:9]} contains it"
    elif not known and new.date < old.date:
        yield f"it is older than the pin {old.commit[:9]}, which the remote no longer gives out"


def _bring(history: git.History, commit: str, progress: Progress) -> bool:
    """Whether the commit is in the history, after asking the remote for it if need be."""
    try:
        history.bring(commit, progress)
    except RefNotFoundError:
        progress.warn(f"{history.remote.url} no longer has the pin {commit[:9]}")
        return False
    return True


def _pinned(fork: Fork) -> Pin | None:
    if fork.commit is None or fork.date is None:
        return None
    return Pin(fork.commit, fork.build_number, fork.date)


def _report(name: str, url: str, move: _Move) -> BumpReport:
    return BumpReport(
        fork=name,
        url=url,
        branch=move.branch,
        old=move.old,
        new=move.new,
        verdict="unproven",
        overruled=move.objections,
        commits=move.commits,
        left_out=move.left_out,
        proof=None,
        diff="",
        written=False,
    )


def _fork(everything: Pins, request: Request) -> tuple[str, Fork, str]:
    name = request.fork or everything.variants[everything.policy.default_variant].fork
    if name not in everything.forks:
        known = [*everything.forks, *everything.bases, "all"]
        raise UsageError(f"unknown fork or base {name!r}", hint=suggestion(name, known))
    fork = everything.forks[name]
    if fork.url is None:
        raise UsageError(
            f"fork {name} has no url",
            why=fork.unpinned or "",
            hint=f"write forks.{name}.url into pins.toml",
        )
    if fork.commit is None and request.to is None:
        raise UsageError(
            f"fork {name} is not pinned", why=fork.unpinned or "", hint="say to what: --to REF"
        )
    return name, fork, fork.url


def prove(
    candidate: Pins,
    order: BuildRequest,
    before: str | None,
    stages: Stages,
    results: Path,
    progress: Progress,
) -> Proof:
    """Build, audit and smoke under the order's own tag, so that no good image loses its name.

    Beside it what is known of the variant at the commit `before`. What the smoke found is kept
    beside the receipts. Raises RefusedError that names the stage that failed and its log.
    """
    variant = order.variant
    before_it = earlier(results, variant, before) if before else None
    smoked_before = kept_smoke.read(variant, before, results) if before else None
    try:
        built = stages.build(candidate, order, results, progress)
    except BuildFailedError as error:
        at = order.ref or "its pin"
        raise _failed("build", variant, at, f"{error.what}\n{error.why}", error.log) from error
    require_whole(built)
    audit = audited(candidate, built, stages, results, progress)
    smoke, kept = smoked(candidate, built, stages, results, progress)
    return Proof(variant, built, before_it, audit, smoke, kept, smoked_before)


def require_whole(built: Receipt) -> None:
    """Raises RefusedError for a commit without all that the pins name of it.

    Its Dockerfile is not the one that would be committed and released.
    """
    if built.left_out:
        why = f"pins.toml names what the commit lacks: {', '.join(built.left_out)}"
        fault = _failed("build", built.variant, built.commit, why, built.log)
        fault.hint = f"take it out of pins.toml first; {fault.hint}"
        raise fault


def audited(
    candidate: Pins, built: Receipt, stages: Stages, results: Path, progress: Progress
) -> str:
    """The headline of an audit that was passed. Raises RefusedError for another."""
    report = stages.audit(candidate, built, results, progress)
    if not report.passed:
        raise _failed("audit", built.variant, built.commit, _words(report.findings), built.log)
    return report.headline


def smoked(
    candidate: Pins, built: Receipt, stages: Stages, results: Path, progress: Progress
) -> tuple[str, kept_smoke.Smoked]:
    """The headline of a smoke that was passed, and what it measured, kept beside the receipts.

    Raises RefusedError for one that was not.
    """
    variant = built.variant
    wanted = frozenset(candidate.policy.release.require) & frozenset(SMOKE_CAN_REQUIRE)
    options = Options(variant=variant, require=wanted)
    report = stages.smoke(candidate, built, options, results, progress)
    if not report.passed:
        why = "\n".join([report.headline, _words(report.findings, report.missing)])
        raise _failed("smoke", variant, built.commit, why, report.log)
    return report.headline, kept_smoke.write(report, variant, built.commit, results)


def _failed(stage: str, variant: str, at: str, why: str, log: str) -> RefusedError:
    return RefusedError(
        f"{stage} failed: {variant} at {at[:9]}; the pin stays, nothing was changed",
        why=why.strip(),
        hint=f"the log: {log}" if log else "",
        log=log,
    )


def _words(findings: "list[Finding]", missing: Sequence[str] = ()) -> str:
    """What failed, and what is `missing`: required, and not proven."""
    failed = [one for one in findings if one.status == "fail" or one.probe in missing]
    return "\n".join(f"{one.probe}: {one.observed}; expected: {one.expected}" for one in failed)


def earlier(results: Path, variant: str, commit: str) -> Receipt | None:
    """The newest receipt of this variant at this commit; one of another schema is none."""
    from pydantic import TypeAdapter, ValidationError

    adapter = TypeAdapter(Receipt)
    name = f"*-{variant}-{commit[:9]}.json"
    for path in sorted(receipt.folder(results).glob(name), reverse=True):
        try:
            return adapter.validate_json(path.read_bytes())
        except (ValidationError, OSError):
            continue
    return None


def _rendered(candidate: Pins, names: list[str], results: Path) -> dict[Path, str]:
    """The committed Dockerfiles of these variants, where any are committed."""
    folder = rendered.folder(results)
    if not folder.is_dir():
        return {}
    made = [render.render(candidate, name) for name in names]
    return {folder / one.file_name: one.text for one in made}


def _difference(files: Mapping[Path, str], results: Path) -> str:
    """A unified diff from the files as they are to these texts, by their names below `results`."""
    lines: list[str] = []
    for path, text in sorted(files.items()):
        name = path.relative_to(results)
        old = path.read_bytes().decode() if path.is_file() else ""
        words = (old.splitlines(), text.splitlines(), f"a/{name}", f"b/{name}")
        lines += difflib.unified_diff(*words, lineterm="")
    return "\n".join(lines)


def read(file: Path) -> str:
    """The text as it is, its line ends too. Raises PinsError for one that can't be replaced."""
    if paths.results(file) != file.parent:
        raise PinsError(
            f"{file} is the installed program's own", hint="copy it, and pass --pins FILE"
        )
    try:
        if not file.stat().st_mode & _WRITABLE:
            raise PinsError(f"{file} is read-only", hint=f"chmod u+w {file}")
        return file.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise PinsError(f"{file}: cannot be read", why=str(error)) from error


def replace_all(file: Path, text: str, files: Mapping[Path, str]) -> None:
    """Replace the files, pins.toml last: until then the pin is the old one."""
    if read(file) != text:
        raise RefusedError(
            f"{file} was edited meanwhile, and is as the edit left it",
            hint="run it again; what was built is still in the build cache",
        )
    changed = {
        path: content.encode()
        for path, content in files.items()
        if not path.is_file() or path.read_bytes() != content.encode()
    }
    try:
        replace_files(changed)
    except OSError as error:
        raise PinsError(
            f"{error.filename2 or error.filename or file} cannot be written; nothing was changed",
            why=str(error),
        ) from error


@contextmanager
def alone(file: Path, progress: Progress) -> Iterator[None]:
    """One bump of a file at a time. The lock lies in the cache: none appears beside pins.toml."""
    key = hashlib.sha256(str(file).encode()).hexdigest()[:16]
    with locked(paths.cache() / "bump" / key, f"another bump of {file}", progress):
        yield
