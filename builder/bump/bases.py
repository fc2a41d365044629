"""Move a base's images to what their tags stand for now: only digests change."""

from dataclasses import replace
from pathlib import Path

from builder.build.run import Request as BuildRequest
from builder.bump.fork import Edit, RefusedError, Request, Stages, alone, prove, read, written
from builder.bump.report import BaseReport, ImageMove, Proof
from builder.common.errors import UsageError
from builder.common.progress import Progress
from builder.model import tags
from builder.model.pins import Base, Pins
from builder.pins import edit as pins_edit
from builder.pins import load as pins
from builder.registry import registry


def bump_base(
    file: Path, name: str, request: Request, stages: Stages | None, progress: Progress
) -> BaseReport:
    """Pin this base of pins.toml to its tags' digests; a second bump of the file waits.

    The tags stay. `stages` None: the move is not proven. After an error everything is as it was.
    Raises what `bump` raises, and RefNotFoundError for a tag that is gone.
    """
    file = file.resolve()
    with alone(file, progress):
        text = read(file)
        everything = pins.parse(text, str(file))
        variant = pins.variant_of(everything, "base", name, request.variant) if stages else None
        moves = _look_up(everything.bases[name], name, progress)
        report = BaseReport(name, moves, "unproven" if moves else "unchanged")
        if not moves:
            return report
        edited = pins_edit.with_images(text, name, {m.role: f"{m.image}@{m.new}" for m in moves})
        edit = Edit.of(file, edited, "base", name)
        report = replace(report, diff=edit.diff)
        if stages and variant:
            proof = _prove(edit.candidate, name, variant, moves, stages, file.parent, progress)
            report = replace(report, verdict="proven", proof=proof)
        return written(file, text, edit, report, request)


def _look_up(base: Base, name: str, progress: Progress) -> list[ImageMove]:
    """The images of the base whose tag is another now."""
    moves, known = [], {}
    for role in ("devel", "runtime"):
        pinned = base.devel if role == "devel" else base.runtime
        if pinned is None:
            continue
        tag, _, old = pinned.partition("@")
        if tag not in known:
            progress.step(f"ask the registry for {tag}")
            known[tag] = registry.digest(registry.image(tag))
        if known[tag] != old:
            moves.append(ImageMove(role, tag, old, known[tag]))
    if not known:
        raise UsageError(
            f"base {name} has no image by digest",
            why="it is made from Debian packages where it is built",
            hint="there is nothing to move",
        )
    return moves


def _prove(
    candidate: Pins,
    base: str,
    variant: str,
    moves: list[ImageMove],
    stages: Stages,
    results: Path,
    progress: Progress,
) -> Proof:
    order = BuildRequest(variant, tag=f"{tags.local(variant)}-{base}")
    chosen = candidate.variants[variant]
    source = candidate.sources[chosen.source] if chosen.source else None
    pin = source.upstream if source else candidate.forks[chosen.fork].commit
    proof = prove(candidate, order, pin, stages, results, progress)
    used = {image.role: image for image in proof.receipt.bases}
    for move in moves:
        image = used.get(move.role)
        # A build takes Debian packages where no registry answers, and then says nothing of these.
        if image is None or image.digest != move.new:
            raise RefusedError(
                f"build failed: {variant} was not built on the new {move.role} image of {base}; "
                "the pin stays, nothing was changed",
                why=f"it took {image.reference if image else 'none'}",
                hint="does the engine reach the registry?",
            )
    return proof
