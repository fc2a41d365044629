"""Build one pin twice from nothing, and compare what came out to the byte."""

import contextlib
import dataclasses
import functools
import json
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.build import bases as base_images
from builder.build import buildx, render
from builder.build import receipts as receipt
from builder.build import run as builds
from builder.build.run import Request
from builder.common import signals
from builder.common.errors import UsageError
from builder.common.progress import Progress
from builder.engine import client as engine
from builder.engine import containers as container
from builder.image import archive as image_archive
from builder.image import layer_diff
from builder.image.archive import Archive
from builder.image.layer_diff import Difference
from builder.model.finding import Status
from builder.model.labels import BASE_DIGEST, CLAIMED, LEFT_OUT, RECIPE, REVISION, VARIANT
from builder.model.pins import Pins, Receipt
from builder.model.tags import REPOSITORY
from builder.pins import load as pins_file
from builder.pins import parts
from builder.sources import tree as source

if TYPE_CHECKING:
    from docker import DockerClient

    from builder.audit.run import AuditReport

MOST_NAMED = 20
"""So many files that differ are named, and compared byte by byte."""

EPOCH = "SOURCE_DATE_EPOCH"

_ONLY_FILES = (
    "the files of both builds are the same byte for byte, times aside; their manifests' digests "
    "need an engine with the containerd image store "
    '({"features": {"containerd-snapshotter": true}} in /etc/docker/daemon.json, and a restart), '
    "or --builder with one of the docker-container driver"
)
_IN_HEADLINE = 3
_CHUNK = 1024 * 1024
_BY_VARIANT = "name a variant of pins.toml: `builder audit VARIANT --reproduce`"


@dataclass(frozen=True, slots=True)
class ConfigDifference:
    """A place in the image's configuration, such as `config.Labels.x`, and both values as JSON."""

    place: str
    first: str
    second: str


@dataclass(frozen=True, slots=True)
class Reproduction:
    """Whether two builds gave the same image. Times are in seconds.

    `digests` are the two manifests', empty where the builder writes none. `files` are the first of
    `files_differing`. `notes` say what the verdict does not cover.
    """

    variant: str
    commit: str
    source: str
    source_date_epoch: int
    status: Status
    observed: str
    digests: tuple[str, ...]
    files: tuple[Difference, ...]
    files_differing: int
    config: tuple[ConfigDifference, ...]
    notes: tuple[str, ...]
    builds_s: tuple[float, ...]
    logs: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing differed; a manifest digest may still be unproven."""
        return self.status != "fail"

    @property
    def headline(self) -> str:
        """The verdict in one line."""
        word = {"pass": "SAME", "fail": "DIFFERENT", "unproven": "UNPROVEN"}[self.status]
        times = " and ".join(f"{seconds:.0f} s" for seconds in self.builds_s)
        return f"{word}  {self.variant} at {self.commit}: {self.observed}; built in {times}"


@dataclass(frozen=True, slots=True)
class _Built:
    archive: Archive
    log: Path
    duration_s: float


@dataclass(frozen=True, slots=True)
class _Numbered:
    """Progress of one of the two builds."""

    progress: Progress
    number: int

    def step(self, text: str) -> None:
        self.progress.step(f"build {self.number} of 2: {text}")

    def detail(self, text: str) -> None:
        self.progress.detail(text)

    def warn(self, text: str) -> None:
        self.progress.warn(text)


def asked(target: str, given: Request, everything: Pins, results: Path) -> tuple[Request, str]:
    """What to build, and the digest of the runtime base that is expected, if any is.

    `target` names a variant, or an image: then its labels and its receipt say what it was built
    from. Raises UsageError when they do not, RefNotFoundError when there is no such image.
    """
    if target in everything.variants:
        if given.variant not in {"", target}:
            raise UsageError(f"two variants are named: {target} and {given.variant}")
        return dataclasses.replace(given, variant=target), ""
    return _of_image(engine.connect(), target, given, everything, results)


def _of_image(
    client: "DockerClient", target: str, given: Request, everything: Pins, results: Path
) -> tuple[Request, str]:
    if given.ref or given.base:
        raise UsageError("an image says itself of which commit and base it is", hint=_BY_VARIANT)
    image_id = container.image_id(client, target)
    labels = container.image_labels(client, target)
    made = receipt.of_image(results, image_id)
    if not labels.get(REVISION) or not labels.get(RECIPE):
        raise UsageError(
            f"{target} does not say what it was built from",
            why=f"the labels {REVISION} and {RECIPE} are those of `builder build`",
            hint=_BY_VARIANT,
        )
    name = pins_file.variant(everything, given.variant or labels.get(VARIANT))[0]
    from_disk = _from_disk(labels, made, name, everything)
    if from_disk and given.source is None:
        raise UsageError(
            f"{target} was built from a folder",
            why=made.source if made else f"{CLAIMED} is true",
            hint="give the same tree again: --source DIR",
        )
    claimed = labels.get(CLAIMED) == "true"
    wanted = dataclasses.replace(
        given,
        variant=name,
        ref=None if claimed and not from_disk else labels[REVISION],
        base=_base(target, labels, name, everything),
        sets=given.sets or _mirrors(made),
    )
    return wanted, labels.get(BASE_DIGEST, "")


def _from_disk(
    labels: Mapping[str, str], made: Receipt | None, name: str, everything: Pins
) -> bool:
    """Whether a folder was built, and not a commit out of git or the variant's archive."""
    if labels.get(CLAIMED) != "true":
        return False
    if made:
        return made.source.startswith(source.FROM_DISK)
    archive = everything.variants[name].source
    return archive is None or everything.sources[archive].upstream != labels[REVISION]


