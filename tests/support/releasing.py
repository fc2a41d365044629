"""What tests of published names share: tiny images with receipts, stand-in verdicts, checks.

The tiny images hold a few files and no server, so nothing could smoke them: the verdicts of audit
and smoke are stand-ins here, and everything else is real, the engine and the registry included.
"""

import hashlib
import io
import json
import multiprocessing
import os
import signal
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from docker import DockerClient
from docker.errors import ImageNotFound

from builder.audit.run import AuditReport
from builder.build import receipts as receipt
from builder.model.finding import Finding, Status
from builder.model.pins import Kv, Pins, Receipt
from builder.pins import load as pins
from builder.release import promote, publish, record, rollback
from builder.release.record import Release
from builder.smoke.probes.kv import KvVerdict
from builder.smoke.report import CONTRACT, SmokeReport
from builder.smoke.run import PROFILE
from tests.support.docker_registry import DockerRegistry

REPOSITORY = "me/turboquant"
FLOATING = ("tiny-nightly", "tiny", "latest")
NEWS = Callable[[str], object]


class Tiny:
    """Tiny images on the engine, gone when the test is over."""

    def __init__(self, engine: DockerClient, results: Path) -> None:
        self._engine, self._results = engine, results
        self._made: list[str] = []

    def image(self, *layers: bytes, variant: str = "tiny") -> Receipt:
        """An image of one layer for each content, and its receipt."""
        image_id = self._import(layers[0], variant)
        for number, content in enumerate(layers[1:]):
            image_id = self._add(image_id, f"layer-{number}", content)
        made = Receipt(
            variant=variant,
            fork="tiny",
            ref="master",
            commit=hashlib.sha1(b"".join(layers), usedforsecurity=False).hexdigest(),
            commit_claimed=False,
            source="--source /home/somebody/tree",
            build_number=len(self._made),
            image=image_id,
            image_id=image_id,
            size_bytes=sum(map(len, layers)),
            compressed_bytes=sum(map(len, layers)),
            bases=[],
            dockerfile_sha256="ab" * 32,
            created=f"2026-11-21T00:00:{len(self._made):02}.000000Z",
            duration_s=1.0,
            stages=[],
            ccache=None,
            log=str(self._results / "build" / "logs" / "tiny.log"),
        )
        receipt.write(made, self._results)
        return made

    def _import(self, content: bytes, variant: str) -> str:
        labels = f"LABEL io.github.turboquant-builder.variant={variant}"
        answer = self._engine.api.import_image_from_data(
            _tar("base", content), changes=[labels, "CMD /base"]
        )
        return self._known(json.loads(answer)["status"])

    def _add(self, image_id: str, name: str, content: bytes) -> str:
        container = self._engine.containers.create(image_id, ["/base"])
        try:
            container.put_archive("/", _tar(name, content))
            return self._known(str(container.commit().id))
        finally:
            container.remove()

    def _known(self, image_id: str) -> str:
        self._made.append(image_id)
        return image_id

    def remove(self) -> None:
        for image_id in reversed(self._made):
            with suppress(ImageNotFound):
                self._engine.images.remove(image_id, force=True)


