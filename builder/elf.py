"""What is asked of an ELF file: its needs, its instructions, its device code (by pyelftools)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, BinaryIO

from builder import fatbin, instructions

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile

MAGIC = b"\x7fELF"

_FATBIN = ".nv_fatbin"
_X86_64 = "EM_X86_64"
_EXECUTABLE = 4


@dataclass(frozen=True, slots=True)
class Elf:
    """One ELF file. `machine` is its architecture and word size, which its needs share.

    `soname` is the name that it gives itself, and under which ldconfig lists it. `search` are the
    folders of RUNPATH, or of RPATH without one, `interpreter` is the loader's path. `extensions`
    maps each x86 extension that its code needs to one instruction that does, `units` are its CUDA
    device code; both are None when nobody asked or nothing can be told. `problem` says why the file
    could not be read.
    """

    machine: str = ""
    needed: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    interpreter: str | None = None
    extensions: Mapping[str, str] | None = None
    units: tuple[fatbin.Unit, ...] | None = None
    problem: str | None = None
    soname: str = ""


def read(file: BinaryIO, *, deep: bool) -> Elf:
    """The facts about one ELF file; `deep` reads its machine and device code too.

    A file that is broken is an Elf with a problem.
    """
    from elftools.common.exceptions import ELFError, ELFParseError
    from elftools.construct import ConstructError
    from elftools.elf.elffile import ELFFile

    machine = ""
    try:
        elf = ELFFile(file)
        machine = f"{elf['e_machine']}/{elf.elfclass}"
        needed, search, interpreter, soname = _linking(elf)
        return Elf(
            machine=machine,
            needed=needed,
            search=search,
            interpreter=interpreter,
            soname=soname,
            extensions=_extensions(elf) if deep else None,
            units=_units(elf, file) if deep else None,
        )
    except (ELFError, ELFParseError, ConstructError, fatbin.FatbinError, ValueError) as error:
        return Elf(machine=machine, problem=str(error) or type(error).__name__)


@dataclass(frozen=True, slots=True)
class Section:
    """A section by name, and the bytes of the file that it takes."""

    name: str
    where: range


def sections(file: IO[bytes]) -> tuple[Section, ...]:
    """The sections that take room in the file; none for a file that is no readable ELF file."""
    from elftools.common.exceptions import ELFError, ELFParseError
    from elftools.construct import ConstructError
    from elftools.elf.elffile import ELFFile

    try:
        file.seek(0)
        return tuple(
            Section(one.name, range(one["sh_offset"], one["sh_offset"] + one["sh_size"]))
            for one in ELFFile(file).iter_sections()
            if one["sh_type"] not in {"SHT_NULL", "SHT_NOBITS"}
        )
    except (ELFError, ELFParseError, ConstructError, ValueError):
        return ()


def _linking(elf: "ELFFile") -> tuple[tuple[str, ...], tuple[str, ...], str | None, str]:
    """What it needs, where it searches, its interpreter, its own name."""
    from elftools.elf.dynamic import DynamicSegment
    from elftools.elf.segments import InterpSegment

    needed: list[str] = []
    search: dict[str, str] = {}
    interpreter, soname = None, ""
    for segment in elf.iter_segments():
        if isinstance(segment, InterpSegment):
            interpreter = str(segment.get_interp_name())
        elif isinstance(segment, DynamicSegment):
            # Tags that are strings have them under their own names.
            for tag in segment.iter_tags():
                if tag.entry.d_tag == "DT_NEEDED":
                    needed.append(str(tag.needed))  # type: ignore[attr-defined]
                elif tag.entry.d_tag == "DT_SONAME":
                    soname = str(tag.soname)  # type: ignore[attr-defined]
                elif tag.entry.d_tag == "DT_RUNPATH":
                    search["runpath"] = str(tag.runpath)  # type: ignore[attr-defined]
                elif tag.entry.d_tag == "DT_RPATH":
                    search["rpath"] = str(tag.rpath)  # type: ignore[attr-defined]
    # The loader ignores RPATH where there is a RUNPATH.
    found = search.get("runpath", search.get("rpath"))
    folders = tuple(found.split(":")) if found is not None else ()
    return tuple(needed), folders, interpreter, soname


def _extensions(elf: "ELFFile") -> dict[str, str] | None:
    """None for a file of another architecture."""
    if elf["e_machine"] != _X86_64:
        return None
    found: dict[str, str] = {}
    for code in _code(elf):
        for extension, instruction in instructions.extensions(code).items():
            found.setdefault(extension, instruction)
    return found


def _code(elf: "ELFFile") -> Iterator[bytes]:
    """The executable sections; a stripped table of sections leaves whole segments."""
    if elf.num_sections() == 0:
        for segment in elf.iter_segments():
            if segment["p_type"] == "PT_LOAD" and segment["p_flags"] & 1:
                yield segment.data()
        return
    for section in elf.iter_sections():
        if section["sh_type"] == "SHT_PROGBITS" and section["sh_flags"] & _EXECUTABLE:
            yield section.data()


def _units(elf: "ELFFile", file: BinaryIO) -> tuple[fatbin.Unit, ...] | None:
    """None where no table of sections says where they would be."""
    if elf.num_sections() == 0:
        return None
    section = elf.get_section_by_name(_FATBIN)
    if section is None:
        return ()
    return fatbin.read(file, section["sh_offset"], section["sh_size"])
