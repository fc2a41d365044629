"""The symbols that an ELF file takes from others at run time, and those that it gives.

The layouts are elf.h's Elf64_Sym and Elf32_Sym. How many there are only the tables of hashes tell,
DT_HASH or DT_GNU_HASH, as glibc's loader and its tools read them.
"""

import struct

from builder.image.elf_layout import ElfError, Layout

_SYMBOL = {64: "IBBHQQ", 32: "IIIBBH"}
_GLOBAL, _WEAK, _UNIQUE = 1, 2, 10
_HIDDEN = {1, 2}
_LONGEST = 1 << 16


def read(
    layout: Layout, table: int, number: int, names: bytes
) -> tuple[frozenset[str], frozenset[str]]:
    """What the file cannot do without, and what it gives; `table` is an offset in the file.

    `names` is the table of strings. Raises ElfError.
    """
    taken, given = set(), set()
    for row in layout.rows(table, _SYMBOL[layout.bits], number):
        if layout.bits == 64:  # noqa: PLR2004
            name, info, other, section, *_ = row
        else:
            name, _, _, info, other, section = row
        text = names[name : names.find(b"\0", name)].decode(errors="replace")
        binding = info >> 4
        if section == 0 and binding == _GLOBAL and text:
            taken.add(text)
        elif section and binding in {_GLOBAL, _WEAK, _UNIQUE} and other & 3 not in _HIDDEN:
            given.add(text)
    return frozenset(taken), frozenset(given)


def size(layout: Layout) -> int:
    """How many bytes a symbol takes in the table."""
    return struct.calcsize(layout.order + _SYMBOL[layout.bits])


def number_by_hash(layout: Layout, table: int) -> int:
    """How many symbols there are, by DT_HASH's table. Raises ElfError."""
    ((_, chains),) = layout.rows(table, "II", 1)
    return chains


def number_by_gnu_hash(layout: Layout, table: int) -> int:
    """How many symbols there are, by DT_GNU_HASH's table. Raises ElfError."""
    ((buckets, first, words, _),) = layout.rows(table, "IIII", 1)
    start = table + 16 + words * layout.bits // 8
    last = max((one for (one,) in layout.rows(start, "I", buckets)), default=0)
    if last < first:
        return first
    # A row of hashes ends with one that is odd.
    chain = start + 4 * (buckets + last - first)
    rows = layout.rows(chain, "I", min(_LONGEST, (layout.size - chain) // 4))
    for number, (value,) in enumerate(rows, start=last + 1):
        if value & 1:
            return number
    raise ElfError("a table of hashes without an end")
