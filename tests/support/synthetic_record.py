"""A record of a month that never was: for tests of the page, and for its picture in the README.

`python -m tests.support.synthetic_record DIR` writes one.
"""

import datetime
import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from builder.model.pins import BaseImage, CacheStats, Receipt
from builder.release.record import (
    Attachment,
    Event,
    Index,
    Night,
    NightStep,
    Release,
    write_night,
    write_release,
)

NOTE = "Synthetic: a month made up by tests/support/synthetic_record.py; no such images exist"
REPOSITORY = "registry.example/llama"
FIRST = datetime.date(2026, 10, 22)
NIGHTS = 30
LOG = "ggml/src/ggml.c:1103:1: error: static assertion failed"


@dataclass(frozen=True)
class Made:
    """A variant of the month: megabytes, seconds of a build, nights that failed or saw nothing new.

    `kv` is the type asked for; proven where `proven`, on `gpu` unless that is None.
    """

    name: str
    fork: str
    size_mb: float
    build_s: float
    failed: tuple[int, ...]
    unchanged: tuple[int, ...]
    kv: str
    proven: bool
    gpu: str | None


VARIANTS = (
    Made("spiritbuun-cuda12-sm86", "spiritbuun", 781, 212, (11, 12, 13, 24), (5, 19), "turbo4",
         proven=False, gpu=None),
    Made("thetom-cpu", "thetom", 126, 48, (7,), tuple(range(1, 30, 3)), "turbo4",
         proven=True, gpu=None),
)  # fmt: skip


def digest(*words: object) -> str:
    return f"sha256:{hashlib.sha256(repr(words).encode()).hexdigest()}"


def release(made: Made, night: int) -> Release:
    commit = digest(made.name, night)[7:47]
    date = FIRST + datetime.timedelta(days=night)
    number = 9300 + 3 * night
    name = f"{made.name}-b{number}-{commit[:9]}-r4b031b1c"
    at = f"{date}T03:20:00Z"
    return Release(
        name=name,
        repository=REPOSITORY,
        variant=made.name,
        fork=made.fork,
        commit=commit,
        build_number=number,
        digest=digest(name),
        published=at,
        receipt=receipt(made, night, commit, number, at),
        audit=audit(),
        smoke=smoke(made),
        required=["contract", "audit"],
        proven=["contract", "audit", "kv"] if made.proven else ["contract", "audit"],
        not_proven=[] if made.proven else ["kv"],
        gpu=made.gpu,
        attachments=[
            Attachment("source", digest(name, 1), "application/vnd.example.source+tar"),
            Attachment("sbom", digest(name, 2), "application/spdx+json"),
        ],
        events=[
            Event(at, "pushed"),
            Event(at, "promoted", tag=made.name, previous=digest(name, 3), note="nightly"),
        ],
    )


def receipt(made: Made, night: int, commit: str, number: int, at: str) -> Receipt:
    base = f"docker.io/library/debian:trixie-slim@{digest('trixie')}"
    return Receipt(
        variant=made.name,
        fork=made.fork,
        ref="master",
        commit=commit,
        commit_claimed=False,
        source=f"https://git.example/{made.fork}",
        build_number=number,
        image=f"turboquant:{made.name}",
        image_id=digest(commit),
        size_bytes=size(made, night),
        compressed_bytes=int(0.6 * size(made, night)),
        bases=[BaseImage("runtime", base, digest("trixie"), "hub")],
        dockerfile_sha256=digest("recipe")[7:],
        created=at,
        duration_s=build_s(made, night),
        stages=[],
        ccache=ccache(night),
        log=f"build/logs/{made.name}.log",
    )


def size(made: Made, night: int) -> int:
    """It grows a little, and jumps on the twentieth night."""
    return int((made.size_mb + 0.3 * night + (36 if night > 19 else 0)) * 1e6)


def build_s(made: Made, night: int) -> float:
    """Most nights compile little; every ninth everything."""
    return round(made.build_s * (9 if night % 9 == 0 else 1 + (night * 7 % 5) / 4), 1)


def ccache(night: int) -> CacheStats:
    misses = 640 if night % 9 == 0 else 4 + 30 * (night * 7 % 5)
    return CacheStats(685 - misses, misses)


def smoke(made: Made) -> dict[str, Any]:
    held = made.kv if made.proven else "q8_0"
    reason = "the bytes fit" if made.proven else "the fork's fallback on a machine without a GPU"
    status = "pass" if made.proven else "unproven"
    return {
        "findings": [
            _finding("ready", "pass", "/health answers 200", "200 after 0.1 s"),
            _finding("slots", "pass", "2 slots of 2048 tokens", "2 × 2048 in /props and /slots"),
            _finding("thinking", "pass", "both APIs answer without reasoning", "no reasoning"),
            _finding("kv", status, f"K and V are held as {made.kv}", f"{held} in effect: {reason}"),
            _finding("offload", "unproven", "an answer", "not asked: no GPU here"),
        ],
        "kv": {
            "asked": {"k": made.kv, "v": made.kv},
            "in_effect": [{"cache": "full", "layers": 8, "k": held, "v": held}],
            "status": status,
            "reason": reason,
            "bytes": "K and V each 8.50 MiB in 8 layers",
            "words": "",
            "numbers": "KL 9.9e-05 against f16, top-1 100%",
        },
    }


