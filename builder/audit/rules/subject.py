"""What a rule looks at."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from builder.common.printable import printable
from builder.image.contents import compiled_by_us
from builder.image.files import Config, Printed
from builder.image.tree import File, Layer, Tree
from builder.model.finding import Finding
from builder.model.pins import Base, Fork, Receipt, Variant

_LISTED = 5


@dataclass(frozen=True, slots=True)
class Pinned:
    """What the pins say of the image's variant.

    `commit` is the one that is built when no other is asked for. `recipes` maps the SHA-256 of each
    Dockerfile that the pins render for the variant to the base it compiles on.
    """

    name: str
    variant: Variant
    fork: Fork
    base: Base
    commit: str | None
    recipes: Mapping[str, Base] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Subject:
    """An image as it was read. `pinned` may be the words why no variant is known."""

    config: Config
    layers: tuple[Layer, ...]
    tree: Tree
    help: Printed
    version: Printed
    pinned: Pinned | str
    receipt: Receipt | None = None

    @property
    def size_bytes(self) -> int:
        """What the layers unpack to, with all that later ones hide."""
        return sum(file.size for layer in self.layers for file in layer.files)


def compiled(subject: Subject) -> list[File]:
    """The ELF files that were compiled from the fork's source."""
    return [file for file in subject.tree if file.elf is not None and compiled_by_us(file.path)]


def verdict_on(rule: str, faults: Iterable[str], *, expected: str, good: str) -> Finding:
    """Fails with the faults, or passes with what is good."""
    listed = list(faults)
    if not listed:
        return Finding(rule, "pass", expected, printable(good))
    return Finding(rule, "fail", expected, printable(some(listed)))


def unproven(rule: str, expected: str, why: str) -> Finding:
    """A finding of a rule that cannot tell."""
    return Finding(rule, "unproven", expected, printable(f"not proven: {why}"))


def some(words: Iterable[str]) -> str:
    """The first few words, and how many more there are."""
    listed = list(words)
    more = len(listed) - _LISTED
    text = ", ".join(listed[:_LISTED])
    return f"{text} and {more} more" if more > 0 else text
