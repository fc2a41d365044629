"""Whether the labels are complete, and what they say is true."""

import datetime
from collections.abc import Iterator, Mapping

from builder.probe.finding import Finding
from builder.render import LABEL, created, git_address
from builder.rule.subject import Pinned, Subject, some, unproven, verdict_on

LABELS = "labels"

_OCI = "org.opencontainers.image"
REVISION = f"{_OCI}.revision"
SOURCE = f"{_OCI}.source"
VERSION = f"{_OCI}.version"
CREATED = f"{_OCI}.created"
TITLE = f"{_OCI}.title"
BASE_NAME = f"{_OCI}.base.name"
BASE_DIGEST = f"{_OCI}.base.digest"
VARIANT = f"{LABEL}.variant"
KV_TYPES = f"{LABEL}.kv-types"
CUDA = f"{LABEL}.cuda"
ARCHITECTURES = f"{LABEL}.cuda-architectures"
DRIVER = f"{LABEL}.lowest-driver"
STARTS = f"{LABEL}.starts-without-driver"
CUBLAS = f"{LABEL}.cublas"
ORIGIN = f"{LABEL}.base-origin"
CLAIMED = f"{LABEL}.commit-claimed"
RECIPE = f"{LABEL}.dockerfile-sha256"
BUILT_AS = f"{LABEL}.built-as"
PROVEN = f"{LABEL}.proven"
NOT_PROVEN = f"{LABEL}.not-proven"
GPU = f"{LABEL}.gpu"

_ALWAYS = (REVISION, SOURCE, VERSION, CREATED, TITLE, BASE_NAME, BASE_DIGEST, VARIANT, KV_TYPES)
_OF_CUDA = (CUDA, ARCHITECTURES, DRIVER, STARTS, CUBLAS)
_OF_BUILDER = (ORIGIN, CLAIMED, RECIPE)
"""What `builder build` adds to the Dockerfile's own."""
OF_PUBLISH = (BUILT_AS, PROVEN, NOT_PROVEN, GPU)
"""What `builder publish` adds: the ID under which the image was built, what it had passed and what
not (both in record.Proof's words, with commas), and the GPU that it passed that on, or "none"."""

_EXPECTED = "labels complete, and true against pins, receipt and rendered Dockerfile"


def labels(subject: Subject) -> Finding:
    """Whether every label is there, and none says what pins, receipt or Dockerfile deny.

    The pins are believed for what the variant is, the receipt for what was built; without one the
    pinned commit is expected.
    """
    found, pinned = subject.config.labels, subject.pinned
    if isinstance(pinned, str):
        return unproven(LABELS, _EXPECTED, pinned)
    faults = [*_missing(found, pinned), *_wrong(found, _true(subject, pinned))]
    faults += [fault for fault in (_recipe(found, pinned), _date(found, pinned)) if fault]
    by_hand = not any(name in found for name in _OF_BUILDER)
    if not faults and by_hand:
        why = "not built by `builder build`, so no label names the recipe and the base"
        return unproven(LABELS, _EXPECTED, why)
    evidence = "pins, receipt and Dockerfile" if subject.receipt else "pins and Dockerfile"
    good = f"{len(found)} labels agree with {evidence}"
    if not found.get(CREATED):
        good += "; created is empty: the package names no date, and nobody checked its commit"
    return verdict_on(LABELS, faults, expected=_EXPECTED, good=good)


def _missing(found: Mapping[str, str], pinned: Pinned) -> Iterator[str]:
    wanted = [*_ALWAYS, *(_OF_CUDA if pinned.variant.architectures else ())]
    if any(name in found for name in _OF_BUILDER):
        wanted += _OF_BUILDER
    may_be_empty = {KV_TYPES, CREATED, *(() if pinned.fork.url else (SOURCE,))}
    for name in wanted:
        if name not in found:
            yield f"{name} is missing"
        elif not found[name] and name not in may_be_empty:
            yield f"{name} is empty"


def _wrong(found: Mapping[str, str], true: Mapping[str, str]) -> Iterator[str]:
    for name, value in true.items():
        if name in found and found[name] != value:
            yield f"{name} is {found[name]!r}, not {value!r}"


def _true(subject: Subject, pinned: Pinned) -> dict[str, str]:
    """What the labels that are known must say."""
    fork, receipt = pinned.fork, subject.receipt
    true = {
        VARIANT: pinned.name,
        TITLE: f"llama-server, {pinned.name}",
        KV_TYPES: ",".join(fork.kv_types),
    }
    if fork.url:
        true[SOURCE] = git_address(fork.url)
    cuda = pinned.recipes.get(subject.config.labels.get(RECIPE, ""), pinned.base).cuda
    if cuda:
        true |= {
            ARCHITECTURES: ",".join(pinned.variant.architectures),
            CUDA: cuda.version,
            DRIVER: cuda.driver,
            STARTS: str(fork.linkage == "backend-dl").lower(),
            CUBLAS: pinned.variant.cublas,
        }
    if receipt:
        true |= {
            VARIANT: receipt.variant,
            REVISION: receipt.commit,
            VERSION: f"b{receipt.build_number}",
            CLAIMED: str(receipt.commit_claimed).lower(),
            RECIPE: receipt.dockerfile_sha256,
        }
        for base in receipt.bases:
            if base.role == "runtime":
                name = base.reference.partition("@")[0]
                true |= {BASE_NAME: name, BASE_DIGEST: base.digest, ORIGIN: base.origin}
    elif pinned.commit:
        number = fork.build_number if pinned.commit == fork.commit else None
        true |= {REVISION: pinned.commit, VERSION: f"b{number or 0}"}
    return true


def _recipe(found: Mapping[str, str], pinned: Pinned) -> str | None:
    """What is wrong with the Dockerfile that the image says it was built from, or None."""
    sha256 = found.get(RECIPE)
    if not sha256 or sha256 in pinned.recipes:
        return None
    known = some(one[:12] for one in pinned.recipes)
    return f"{RECIPE} is {sha256[:12]}…, the rendered Dockerfile's is {known}…"


def _date(found: Mapping[str, str], pinned: Pinned) -> str | None:
    """What is wrong with the commit's date, or None.

    It may be empty where nobody knows it: the tree came from an archive or a folder that only
    claims its commit, and the pins do not have that commit's date.
    """
    date = found.get(CREATED)
    if date is None:
        return None
    if found.get(REVISION) == pinned.fork.commit and pinned.fork.date:
        known = created(pinned.fork)
        return None if date == known else f"{CREATED} is {date!r}, the commit's date is {known}"
    if not date:
        claimed = found.get(CLAIMED) == "true"
        return None if claimed else f"{CREATED} is empty, and {CLAIMED} is not true"
    try:
        aware = datetime.datetime.fromisoformat(date).tzinfo is not None
    except ValueError:
        aware = False
    return None if aware else f"{CREATED} is {date!r}: no date and time as RFC 3339 has them"