def _tar(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(content), 0o755
        archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def stages(
    *,
    gpu: str | None = None,
    audit: Status = "pass",
    log: list[str] | None = None,
    **probes: Status,
) -> publish.Stages:
    """Stand-in verdicts: all pass but what is named. `log` gets the names of what was asked."""
    asked = log if log is not None else []

    def audited(_pins: object, image: str, variant: str, *_: object) -> AuditReport:
        asked.append(f"audit {image}")
        finding = Finding("labels", audit, "a stand-in", "a stand-in")
        return AuditReport(image, "sha256:0", variant, [finding], [], 1, 0.1)

    def smoked(_pins: object, image: str, *_: object) -> SmokeReport:
        asked.append(f"smoke {image}")
        statuses: dict[str, Status] = dict.fromkeys((*CONTRACT, "kv"), "pass") | probes
        return SmokeReport(
            target=image,
            kind="image",
            image_id="sha256:0",
            variant="tiny",
            profile=PROFILE,
            model="/home/somebody/scripted.gguf",
            kv=KvVerdict(Kv("q4_0", "q4_0"), (), statuses["kv"], "a stand-in", "", "", ""),
            findings=[Finding(name, status, "", "") for name, status in statuses.items()],
            required=["contract", *(["kv"] if gpu else [])],
            not_available=[],
            ready_s=0.1,
            duration_s=0.1,
        )

    return publish.Stages(audit=audited, smoke=smoked, gpu=lambda: gpu)


@dataclass
class News:
    """Progress that calls `on` with everything it hears."""

    on: NEWS = lambda _text: None
    steps: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def step(self, text: str) -> None:
        self.steps.append(text)
        self.on(text)

    def detail(self, text: str) -> None:
        self.on(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)
        self.on(text)


@dataclass(frozen=True)
class Publisher:
    """Somebody who publishes: pins, a folder of results, a record, and a registry's name."""

    pins: Pins
    results: Path
    record: Path
    host: str
    stages: publish.Stages = field(default_factory=stages)

    @property
    def repository(self) -> str:
        return f"{self.host}/{REPOSITORY}"

    def at(self, host: str) -> "Publisher":
        return replace(self, host=host)

    def publish(self, what: Receipt | Path, on: NEWS = lambda _: None, **more: Any) -> Release:
        name = what.image_id if isinstance(what, Receipt) else str(what)
        request = publish.Request(name, self.repository, self.pins, self.results, **more)
        return publish.publish(request, self.stages, self.record, News(on))

    def promote(
        self, name: str, *tags: str, on: NEWS = lambda _: None, force: bool = False
    ) -> Release:
        request = promote.Request(name, self.pins, tags, force=force)
        return promote.promote(request, self.record, News(on))

    def rollback(self, to: str | None = None, on: NEWS = lambda _: None) -> Release:
        done = rollback.rollback(rollback.Request("tiny", self.pins, to), self.record, News(on))
        rollback.told(self.record, "tiny")
        return done

    def recorded(self, name: str) -> Release:
        return record.read_release(self.record, name)

    @property
    def index(self) -> record.Index:
        found = record.read_index(self.record)
        assert found is not None
        return found


@contextmanager
def tiny_images(engine: DockerClient, results: Path) -> Iterator[Tiny]:
    images = Tiny(engine, results)
    try:
        yield images
    finally:
        images.remove()


def publisher(pins_file: Path, host: str) -> Publisher:
    results = pins_file.parent
    return Publisher(pins.load(pins_file), results, results / "record", host)


def killed(run: Callable[[NEWS], object], at: str) -> None:
    """Do it in a process that kills itself, SIGKILL, when it says it comes to `at`."""

    def on(text: str) -> None:
        if text.startswith(at):
            os.kill(os.getpid(), signal.SIGKILL)

    process = multiprocessing.get_context("fork").Process(target=run, args=(on,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL, f"it never came to {at!r}"


def resolved(registry: DockerRegistry, tag: str) -> str | None:
    """The digest of a tag of which all is there, byte for byte; None: there is no such tag."""
    digest = registry.digest(REPOSITORY, tag)
    if digest is None:
        return None
    found = registry.manifest(REPOSITORY, digest)
    for blob in [found["config"], *found["layers"]]:
        answer = registry.ask("GET", f"{REPOSITORY}/blobs/{blob['digest']}")
        assert f"sha256:{hashlib.sha256(answer.content).hexdigest()}" == blob["digest"]
    return digest


def passed(who: Publisher, digest: str) -> bool:
    """Whether the record has a digest as passed."""
    releases = [who.recorded(path.stem) for path in (who.record / "releases").glob("*.json")]
    return any(one.digest == digest and {"contract"} <= set(one.proven) for one in releases)
