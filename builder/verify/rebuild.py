"""A record that was lost, made again from what the registry's images say of themselves.

Nothing is written to the registry. What the record has already stays. What an image says of itself
can be made up by whoever may push there, so a rebuilt release vouches for nothing (`verify`).
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from builder.common.errors import BuilderError, RefNotFoundError, RemoteUnavailableError
from builder.common.progress import Progress
from builder.model import tags
from builder.model.labels import (
    BASE_DIGEST,
    BASE_NAME,
    BUILT_AS,
    CLAIMED,
    CREATED,
    GPU,
    PROVEN,
    RECIPE,
    REVISION,
    SOURCE,
    VARIANT,
    VERSION,
)
from builder.model.pins import BaseImage, Pins, Receipt
from builder.registry import login as registry_login
from builder.registry import referrers
from builder.registry.client import RegistryClient
from builder.release import attach as attest
from builder.release import floating, published
from builder.release import record as records
from builder.release.published import Published
from builder.release.record import Event, Index, Proof, Release
from builder.verify.claims.documents import evidence, statement
from builder.verify.claims.promises import promises
from builder.verify.claims.recipe import labels as labels_agree
from builder.verify.claims.subject import Claimed, Signed

if TYPE_CHECKING:
    from builder.registry.client import Manifest

UNKNOWN = (
    "when its tags were moved, and from what",
    "what was required of it",
    "how long its build took, its log and its ccache",
    "its devel base, unless the provenance names it",
    "nights, deleted releases and rollbacks",
)
"""What no image in a registry says of itself."""

_CLAIMS = (labels_agree, statement, evidence, promises)
"""What must not be false of an image; what could not be checked is not taken for proven."""


@dataclass(frozen=True, slots=True)
class Added:
    """A release that the record lacked. `proven` is what the evidence beside the image shows."""

    name: str
    digest: str
    proven: list[Proof]
    not_proven: list[Proof]


@dataclass(frozen=True, slots=True)
class Left:
    """A tag of the registry that is not in the record now, and why."""

    tag: str
    why: str


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What was written, with `dry_run` what would be.

    `known`: releases that the record had. `floating`: tag → release, where the record said
    something else. `left`: tags that are none of builder's, or of images that are not what they
    say.
    `not_judged`: tags of which the registry did not answer. `unknown`: what nobody can tell.
    """

    repository: str
    added: list[Added]
    known: list[str]
    floating: dict[str, str]
    left: list[Left]
    not_judged: list[Left]
    dry_run: bool
    unknown: list[str] = field(default_factory=lambda: [*UNKNOWN])
    schema: int = 1

    @property
    def exit_code(self) -> int:
        """6 where the registry did not answer for every tag."""
        return RemoteUnavailableError.exit_code if self.not_judged else 0


def rebuild(
    repository: str, pins: Pins, folder: Path, progress: Progress, *, dry_run: bool = False
) -> Rebuilt:
    """Add to the record in a folder what the registry has and the record lacks.

    Raises RefNotFoundError when the registry has no tag there, RemoteUnavailableError, UsageError
    for the record of another repository.
    """
    own = registry_login.own_registry(pins.policy.release.repository)
    with own, records.alone(folder, progress), RegistryClient(repository) as registry:
        index = floating.of(folder, repository)
        progress.step(f"list the tags of {repository}")
        names = registry.tags()
        if not names:
            raise RefNotFoundError(
                f"{repository} has no tags", hint="name the repository: `--to host/name`"
            )
        look = _Look(registry, pins, folder, index, progress)
        for name in names:
            look.at(name)
        moved = look.moved()
        if not dry_run:
            _write(folder, index, look.found, moved, progress)
    return Rebuilt(
        repository=repository,
        added=[Added(one.name, one.digest, one.proven, one.not_proven) for one in look.found],
        known=look.known,
        floating=moved,
        left=look.left,
        not_judged=look.not_judged,
        dry_run=dry_run,
    )


