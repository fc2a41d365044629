"""From a pin to an image on the engine, with a receipt."""

import contextlib
import dataclasses
import hashlib
import itertools
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from builder.build import apt_mirror, attestations, buildx, compile_cache, machine, render
from builder.build import bases as base_images
from builder.build import ccache as ccache_dir
from builder.build import plan as plans
from builder.build import receipts as receipt
from builder.build.compile_cache import CompileCache
from builder.build.plan import Plan, PlannedBase
from builder.common import paths
from builder.common.errors import EngineError
from builder.common.progress import Progress
from builder.engine import client as engine
from builder.image import sizes as layer_sizes
from builder.model import labels, tags
from builder.model.pins import BaseImage, Pins, Receipt, git_address
from builder.pins import load as pins
from builder.pins import parts
from builder.sources import checks as tree_checks
from builder.sources import tree as source

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.images import Image

_REMEMBERED = 20
"""Receipts that are looked through for how long a build takes."""


@dataclass(frozen=True, slots=True)
class Request:
    """What `builder build` was asked for.

    `jobs`: no more compilers at once, however much memory there is.
    `trial`: only to see whether it builds and what it does. The image gets no name but `tag`, there
    is no receipt of it on disk, and its compressed size is not measured: 0.
    `candidate`: a commit that nobody has pinned yet, whatever the pins at hand say. It has the
    ccache of its fork's commits, and what it leaves there is read once `keep_ccache` is told of it.
    """

    variant: str
    ref: str | None = None
    source: Path | None = None
    base: str | None = None
    sets: dict[base_images.Role, str] = field(default_factory=dict)
    no_cache: bool = False
    tag: str | None = None
    builder: str | None = None
    ccache_dir: Path | None = None
    jobs: int | None = None
    trial: bool = False
    candidate: bool = False


def plan(client: "DockerClient", everything: Pins, request: Request, results: Path) -> Plan:
    """What `build` would do, as far as it is known before anything is fetched. Changes nothing.

    Raises UsageError, EngineError when the machine has too little memory or disk.
    """
    variant = everything.variants[request.variant]
    base = pins.with_base(everything, variant, request.base)
    cuda = base.cuda is not None
    bases = base_images.expected(client, base, request.sets)
    earlier = list(itertools.islice(receipt.of_variant(results, request.variant), _REMEMBERED))
    need = plans.disk_need(
        cuda=cuda,
        devel_here=any(role == "devel" and image is not None for role, _, image in bases),
        image=earlier[0].size_bytes if earlier else None,
    )
    # A named builder is on a machine that the engine knows nothing about.
    here = machine.look(client) if request.builder is None else None
    if here is not None:
        plans.check_disk(here, need)
    allowed = plans.jobs(here, cuda=cuda) if here else None
    return Plan(
        variant=request.variant,
        source=source.described(everything, request.variant, request.ref, request.source),
        bases=[PlannedBase(role, name, one is not None) for role, name, one in bases],
        cores=here.cores if here else None,
        jobs=min((one for one in (allowed, request.jobs) if one is not None), default=None),
        memory=here.memory if here else None,
        disk_needed=need,
        disk_free=here.disk_free if here else None,
        expected_s=next((one.duration_s for one in earlier if one.pace), None),
    )


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that a build needs. `name` is the release's, without the repository.

    `left_out`: what the pins name and the commit lacks, in the words of `parts`.
    """

    client: "DockerClient"
    name: str
    order: buildx.Order
    tree: source.Tree
    bases: list[BaseImage]
    recipe: render.Rendered
    cache: CompileCache
    left_out: tuple[str, ...] = ()


def build(everything: Pins, request: Request, results: Path, progress: Progress) -> Receipt:
    """Build the image and write its receipt under `results`.

    Raises UsageError, EngineError, BuildFailedError, RemoteUnavailableError, RefNotFoundError;
    after each the previous image and its tags are as they were.
    """
    started = time.monotonic()
    folder = ccache_dir.prepare(request.ccache_dir) if request.ccache_dir else None
    with prepared(everything, request, results, progress) as ready:
        order, tree, images, recipe = ready.order, ready.tree, ready.bases, ready.recipe
        log = results / "build" / "logs" / f"{ready.name}.log"
        with (
            ccache_dir.carried(
                folder,
                ready.cache,
                order,
                images[0].reference,
                log,
                progress,
                settled=not request.candidate,
            )
            if folder
            else contextlib.nullcontext()
        ):
            built = buildx.build(order, log, progress, _paces(results, recipe))
        if not (folder or request.no_cache or request.candidate):
            compile_cache.settle(ready.cache)
        image = _image(ready.client, built)
        made = Receipt(
            variant=request.variant,
            fork=everything.variants[request.variant].fork,
            ref=tree.ref,
            commit=tree.commit,
            commit_claimed=tree.claimed,
            source=tree.origin,
            build_number=tree.build_number or 0,
            image=order.tags[0],
            image_id=str(image.id),
            size_bytes=int(image.attrs["Size"]),
            compressed_bytes=_compressed(image, request, results, progress),
            bases=images,
            dockerfile_sha256=recipe.sha256,
            created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            duration_s=round(time.monotonic() - started, 2),
            stages=built.stages,
            ccache=built.ccache,
            log=str(log),
            ccache_dir=str(request.ccache_dir) if request.ccache_dir else None,
            pace=built.pace,
            left_out=list(ready.left_out),
        )
        if not request.trial:
            receipt.write(made, results)
            if request.builder is None:
                just_built = attestations.Image(made.image_id, built.config)
                _keep_attestations(ready, just_built, results, progress)
    return made


def _image(client: "DockerClient", built: buildx.Built) -> "Image":
    """The classic image store names an image by its configuration, containerd's by its manifest."""
    for name in filter(None, (built.digest, built.config)):
        found = engine.find_image(client, name)
        if found is not None:
            return found
    raise EngineError("BuildKit built an image that the engine does not hold", why=built.digest)


