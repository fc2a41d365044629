"""Whether the image is no larger than its variant may be."""

from builder.audit.rules.labels import of_other_pins
from builder.audit.rules.subject import Subject, unproven, verdict_on
from builder.image.tree import File, Tree
from builder.model.finding import Finding

SIZE = "size"

_MB = 1_000_000
_LARGEST = 10


def size(subject: Subject) -> Finding:
    """Whether all layers together unpack to no more than the variant's `max_mb`."""
    found = f"{subject.size_bytes / _MB:.0f} MB"
    pinned = subject.pinned
    if isinstance(pinned, str):
        return unproven(SIZE, "no more than the variant's max_mb", f"{pinned}; it has {found}")
    budget = pinned.variant.max_mb
    if budget is None:
        why = f"the pins give {pinned.name} no max_mb; it has {found}"
        return unproven(SIZE, "no more than the variant's max_mb", why)
    if other := of_other_pins(subject):
        return unproven(SIZE, f"at most {budget} MB unpacked", f"{other}; it has {found}")
    faults = [found] if subject.size_bytes > budget * _MB else []
    return verdict_on(SIZE, faults, expected=f"at most {budget} MB unpacked", good=found)


def largest(tree: Tree) -> list[File]:
    """The ten largest files that a container sees, largest first."""
    files = (file for file in tree if file.kind == "file")
    return sorted(files, key=lambda file: (-file.size, file.path))[:_LARGEST]
