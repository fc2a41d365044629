"""What passed smokes measured, kept for the next bump: under build/smokes/ beside pins.toml."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from builder.common.files import write_atomically
from builder.model.pins import Requirement
from builder.smoke import report as smoke_report


@dataclass(frozen=True, slots=True)
class Smoked:
    """Two cells of a table: the numbers by which the KV type was told, and the probes counted.

    `proven` is what the probes show.
    """

    numbers: str
    probes: str
    proven: tuple[Requirement, ...] = ()


def write(report: smoke_report.SmokeReport, variant: str, commit: str, results: Path) -> Smoked:
    """Keep this smoke as the newest of the variant at the commit; the file is its JSON report."""
    text = smoke_report.to_json(report)
    path = _file(variant, commit, results)
    write_atomically(path, f"{text}\n")
    return _cells(text)


def read(variant: str, commit: str, results: Path) -> Smoked | None:
    """What was kept of the variant at the commit; a file of another shape is none."""
    try:
        return _cells(_file(variant, commit, results).read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _file(variant: str, commit: str, results: Path) -> Path:
    return results / "build" / "smokes" / f"{variant}-{commit[:9]}.json"


def _cells(text: str) -> Smoked:
    page = json.loads(text)
    counted = Counter(str(one["status"]) for one in page["findings"])
    order = ("pass", "unproven", "fail")
    probes = ", ".join(f"{counted[word]} {word}" for word in order if counted[word])
    statuses = {str(one["probe"]): str(one["status"]) for one in page["findings"]}
    return Smoked(str(page["kv"]["numbers"]), probes, tuple(smoke_report.proven(statuses)))