def _base(target: str, labels: Mapping[str, str], name: str, everything: Pins) -> str:
    everything = parts.without(everything, name, parts.words(labels.get(LEFT_OUT, "")))
    chosen, recipe = everything.variants[name], labels[RECIPE]
    for base in (chosen.base, *everything.bases):
        with contextlib.suppress(UsageError):
            pins_file.with_base(everything, chosen, base)
            if render.render(everything, name, base).sha256 == recipe:
                return base
    raise UsageError(
        f"{target} was built from another recipe than pins.toml and the templates give now",
        why=f"its Dockerfile's SHA-256 is {recipe}",
        hint=f"use the checkout that built it; or `builder audit {name} --reproduce`",
    )


def _mirrors(made: Receipt | None) -> dict[base_images.Role, str]:
    return {one.role: one.reference for one in made.bases if one.origin == "set"} if made else {}


def reproduce(
    everything: Pins,
    wanted: Request,
    results: Path,
    progress: Progress,
    *,
    base_digest: str = "",
) -> Reproduction:
    """Build twice without any cache, and compare.

    Where the builder writes OCI archives the manifests' digests decide. Where it does not, the
    files are compared without their times, and that they are the same is "unproven".
    `base_digest` is that of the runtime base that is expected, empty where none is.
    Raises what `build.build` raises; leaves no image behind.
    """
    with (
        builds.prepared(
            everything, dataclasses.replace(wanted, no_cache=True), results, progress
        ) as ready,
        tempfile.TemporaryDirectory(prefix="turboquant-builder-") as folder,
        signals.interrupting(),
    ):
        # A source without a date gets the first of all: the clock is no part of a pin.
        arguments = {EPOCH: "0", **ready.order.arguments, "CCACHE_DISABLE": "1"}
        order = dataclasses.replace(ready.order, arguments=arguments, tags=[])
        logs = results / "build" / "logs"
        try:
            made = _twice(_exported, order, Path(folder), logs / ready.name, progress)
            exported = True
        except buildx.ArchiveRefusedError:
            load = functools.partial(_loaded, ready.client)
            made = _twice(load, order, Path(folder), logs / ready.name, progress)
            exported = False
        progress.step("compare")
        first, second = (one.archive for one in made)
        files = _files(first, second, times=exported)
    digests = (first.manifest or "", second.manifest or "") if exported else ()
    config = [*_config(first.config, second.config)]
    status, observed = _verdict(files, config, digests)
    return Reproduction(
        variant=wanted.variant,
        commit=ready.tree.commit,
        source=ready.tree.origin,
        source_date_epoch=int(arguments[EPOCH]),
        status=status,
        observed=observed,
        digests=digests,
        files=tuple(files[:MOST_NAMED]),
        files_differing=len(files),
        config=tuple(config),
        notes=tuple(_notes(ready, base_digest)),
        builds_s=tuple(one.duration_s for one in made),
        logs=tuple(str(one.log) for one in made),
    )


def to_json(found: Reproduction, audited: "AuditReport | None") -> str:
    """The reproduction as indented JSON, under `reproduce`, with the audit's keys of an image."""
    around: dict[str, Any] = asdict(audited) if audited else {"schema": 1}
    passed = found.passed and (audited is None or audited.passed)
    return json.dumps({**around, "passed": passed, "reproduce": asdict(found)}, indent=2)


HEADER = ("layer", "file", "differs in", "at byte", "first", "second", "section", "looks like")


