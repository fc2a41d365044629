"""Give an image a published name: behind its audit and smoke, as it was pulled back.

The steps, each of which can be the last that a killed run did: push by digest, pull that back,
audit, smoke, attest, record, the immutable tag, the floating tags. A second run takes up where the
first one ended: what the record has as passed is not asked again.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from builder import audit as audits
from builder import container, engine, floating, image_push, paths, smoke_report, tags
from builder import receipt as receipts
from builder import record as records
from builder.errors import EngineError, NameTakenError, NotProvenError, UsageError
from builder.locks import locked
from builder.model import Pins, Receipt
from builder.pins_problems import is_repository
from builder.progress import Progress
from builder.record import Attachment, Event, Index, Proof, Release
from builder.registry_client import RegistryClient
from builder.render import LABEL
from builder.smoke_options import SMOKE_CAN_REQUIRE, Options
from builder.source import FROM_DISK

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.images import Image

    from builder.audit import AuditReport
    from builder.image_push import Pushed
    from builder.smoke_report import SmokeReport

_CLOCKS_APART_S = 300.0
_ALIKE = 3
"""Of the newest releases, those whose layers are looked at: other variants share the base's."""
_MB = 1e6


def nothing_attached(_pins: Pins, _release: Release, _progress: Progress) -> list[Attachment]:
    """The stage of who attaches nothing."""
    return []


@dataclass(frozen=True, slots=True)
class Stages:
    """What proves an image that was pulled back, by its name `repository@digest`.

    `gpu` names the GPU that the engine has to give, None: none. `attach` brings to the registry
    what goes with a release, and may be called again for one that has it already.
    """

    audit: "Callable[[Pins, str, str, Path, Progress], AuditReport]"
    smoke: "Callable[[Pins, str, Options, Path, Progress], SmokeReport]"
    gpu: Callable[[], str | None]
    attach: Callable[[Pins, Release, Progress], list[Attachment]] = nothing_attached