def to_json(made: Rebuilt) -> str:
    """The result as indented JSON."""
    return json.dumps({**dataclasses.asdict(made), "exit_code": made.exit_code}, indent=2)


@dataclass(slots=True)
class _Look:
    """A look at every tag of a repository, one after the other."""

    registry: RegistryClient
    pins: Pins
    folder: Path
    index: Index
    progress: Progress
    found: list[Release] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    not_judged: list[Left] = field(default_factory=list)
    follows: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Floating tag → digest, and the release that its labels name."""

    def at(self, tag: str) -> None:
        """Look at one tag; what is wrong with it hides no other."""
        if tag.startswith("sha256-"):
            return  # what goes with an image
        self.progress.step(f"look at {tag}")
        try:
            why = self._see(tag)
        except RemoteUnavailableError as error:
            self.not_judged.append(Left(tag, f"{error.what} {error.why}".strip()))
        except BuilderError as error:
            self.left.append(Left(tag, f"{error.what} {error.why}".strip()))
        else:
            if why:
                self.left.append(Left(tag, why))

    def _see(self, tag: str) -> str:
        """Why the tag is left; "" when it is not."""
        manifest = self.registry.manifest(tag)
        if manifest is None:
            return "it is listed, and is not there"
        said = published.labels(self.registry, manifest)
        name = published.release_name(said)
        if name is None:
            return "its labels are not those of a release"
        if tag == name:
            return self._release(tag, manifest)
        own = tags.floating(said[VARIANT], self.pins.policy.default_variant)
        if tag not in own:
            return f"by its labels it is {name}"
        self.follows[tag] = (manifest.digest, name)
        return ""

    def _release(self, name: str, manifest: "Manifest") -> str:
        if records.has_release(self.folder, name):
            recorded = records.read_release(self.folder, name)
            if recorded.digest != manifest.digest:
                return f"it stands for {manifest.digest}, the record says {recorded.digest}"
            if name in self.index.releases:
                self.known.append(name)
                return ""
            self.found.append(_here_again(recorded))
            return ""
        image = published.read(self.registry, f"{self.registry.repository}:{name}", self.progress)
        release = _release(self.registry, image, manifest, self.pins)
        findings = [claim(Claimed(image, self.pins, _NOBODY)) for claim in _CLAIMS]
        wrong = [f"{one.probe}: {one.observed}" for one in findings if one.status == "fail"]
        if wrong:
            return f"it is not what it says it is: {'; '.join(wrong)}"
        shown = all(one.status == "pass" for one in findings)
        self.found.append(_proven(release, image.labels if shown else {}))
        return ""

    def moved(self) -> dict[str, str]:
        """Floating tag → release, where the registry has it otherwise than the record."""
        digests = {one.name: one.digest for one in self.found}
        digests |= {name: records.read_release(self.folder, name).digest for name in self.known}
        moved = {}
        for tag, (digest, name) in self.follows.items():
            if digests.get(name) != digest:
                self.left.append(Left(tag, f"it stands for {digest}, and {name} does not"))
            elif self.index.floating.get(tag) != name:
                moved[tag] = name
        return moved


_NOBODY = Signed("unproven", "not checked: a record is rebuilt")


def _here_again(release: Release) -> Release:
    """A release whose file is in the record, and which its index does not name."""
    event = Event(records.now(), "tagged", release.name, note="the registry has it")
    return replace(release, events=[*release.events, event])


def _proven(release: Release, said: Mapping[str, str]) -> Release:
    """With what its label says was proven; {}: the evidence for that is not whole."""
    words = said.get(PROVEN, "").split(",")
    proven = [one for one in get_args(Proof) if one in words]
    rest = [one for one in get_args(Proof) if one not in proven]
    return replace(release, proven=proven, not_proven=rest)


def _release(
    registry: RegistryClient, image: Published, manifest: "Manifest", pins: Pins
) -> Release:
    """What labels, attachments and manifest say; UNKNOWN is what they do not."""
    said, documents = image.labels, image.documents
    there = [one.created for one in referrers.attached(registry, image.digest) if one.created]
    when = min(there, default=said.get(CREATED, records.now()))
    gpu = said.get(GPU, "none")
    receipt = _receipt(image, pins, when)
    note = f"from the registry's own words; not known: {', '.join(UNKNOWN)}"
    return Release(
        name=image.name or "",
        repository=image.repository,
        variant=receipt.variant,
        fork=receipt.fork,
        commit=receipt.commit,
        build_number=receipt.build_number,
        digest=image.digest,
        published=when,
        receipt=receipt,
        audit=_document(documents, attest.AUDIT),
        smoke=_document(documents, attest.SMOKE),
        required=[],
        proven=[],
        not_proven=[*get_args(Proof)],
        gpu=None if gpu == "none" else gpu,
        registry_bytes=0 if manifest.index else sum(one.size or 0 for one in manifest.image.layers),
        attachments=image.attachments,
        events=[Event(records.now(), "rebuilt", note=note)],
    )


def _receipt(image: Published, pins: Pins, created: str) -> Receipt:
    said = image.labels
    stated = _document(image.documents, attest.PROVENANCE)
    asked = _at(stated, "predicate", "buildDefinition", "externalParameters")
    listed = _at(stated, "predicate", "buildDefinition", "resolvedDependencies")
    inputs = {_at(one, "name"): one for one in listed} if isinstance(listed, list) else {}
    source = _at(inputs.get("source"), "annotations")
    known = pins.variants.get(said[VARIANT])
    fork = _at(asked, "fork")
    # Of a commit that was only claimed the ref stands beside that claim.
    ref = _at(asked, "ref") or _at(source, "ref")
    return Receipt(
        variant=said[VARIANT],
        fork=str(fork or (known.fork if known else "")),
        ref=str(ref or ""),
        commit=said[REVISION],
        commit_claimed=said.get(CLAIMED) == "true",
        source=str(_at(source, "origin") or said.get(SOURCE, "")),
        build_number=tags.build_number(said[VERSION]) or 0,
        image="",
        image_id=said.get(BUILT_AS, ""),
        size_bytes=0,
        compressed_bytes=0,
        bases=_bases(said, inputs.get("devel")),
        dockerfile_sha256=said[RECIPE],
        created=str(_at(stated, "predicate", "runDetails", "metadata", "finishedOn") or created),
        duration_s=0.0,
        stages=[],
        ccache=None,
        log="",
    )


def _bases(said: Mapping[str, str], devel: Any) -> list[BaseImage]:  # noqa: ANN401 -- JSON
    runtime = BaseImage("runtime", said.get(BASE_NAME, ""), said.get(BASE_DIGEST, ""), "set")
    sha256 = _at(devel, "digest", "sha256")
    if not sha256:
        return [runtime]
    name = str(_at(devel, "uri") or "").removeprefix("docker://")
    return [BaseImage("devel", name, f"sha256:{sha256}", "set"), runtime]


def _document(documents: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = documents.get(name)
    return found if isinstance(found, dict) else {}


def _at(value: Any, *path: str) -> Any:  # noqa: ANN401 -- JSON of whatever shape
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _write(
    folder: Path,
    index: Index,
    found: list[Release],
    moved: Mapping[str, str],
    progress: Progress,
) -> None:
    """Each release with the index that names it, then the tags: a kill leaves a whole record."""
    for release in sorted(found, key=lambda one: one.published):
        progress.step(f"write down {release.name}")
        others = [name for name in index.releases if name != release.name]
        index = replace(index, releases=[release.name, *others])
        records.write_release(folder, release, index)
    for tag, name in moved.items():
        before = index.floating.get(tag)
        previous = records.read_release(folder, before).digest if before else None
        event = Event(records.now(), "rebuilt", tag, previous, "the registry has it so")
        release = records.read_release(folder, name)
        index = replace(
            index,
            floating={**index.floating, tag: name},
            moving={key: value for key, value in index.moving.items() if key != tag},
        )
        records.write_release(folder, replace(release, events=[*release.events, event]), index)
