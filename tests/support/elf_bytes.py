"""The smallest ELF files that say what a test wants: x86-64 shared objects, written by hand."""

import random
import struct
from collections.abc import Iterator

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_TAG = struct.Struct("<qQ")

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_PROGBITS, _STRTAB, _DYNAMIC, _NOTE = 1, 3, 6, 7
_ALLOC, _EXECINSTR = 2, 4
_DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ = 4, 5, 6, 10
_DT_VERDEF, _DT_VERNEED = 0x6FFFFFFC, 0x6FFFFFFE
_WEAK = 2
_BASE = 0x400000
_TAGS = {"needed": 1, "soname": 14, "rpath": 15, "runpath": 29}

X86_64, AARCH64 = 62, 183


def elf(
    *,
    tags: tuple[tuple[str, str], ...] = (),
    interpreter: str | None = None,
    code: bytes = b"\xc3",
    fatbin: bytes = b"",
    build_id: bytes = b"",
    machine: int = X86_64,
    wants: tuple[tuple[str, str], ...] = (),
    weak: tuple[tuple[str, str], ...] = (),
    defines: tuple[str, ...] = (),
    imports: tuple[str, ...] = (),
    exports: tuple[str, ...] = (),
    executable: bool = True,
) -> bytes:
    """An ELF file with these dynamic tags (by name), this code and this .nv_fatbin.

    `build_id` is the content of a section of its own, before all others. `wants` and `weak` are
    symbol versions, each with its library; `defines` are the file's own. `imports` are symbols that
    it takes, with a weak one; `exports` those that it gives, with a hidden one. `executable` is the
    segment that all lies in.
    """
    strings = b"\0"

    def string(text: str) -> int:
        nonlocal strings
        strings += text.encode() + b"\0"
        return len(strings) - len(text.encode()) - 1

    pairs = [(_TAGS[name], string(value)) for name, value in tags]
    needs = [(string(one), string(version), 0) for one, version in wants]
    needs += [(string(one), string(version), _WEAK) for one, version in weak]
    verneed, verdef = _verneed(needs), _verdef([string(one) for one in defines])
    symbols = _symbols([string(one) for one in imports], [string(one) for one in exports])
    hashes = struct.pack("<II", 0, len(symbols) // 24) if imports or exports else b""
    addressed = {_DT_STRTAB: ".dynstr"}
    addressed |= {_DT_SYMTAB: ".dynsym", _DT_HASH: ".hash"} if hashes else {}
    addressed |= {_DT_VERNEED: ".gnu.version_r"} if verneed else {}
    addressed |= {_DT_VERDEF: ".gnu.version_d"} if verdef else {}
    # The addresses follow from the layout, the layout from the length.
    pairs.append((_DT_STRSZ, len(strings)))
    entries = bytes(_TAG.size * (len(pairs) + len(addressed) + 1))
    sections = [
        *([(".note.gnu.build-id", _NOTE, _ALLOC, build_id, 0)] if build_id else []),
        (".text", _PROGBITS, _ALLOC | _EXECINSTR, code, 0),
        (".dynstr", _STRTAB, _ALLOC, strings, 0),
        (".dynsym", _PROGBITS, _ALLOC, symbols, 0),
        (".hash", _PROGBITS, _ALLOC, hashes, 0),
        (".gnu.version_r", _PROGBITS, _ALLOC, verneed, 0),
        (".gnu.version_d", _PROGBITS, _ALLOC, verdef, 0),
        (".dynamic", _DYNAMIC, _ALLOC, entries, 3 if build_id else 2),
        (".nv_fatbin", _PROGBITS, _ALLOC, fatbin, 0),
        (".interp", _PROGBITS, _ALLOC, (interpreter or "").encode() + b"\0", 0),
    ]
    names = b"\0" + b"".join(name.encode() + b"\0" for name, *_ in sections) + b".shstrtab\0"
    sections.append((".shstrtab", _STRTAB, 0, names, 0))
    segments = 2 if interpreter is None else 3
    body, places = b"", {}
    start = _HEADER.size + segments * _SEGMENT.size
    for name, _, _, data, _ in sections:
        body += bytes(-len(body) % 8)
        places[name] = (start + len(body), len(data))
        body += data
    body += bytes(-len(body) % 8)
    pairs += [(tag, _BASE + places[name][0]) for tag, name in addressed.items()]
    at = places[".dynamic"][0] - start
    entries = b"".join(_TAG.pack(*pair) for pair in [*pairs, (0, 0)])
    body = body[:at] + entries + body[at + len(entries) :]
    table = _SECTION.pack(*[0] * 10)
    for name, kind, flags, _, link in sections:
        offset, size = places[name]
        at = names.index(name.encode() + b"\0")
        entry_size = _TAG.size if kind == _DYNAMIC else 0
        table += _SECTION.pack(at, kind, flags, offset, offset, size, link, 0, 8, entry_size)
    program = _segment(_PT_LOAD, 0, start + len(body), flags=4 | executable)
    program += _segment(_PT_DYNAMIC, *places[".dynamic"])
    if interpreter is not None:
        program += _segment(_PT_INTERP, *places[".interp"])
    header = _HEADER.pack(
        b"\x7fELF\x02\x01\x01" + bytes(9),
        *(3, machine, 1, 0, _HEADER.size, start + len(body), 0, _HEADER.size),
        *(_SEGMENT.size, segments, _SECTION.size, len(sections) + 1, len(sections)),
    )
    return header + program + body + table


def _symbols(imports: list[int], exports: list[int]) -> bytes:
    """An Elf64_Sym for each name, and behind each kind those that count for nothing."""
    symbol = struct.Struct("<IBBHQQ")
    name = (imports + exports or [0])[0]
    table = symbol.pack(0, 0, 0, 0, 0, 0)
    table += b"".join(symbol.pack(one, 0x12, 0, 0, 0, 0) for one in imports)
    table += b"".join(symbol.pack(one, 0x12, 0, 1, 0, 0) for one in exports)
    # A weak one that is not there (and a hidden one that is) under the first name's neighbour.
    return table + symbol.pack(name + 1, 0x22, 0, 0, 0, 0) + symbol.pack(name + 1, 0x12, 2, 1, 0, 0)


def _verneed(needs: list[tuple[int, int, int]]) -> bytes:
    """A Verneed for each (library, version, flags), with one Vernaux behind it."""
    table = b""
    for number, (library, version, flags) in enumerate(needs, start=1):
        following = 0 if number == len(needs) else 32
        table += struct.pack("<HHIII", 1, 1, library, 16, following)
        table += struct.pack("<IHHII", 0, flags, number, version, 0)
    return table


def _verdef(names: list[int]) -> bytes:
    """A Verdef for each name, with one Verdaux behind it."""
    table = b""
    for number, name in enumerate(names, start=1):
        following = 0 if number == len(names) else 28
        table += struct.pack("<HHHHIII", 1, 0, number, 1, 0, 20, following)
        table += struct.pack("<II", name, 0)
    return table


def _segment(kind: int, offset: int, size: int, flags: int = 4) -> bytes:
    address = _BASE + offset
    return _SEGMENT.pack(kind, flags, offset, address, address, size, size, 8)


def bent(data: bytes, *, times: int) -> Iterator[bytes]:
    """The data with some bytes changed, numbers made enormous, or its end cut off; always the same.

    Not only for ELF files.
    """
    chance = random.Random(len(data))  # noqa: S311 - the same on every run is what is wanted
    extremes = [
        b"\xff" * 8,
        b"\x7f" + b"\xff" * 7,
        bytes(8),
        b"\0" * 7 + b"\x80",
        b"\x01" + bytes(7),
    ]
    for _ in range(times):
        made = bytearray(data)
        for _ in range(chance.choice([1, 1, 2, 8])):
            at = chance.randrange(len(made))
            change = chance.choice([*extremes, chance.randbytes(1), chance.randbytes(4)])
            width = chance.choice([1, 2, 4, 8])
            made[at : at + width] = change[:width].ljust(len(made[at : at + width]), b"\0")
        yield bytes(made[: chance.choice([len(made), len(made), chance.randrange(len(made))])])
