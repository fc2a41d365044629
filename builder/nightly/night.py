"""One night of a variant: from its fork's newest commit to floating tags, or to what failed.

The steps are in `STEPS`. Each is written down before the next begins, and what is written down is
not done again: a night that was killed at any moment is finished by the next run. A step that was
killed half done is done again, so each may be.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from builder.build import render
from builder.build.run import Request as BuildRequest
from builder.build.run import keep_ccache
from builder.bump import fork as bumps
from builder.bump.fork import RefusedError
from builder.bump.report import BumpReport, Proof
from builder.common import paths
from builder.common.errors import BuildFailedError, NotProvenError, RemoteUnavailableError
from builder.common.locks import locked
from builder.common.progress import Progress
from builder.freshness.report import ForkReport
from builder.model import tags
from builder.model.pins import Pins
from builder.nightly import journal as night_journal
from builder.nightly.journal import Found, Journal, Order
from builder.pins import edit as pins_edit
from builder.pins import load as pins
from builder.pins.edit import Pin
from builder.release import record
from builder.release.record import Night, NightStep
from builder.smoke import history as kept_smoke

_SAME_NIGHT = timedelta(hours=12)
"""A night that began longer ago is not gone on with: its candidate is yesterday's."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a night is asked for. `repository` is where images go, without a tag.

    `ref` None: the fork's branch. `pinned`: the pin, wherever the branch is. `restart`: forget what
    an earlier run of this night has done.
    """

    variant: str
    repository: str
    ref: str | None = None
    pinned: bool = False
    ccache_dir: Path | None = None
    restart: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """A night's surroundings. `text` is what `file`, a pins.toml, says; `record` is a folder."""

    file: Path
    text: str
    everything: Pins
    request: Request
    record: Path
    stages: "Stages"

    @property
    def results(self) -> Path:
        """Where receipts, logs and the proposal go."""
        return paths.results(self.file)

    @property
    def fork(self) -> str:
        """The variant's."""
        return self.everything.variants[self.request.variant].fork


@dataclass(frozen=True, slots=True)
class Stages:
    """What a night does to the world, each handed in.

    `look` tells how far a fork's pin is behind. `publish` gives the image of `found.receipt` the
    name `found.release` in the repository, for good; `promote` moves the floating tags to that
    release; `propose` writes the pull request that moves the pin. Those three tell in words what
    they did, and may be asked for again what they have done already.
    """

    look: Callable[[Pins, str, Progress], ForkReport]
    proving: bumps.Stages
    publish: Callable[[Case, Pins, Found, Progress], str]
    promote: Callable[[Case, str, Progress], str]
    propose: Callable[[Case, BumpReport, str, Progress], str]


Status = Literal["ok", "skipped"]
Step = Callable[[Case, Found, Progress], tuple[Found, Status, str]]


def run(case: Case, progress: Progress) -> Journal:
    """Take the night to its end, from where an earlier run left it; a second one waits.

    The journal's last step has failed when the candidate did; the floating tags are then where they
    were. Raises what no candidate is to blame for: the night goes on there when it is asked for
    again.
    """
    file = night_journal.path(case.record, case.request.variant)
    order = _order(case)
    with locked(_lock(file), f"another night of {case.request.variant}", progress):
        journal = _begun(file, order, case.request, progress)
        for name, step in STEPS:
            if journal.failed:
                break
            if not journal.done(name):
                journal = _take(name, step, case, journal, progress)
                night_journal.save(journal, file)
        built = journal.found.receipt
        if built and not journal.failed:
            keep_ccache(case.everything, built, case.request.ccache_dir, progress)
    return journal


def end(case: Case) -> None:
    """The night is over, and told: the next run is another."""
    night_journal.path(case.record, case.request.variant).unlink(missing_ok=True)


def plan(case: Case, progress: Progress) -> Found:
    """What the first two steps find. Writes nothing."""
    found, _, _ = _freshness(case, Found(), progress)
    return _candidate(case, found, progress)[0]


def night(journal: Journal, fork: str, page: str = "") -> Night:
    """The journal of a night that has ended, as the record keeps it."""
    found, failed, built = journal.found, journal.failed, journal.found.receipt
    return Night(
        date=journal.begun[:10],
        variant=journal.order.variant,
        fork=fork,
        outcome="failed" if failed else "unchanged" if found.standing else "promoted",
        steps=journal.steps,
        commit=found.move.new.commit if found.move else None,
        release=None if failed else found.release,
        failed_step=failed.name if failed else None,
        commits_behind=found.commits_behind,
        days_behind=found.days_behind,
        size_bytes=built.size_bytes if built else None,
        compressed_bytes=built.compressed_bytes if built else None,
        build_s=built.duration_s if built else None,
        ccache=built.ccache if built else None,
        page=page,
    )


