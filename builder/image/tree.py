"""An image's files as values: what each layer holds, and what is seen of them together."""

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from builder.image.elf import Elf

Kind = Literal["file", "folder", "link", "device"]

_MOST_LINKS = 40  # as the kernel
_SET_ID = 0o6000


@dataclass(frozen=True, slots=True)
class File:
    """One entry of a layer. `path` is absolute, `size` in bytes, `mode` the twelve permission bits.

    `target` is where a symbolic link leads. `owner` is user and group. `capability` is the extended
    attribute that gives it privileges of its own, in hex. `digest` is the SHA-256 of a file that
    runs with rights of its own. `secrets` names the kinds of secret in its content. `text` is kept
    for a few files only.
    """

    path: str
    kind: Kind
    mode: int = 0o644
    size: int = 0
    target: str = ""
    owner: tuple[int, int] = (0, 0)
    capability: str = ""
    digest: str = ""
    script: bool = False
    secrets: frozenset[str] = frozenset()
    elf: Elf | None = None
    text: bytes | None = None

    @property
    def has_rights(self) -> bool:
        """Whether it runs with other rights than those of who starts it."""
        return self.kind == "file" and (bool(self.mode & _SET_ID) or bool(self.capability))


@dataclass(frozen=True, slots=True)
class Layer:
    """What one layer adds, and what it takes away from those below it.

    `removed` are paths that go with all that is in them, `emptied` folders that lose all they held.
    `second_names` maps paths to the first ones of files that the layer itself does not hold.
    """

    files: tuple[File, ...]
    removed: frozenset[str] = frozenset()
    emptied: frozenset[str] = frozenset()
    second_names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tree:
    """The files that a container sees, by path."""

    files: Mapping[str, File] = field(default_factory=dict)

    def __iter__(self) -> Iterator[File]:
        return iter(self.files.values())

    def resolve(self, path: str) -> File | None:
        """What is at this absolute path once every symbolic link is followed; None: nothing."""
        current, links = "/", 0
        parts = path.split("/")
        while parts:
            part = parts.pop(0)
            if part in {"", "."}:
                continue
            current = posixpath.normpath(posixpath.join(current, part))
            found = self.files.get(current)
            if found is not None and found.kind == "link":
                links += 1
                if links > _MOST_LINKS:
                    return None
                parts = found.target.split("/") + parts
                current = "/" if found.target.startswith("/") else posixpath.dirname(current)
            elif found is None and current != "/":
                return None
        return self.files.get(current)

    def has_folder(self, path: str) -> bool:
        """Whether a folder is at this path."""
        found = self.resolve(path)
        return found is not None and found.kind == "folder"


def merge(layers: Iterable[Layer]) -> Tree:
    """The layers, lowest first, laid on each other."""
    seen: dict[str, File] = {"/": File("/", "folder", 0o755)}
    for layer in layers:
        replaced = {
            file.path
            for file in layer.files
            if file.kind != "folder" and (old := seen.get(file.path)) and old.kind == "folder"
        }
        removed, emptied = layer.removed | replaced, layer.emptied
        if removed or emptied:
            seen = {path: file for path, file in seen.items() if not _gone(path, removed, emptied)}
        for file in layer.files:
            for folder in _above(file.path):
                # Not every tool writes entries for the folders above a file.
                seen.setdefault(folder, File(folder, "folder", 0o755))
            seen[file.path] = file
    return Tree(seen)


def _gone(path: str, removed: frozenset[str], emptied: frozenset[str]) -> bool:
    if path in removed:
        return True
    return any(folder in removed or folder in emptied for folder in _above(path))


def _above(path: str) -> Iterator[str]:
    """The folders that a path lies in, nearest first, without the root."""
    while (path := posixpath.dirname(path)) != "/":
        yield path