@dataclass(frozen=True, slots=True)
class Request:
    """What `builder publish` was asked for. `what`: an image on the engine, or a receipt's path.

    `results` is the folder of receipts and logs. Without `promote` the release gets its immutable
    tag only. `force`: also move a floating tag that somebody else moved.
    """

    what: str
    repository: str
    pins: Pins
    results: Path
    promote: bool = True
    force: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What `publish` would do, as far as the registry and the record tell it now.

    `digest` is what the name stands for now, None: nothing. `proven` says that the record has this
    very image as passed. `floating`: tag → the digest that it stands for now.
    """

    name: str
    repository: str
    image_id: str
    digest: str | None
    proven: bool
    required: list[Proof]
    floating: dict[str, str | None]


@dataclass(frozen=True, slots=True)
class _Candidate:
    """An image that wants a name."""

    name: str
    image: "Image"
    receipt: Receipt
    required: list[Proof]


def publish(request: Request, stages: Stages, record: Path, progress: Progress) -> Release:
    """Push, pull back, prove, attach, name: the release as the record in this folder has it.

    Raises NotProvenError when it has not passed what the policy requires, NameTakenError when a
    name stands for another digest, UsageError, EngineError, RefNotFoundError and
    RemoteUnavailableError; after each a floating tag stands for a release that had passed.
    """
    client = engine.connect()
    candidate = _candidate(client, request)
    with RegistryClient(request.repository) as registry, alone(record, progress):
        index = floating.of(record, request.repository)
        progress.step(f"look for {candidate.name}")
        there = registry.digest(candidate.name)
        warn_of_clocks(registry, progress)
        pushed = _push(candidate, registry, record, index, progress)
        digest = pushed.manifest.digest
        if there not in {None, digest}:
            raise _taken(candidate.name, str(there), digest)
        release = _recorded(record, index, candidate, digest)
        if release is None or not set(candidate.required) <= set(release.proven):
            reference = _pull(client, candidate, registry, pushed, progress)
            proven = _prove(candidate, request, stages, reference, digest, progress)
            release = replace(
                proven,
                registry_bytes=pushed.size,
                attachments=_attached(request.pins, candidate, proven, stages, progress),
                events=[*(release.events if release else []), _pushed(pushed)],
            )
            progress.step("write down what it passed")
            records.write_release(record, release, index)
        release = _name(registry, record, release, progress)
        if not request.promote:
            return release
        moved = tags.floating(release.variant, request.pins.policy.default_variant)
        return floating.move(
            registry, record, release, moved, "promoted", progress, force=request.force
        )


def repository(named: str | None, pins: Pins) -> str:
    """Where to publish: as named, else as the pins say. Raises UsageError."""
    found = named or pins.policy.release.repository
    if found is None:
        raise UsageError(
            "where to? pins.toml has no policy.release.repository",
            hint="`--to ghcr.io/me/turboquant`",
        )
    if not is_repository(found):
        raise UsageError(
            f"--to {found!r} is not host/name, without a tag", hint="`--to ghcr.io/me/turboquant`"
        )
    return found


def plan(request: Request, record: Path) -> Plan:
    """What `publish` would do. Changes nothing; raises as it does."""
    candidate = _candidate(engine.connect(), request)
    with RegistryClient(request.repository) as repository:
        index = floating.of(record, request.repository)
        there = repository.digest(candidate.name)
        known = _recorded(record, index, candidate, there) if there else None
        moved = tags.floating(candidate.receipt.variant, request.pins.policy.default_variant)
        return Plan(
            name=candidate.name,
            repository=index.repository,
            image_id=candidate.receipt.image_id,
            digest=there,
            proven=known is not None and set(candidate.required) <= set(known.proven),
            required=candidate.required,
            floating={tag: repository.digest(tag) for tag in moved if request.promote},
        )


def gpu() -> str | None:
    """The names of the GPUs that the engine has to give; None: it has none."""
    from builder import doctor_facts

    if not container.has_gpu(engine.connect()):
        return None
    found = doctor_facts.find_gpus()
    # An engine elsewhere may have one that this machine has not.
    return ", ".join(one.name for one in found) if isinstance(found, list) else "unnamed"


def alone(record: Path, progress: Progress) -> AbstractContextManager[None]:
    """One run at a time writes a record; the lock does not lie in it."""
    key = hashlib.sha256(str(record.resolve()).encode()).hexdigest()[:8]
    return locked(paths.cache() / f"record-{key}", f"the other run on {record}", progress)


def warn_of_clocks(repository: RegistryClient, progress: Progress) -> None:
    """Warn when this machine's clock and the registry's are minutes apart."""
    ahead = repository.clock_ahead_s()
    if ahead is not None and abs(ahead) > _CLOCKS_APART_S:
        words = "ahead of" if ahead > 0 else "behind"
        progress.warn(
            f"this machine's clock is {abs(ahead) / 60:.0f} min {words} {repository.host}'s: "
            "times in the record are this machine's"
        )


def _candidate(client: "DockerClient", request: Request) -> _Candidate:
    receipt = _receipt(client, request)
    image = engine.find_image(client, receipt.image_id)
    if image is None:
        raise UsageError(
            f"the image of this receipt is not on the engine: {receipt.image_id[: floating.SHOWN]}",
            hint=f"`builder build {receipt.variant} --ref {receipt.commit[:9]}`",
        )
    if receipt.variant not in request.pins.variants:
        raise UsageError(f"the pins have no variant {receipt.variant}")
    name = tags.release(
        receipt.variant, receipt.build_number, receipt.commit, receipt.dockerfile_sha256
    )
    return _Candidate(name, image, receipt, list(request.pins.policy.release.require))


def _receipt(client: "DockerClient", request: Request) -> Receipt:
    path = Path(request.what)
    if path.suffix == ".json":
        return receipts.read(path)
    image_id = container.image_id(client, request.what)
    found = receipts.of_image(request.results, image_id)
    if found is None:
        raise UsageError(
            f"no receipt says how {request.what} was built",
            why=f"looked in {receipts.folder(request.results)}",
            hint="name the receipt's file, or `builder build` the image here",
        )
    return found


def _push(
    candidate: _Candidate,
    repository: RegistryClient,
    record: Path,
    index: Index,
    progress: Progress,
) -> "Pushed":
    receipt = candidate.receipt
    annotations = {
        "org.opencontainers.image.revision": receipt.commit,
        "org.opencontainers.image.version": candidate.name,
        f"{LABEL}.variant": receipt.variant,
        f"{LABEL}.dockerfile-sha256": receipt.dockerfile_sha256,
    }
    progress.step(f"push {candidate.name} by digest")
    like = _like(record, index, candidate)
    return image_push.push(candidate.image, repository, like, annotations, progress)


def _like(record: Path, index: Index, candidate: _Candidate) -> list[str]:
    """Digests whose layers it may share: of releases that passed, so that they can be believed."""
    current = index.floating.get(candidate.receipt.variant)
    own = [candidate.name, *([current] if current else [])]
    names = dict.fromkeys([*own, *index.releases[:_ALIKE]])
    return [
        records.read_release(record, name).digest
        for name in names
        if records.has_release(record, name)
    ]


def _pushed(pushed: "Pushed") -> Event:
    sent = f"{pushed.uploaded_layers} of {pushed.layers} layers sent"
    sizes = f"{pushed.uploaded / _MB:.1f} of {pushed.size / _MB:.1f} MB"
    return records.event("pushed", note=f"{sent}, {sizes}")


def _recorded(record: Path, index: Index, candidate: _Candidate, digest: str) -> Release | None:
    """The release of this digest as the record has it; None: it has none, or only began another."""
    if not records.has_release(record, candidate.name):
        return None
    found = records.read_release(record, candidate.name)
    if found.digest == digest:
        return found
    if candidate.name in index.releases:
        raise _taken(candidate.name, found.digest, digest)
    return None


def _taken(name: str, there: str, new: str) -> NameTakenError:
    return NameTakenError(
        f"{name} is another image already",
        why=f"it stands for {there}, this one is {new}",
        hint=f"a release is never overwritten; `builder promote {name}` takes the one there",
    )


def _pull(
    client: "DockerClient",
    candidate: _Candidate,
    repository: RegistryClient,
    pushed: "Pushed",
    progress: Progress,
) -> str:
    """Have the engine pull the digest, and see that it is the image. Its name on the engine."""
    digest = pushed.manifest.digest
    reference = f"{repository.repository}@{digest}"
    progress.step("pull it back")
    image_push.read_back(repository, pushed, progress)
    with engine.engine_errors(f"pull {reference}"):
        news = client.api.pull(
            repository.repository,
            tag=digest,
            auth_config=repository.login,
            stream=True,
            decode=True,
        )
        for line in news:
            if "error" in line:
                raise EngineError(f"the engine did not pull {reference}", why=str(line["error"]))
            progress.detail(f"{line.get('status', '')} {line.get('progress', '')}")
    pulled = client.images.get(reference).attrs
    for part in ("RootFS", "Config"):
        if pulled[part] != candidate.image.attrs[part]:
            raise EngineError(f"{reference} is not what was pushed: its {part} differs")
    return reference


def _prove(
    candidate: _Candidate,
    request: Request,
    stages: Stages,
    reference: str,
    digest: str,
    progress: Progress,
) -> Release:
    """Audit and smoke what was pulled; raises NotProvenError for what fails, or is required."""
    receipt, pins = candidate.receipt, request.pins
    progress.step(f"audit {reference}")
    audit = stages.audit(pins, reference, receipt.variant, request.results, progress)
    progress.step(f"smoke {reference}")
    options = Options(
        variant=receipt.variant,
        require=frozenset(candidate.required) & frozenset(SMOKE_CAN_REQUIRE),
    )
    smoke = stages.smoke(pins, reference, options, request.results, progress)
    # With a GPU a smoke requires the KV type by itself.
    required = [one for one in get_args(Proof) if one in {*candidate.required, *smoke.required}]
    proven = _proven(audit, smoke)
    missing = [one for one in required if one not in proven]
    if missing or smoke.failed:
        raise NotProvenError(
            f"{candidate.name} gets no name: {', '.join(missing or smoke.failed)} not passed",
            why=f"{audit.headline}\n{smoke.headline}",
            hint=f"`builder smoke {receipt.image}`, `builder audit {receipt.image}`",
            stage="audit" if "audit" in missing else "smoke",
            log=smoke.log,
        )
    return Release(
        name=candidate.name,
        repository=request.repository,
        variant=receipt.variant,
        fork=receipt.fork,
        commit=receipt.commit,
        build_number=receipt.build_number,
        digest=digest,
        published=records.now(),
        receipt=_without_places(receipt),
        audit=json.loads(audits.to_json(audit)),
        smoke=json.loads(smoke_report.to_json(smoke)) | {"log": "", "model": _file(smoke.model)},
        required=required,
        proven=proven,
        not_proven=[one for one in get_args(Proof) if one not in proven],
        gpu=stages.gpu(),
    )


def _proven(audit: "AuditReport", smoke: "SmokeReport") -> list[Proof]:
    passed = {one.probe for one in smoke.findings if one.status == "pass"}
    held = {
        "contract": passed >= set(smoke_report.CONTRACT),
        "audit": audit.passed,
        "kv": "kv" in passed,
    }
    return [one for one in get_args(Proof) if held[one]]


def _without_places(receipt: Receipt) -> Receipt:
    """A record is for everybody: folders of this machine are not."""
    source = receipt.source
    if source.startswith(FROM_DISK):
        source = f"{FROM_DISK}{_file(source)}"
    return dataclasses.replace(receipt, source=source, log=_file(receipt.log), ccache_dir=None)


def _file(place: str) -> str:
    return Path(place).name


def _attached(
    pins: Pins, candidate: _Candidate, release: Release, stages: Stages, progress: Progress
) -> list[Attachment]:
    progress.step("attach what goes with it")
    # The receipt as it is: it says where on this machine the source lies.
    return stages.attach(pins, replace(release, receipt=candidate.receipt), progress)


def _name(
    repository: RegistryClient, record: Path, release: Release, progress: Progress
) -> Release:
    """The immutable tag: put where nothing is, read back, never overwritten."""
    progress.step(f"name it {release.name}")
    index = floating.of(record, repository.repository)
    there = repository.digest(release.name)
    if there not in {None, release.digest}:
        raise _taken(release.name, str(there), release.digest)
    if there is None:
        repository.put(repository.complete(release.digest), release.name)
        progress.detail(f"{release.name}: read it back")
        won = repository.digest(release.name)
        if won != release.digest:
            raise floating.lost(record, index, release, release.name, won)
    if release.name not in index.releases or there is None:
        event = records.event("tagged", release.name)
        release = replace(release, events=[*release.events, event])
        others = [name for name in index.releases if name != release.name]
        index = replace(index, releases=[release.name, *others])
        records.write_release(record, release, index)
    return release
