"""Give an image a published name: behind its audit and smoke, as it was pulled back.

The steps, each of which can be the last that a killed run did: audit and smoke of the image as it
is here, push by digest with labels of what it passed, pull that back, audit, smoke, attest, record,
the immutable tag, the floating tags. A second run takes up where the first one ended: what the
record has as passed is not asked again.
"""

import dataclasses
import json
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from builder.audit import run as audits
from builder.build import receipts
from builder.common.errors import (
    EngineError,
    NameTakenError,
    NotProvenError,
    RefNotFoundError,
    RemoteUnavailableError,
    UsageError,
)
from builder.common.progress import Progress
from builder.engine import client as engine
from builder.engine import containers as container
from builder.engine import gpu_use
from builder.model import tags
from builder.model.labels import BUILT_AS, GPU, LABEL, NOT_PROVEN, OF_PUBLISH, PROVEN
from builder.model.pins import Pins, Receipt
from builder.pins.validate import is_repository
from builder.registry import login as registry_login
from builder.registry.client import RegistryClient
from builder.release import floating
from builder.release import push as image_push
from builder.release import record as records
from builder.release.record import Attachment, Event, Index, Proof, Release
from builder.smoke import report as smoke_report
from builder.smoke.options import SMOKE_CAN_REQUIRE, Options
from builder.sources.tree import FROM_DISK

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.images import Image

    from builder.audit.run import AuditReport
    from builder.release.push import Pushed
    from builder.smoke.report import SmokeReport

_CLOCKS_APART_S = 300.0
_ALIKE = 3
"""Of the newest releases, those whose layers are looked at: other variants share the base's."""
_MB = 1e6


def nothing_attached(_pins: Pins, _release: Release, _progress: Progress) -> list[Attachment]:
    """The stage of who attaches nothing."""
    return []


@dataclass(frozen=True, slots=True)
class Stages:
    """What proves an image: by the ID that it was built as, and pulled back by `repository@digest`.

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
    tag only. `force`: also move a floating tag that somebody else moved. `passed`: what the image
    has passed on this engine just now; less than what is required is asked before it is pushed.
    """

    what: str
    repository: str
    pins: Pins
    results: Path
    promote: bool = True
    force: bool = False
    passed: Collection[Proof] = ()


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

    @property
    def built_as(self) -> str:
        """The ID under which it was built; what is published of it has another."""
        return self.receipt.image_id


@dataclass(frozen=True, slots=True)
class _Passed:
    """What audit and smoke say of one image; all that is required is among the `proven`."""

    audit: "AuditReport"
    smoke: "SmokeReport"
    required: list[Proof]
    proven: list[Proof]


def publish(request: Request, stages: Stages, record: Path, progress: Progress) -> Release:
    """Prove, push, pull back, prove, attach, name: the release as the record in this folder has it.

    Raises NotProvenError when it has not passed what the policy requires, NameTakenError when a
    name stands for another digest, UsageError, EngineError, RefNotFoundError and
    RemoteUnavailableError; after each a floating tag stands for a release that had passed.
    """
    client = engine.connect()
    candidate = _candidate(client, request)
    with (
        registry_login.own_registry(request.repository),
        RegistryClient(request.repository) as registry,
        records.alone(record, progress),
    ):
        index = floating.of(record, request.repository)
        progress.step(f"look for {candidate.name}")
        there = registry.digest(candidate.name)
        warn_of_clocks(registry, progress)
        release = _recorded(record, index, candidate)
        if release is None or not _stands(release, candidate, registry):
            proven = _proven_and_pushed(
                client, candidate, there, request, stages, registry, record, progress
            )
            earlier = release.events if release and release.digest == proven.digest else []
            release = replace(proven, events=[*earlier, *proven.events])
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
    own = registry_login.own_registry(request.repository)
    with own, RegistryClient(request.repository) as repository:
        index = floating.of(record, request.repository)
        there = repository.digest(candidate.name)
        known = _recorded(record, index, candidate) if there else None
        if known is not None and there != known.digest:
            raise _taken(candidate.name, str(there), known.digest)
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
    from builder.engine import facts as doctor_facts

    if not container.has_gpu(engine.connect()):
        return None
    found = doctor_facts.find_gpus()
    # An engine elsewhere may have one that this machine has not.
    return ", ".join(one.name for one in found) if isinstance(found, list) else "unnamed"


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


