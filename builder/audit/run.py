"""Look into an image on the engine and say what is wrong with it, without serving from it."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from builder.audit.rules.contents import leftovers, permissions, stub
from builder.audit.rules.cpu_baseline import cpu_baseline
from builder.audit.rules.device_code import device_code
from builder.audit.rules.labels import labels
from builder.audit.rules.launch import entrypoint, healthcheck, settings, user
from builder.audit.rules.linking import libgomp, needs, runpath
from builder.audit.rules.secret import in_file, secrets
from builder.audit.rules.server import kv_types, version
from builder.audit.rules.size import largest, size
from builder.audit.rules.subject import Pinned, Subject
from builder.build import receipts as receipt
from builder.build import render
from builder.common import signals
from builder.common.errors import RefNotFoundError
from builder.common.progress import Progress
from builder.engine import containers as container
from builder.engine import gpu_use
from builder.engine.client import find_image
from builder.image import files as image_files
from builder.image import tree as image_tree
from builder.image.contents import compiled_by_us
from builder.model.finding import Finding
from builder.model.labels import BUILT_AS, LEFT_OUT, VARIANT
from builder.model.pins import Pins
from builder.pins import load as pins_file
from builder.pins import parts
from builder.pins import validate as pins_problems

if TYPE_CHECKING:
    from docker import DockerClient

RULES: tuple[Callable[[Subject], Finding], ...] = (
    needs,
    runpath,
    libgomp,
    stub,
    leftovers,
    permissions,
    secrets,
    device_code,
    cpu_baseline,
    kv_types,
    version,
    user,
    entrypoint,
    healthcheck,
    settings,
    labels,
    size,
)
"""All rules, in the order of the report. A rule's finding bears the function's name."""


@dataclass(frozen=True, slots=True)
class LargeFile:
    """One of the ten largest files. `size_bytes` is unpacked."""

    path: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class AuditReport:
    """The verdict on an image. `size_bytes` is all layers unpacked, times are in seconds.

    `variant` is the one that was audited for; None when nothing says which it is.
    """

    image: str
    image_id: str
    variant: str | None
    findings: list[Finding]
    largest: list[LargeFile]
    size_bytes: int
    duration_s: float
    schema: int = 1

    @property
    def passed(self) -> bool:
        """Whether no rule failed. One that is unproven did not fail."""
        return all(finding.status != "fail" for finding in self.findings)

    @property
    def headline(self) -> str:
        """The verdict in one line."""
        failed = [one.probe for one in self.findings if one.status == "fail"]
        unproven = [one.probe for one in self.findings if one.status == "unproven"]
        words = [f"failed: {', '.join(failed)}"] if failed else []
        words += [f"not proven: {', '.join(unproven)}"] if unproven else []
        verdict = "; ".join(words) or "every rule holds"
        return (
            f"{'PASS' if self.passed else 'FAIL'}  {self.image} as {self.variant or 'no variant'}: "
            f"{verdict}; {self.size_bytes / 1e6:.0f} MB, {self.duration_s:.1f} s"
        )


def audit(
    client: "DockerClient",
    image: str,
    pins: Pins,
    *,
    results: Path,
    variant: str | None = None,
    progress: Progress,
) -> AuditReport:
    """Audit an image on the engine.

    `variant` None: the one that its label names. Receipts are looked for under `results`.
    What is wrong with the image is a failed finding of the report. Raises UsageError for a variant
    that the pins do not know, RefNotFoundError for an image that the engine lacks, EngineError when
    the engine does not hand it out.
    """
    began = time.monotonic()
    name = pins_file.variant(pins, variant)[0] if variant else None
    image_id = container.image_id(client, image)
    with signals.interrupting():
        subject = _read(client, image_id, pins, name, results, progress)
    progress.step("judge")
    return AuditReport(
        image=image,
        image_id=image_id,
        variant=subject.pinned.name if isinstance(subject.pinned, Pinned) else None,
        findings=[rule(subject) for rule in RULES],
        largest=[LargeFile(one.path, one.size) for one in largest(subject.tree)],
        size_bytes=subject.size_bytes,
        duration_s=round(time.monotonic() - began, 2),
    )


def to_json(report: AuditReport) -> str:
    """The report as indented JSON, with the verdict `passed` beside its fields."""
    return json.dumps({**asdict(report), "passed": report.passed}, indent=2)


def _read(
    client: "DockerClient",
    image_id: str,
    pins: Pins,
    variant: str | None,
    results: Path,
    progress: Progress,
) -> Subject:
    """All that the rules look at."""
    image = find_image(client, image_id)
    if image is None:
        raise RefNotFoundError(f"image {image_id} is gone")
    config = image_files.config(image)
    # An engine that has NVIDIA's runtime and no GPU refuses: a CPU image is not to pay for that.
    gpu = gpu_use.built_for_gpu(config.labels, pins, variant) is not False
    with (
        image_files.started(client, image_id, "--help", gpu=gpu) as helping,
        image_files.started(client, image_id, "--version", gpu=gpu) as naming,
    ):
        # Both print while the layers are read.
        progress.step("read the image's layers")
        layers = image_files.layers(image, scan=in_file, deep=compiled_by_us)
        printed = helping.printed(), naming.printed()
    return Subject(
        config=config,
        layers=layers,
        tree=image_tree.merge(layers),
        help=printed[0],
        version=printed[1],
        pinned=_pinned(pins, variant or config.labels.get(VARIANT), config.labels),
        # A published image has another ID than the one that was built: it has more labels.
        receipt=receipt.of_image(results, config.labels.get(BUILT_AS, image_id)),
    )


def _pinned(pins: Pins, name: str | None, labels: Mapping[str, str]) -> Pinned | str:
    """What the pins say of a variant without what its labels leave out, or why they say nothing."""
    if name is None:
        return "no label names its variant (--variant NAME says it)"
    if name not in pins.variants:
        return f"the pins have no variant {name}"
    pins = parts.without(pins, name, parts.words(labels.get(LEFT_OUT, "")))
    chosen = pins.variants[name]
    fork = pins.forks[chosen.fork]
    source = pins.sources[chosen.source] if chosen.source else None
    bases = [
        base for base, one in pins.bases.items() if not [*pins_problems.pair_problems(chosen, one)]
    ]
    return Pinned(
        name=name,
        variant=chosen,
        fork=fork,
        base=pins.bases[chosen.base],
        commit=source.upstream if source else fork.commit,
        recipes={render.render(pins, name, base).sha256: pins.bases[base] for base in bases},
    )