def _order(case: Case) -> Order:
    request = case.request
    return Order(
        variant=request.variant,
        repository=request.repository,
        ref=request.ref or "",
        pinned=request.pinned,
        pins=hashlib.sha256(case.text.encode()).hexdigest(),
    )


def _lock(file: Path) -> Path:
    """In the cache: none appears beside the record."""
    key = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:16]
    return paths.cache() / "nightly" / key


def _begun(file: Path, order: Order, request: Request, progress: Progress) -> Journal:
    """The journal to go on with, or a new one."""
    known = None if request.restart else night_journal.load(file)
    now = datetime.now(UTC)
    if known and known.order == order and now - _moment(known.begun) < _SAME_NIGHT:
        if known.steps:
            progress.step(f"{order.variant}: go on after {known.steps[-1].name}, from {file}")
        return known
    if known:
        progress.warn(
            f"{order.variant}: the night of {known.begun[:10]} was not finished and is left: "
            + ("it began too long ago" if known.order == order else "it was of another order")
        )
    return Journal(order, _rfc3339(now))


def _take(name: str, step: Step, case: Case, journal: Journal, progress: Progress) -> Journal:
    progress.step(f"{case.request.variant}: {name}")
    started, clock = _rfc3339(datetime.now(UTC)), time.monotonic()

    def ended(status: Literal["ok", "skipped", "failed"], detail: str, log: str = "") -> NightStep:
        return NightStep(name, status, started, round(time.monotonic() - clock, 2), detail, log)

    try:
        found, status, detail = step(case, journal.found, progress)
    except BuildFailedError as error:
        if not error.commits_fault:
            raise
        told = ended("failed", f"{error.what}\n{error.why}".strip(), error.log)
        return journal.after(told, journal.found)
    except (RefusedError, NotProvenError) as error:
        told = ended("failed", f"{error.what}\n{error.why}".strip(), error.log)
        return journal.after(told, journal.found)
    built = found.receipt.log if found.receipt and name == "build" else ""
    return journal.after(ended(status, detail, built), found)


# --- The steps ------------------------------------------------------------------------------------


def _freshness(case: Case, found: Found, progress: Progress) -> tuple[Found, Status, str]:
    report = case.stages.look(case.everything, case.fork, progress)
    if report.failure and report.drift is None:
        told = report.failure
        raise RemoteUnavailableError(told.what, why=told.why, hint=told.hint)
    drift = report.drift
    if drift is None:
        return found, "ok", report.verdict
    found = replace(found, commits_behind=drift.commits_behind, days_behind=drift.days_behind)
    reasons = [f"{one.rule}: {one.text}" for one in report.reasons]
    days = "an unknown number of" if drift.days_behind is None else drift.days_behind
    where = f"{drift.commits_behind} commits, {days} days behind"
    return found, "ok", "; ".join([report.verdict, where, *reasons])


def _candidate(case: Case, found: Found, progress: Progress) -> tuple[Found, Status, str]:
    move = _move(case, progress)
    found = replace(found, move=move)
    name = _release_name(case, found)
    known = record.read_index(case.record)
    here = known is not None and known.repository == case.request.repository
    stands = known is not None and here and name in known.floating.values()
    published = known is not None and here and name in known.releases
    left = published and not stands and _was_promoted(case.record, name)
    found = replace(found, release=name, standing=stands or left, published=published)
    if left:
        # Whoever moved the tags back meant it.
        return found, "ok", f"{name} was promoted before, and the tags were moved from it since"
    more = "; it is what the tags stand for" if stands else "; published before" * published
    return found, "ok", f"{name}{more}"


def _move(case: Case, progress: Progress) -> BumpReport:
    fork = case.everything.forks[case.fork]
    if not case.request.pinned:
        ref = case.request.ref or fork.branch or "HEAD"
        wanted = bumps.Request(case.fork, to=ref, grouped=True, dry_run=True)
        return bumps.bump(case.file, wanted, None, progress)
    if fork.commit is None or fork.date is None:
        raise RefusedError(f"fork {case.fork} is not pinned", why=fork.unpinned or "")
    pin = Pin(fork.commit, fork.build_number, fork.date)
    return BumpReport(
        fork=case.fork,
        url=fork.url or "",
        branch=fork.branch or "HEAD",
        old=pin,
        new=pin,
        verdict="unchanged",
        overruled=[],
        commits=[],
        left_out=[],
        proof=None,
        diff="",
        written=False,
    )


