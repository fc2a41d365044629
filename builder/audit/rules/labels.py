"""Whether the labels are complete, and what they say is true."""

import datetime
import re
from collections.abc import Collection, Iterator, Mapping

from builder.audit.rules.subject import Pinned, Subject, some, unproven, verdict_on
from builder.git import commits
from builder.llama.printed import build_number, commit, offered
from builder.model.finding import Finding
from builder.model.labels import (
    ARCHITECTURES,
    BASE_DIGEST,
    BASE_NAME,
    CLAIMED,
    CREATED,
    CUBLAS,
    CUDA,
    DRIVER,
    KV_TYPES,
    LEFT_OUT,
    ORIGIN,
    RECIPE,
    REVISION,
    SOURCE,
    STARTS,
    TITLE,
    VARIANT,
    VERSION,
)
from builder.model.pins import Receipt, created, git_address

LABELS = "labels"


_ALWAYS = (REVISION, SOURCE, VERSION, CREATED, TITLE, BASE_NAME, BASE_DIGEST, VARIANT, KV_TYPES)
_OF_CUDA = (CUDA, ARCHITECTURES, DRIVER, STARTS, CUBLAS)
_OF_BUILDER = (ORIGIN, CLAIMED, RECIPE)
"""What `builder build` adds to the Dockerfile's own."""

_SHAPES = {
    REVISION: re.compile(r"[0-9a-f]{7,40}"),
    VERSION: re.compile(r"b\d+"),
    BASE_DIGEST: re.compile(r"sha256:[0-9a-f]{64}"),
    RECIPE: re.compile(r"[0-9a-f]{64}"),
    CLAIMED: re.compile(r"true|false"),
}

_EXPECTED = "labels complete, and true against pins, receipt, rendered Dockerfile and server"


def labels(subject: Subject) -> Finding:
    """Whether every label is there, and none says what is known to be otherwise.

    The receipt is believed for what was built. What the Dockerfile writes has to be as the pins
    say where they render that very Dockerfile. A release from earlier pins only differs from
    them: that is unproven. The server's own words deny a label at any time.
    """
    found, pinned = subject.config.labels, subject.pinned
    if isinstance(pinned, str):
        return unproven(LABELS, _EXPECTED, pinned)
    by_pins = [*_differences(found, _by_pins(found, pinned))]
    todays = found.get(RECIPE) in pinned.recipes
    faults = [
        *_missing(found, pinned),
        *_left_out(found, subject.receipt),
        *_misshapen(found),
        *_contradictions(subject, pinned),
        *_differences(found, _by_receipt(subject.receipt)),
        *(by_pins if todays else ()),
        *_of_commit(found, pinned),
    ]
    others = [] if todays else by_pins
    others += [] if subject.receipt else _older(found, pinned)
    if not faults and (why := _not_proven(subject, others)):
        return unproven(LABELS, _EXPECTED, why)
    evidence = "pins, receipt and Dockerfile" if subject.receipt else "pins and Dockerfile"
    good = f"{len(found)} labels agree with {evidence}"
    if not todays:
        good += ", which is not today's"
    if not found.get(CREATED):
        good += "; created is empty: the package names no date, and nobody checked its commit"
    return verdict_on(LABELS, faults, expected=_EXPECTED, good=good)


def _not_proven(subject: Subject, differences: Collection[str]) -> str | None:
    """Why labels without a fault are not proven, or None."""
    if differences:
        why = f"today's pins differ: {some(differences)}"
        return why if subject.receipt else f"{why}; no receipt here says how it was built"
    if not any(name in subject.config.labels for name in _OF_BUILDER):
        return "not built by `builder build`, so no label names the recipe and the base"
    return None


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


def _left_out(found: Mapping[str, str], receipt: Receipt | None) -> Iterator[str]:
    if receipt is not None and (LEFT_OUT in found) != bool(receipt.left_out):
        told = ", ".join(receipt.left_out) or "nothing"
        yield f"{LEFT_OUT} is {found.get(LEFT_OUT)!r}, by the receipt {told} was left out"


def _misshapen(found: Mapping[str, str]) -> Iterator[str]:
    for name, shape in _SHAPES.items():
        if found.get(name) and not shape.fullmatch(found[name]):
            yield f"{name} is {found[name]!r}"


def _differences(found: Mapping[str, str], true: Mapping[str, str]) -> Iterator[str]:
    for name, value in true.items():
        if name in found and found[name] != value:
            yield f"{name} is {found[name]!r}, not {value!r}"


