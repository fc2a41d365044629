"""Whether it was built as it says: from the Dockerfile that the pins render, of one commit."""

import dataclasses
import datetime
from collections.abc import Iterator, Mapping
from typing import Any

from builder.build import render
from builder.common.errors import UsageError
from builder.model import tags
from builder.model.finding import Finding
from builder.model.labels import (
    BASE_DIGEST,
    BASE_NAME,
    CLAIMED,
    CREATED,
    LABEL,
    LEFT_OUT,
    RECIPE,
    REVISION,
    VARIANT,
    VERSION,
)
from builder.model.pins import Fork, Receipt
from builder.pins import load as pins
from builder.pins import parts
from builder.release import attach as attest
from builder.verify.claims.subject import Claimed, unproven

_RECIPE = "the Dockerfile of its labels is one that these pins render"
_LABELS = "labels, provenance and record tell the same of how it was built"
_SHOWN = 12


def recipe(claimed: Claimed) -> Finding:
    """Whether the Dockerfile that the labels name comes out when it is rendered again.

    With the fork as it is pinned now, or pinned to the labels' commit, on any base. A digest that
    somebody vouches for may be of an older checkout, which is for that checkout to say.
    """
    said = claimed.image.labels
    name, sha256 = said.get(VARIANT, ""), said.get(RECIPE, "")
    if name not in claimed.pins.variants:
        return unproven("recipe", _RECIPE, f"these pins have no variant {name!r}")
    if not sha256:
        return Finding("recipe", "fail", _RECIPE, "its labels name no Dockerfile")
    rendered = dict(_rendered(claimed, name))
    if sha256 in rendered:
        base = rendered[sha256]
        return Finding("recipe", "pass", _RECIPE, f"rendered again, on base {base}: the same")
    known = ", ".join(one[:_SHOWN] for one in dict.fromkeys(rendered))
    other = f"it says {sha256[:_SHOWN]}, these pins and templates render {known}"
    if sha256 in _vouched(claimed):
        why = f"{other}; ask the checkout of builder that published it"
        return unproven("recipe", _RECIPE, why)
    return Finding("recipe", "fail", _RECIPE, other)


def labels(claimed: Claimed) -> Finding:
    """Whether labels, provenance and record agree on variant, commit, recipe and base."""
    beside = {"provenance": stated(claimed.image.documents.get(attest.PROVENANCE))}
    if claimed.release is not None:
        beside["record"] = _of_receipt(claimed.release.receipt)
    said = claimed.image.labels
    wrong = [
        f"{name.removeprefix(f'{LABEL}.')} is {said.get(name)!r}, by the {where} {value!r}"
        for where, told in beside.items()
        for name, value in told.items()
        if said.get(name) != value
    ]
    if wrong:
        return Finding("labels", "fail", _LABELS, "; ".join(wrong))
    sources = [where for where, told in beside.items() if told]
    if not sources:
        return unproven("labels", _LABELS, "neither goes with it")
    return Finding("labels", "pass", _LABELS, f"by {' and '.join(sources)}")


def stated(statement: Any) -> dict[str, str]:  # noqa: ANN401 -- whatever lies in the registry
    """What a provenance says the labels are; {} when it is of another shape."""
    try:
        built = statement["predicate"]["buildDefinition"]
        asked = built["externalParameters"]
        inputs = {one["name"]: one for one in built["resolvedDependencies"]}
        source = inputs["source"]["annotations"]
        # Of a commit that was only claimed it stands beside that claim.
        number = asked["buildNumber"] if "buildNumber" in asked else source["buildNumber"]
        told = {
            VARIANT: str(asked["variant"]),
            REVISION: str(source["commit"]),
            VERSION: f"b{number}",
            CLAIMED: str(source["claimed"]).lower(),
            RECIPE: str(inputs["Dockerfile"]["digest"]["sha256"]),
        }
        if runtime := inputs.get("runtime"):
            told[BASE_NAME] = str(runtime["uri"]).removeprefix("docker://")
            told[BASE_DIGEST] = f"sha256:{runtime['digest']['sha256']}"
    except (KeyError, TypeError):
        return {}
    return told


def _of_receipt(receipt: Receipt) -> dict[str, str]:
    told = {
        VARIANT: receipt.variant,
        REVISION: receipt.commit,
        VERSION: f"b{receipt.build_number}",
        CLAIMED: str(receipt.commit_claimed).lower(),
        RECIPE: receipt.dockerfile_sha256,
    }
    for one in receipt.bases:
        if one.role == "runtime":
            told |= {BASE_NAME: one.reference.partition("@")[0], BASE_DIGEST: one.digest}
    return told


def _vouched(claimed: Claimed) -> set[str]:
    """The recipes of this digest by the record, and by a provenance that was signed."""
    predicates = [stated({"predicate": one}) for one in claimed.signed.predicates]
    found = {one[RECIPE] for one in predicates if one}
    release = claimed.release
    if release is not None and release.digest == claimed.image.digest:
        found.add(release.receipt.dockerfile_sha256)
    return found


def _rendered(claimed: Claimed, name: str) -> Iterator[tuple[str, str]]:
    """SHA-256 and base of every Dockerfile that the variant could have been built from."""
    left_out = parts.words(claimed.image.labels.get(LEFT_OUT, ""))
    known = parts.without(claimed.pins, name, left_out)
    variant = known.variants[name]
    fork = known.forks[variant.fork]
    for one in (fork, _labelled(fork, claimed.image.labels)):
        forks = known.forks | {variant.fork: one}
        for base in (variant.base, *known.bases):
            try:
                pins.with_base(known, variant, base)
            except UsageError:
                continue
            everything = dataclasses.replace(known, forks=forks)
            yield render.render(everything, name, base).sha256, base


def _labelled(fork: Fork, said: Mapping[str, str]) -> Fork:
    """The fork, had it been pinned to the commit that the labels name."""
    try:
        date = datetime.datetime.fromisoformat(said.get(CREATED, ""))
    except ValueError:
        date = None
    return dataclasses.replace(
        fork,
        commit=said.get(REVISION),
        build_number=tags.build_number(said.get(VERSION, "")),
        date=date if date is not None and date.tzinfo is not None else fork.date,
    )
