"""Whether what the record says was proven is what its evidence shows."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from builder.claim.subject import SHOWN, Claimed, unproven
from builder.probe.finding import Finding
from builder.record import Proof, Release
from builder.smoke_report import CONTRACT

_EXPECTED = "audit and smoke in the record show all that it promises"


def promises(claimed: Claimed) -> Finding:
    """Whether contract, audit and kv, where the record has them as proven, passed on this image."""
    release = claimed.release
    if release is None:
        return unproven("promises", _EXPECTED, "there is no record of it")
    faults = [*_faults(release, claimed.image.ids)]
    if faults:
        return Finding("promises", "fail", _EXPECTED, "; ".join(faults))
    gpu = f"on {release.gpu}" if release.gpu else "never on a GPU"
    left = f", not {', '.join(release.not_proven)}" if release.not_proven else ""
    shown = f"{', '.join(release.proven) or 'nothing'} proven{left}; {gpu}"
    return Finding("promises", "pass", _EXPECTED, shown)


def _faults(release: Release, ids: frozenset[str]) -> Iterator[str]:
    for name, report in (("audit", release.audit), ("smoke", release.smoke)):
        if report.get("image_id") not in ids:
            yield f"the record's {name} is of {str(report.get('image_id'))[:SHOWN]}"
    for proof in release.proven:
        why = _SHOWN_BY[proof](release)
        if why:
            yield f"{proof} is promised and was not proven: {why}"
    for proof in release.required:
        if proof not in release.proven:
            yield f"{proof} was required and is not among the proven"
    offload = _findings(release.smoke).get("offload", "not asked")
    if release.gpu and offload != "pass":
        yield f"a smoke on {release.gpu} is promised, and its offload is {offload}"


def _contract(release: Release) -> str | None:
    found = _findings(release.smoke)
    left = [probe for probe in CONTRACT if found.get(probe) != "pass"]
    return f"{', '.join(left)} did not pass" if left else None


def _audit(release: Release) -> str | None:
    failed = [rule for rule, status in _findings(release.audit).items() if status == "fail"]
    if failed:
        return f"{', '.join(failed)} failed"
    return None if release.audit.get("passed") is True else "it did not pass"


def _kv(release: Release) -> str | None:
    status = _findings(release.smoke).get("kv", "not asked")
    if status != "pass":
        return f"kv is {status}"
    told = release.smoke.get("kv")
    inner = told.get("status") if isinstance(told, dict) else None
    return None if inner == "pass" else f"the verdict on kv is {inner}"


_SHOWN_BY: Mapping[Proof, Callable[[Release], str | None]] = {
    "contract": _contract,
    "audit": _audit,
    "kv": _kv,
}


def _findings(report: Mapping[str, Any]) -> dict[str, str]:
    """Probe or rule → its status; {} for a report of another shape."""
    try:
        return {str(one["probe"]): str(one["status"]) for one in report["findings"]}
    except (KeyError, TypeError):
        return {}