def _keep_attestations(
    ready: Prepared, image: attestations.Image, results: Path, progress: Progress
) -> None:
    # By one name, as an archive lists the image once a name; and by the release's, which the
    # statements then have: the one of --tag may have a host in it.
    order = dataclasses.replace(ready.order, tags=[f"{tags.REPOSITORY}:{ready.name}"])
    log = results / "build" / "logs" / f"{ready.name}.attestations.log"
    attestations.keep(ready.client, order, image, results, log, progress)


def _compressed(image: "Image", request: Request, results: Path, progress: Progress) -> int:
    earlier = receipt.of_image(results, str(image.id))
    if earlier:
        return earlier.compressed_bytes
    if request.trial:
        return 0
    progress.step("measure the compressed size")
    return layer_sizes.compressed(image)


@contextmanager
def prepared(
    everything: Pins, request: Request, results: Path, progress: Progress
) -> Iterator[Prepared]:
    """The order for a build: the tree stays as it is, and the Dockerfile there, in the context.

    Raises UsageError, EngineError, RemoteUnavailableError, RefNotFoundError, BuildFailedError.
    """
    variant = everything.variants[request.variant]
    base_name = request.base or variant.base
    pins.with_base(everything, variant, request.base)
    client = engine.connect()
    engine.require_command()
    planned = plan(client, everything, request, results)
    with (
        source.tree(everything, request.variant, request.ref, request.source, progress) as tree,
        tree_checks.checked(everything, request.variant, tree, progress) as left_out,
    ):
        fitted = parts.without(everything, request.variant, left_out)
        recipe = render.render(fitted, request.variant, request.base)
        images = base_images.choose(client, everything, base_name, request.sets, progress)
        name = tags.release(request.variant, tree.build_number, tree.commit, recipe.sha256)
        cache = _cache(everything, request, tree, images)
        with tempfile.TemporaryDirectory(prefix="turboquant-builder-") as scratch:
            dockerfile = Path(scratch) / "Dockerfile"
            dockerfile.write_text(recipe.text, encoding="utf-8")
            order = buildx.Order(
                dockerfile=dockerfile,
                source=tree.path,
                context=context(tree.path),
                tags=[
                    request.tag or tags.local(request.variant),
                    *([] if request.trial else [f"{tags.REPOSITORY}:{name}"]),
                ],
                arguments=_arguments(everything.forks[variant.fork].url, tree, images)
                | _compiling(planned, request, cache),
                labels=_labels(tree, images, recipe, left_out),
                no_cache=request.no_cache,
                builder=request.builder,
                secrets=apt_mirror.secrets(
                    images, everything.bases[base_name].bootstrap, Path(scratch)
                ),
            )
            yield Prepared(client, name, order, tree, images, recipe, cache, left_out)