def _proven_and_pushed(
    client: "DockerClient",
    candidate: _Candidate,
    there: str | None,
    request: Request,
    stages: Stages,
    registry: RegistryClient,
    record: Path,
    progress: Progress,
) -> Release:
    """The image in the registry, with labels of what it passed here, and again as pulled back.

    `there` is the digest that its name stands for. Raises NameTakenError when that is another.
    """
    # Of a variant without CUDA nothing ran on the GPU that the machine has.
    variant, labels = candidate.receipt.variant, candidate.image.labels
    built = gpu_use.built_for_gpu(labels, request.pins, variant)
    gpu = stages.gpu() if built else None
    passed = [one for one in get_args(Proof) if one in (request.passed or ())]
    if not passed or not set(candidate.required) <= set(passed):
        passed = _prove(candidate, request, stages, candidate.built_as, progress).proven
    pushed = _push(candidate, _labels(candidate, passed, gpu), registry, record, progress)
    digest = pushed.manifest.digest
    if there not in {None, digest}:
        raise _taken(candidate.name, str(there), digest)
    with _pulled(client, candidate, registry, pushed, progress) as reference:
        again = _prove(candidate, request, stages, reference, progress)
        lost = [one for one in passed if one not in again.proven]
        if lost:
            raise NotProvenError(
                f"{candidate.name} gets no name: its label says {', '.join(lost)}, "
                "and as pulled back it does not pass that",
                why=f"{again.audit.headline}\n{again.smoke.headline}",
                hint="publish once more; what passes only sometimes is for `builder smoke`",
                log=again.smoke.log,
            )
        release = _release(candidate, request, replace(again, proven=passed), digest, gpu)
        attachments = _attached(request.pins, candidate, release, stages, progress)
    return replace(
        release,
        registry_bytes=pushed.size,
        attachments=attachments,
        events=[_pushed(pushed)],
    )


def _labels(candidate: _Candidate, passed: list[Proof], gpu: str | None) -> dict[str, str]:
    """What the image itself says of how far it was proven: `docker inspect` shows it."""
    return {
        BUILT_AS: candidate.built_as,
        PROVEN: ",".join(passed),
        NOT_PROVEN: ",".join(one for one in get_args(Proof) if one not in passed),
        GPU: gpu or "none",
    }


def _push(
    candidate: _Candidate,
    labels: dict[str, str],
    repository: RegistryClient,
    record: Path,
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
    like = _like(record, floating.of(record, repository.repository), candidate)
    return image_push.push(candidate.image, repository, like, labels, annotations, progress)


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


def _recorded(record: Path, index: Index, candidate: _Candidate) -> Release | None:
    """The release of this very image as the record has it; None: none, or one that only began.

    Raises NameTakenError when the name was given to another image.
    """
    if not records.has_release(record, candidate.name):
        return None
    found = records.read_release(record, candidate.name)
    if found.receipt.image_id == candidate.built_as:
        return found
    if candidate.name in index.releases:
        raise _taken(candidate.name, found.receipt.image_id, candidate.built_as)
    return None


def _stands(release: Release, candidate: _Candidate, repository: RegistryClient) -> bool:
    """Whether a recorded release has passed what is required, and is in the registry as a whole."""
    if not set(candidate.required) <= set(release.proven):
        return False
    try:
        repository.complete(release.digest)
    except RefNotFoundError:
        return False
    return True


def _taken(name: str, there: str, new: str) -> NameTakenError:
    return NameTakenError(
        f"{name} is another image already",
        why=f"it stands for {there}, this one is {new}",
        hint=f"a release is never overwritten; `builder promote {name}` takes the one there",
    )


@contextmanager
def _pulled(
    client: "DockerClient",
    candidate: _Candidate,
    repository: RegistryClient,
    pushed: "Pushed",
    progress: Progress,
) -> Iterator[str]:
    """What the engine pulled by its digest, by its name there; it is the image but for labels."""
    digest = pushed.manifest.digest
    reference = f"{repository.repository}@{digest}"
    progress.step("pull it back")
    image_push.read_back(repository, pushed, progress)
    try:
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
                    why = str(line["error"])
                    raise RemoteUnavailableError(f"the engine cannot pull {reference}", why=why)
                progress.detail(f"{line.get('status', '')} {line.get('progress', '')}")
        if _unlabelled(client.images.get(reference)) != _unlabelled(candidate.image):
            raise EngineError(f"{reference} is not what was pushed")
        yield reference
    finally:
        engine.untag(client, reference)


def _unlabelled(image: "Image") -> tuple[Any, ...]:
    """An image's layers and settings, without the labels that publishing adds."""
    config = dict(image.attrs["Config"])
    labels = config.pop("Labels", None) or {}
    own = {name: value for name, value in labels.items() if name not in OF_PUBLISH}
    return image.attrs["RootFS"], config, own


def _prove(
    candidate: _Candidate, request: Request, stages: Stages, reference: str, progress: Progress
) -> _Passed:
    """Audit and smoke; raises NotProvenError for what fails, or is required and not proven."""
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
    return _Passed(audit, smoke, required, proven)


def _release(
    candidate: _Candidate, request: Request, passed: _Passed, digest: str, gpu: str | None
) -> Release:
    receipt, smoke = candidate.receipt, json.loads(smoke_report.to_json(passed.smoke))
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
        audit=json.loads(audits.to_json(passed.audit)),
        smoke=smoke | {"log": "", "model": _file(passed.smoke.model)},
        required=passed.required,
        proven=passed.proven,
        not_proven=[one for one in get_args(Proof) if one not in passed.proven],
        gpu=gpu,
    )


def _proven(audit: "AuditReport", smoke: "SmokeReport") -> list[Proof]:
    shown = smoke_report.proven({one.probe: one.status for one in smoke.findings})
    held = {*shown, *(("audit",) if audit.passed else ())}
    return [one for one in get_args(Proof) if one in held]


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