def _contradictions(subject: Subject, pinned: Pinned) -> Iterator[str]:
    """What one part of the image says against another."""
    found = subject.config.labels
    if VARIANT in found:
        title = f"llama-server, {found[VARIANT]}"
        yield from _differences(found, {VARIANT: pinned.name, TITLE: title})
    said, number = commit(subject.version.text), build_number(subject.version.text)
    revision, version = found.get(REVISION, ""), found.get(VERSION, "")
    if revision and said and not commits.same(revision, said):
        yield f"{REVISION} is {revision!r}, the server says {said}"
    known = re.fullmatch(r"b0*([1-9]\d*)", version)
    if number and known and known[1] != str(number):
        yield f"{VERSION} is {version!r}, the server says {number}"
    types = offered(subject.help.text)
    labelled = filter(None, found.get(KV_TYPES, "").split(","))
    lacking = [name for name in labelled if types and name not in types.get("k", ())]
    if lacking:
        yield f"{KV_TYPES} has {some(lacking)}, which the server does not offer"


def _by_pins(found: Mapping[str, str], pinned: Pinned) -> dict[str, str]:
    """What the pins write into the variant's Dockerfile."""
    fork = pinned.fork
    true = {TITLE: f"llama-server, {pinned.name}", KV_TYPES: ",".join(fork.kv_types)}
    if fork.url:
        true[SOURCE] = git_address(fork.url)
    cuda = pinned.recipes.get(found.get(RECIPE, ""), pinned.base).cuda
    if cuda:
        true |= {
            ARCHITECTURES: ",".join(pinned.variant.architectures),
            CUDA: cuda.version,
            DRIVER: cuda.driver,
            STARTS: str(fork.linkage == "backend-dl").lower(),
            CUBLAS: pinned.variant.cublas,
        }
    return true


def _by_receipt(receipt: Receipt | None) -> dict[str, str]:
    """What the labels must say by the receipt; {} without one."""
    if receipt is None:
        return {}
    true = {
        VARIANT: receipt.variant,
        REVISION: receipt.commit,
        VERSION: f"b{receipt.build_number}",
        CLAIMED: str(receipt.commit_claimed).lower(),
        RECIPE: receipt.dockerfile_sha256,
    }
    if receipt.left_out:
        true[LEFT_OUT] = ",".join(receipt.left_out)
    for base in receipt.bases:
        if base.role == "runtime":
            name = base.reference.partition("@")[0]
            true |= {BASE_NAME: name, BASE_DIGEST: base.digest, ORIGIN: base.origin}
    return true


def of_other_pins(subject: Subject) -> str:
    """Why today's pins do not say how this image was made; "" where they do, or no label tells.

    An image that is judged as another variant than its label names is held against that one's pins.
    """
    labels = subject.config.labels
    sha256 = labels.get(RECIPE)
    if isinstance(subject.pinned, str) or not sha256 or sha256 in subject.pinned.recipes:
        return ""
    if labels.get(VARIANT) != subject.pinned.name:
        return ""
    return f"today's pins render no Dockerfile {sha256[:12]}, which it was made from"


def _older(found: Mapping[str, str], pinned: Pinned) -> Iterator[str]:
    """What an image from other pins, or of another commit, says otherwise than today's pins."""
    sha256, revision = found.get(RECIPE), found.get(REVISION)
    if sha256 and sha256 not in pinned.recipes:
        known = some(one[:12] for one in pinned.recipes)
        yield f"{RECIPE} is {sha256[:12]}…, the rendered Dockerfile's is {known}…"
    if pinned.commit and revision and revision != pinned.commit:
        yield f"{REVISION} is {revision[:9]}, the pinned commit is {pinned.commit[:9]}"


def _of_commit(found: Mapping[str, str], pinned: Pinned) -> Iterator[str]:
    """What is wrong with the build number and the date of the commit, where the pins know them.

    A date may be empty where nobody knows it: the tree came from an archive or a folder that only
    claims its commit, and the pins do not have that commit's date.
    """
    if pinned.commit and found.get(REVISION) == pinned.commit:
        number = pinned.fork.build_number if pinned.commit == pinned.fork.commit else None
        yield from _differences(found, {VERSION: f"b{number or 0}"})
    date = found.get(CREATED)
    if date is None:
        return
    if found.get(REVISION) == pinned.fork.commit and pinned.fork.date:
        known = created(pinned.fork)
        if date != known:
            yield f"{CREATED} is {date!r}, the commit's date is {known}"
    elif not date and found.get(CLAIMED) != "true":
        yield f"{CREATED} is empty, and {CLAIMED} is not true"
    elif date and not _is_time(date):
        yield f"{CREATED} is {date!r}: no date and time as RFC 3339 has them"


def _is_time(text: str) -> bool:
    try:
        return datetime.datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False
