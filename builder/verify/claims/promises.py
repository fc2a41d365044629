"""Whether what labels and record say was proven is what the evidence shows."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from builder.model.finding import Finding
from builder.model.labels import GPU, PROVEN
from builder.release import attach as attest
from builder.release.record import Proof
from builder.smoke.report import CONTRACT
from builder.verify.claims.subject import SHOWN, Claimed, unproven

_EXPECTED = "audit and smoke show all that labels and record promise"


@dataclass(frozen=True, slots=True)
class _Promised:
    """What somebody says was proven. `gpu` None: on none. `required`: what had to be, by whom."""

    who: str
    proven: list[str]
    gpu: str | None
    required: list[Proof]


@dataclass(frozen=True, slots=True)
class _Evidence:
    """The reports of audit and smoke, of whatever shape."""

    audit: Mapping[str, Any]
    smoke: Mapping[str, Any]


def promises(claimed: Claimed) -> Finding:
    """Whether what labels and record have as proven passed on this image.

    The evidence is the record's; without a record, what goes with the image.
    """
    said = [*_promised(claimed)]
    if not said:
        return unproven("promises", _EXPECTED, "no record of it, and no label of what was proven")
    shown = _evidence(claimed)
    if shown is None:
        return unproven("promises", _EXPECTED, "no evidence goes with it")
    faults = [*_of_another(shown, claimed.image.ids)]
    faults += [fault for one in said for fault in _faults(one, shown)]
    if faults:
        return Finding("promises", "fail", _EXPECTED, "; ".join(faults))
    first = said[0]
    gpu = f"on {first.gpu}" if first.gpu else "never on a GPU"
    rest = [one for one in get_args(Proof) if one not in first.proven]
    left = f", not {', '.join(rest)}" if rest else ""
    who = " and ".join(one.who for one in said)
    observed = f"{', '.join(first.proven) or 'nothing'} proven{left}; {gpu}; by {who}"
    return Finding("promises", "pass", _EXPECTED, observed)


def _promised(claimed: Claimed) -> Iterator[_Promised]:
    """What the record says, then what the labels say; images had none of these labels once."""
    release, said = claimed.release, claimed.image.labels
    if release is not None:
        yield _Promised("the record", [*release.proven], release.gpu, release.required)
    if PROVEN in said:
        gpu = said.get(GPU, "none")
        proven = [one for one in said[PROVEN].split(",") if one]
        yield _Promised("its label", proven, None if gpu == "none" else gpu, [])


def _evidence(claimed: Claimed) -> _Evidence | None:
    if claimed.release is not None:
        return _Evidence(claimed.release.audit, claimed.release.smoke)
    documents = claimed.image.documents
    found = [documents.get(name) for name in (attest.AUDIT, attest.SMOKE)]
    audit, smoke = (one if isinstance(one, dict) else None for one in found)
    return _Evidence(audit, smoke) if audit is not None and smoke is not None else None


def _of_another(shown: _Evidence, ids: frozenset[str]) -> Iterator[str]:
    for name, report in (("audit", shown.audit), ("smoke", shown.smoke)):
        if report.get("image_id") not in ids:
            yield f"the {name} is of {str(report.get('image_id'))[:SHOWN]}"


def _faults(said: _Promised, shown: _Evidence) -> Iterator[str]:
    for proof in said.proven:
        show = _SHOWN_BY.get(proof)
        why = show(shown) if show else "nobody knows what it is"
        if why:
            yield f"{proof} is promised by {said.who} and was not proven: {why}"
    for required in said.required:
        if required not in said.proven:
            yield f"{required} was required and is not among the proven"
    offload = _findings(shown.smoke).get("offload", "not asked")
    if said.gpu and offload != "pass":
        yield f"a smoke on {said.gpu} is promised by {said.who}, and its offload is {offload}"


def _contract(shown: _Evidence) -> str | None:
    found = _findings(shown.smoke)
    left = [probe for probe in CONTRACT if found.get(probe) != "pass"]
    return f"{', '.join(left)} did not pass" if left else None


def _audit(shown: _Evidence) -> str | None:
    failed = [rule for rule, status in _findings(shown.audit).items() if status == "fail"]
    if failed:
        return f"{', '.join(failed)} failed"
    return None if shown.audit.get("passed") is True else "it did not pass"


def _kv(shown: _Evidence) -> str | None:
    status = _findings(shown.smoke).get("kv", "not asked")
    if status != "pass":
        return f"kv is {status}"
    told = shown.smoke.get("kv")
    inner = told.get("status") if isinstance(told, dict) else None
    return None if inner == "pass" else f"the verdict on kv is {inner}"


_SHOWN_BY: Mapping[str, Callable[[_Evidence], str | None]] = {
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
