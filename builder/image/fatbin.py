"""CUDA device code inside an ELF file: which architectures its fat binaries hold.

NVIDIA documents no layout. This one is read off nvcc 12.4's output and held against what
`cuobjdump --list-elf --list-ptx` says of the same files (tests/engine/test_fatbin.py): a section
`.nv_fatbin` is a row of units, one a translation unit, each a header and a row of entries. Nothing
has to be decompressed: an entry's kind and architecture are in its header.
"""

import struct
from dataclasses import dataclass, field
from typing import BinaryIO, Literal

Kind = Literal["ptx", "sass"]

MAGIC = 0xBA55ED50
"""The first four bytes of a unit, little-endian."""

UNIT = struct.Struct("<IHHQ")
"""A unit's header: magic, version, its own size, size of the entries. In bytes."""

ENTRY = struct.Struct("<HHIQIIHHIIIQ")
"""An entry's header as far as it is read: kind, version, its own size, size of the code, size
compressed, two unknown, minor, major, architecture, offset and length of a name, flags."""

KINDS: dict[int, Kind] = {1: "ptx", 2: "sass"}
SPECIFIC = 0x100000
"""The flag of code for one architecture and no later one: sm_90a against sm_90."""

_ALIGNMENT = 8
_SHORT = 64


class FatbinError(ValueError):
    """A section that is no row of units."""


@dataclass(frozen=True, slots=True, order=True)
class Code:
    """Device code for an architecture (86 is 8.6). `specific`: it runs on no later one (90a).

    `short_header`: its entry begins with 64 bytes, as in NVIDIA's own cuBLAS of CUDA 12.4, where
    that toolkit's nvcc writes 72, and 88 for PTX; nvprune keeps what is there.
    """

    kind: Kind
    architecture: int
    specific: bool = False
    short_header: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        prefix = "sm" if self.kind == "sass" else "compute"
        return f"{prefix}_{self.architecture}{'a' if self.specific else ''}"

    def is_for(self, architecture: int) -> bool:
        """Whether it is machine code made for this architecture; PTX is for none."""
        return self.kind == "sass" and self.architecture == architecture

    def runs_on(self, architecture: int) -> bool:
        """Whether a GPU of this architecture runs it.

        SASS runs on its own major version from its own minor version on; PTX on all later ones.
        """
        if self.kind == "sass" and self.architecture // 10 != architecture // 10:
            return False
        if self.specific:
            return self.architecture == architecture
        return self.architecture <= architecture


Unit = frozenset[Code]
"""The device code of one translation unit."""


def read(file: BinaryIO, offset: int, size: int) -> tuple[Unit, ...]:
    """The units of the section that is `size` bytes long at this offset; empty ones are left out.

    Raises FatbinError.
    """
    units, end = [], offset + size
    while offset + UNIT.size <= end:
        magic, _, header, length = UNIT.unpack(_at(file, offset, UNIT.size))
        if magic == 0:
            offset += _ALIGNMENT
            continue
        if magic != MAGIC:
            raise FatbinError(f"{magic:#010x} in place of a unit's magic")
        if header < UNIT.size:
            raise FatbinError(f"a unit's header of {header} bytes")
        first, offset = offset + header, offset + header + length
        if offset > end:
            raise FatbinError("a unit is longer than its section")
        units.append(frozenset(_entries(file, first, offset)))
    return tuple(unit for unit in units if unit)


def _entries(file: BinaryIO, offset: int, end: int) -> list[Code]:
    found = []
    while offset < end:
        fields = ENTRY.unpack(_at(file, offset, ENTRY.size))
        kind, header, length, architecture, flags = (fields[n] for n in (0, 2, 3, 8, 11))
        if header < ENTRY.size:
            raise FatbinError(f"an entry's header of {header} bytes")
        if kind in KINDS:
            specific, short = bool(flags & SPECIFIC), header == _SHORT
            found.append(Code(KINDS[kind], architecture, specific, short))
        offset += header + length
    return found


def _at(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    data = file.read(size)
    if len(data) < size:
        raise FatbinError("the file ends inside a unit")
    return data
