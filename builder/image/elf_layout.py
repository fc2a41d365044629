"""Where things lie in an ELF file: its segments, its sections, its dynamic table.

Whatever the file says of itself is held against its size first: a bent one ends in ElfError, at
once. The layouts are elf.h's.
"""

import functools
import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

LOAD, DYNAMIC, INTERPRETER = 1, 2, 3
"""Kinds of segment."""

NOTHING, PROGRAM, NO_BITS = 0, 1, 8
"""Kinds of section."""

MAGIC = b"\x7fELF"

_IDENTITY = 16
_BITS = {1: 32, 2: 64}
_ORDERS = {1: "<", 2: ">"}
_HEADER = {64: "HHIQQQIHHHHHH", 32: "HHIIIIIHHHHHH"}
_SEGMENT = {64: "IIQQQQQQ", 32: "IIIIIIII"}
_SECTION = {64: "IIQQQQIIQQ", 32: "IIIIIIIIII"}
_TAG = {64: "qQ", 32: "iI"}
_LONGEST = 4096


class ElfError(ValueError):
    """A file that is not what its header says."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the file that is mapped. `size` in bytes, from `offset` in the file."""

    kind: int
    executable: bool
    offset: int
    address: int
    size: int


@dataclass(frozen=True, slots=True)
class Section:
    """A section by name, and the bytes of the file that it takes."""

    name: str
    where: range
    kind: int = PROGRAM
    executable: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """A file with its header's facts. `bits` is 32 or 64, `order` the byte order for `struct`.

    The tables are an offset, the length of a row and the number of rows each; `names` is the number
    of the section with the names of all.
    """

    file: IO[bytes]
    size: int
    machine: str
    bits: int
    order: str
    segment_table: tuple[int, int, int]
    section_table: tuple[int, int, int]
    names: int

    def at(self, offset: int, size: int) -> bytes:
        """So many bytes from an offset. Raises ElfError where the file has fewer."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise ElfError(f"{size} bytes at {offset} lead out of a file of {self.size}")
        self.file.seek(offset)
        return self.file.read(size)

    def rows(
        self, offset: int, layout: str, number: int, step: int | None = None
    ) -> Iterator[tuple[int, ...]]:
        """So many structs from an offset, each `step` bytes after the one before."""
        row = struct.Struct(self.order + layout)
        step = row.size if step is None else step
        if number and step < row.size:
            raise ElfError(f"rows of {step} bytes where {row.size} are needed")
        data = self.at(offset, step * number)
        return (row.unpack_from(data, step * one) for one in range(number))

    def text(self, offset: int) -> str:
        """The string at an offset, which ends with a zero byte."""
        if not 0 <= offset < self.size:
            raise ElfError("a string outside the file")
        found, end, _ = self.at(offset, min(_LONGEST, self.size - offset)).partition(b"\0")
        if not end:
            raise ElfError("a string without an end")
        return found.decode(errors="replace")


def read(file: IO[bytes]) -> Layout:
    """The layout of a file. Raises ElfError."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(_LONGEST)
    if head[:4] != MAGIC or len(head) < _IDENTITY or head[4] not in _BITS or head[5] not in _ORDERS:
        raise ElfError("no ELF header")
    bits, order = _BITS[head[4]], _ORDERS[head[5]]
    header = struct.Struct(order + _HEADER[bits])
    if len(head) < _IDENTITY + header.size:
        raise ElfError("it ends inside its header")
    fields = header.unpack_from(head, _IDENTITY)
    _, machine, _, _, first, second, _, _, *numbers = fields
    return Layout(
        file=file,
        size=size,
        machine=f"{_machines().get(machine, machine)}/{bits}",
        bits=bits,
        order=order,
        segment_table=(first, numbers[0], numbers[1]),
        section_table=(second, numbers[2], numbers[3]),
        names=numbers[4],
    )


@functools.cache
def _machines() -> dict[int, str]:
    """The names of elf.h for e_machine."""
    from elftools.elf.enums import ENUM_E_MACHINE

    return {number: name for name, number in ENUM_E_MACHINE.items() if isinstance(number, int)}


def segments(layout: Layout) -> list[Segment]:
    """The segments, in the file's order. Raises ElfError."""
    offset, step, number = layout.segment_table
    found = []
    for row in layout.rows(offset, _SEGMENT[layout.bits], number, step):
        if layout.bits == 64:  # noqa: PLR2004
            kind, flags, start, address, _, size, *_ = row
        else:
            kind, start, address, _, size, _, flags, _ = row
        found.append(Segment(kind, bool(flags & 1), start, address, size))
    return found


def sections(layout: Layout) -> list[Section]:
    """The sections, in the file's order; none where their table is stripped. Raises ElfError."""
    offset, step, number = layout.section_table
    if not offset or not number:
        return []
    rows = list(layout.rows(offset, _SECTION[layout.bits], number, step))
    if layout.names >= len(rows):
        raise ElfError("sections without names")
    names = rows[layout.names][4]
    return [
        Section(layout.text(names + name), range(start, start + size), kind, bool(flags & 4))
        for name, kind, flags, _, start, size, *_ in rows
        if kind != NOTHING
    ]


def dynamic(layout: Layout, parts: list[Segment]) -> list[tuple[int, int]]:
    """The tags of the dynamic table, each with its value; none in a static program."""
    found = []
    for part in parts:
        if part.kind == DYNAMIC:
            size = struct.calcsize(layout.order + _TAG[layout.bits])
            for tag, value in layout.rows(part.offset, _TAG[layout.bits], part.size // size):
                if tag == 0:
                    break
                found.append((tag, value))
    return found


def place(parts: list[Segment], address: int) -> int:
    """Where in the file an address is mapped from. Raises ElfError for one that is not."""
    for part in parts:
        if part.kind == LOAD and part.address <= address < part.address + part.size:
            return part.offset + address - part.address
    raise ElfError(f"address {address:#x} is not mapped")