def _was_promoted(folder: Path, name: str) -> bool:
    # Of a release that was rebuilt from the registry nobody knows it: a person promotes it.
    events = record.read_release(folder, name).events
    return any(one.what in {"promoted", "rebuilt"} for one in events)


def _release_name(case: Case, found: Found) -> str:
    move, variant = _moved(found), case.request.variant
    recipe = render.render(candidate_pins(case, found), variant).sha256
    return tags.release(variant, move.new.build_number, move.new.commit, recipe)


def _moved(found: Found) -> BumpReport:
    if found.move is None:
        raise RuntimeError("a step before `candidate` asked for its commit")
    return found.move


def candidate_pins(case: Case, found: Found) -> Pins:
    """pins.toml as it will be when the pin is the candidate: its recipe is the release's then."""
    move = _moved(found)
    if move.verdict == "unchanged":
        return case.everything
    return pins.parse(pins_edit.with_pin(case.text, move.fork, move.new), str(case.file))


def _build(case: Case, found: Found, progress: Progress) -> tuple[Found, Status, str]:
    if found.standing or found.published:
        return found, "skipped", _why_not(found)
    order = BuildRequest(
        case.request.variant,
        ref=_moved(found).new.commit,
        # No name that a build of somebody else's takes away while the night goes on.
        tag=f"{tags.REPOSITORY}:{found.release}",
        ccache_dir=case.request.ccache_dir,
        candidate=_moved(found).verdict != "unchanged",
    )
    built = case.stages.proving.build(candidate_pins(case, found), order, case.results, progress)
    bumps.require_whole(built)
    size = f"{built.size_bytes / 1e6:.0f} MB, {built.compressed_bytes / 1e6:.0f} MB compressed"
    return replace(found, receipt=built), "ok", f"{built.image_id}, {size}"


def _audit(case: Case, found: Found, progress: Progress) -> tuple[Found, Status, str]:
    if found.receipt is None:
        return found, "skipped", _why_not(found)
    candidate, stages = candidate_pins(case, found), case.stages.proving
    headline = bumps.audited(candidate, found.receipt, stages, case.results, progress)
    return replace(found, audit=headline, passed=["audit"]), "ok", headline


def _smoke(case: Case, found: Found, progress: Progress) -> tuple[Found, Status, str]:
    if found.receipt is None:
        return found, "skipped", _why_not(found)
    candidate, stages = candidate_pins(case, found), case.stages.proving
    headline, kept = bumps.smoked(candidate, found.receipt, stages, case.results, progress)
    passed = [*kept.proven, *found.passed]
    return replace(found, smoke=headline, passed=passed), "ok", headline


def _publish(case: Case, found: Found, progress: Progress) -> tuple[Found, Status, str]:
    if found.receipt is None:
        return found, "skipped", _why_not(found)
    told = case.stages.publish(case, candidate_pins(case, found), found, progress)
    return found, "ok", told


def _promote(case: Case, found: Found, progress: Progress) -> tuple[Found, Status, str]:
    if found.standing or found.release is None:
        return found, "skipped", _why_not(found)
    return found, "ok", case.stages.promote(case, found.release, progress)


def _bump(case: Case, found: Found, progress: Progress) -> tuple[Found, Status, str]:
    move = _moved(found)
    if found.standing:
        return found, "skipped", _why_not(found)
    if move.verdict == "unchanged":
        return found, "skipped", "the pin is this commit"
    proven = replace(move, verdict="proven", proof=_proof(case, found))
    return found, "ok", case.stages.propose(case, proven, found.release or "", progress)


def _why_not(found: Found) -> str:
    return f"{found.release} {'stands' if found.standing else 'is published'} already"


def _proof(case: Case, found: Found) -> Proof:
    """What was passed tonight, or by the release when it was published."""
    old, variant = _moved(found).old, case.request.variant
    built, audit, smoke = found.receipt, found.audit, found.smoke
    if built is None:
        built = record.read_release(case.record, found.release or "").receipt
        audit = smoke = f"passed when {found.release} was published"
    return Proof(
        variant,
        built,
        bumps.earlier(case.results, variant, old.commit) if old else None,
        audit,
        smoke,
        kept_smoke.read(variant, built.commit, case.results),
        kept_smoke.read(variant, old.commit, case.results) if old else None,
    )


STEPS: tuple[tuple[str, Step], ...] = (
    ("freshness", _freshness),
    ("candidate", _candidate),
    ("build", _build),
    ("audit", _audit),
    ("smoke", _smoke),
    ("publish", _publish),
    ("promote", _promote),
    ("bump", _bump),
)
"""A night, in order. A step that has nothing to do is skipped, and says why."""


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _rfc3339(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
