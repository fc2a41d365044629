"""What the page says, as values: the record laid out for a reader. Pure."""

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from builder.common.errors import UsageError
from builder.model.finding import Finding
from builder.release import record as records
from builder.release.record import Index, Night, Release
from builder.release.report import plots
from builder.smoke.probes.kv import KvVerdict

DAYS = 366
"""Nights older than this before the newest are not shown."""

FAILURES = 10
"""So many of a variant's failed nights are told, newest first."""

Tone = Literal["good", "warn", "bad"]


@dataclass(frozen=True, slots=True)
class Badge:
    """A word of a verdict, and how it looks."""

    text: str
    tone: Tone


@dataclass(frozen=True, slots=True)
class ReleaseView:
    """A release with the findings of its reports. `deleted`: when it was taken from the registry.

    `tags` are the floating ones that stand for it. `why` says why its KV type is not proven.
    """

    release: Release
    tags: list[str]
    badges: list[Badge]
    why: str
    probes: list[Finding]
    rules: list[Finding]
    deleted: str | None


@dataclass(frozen=True, slots=True)
class Current:
    """A release that floating tags stand for; `freshness` and `last_night` as the nights tell."""

    view: ReleaseView
    freshness: str
    last_night: Badge | None


@dataclass(frozen=True, slots=True)
class VariantView:
    """The nights of one variant."""

    name: str
    summary: str
    strip: plots.Strip
    plots: list[plots.Plot]
    failures: list[Night]


@dataclass(frozen=True, slots=True)
class Page:
    """All that the page shows. `as_of`: the newest time in the record, None for an empty one."""

    repository: str | None
    note: str
    as_of: str | None
    current: list[Current]
    variants: list[VariantView]
    releases: list[ReleaseView]


@dataclass(frozen=True, slots=True)
class _Smoke:
    """What the page needs of `builder smoke --json`."""

    findings: list[Finding] = field(default_factory=list)
    kv: KvVerdict | None = None


@dataclass(frozen=True, slots=True)
class _Audit:
    """What the page needs of `builder audit --json`."""

    findings: list[Finding] = field(default_factory=list)


def lay_out(
    index: Index | None, releases: Sequence[Release], nights: Sequence[Night], *, note: str = ""
) -> Page:
    """The page of a record. Raises UsageError for reports and dates that builder did not write."""
    floating = index.floating if index else {}
    views = {one.name: view for one, view in _views(releases, floating)}
    shown, window = _window(nights)
    times = [one.published for one in releases] + [one.date for one in nights]
    return Page(
        repository=index.repository if index else None,
        note=note,
        as_of=max(times, default=None),
        current=[_current(one, nights) for one in views.values() if one.tags],
        variants=[
            _variant(name, [one for one in shown if one.variant == name], window)
            for name in sorted({one.variant for one in shown})
        ],
        releases=list(views.values()),
    )


def minutes(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    whole = datetime.timedelta(seconds=round(seconds))
    return str(whole).removeprefix("0:").removeprefix("0")


def _views(
    releases: Sequence[Release], floating: dict[str, str]
) -> Iterator[tuple[Release, ReleaseView]]:
    from pydantic import TypeAdapter, ValidationError

    smokes, audits = TypeAdapter(_Smoke), TypeAdapter(_Audit)
    for one in releases:
        try:
            smoke = smokes.validate_python(one.smoke)
            audit = audits.validate_python(one.audit)
        except ValidationError as error:
            what = f"releases/{one.name}.json: a report in it is not what builder wrote"
            raise UsageError(what, why=str(error)) from error
        yield one, _view(one, smoke, audit, floating)


def _view(release: Release, smoke: _Smoke, audit: _Audit, floating: dict[str, str]) -> ReleaseView:
    return ReleaseView(
        release=release,
        tags=sorted(tag for tag, name in floating.items() if name == release.name),
        badges=_badges(release, smoke.kv),
        why="" if smoke.kv is None or "kv" in release.proven else smoke.kv.reason,
        probes=smoke.findings,
        rules=audit.findings,
        deleted=records.deleted(release),
    )


def _badges(release: Release, kv: KvVerdict | None) -> list[Badge]:
    """Each thing that a release can prove. A KV type that no GPU has run is never called proven."""
    others = [
        Badge(f"{one} proven", "good")
        if one in release.proven
        else Badge(f"{one} not proven", "warn")
        for one in ("contract", "audit")
    ]
    name = str(kv.asked) if kv else "KV type"
    if kv is not None and kv.status == "fail":
        return [Badge(f"{name} is not in effect", "bad"), *others]
    if "kv" not in release.proven:
        return [Badge(f"{name} not proven on a GPU", "warn"), *others]
    if release.gpu:
        return [Badge(f"{name} proven on {release.gpu}", "good"), *others]
    on_cpu = [Badge(f"{name} proven on a CPU", "good"), Badge("not proven on a GPU", "warn")]
    return [*on_cpu, *others]


def _current(view: ReleaseView, nights: Sequence[Night]) -> Current:
    own = [one for one in nights if one.variant == view.release.variant]
    looked = next((one for one in reversed(own) if one.commits_behind is not None), None)
    last = Badge(f"{own[-1].date}: {own[-1].outcome}", _tone(own[-1])) if own else None
    return Current(view, _freshness(looked), last)


def _freshness(night: Night | None) -> str:
    if night is None:
        return "not known: no night has looked"
    if not night.commits_behind:
        return f"the newest commit, as of {night.date}"
    days = "" if night.days_behind is None else f", {night.days_behind:.1f} days"
    return f"{night.commits_behind} commits{days} behind, as of {night.date}"


def _tone(night: Night) -> Tone:
    return "bad" if night.outcome == "failed" else "good"


def _window(nights: Sequence[Night]) -> tuple[list[Night], plots.Window]:
    """The nights of the newest `DAYS` days, and those days."""
    if not nights:
        return [], plots.Window(datetime.date.min, datetime.date.min)
    try:
        days = [plots.day(one.date) for one in nights]
    except ValueError as error:
        raise UsageError("nights/: a date is no YYYY-MM-DD", why=str(error)) from error
    last = max(days)
    first = max(min(days), last - datetime.timedelta(days=DAYS - 1))
    shown = [one for one, day in zip(nights, days, strict=True) if day >= first]
    return shown, plots.Window(first, last)


def _variant(name: str, nights: list[Night], window: plots.Window) -> VariantView:
    outcomes = [one.outcome for one in nights]
    counts = [f"{outcomes.count(word)} {word}" for word in ("promoted", "unchanged", "failed")]
    failures = [one for one in reversed(nights) if one.outcome == "failed"][:FAILURES]
    return VariantView(
        name=name,
        summary=f"{len(nights)} night{'s' * (len(nights) != 1)}: {', '.join(counts)}",
        strip=plots.strip(nights, window),
        plots=[
            plots.plot("image size", nights, window, _size, "MB"),
            plots.plot("build time", nights, window, _build, "min"),
            plots.plot("ccache hits", nights, window, _hits, "%"),
            plots.plot("commits behind", nights, window, _behind, "commits"),
        ],
        failures=failures,
    )


def _size(night: Night) -> float | None:
    return None if night.size_bytes is None else night.size_bytes / 1e6


def _build(night: Night) -> float | None:
    return None if night.build_s is None else night.build_s / 60


def _hits(night: Night) -> float | None:
    return None if night.ccache is None else 100 * night.ccache.hit_rate


def _behind(night: Night) -> float | None:
    return None if night.commits_behind is None else float(night.commits_behind)
