"""What is asked of an ELF file: its needs, its instructions, its device code."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, BinaryIO

from builder.image import elf_layout, elf_symbols, elf_versions, fatbin, instructions
from builder.image.elf_layout import ElfError, Layout, Section, Segment

MAGIC = elf_layout.MAGIC

_FATBIN = ".nv_fatbin"
_DYNSYM = ".dynsym"
_X86_64 = "EM_X86_64/"

_NEEDED, _HASH, _STRINGS, _SYMBOLS, _STRINGS_SIZE = 1, 4, 5, 6, 10
_SONAME, _RPATH, _RUNPATH, _GNU_HASH = 14, 15, 29, 0x6FFFFEF5
_DEFINED, _WANTED = 0x6FFFFFFC, 0x6FFFFFFE


@dataclass(frozen=True, slots=True)
class Elf:
    """One ELF file. `machine` is its architecture and word size, which its needs share.

    `soname` is the name that it gives itself, and under which ldconfig lists it. `search` are the
    folders of RUNPATH, or of RPATH without one (`first` then, as they go before those of the
    environment), `interpreter` is the loader's path. `wants` are the
    symbol versions that it cannot do without, each with its library, `defines` those of its own;
    `imports` are the symbols that some library must give it, `exports` those that it gives.

    `extensions` maps each x86 extension that its code needs to one instruction that does, `units`
    are its CUDA device code; both are None when nobody asked or nothing can be told. `problem` says
    why the file could not be read.
    """

    machine: str = ""
    needed: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    interpreter: str | None = None
    extensions: Mapping[str, str] | None = None
    units: tuple[fatbin.Unit, ...] | None = None
    problem: str | None = None
    soname: str = ""
    wants: tuple[tuple[str, str], ...] = ()
    defines: frozenset[str] = frozenset()
    imports: frozenset[str] = frozenset()
    exports: frozenset[str] = frozenset()
    first: bool = False


def read(file: BinaryIO, *, deep: bool) -> Elf:
    """The facts about one ELF file; `deep` reads its machine and device code too.

    A file that is broken is an Elf with a problem.
    """
    machine = ""
    try:
        layout = elf_layout.read(file)
        machine = layout.machine
        parts = elf_layout.segments(layout)
        found = _linking(layout, parts)
        if not deep:
            return found
        sections = elf_layout.sections(layout)
        return dataclasses.replace(
            found,
            extensions=_extensions(layout, parts, sections),
            units=_units(file, sections),
        )
    except Exception as error:  # whatever the file is, it must not end the audit
        return Elf(machine=machine, problem=str(error) or type(error).__name__)


def sections(file: IO[bytes]) -> tuple[Section, ...]:
    """The sections that take room in the file; none for a file that is no readable ELF file."""
    try:
        found = elf_layout.sections(elf_layout.read(file))
    except Exception:  # as above
        return ()
    return tuple(one for one in found if one.kind != elf_layout.NO_BITS)


def _linking(layout: Layout, parts: list[Segment]) -> Elf:
    """What it needs, wants and defines, where it searches, its interpreter, its own name."""
    tags = elf_layout.dynamic(layout, parts)
    last = dict(tags)
    strings = elf_layout.place(parts, last[_STRINGS]) if _STRINGS in last else 0

    def texts(wanted: int) -> list[str]:
        return [layout.text(strings + value) for tag, value in tags if tag == wanted]

    def table(tag: int) -> int | None:
        return elf_layout.place(parts, last[tag]) if tag in last else None

    interpreters = [layout.text(one.offset) for one in parts if one.kind == elf_layout.INTERPRETER]
    # The loader ignores RPATH where there is a RUNPATH.
    runpaths = texts(_RUNPATH)
    search = runpaths or texts(_RPATH)
    wants, defines = table(_WANTED), table(_DEFINED)
    hashes, gnu_hashes, symbols = table(_HASH), table(_GNU_HASH), table(_SYMBOLS)
    number = 0
    if gnu_hashes is not None:
        number = elf_symbols.number_by_gnu_hash(layout, gnu_hashes)
        # binutils writes a table that tells nothing where a file gives no symbol.
        number = number if number > 1 else max(number, _listed_symbols(layout))
    elif hashes is not None:
        number = elf_symbols.number_by_hash(layout, hashes)
    names = layout.at(strings, last.get(_STRINGS_SIZE, 0)) if number else b""
    imports, exports = elf_symbols.read(layout, symbols or 0, number, names)
    return Elf(
        machine=layout.machine,
        needed=tuple(texts(_NEEDED)),
        search=tuple(search[-1].split(":")) if search else (),
        interpreter=interpreters[-1] if interpreters else None,
        soname=(texts(_SONAME) or [""])[-1],
        wants=tuple(elf_versions.wanted(layout, wants, strings)) if wants is not None else (),
        defines=frozenset(elf_versions.defined(layout, defines, strings))
        if defines is not None
        else frozenset(),
        imports=imports,
        exports=exports,
        first=bool(search) and not runpaths,
    )


def _listed_symbols(layout: Layout) -> int:
    """How many symbols there are, by the table of sections; 0 where it does not tell."""
    try:
        found = [one for one in elf_layout.sections(layout) if one.name == _DYNSYM]
    except ElfError:
        return 0
    return len(found[0].where) // elf_symbols.size(layout) if found else 0


def _extensions(
    layout: Layout, parts: list[Segment], sections: list[Section]
) -> dict[str, str] | None:
    """None for a file of another architecture."""
    if not layout.machine.startswith(_X86_64):
        return None
    found: dict[str, str] = {}
    left = layout.size
    for place in _code(parts, sections):
        left -= len(place)
        if left < 0:
            raise ElfError("more code than the file is long: sections that overlap")
        code = layout.at(place.start, len(place))
        for extension, instruction in instructions.extensions(code).items():
            found.setdefault(extension, instruction)
    return found


def _code(parts: list[Segment], sections: list[Section]) -> Iterator[range]:
    """The executable sections; a stripped table of sections leaves whole segments."""
    if not sections:
        for part in parts:
            if part.kind == elf_layout.LOAD and part.executable:
                yield range(part.offset, part.offset + part.size)
    for section in sections:
        if section.kind == elf_layout.PROGRAM and section.executable:
            yield section.where


def _units(file: BinaryIO, sections: list[Section]) -> tuple[fatbin.Unit, ...] | None:
    """None where no table of sections says where they would be."""
    if not sections:
        return None
    found = [one.where for one in sections if one.name == _FATBIN]
    units = [fatbin.read(file, where.start, len(where)) for where in found]
    return tuple(unit for several in units for unit in several)