def rows(found: Reproduction) -> list[tuple[str, ...]]:
    """The named files as a table under HEADER; bytes that are no text are escaped."""
    return [(str(one.layer), one.path, ", ".join(one.what), *_where(one)) for one in found.files]


def _where(one: Difference) -> tuple[str, ...]:
    if one.content is None:
        return ("",) * 5
    shown = [repr(bytes.fromhex(data))[2:-1] for data in (one.content.first, one.content.second)]
    return f"{one.content.offset}", *shown, one.content.section or "", one.content.looks_like


def _twice(
    make: Callable[[buildx.Order, Path, Path, Progress], None],
    order: buildx.Order,
    folder: Path,
    log: Path,
    progress: Progress,
) -> list[_Built]:
    made = []
    for number in (1, 2):
        began = time.monotonic()
        path = folder / f"{number}.tar"
        its_log = log.with_name(f"{log.name}-reproduce-{number}.log")
        its_order = dataclasses.replace(order, alone=uuid.uuid4().hex)
        make(its_order, path, its_log, _Numbered(progress, number))
        seconds = round(time.monotonic() - began, 2)
        made.append(_Built(image_archive.read(path), its_log, seconds))
    return made


def _exported(order: buildx.Order, path: Path, log: Path, progress: Progress) -> None:
    buildx.build(dataclasses.replace(order, archive=path), log, progress)


def _loaded(
    client: "DockerClient", order: buildx.Order, path: Path, log: Path, progress: Progress
) -> None:
    """Build into the engine, save from there, and take the image away again."""
    tag = f"{REPOSITORY}:reproduce-{uuid.uuid4().hex[:12]}"
    try:
        buildx.build(dataclasses.replace(order, tags=[tag]), log, progress)
        progress.step("save the image")
        with engine.engine_errors("send the image"), path.open("wb") as file:
            for chunk in client.images.get(tag).save(chunk_size=_CHUNK):
                file.write(chunk)
    finally:
        with signals.held(), engine.engine_errors("remove an image"):
            if engine.find_image(client, tag) is not None:
                client.images.remove(tag)


def _files(first: Archive, second: Archive, *, times: bool) -> list[Difference]:
    """All files that differ, by layer and path."""
    found: list[Difference] = []
    pairs = zip(first.layers, second.layers, strict=False)
    for number, (ours, theirs) in enumerate(pairs, 1):
        if ours == theirs:
            continue
        with engine.engine_errors("give a layer that can be read"):
            found += layer_diff.compare(
                functools.partial(first.layer, ours),
                functools.partial(second.layer, theirs),
                layer=number,
                times=times,
                most_contents=max(0, MOST_NAMED - len(found)),
            )
    return found


def _config(first: object, second: object, place: str = "") -> Iterator[ConfigDifference]:
    """Where two configurations differ, but for the layers' digests: files say more."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in sorted((first.keys() | second.keys()) - {"rootfs"}):
            yield from _config(first.get(key), second.get(key), f"{place}.{key}".lstrip("."))
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for number, (one, other) in enumerate(zip(first, second, strict=True)):
            yield from _config(one, other, f"{place}[{number}]")
    elif first != second:
        yield ConfigDifference(place, json.dumps(first), json.dumps(second))


def _verdict(
    files: list[Difference], config: list[ConfigDifference], digests: tuple[str, ...]
) -> tuple[Status, str]:
    if digests and digests[0] == digests[1]:
        return "pass", f"both builds gave manifest {digests[0]}"
    if files or config:
        words = []
        if files:
            count = "1 file differs" if len(files) == 1 else f"{len(files)} files differ"
            words.append(f"{count}: {_some([one.path for one in files])}")
        if config:
            words.append(f"the configuration differs: {_some([one.place for one in config])}")
        return "fail", "; ".join(words)
    if digests:
        return "fail", "the manifests differ, no file does: the layers are packed in other ways"
    return "unproven", _ONLY_FILES


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _IN_HEADLINE} more" if len(names) > _IN_HEADLINE else ""
    return ", ".join(names[:_IN_HEADLINE]) + more


def _notes(ready: builds.Prepared, base_digest: str) -> Iterator[str]:
    if EPOCH not in ready.order.arguments:
        yield f"the source names no date: {EPOCH} was 0"
    runtime = next(one for one in ready.bases if one.role == "runtime")
    if base_digest and base_digest != runtime.digest:
        yield f"the image was made on base {base_digest}, this on {runtime.digest}"
    if any(one.origin == "bootstrap" for one in ready.bases):
        yield "the base is this machine's own: another machine's has other packages' versions"
