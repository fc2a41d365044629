"""The symbol versions that an ELF file wants of its libraries, and those that it defines.

Read as glibc's loader does it (elf/dl-version.c): from the dynamic table, which is there also where
the table of sections is stripped. The layouts are elf.h's Elf64_Verneed, Elf64_Vernaux,
Elf64_Verdef and Elf64_Verdaux, which are the same in 32 bits.
"""

from collections.abc import Iterator

from builder.image.elf_layout import ElfError, Layout

_WEAK = 2
_MOST = 1024


def wanted(layout: Layout, table: int, strings: int) -> Iterator[tuple[str, str]]:
    """Each library with each version wanted of it. Without weak ones: the loader goes on.

    `table` and `strings` are offsets in the file. Raises ElfError.
    """
    for offset, (_, count, name, first, _) in _chain(layout, table, "HHIII"):
        library = layout.text(strings + name)
        rows = _chain(layout, offset + first, "IHHII") if count else ()
        for _, (_, flags, _, version, _) in rows:
            if not flags & _WEAK:
                yield library, layout.text(strings + version)


def defined(layout: Layout, table: int, strings: int) -> Iterator[str]:
    """The versions that the file defines. Raises ElfError."""
    for offset, (_, _, _, _, _, first, _) in _chain(layout, table, "HHHHIII"):
        # More names may follow: the versions that this one inherits from.
        ((name, _),) = layout.rows(offset + first, "II", 1)
        yield layout.text(strings + name)


def _chain(layout: Layout, offset: int, row: str) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Structs, each with its offset; the last field says how many bytes on the next one is."""
    for _ in range(_MOST):
        (fields,) = layout.rows(offset, row, 1)
        yield offset, fields
        if not fields[-1]:
            return
        offset += fields[-1]
    raise ElfError("a table of versions without an end")