def context(tree: Path) -> Path:
    """The empty main context of builds from this tree.

    BuildKit sends only what changed of a tree to builds whose main context has the same path.
    """
    key = hashlib.sha256(str(tree).encode()).hexdigest()[:8]
    folder = paths.cache() / "context" / key
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _arguments(url: str | None, tree: source.Tree, images: list[BaseImage]) -> dict[str, str]:
    arguments = {f"{image.role.upper()}_IMAGE": image.reference for image in images}
    arguments |= {
        "COMMIT": tree.commit,
        "BUILD_NUMBER": str(tree.build_number or 0),
        "CREATED": tree.created,
        "SOURCE_URL": git_address(url) if url else "",
    }
    if tree.created:
        # BuildKit's own: the times inside the image are the commit's, not the clock's.
        epoch = datetime.fromisoformat(tree.created)
        arguments["SOURCE_DATE_EPOCH"] = str(int(epoch.timestamp()))
    return arguments


def _cache(
    everything: Pins, request: Request, tree: source.Tree, images: list[BaseImage]
) -> CompileCache:
    name = everything.variants[request.variant].fork
    fork = everything.forks[name]
    purpose: compile_cache.Purpose = "commits"
    if tree.origin.startswith(source.FROM_DISK):
        purpose = "disk"
    elif request.trial:
        purpose = "bisect"
    # A claimed commit that is not from disk is that of an sdist whose digest is pinned.
    elif tree.claimed or (tree.commit == fork.commit and not request.candidate):
        purpose = "pin"
    devel = next(image for image in images if image.role == "devel")
    return compile_cache.choose(name, fork.url, purpose, tree.commit, tree.origin, devel)


def keep_ccache(
    everything: Pins, candidate: Receipt, folder: Path | None, progress: Progress
) -> None:
    """A candidate has been proven: its fork's next commits read what it compiled.

    `folder` is that of --ccache-dir. Where that cannot be noted they compile it again: a warning.
    """
    devel = next((image for image in candidate.bases if image.role == "devel"), None)
    if devel is None:
        return
    url = everything.forks[candidate.fork].url
    cache = compile_cache.choose(
        candidate.fork, url, "commits", candidate.commit, candidate.source, devel
    )
    try:
        compile_cache.settle(cache)
        if folder is not None:
            ccache_dir.settle(folder, cache)
    except OSError as error:
        progress.warn(f"the ccache of {candidate.commit[:9]} is not used again: {error}")


def _compiling(planned: Plan, request: Request, cache: CompileCache) -> dict[str, str]:
    """How it is compiled. Each argument that differs makes another compile step of it."""
    arguments = {
        "CCACHE_ID": ccache_dir.mount_id(request.ccache_dir.resolve(), cache)
        if request.ccache_dir
        else compile_cache.mount_id(cache, anew=request.no_cache)
    }
    if planned.jobs not in (None, planned.cores):
        arguments["JOBS"] = str(planned.jobs)
    return arguments


def _paces(results: Path, recipe: render.Rendered) -> list[list[float]]:
    """Those of earlier builds of the variant, the same recipe first, the newest first."""
    newest = itertools.islice(receipt.of_variant(results, recipe.variant), _REMEMBERED)
    known = [one for one in newest if plans.whole(one.pace)]
    known.sort(key=lambda one: one.dockerfile_sha256 != recipe.sha256)
    return [one.pace for one in known]


def _labels(
    tree: source.Tree,
    images: list[BaseImage],
    recipe: render.Rendered,
    left_out: tuple[str, ...],
) -> dict[str, str]:
    runtime = next(image for image in images if image.role == "runtime")
    return {
        "org.opencontainers.image.base.name": runtime.reference.partition("@")[0],
        "org.opencontainers.image.base.digest": runtime.digest,
        f"{labels.LABEL}.base-origin": runtime.origin,
        f"{labels.LABEL}.commit-claimed": str(tree.claimed).lower(),
        f"{labels.LABEL}.dockerfile-sha256": recipe.sha256,
    } | ({f"{labels.LABEL}.left-out": ",".join(left_out)} if left_out else {})
