"""From a pin to an image on the engine, with a receipt."""

import hashlib
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from builder import (
    base_images,
    buildx,
    engine,
    paths,
    pins,
    receipt,
    render,
    source,
    tags,
    tree_checks,
)
from builder.model import BaseImage, Pins, Receipt
from builder.progress import Progress


@dataclass(frozen=True, slots=True)
class Request:
    """What `builder build` was asked for."""

    variant: str
    ref: str | None = None
    source: Path | None = None
    base: str | None = None
    sets: dict[base_images.Role, str] = field(default_factory=dict)
    no_cache: bool = False
    tag: str | None = None
    builder: str | None = None


def build(everything: Pins, request: Request, results: Path, progress: Progress) -> Receipt:
    """Build the image and write its receipt under `results`.

    Raises UsageError, EngineError, BuildFailedError, RemoteUnavailableError, RefNotFoundError;
    after each the previous image and its tags are as they were.
    """
    started = time.monotonic()
    variant = everything.variants[request.variant]
    base_name = request.base or variant.base
    pins.with_base(everything, variant, request.base)
    recipe = render.render(everything, request.variant, request.base)
    client = engine.connect()
    engine.require_command()
    with (
        source.tree(everything, request.variant, request.ref, request.source, progress) as tree,
        tree_checks.checked(everything, request.variant, tree, progress),
    ):
        images = base_images.choose(client, everything, base_name, request.sets, progress)
        name = tags.release(request.variant, tree.build_number, tree.commit, recipe.sha256)
        log = results / "build" / "logs" / f"{name}.log"
        with tempfile.TemporaryDirectory(prefix="turboquant-builder-") as scratch:
            dockerfile = Path(scratch) / "Dockerfile"
            dockerfile.write_text(recipe.text, encoding="utf-8")
            order = buildx.Order(
                dockerfile=dockerfile,
                source=tree.path,
                context=context(tree.path),
                tags=[
                    request.tag or tags.local(request.variant),
                    f"{tags.REPOSITORY}:{name}",
                ],
                arguments=_arguments(everything.forks[variant.fork].url, tree, images),
                labels=_labels(tree, images, recipe),
                no_cache=request.no_cache,
                builder=request.builder,
            )
            built = buildx.build(order, log, progress)
    image = client.images.get(built.image_id)
    earlier = receipt.of_image(results, str(image.id))
    if earlier is None:
        progress.step("measure the compressed size")
    compressed = earlier.compressed_bytes if earlier else engine.compressed_size(image)
    made = Receipt(
        variant=request.variant,
        fork=variant.fork,
        ref=tree.ref,
        commit=tree.commit,
        commit_claimed=tree.claimed,
        source=tree.origin,
        build_number=tree.build_number or 0,
        image=order.tags[0],
        image_id=str(image.id),
        size_bytes=int(image.attrs["Size"]),
        compressed_bytes=compressed,
        bases=images,
        dockerfile_sha256=recipe.sha256,
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        duration_s=round(time.monotonic() - started, 2),
        stages=built.stages,
        ccache=built.ccache,
        log=str(log),
    )
    receipt.write(made, results)
    return made


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
        "SOURCE_URL": render.git_address(url) if url else "",
    }
    if tree.created:
        # BuildKit's own: the times inside the image are the commit's, not the clock's.
        epoch = datetime.fromisoformat(tree.created)
        arguments["SOURCE_DATE_EPOCH"] = str(int(epoch.timestamp()))
    return arguments


def _labels(tree: source.Tree, images: list[BaseImage], recipe: render.Rendered) -> dict[str, str]:
    runtime = next(image for image in images if image.role == "runtime")
    return {
        "org.opencontainers.image.base.name": runtime.reference.partition("@")[0],
        "org.opencontainers.image.base.digest": runtime.digest,
        f"{render.LABEL}.base-origin": runtime.origin,
        f"{render.LABEL}.commit-claimed": str(tree.claimed).lower(),
        f"{render.LABEL}.dockerfile-sha256": recipe.sha256,
    }