def audit() -> dict[str, Any]:
    return {
        "findings": [
            _finding("needs", "pass", "every library that is needed is there", "41 of 41"),
            _finding("stub", "pass", "no stub of libcuda", "none"),
            _finding("user", "pass", "not root", "10001"),
        ]
    }


def _finding(probe: str, status: str, expected: str, observed: str) -> dict[str, str]:
    return {"probe": probe, "status": status, "expected": expected, "observed": observed}


def night(made: Made, number: int) -> Night:
    date = (FIRST + datetime.timedelta(days=number)).isoformat()
    begun = NightStep("freshness", "ok", f"{date}T03:00:00Z", 4.2, "3 commits behind")
    one = Night(date, made.name, made.fork, "unchanged", [begun], commits_behind=0, days_behind=0.0)
    if number in made.unchanged:
        return one
    commit = digest(made.name, number)[7:47]
    waiting = next(n for n in range(1, NIGHTS) if number - n not in made.failed)
    one = replace(one, commit=commit, commits_behind=3 * waiting, days_behind=float(waiting))
    if number in made.failed:
        step = NightStep("build", "failed", f"{date}T03:01:00Z", 40.0, LOG, f"logs/{date}.log")
        return replace(one, outcome="failed", steps=[begun, step], failed_step="build")
    built = NightStep("build", "ok", f"{date}T03:01:00Z", build_s(made, number))
    return replace(
        one,
        outcome="promoted",
        steps=[begun, built],
        release=release(made, number).name,
        commits_behind=0,
        days_behind=0.0,
        size_bytes=size(made, number),
        compressed_bytes=int(0.6 * size(made, number)),
        build_s=build_s(made, number),
        ccache=ccache(number),
    )


def nights() -> Iterator[Night]:
    return (night(made, number) for made in VARIANTS for number in range(NIGHTS))


def promoted(made: Made) -> list[Release]:
    """The last three nights that gave a release, newest first."""
    good = [n for n in range(NIGHTS) if n not in made.failed and n not in made.unchanged]
    return [release(made, n) for n in reversed(good[-3:])]


def write(folder: Path) -> None:
    """Write the month: thirty nights of two variants, and the last three releases of each."""
    for one in nights():
        write_night(folder, one)
    every = [one for made in VARIANTS for one in promoted(made)]
    floating = {made.name: promoted(made)[0].name for made in VARIANTS}
    floating["latest"] = floating[VARIANTS[0].name]
    newest_first = sorted(every, key=lambda one: one.published, reverse=True)
    index = Index(REPOSITORY, floating, releases=[one.name for one in newest_first])
    for one in every:
        write_release(folder, one, index)


HOSTILE = (
    "</style></title><script>document.title='taken over'</script>"
    "<img src=x onerror=\"document.title='taken over'\">&lt;'\"{{ 7*7 }}" + "x" * 400
)


def write_hostile(folder: Path) -> None:
    """A record in which whatever a stranger may have written is an attempt at the page."""
    made = VARIANTS[0]
    words = {"probe": HOSTILE, "expected": HOSTILE, "observed": HOSTILE}
    kind = release(made, 1)
    one = replace(
        kind,
        repository=HOSTILE,
        fork=HOSTILE,
        commit=HOSTILE,
        digest=HOSTILE,
        gpu=HOSTILE,
        receipt=replace(kind.receipt, bases=[replace(kind.receipt.bases[0], reference=HOSTILE)]),
        audit={"findings": [words | {"status": "fail"}]},
        smoke={"findings": [words | {"status": "pass"}]},
        attachments=[replace(kind.attachments[0], media_type=HOSTILE, tag=HOSTILE)],
        events=[Event(HOSTILE, "pushed", tag=HOSTILE, previous=HOSTILE, note=HOSTILE)],
    )
    write_release(folder, one, Index(HOSTILE, {one.variant: one.name}, releases=[one.name]))
    step = NightStep(HOSTILE, "failed", HOSTILE, 1.0, HOSTILE, HOSTILE)
    failed = night(made, made.failed[0])
    bad = replace(failed, steps=[step], failed_step=HOSTILE, commit=HOSTILE, bisect=HOSTILE)
    write_night(folder, replace(bad, page="javascript:document.title='taken over'"))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
