"""The smallest ELF files that say what a test wants: x86-64 shared objects, written by hand."""

import struct

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_TAG = struct.Struct("<qQ")

_PT_DYNAMIC, _PT_INTERP = 2, 3
_PROGBITS, _STRTAB, _DYNAMIC, _NOTE = 1, 3, 6, 7
_ALLOC, _EXECINSTR = 2, 4
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
) -> bytes:
    """An ELF file with these dynamic tags (by name), this code and this .nv_fatbin.

    `build_id` is the content of a section of its own, before all others.
    """
    strings, entries = b"\0", b""
    for name, value in tags:
        entries += _TAG.pack(_TAGS[name], len(strings))
        strings += value.encode() + b"\0"
    sections = [
        *([(".note.gnu.build-id", _NOTE, _ALLOC, build_id, 0)] if build_id else []),
        (".text", _PROGBITS, _ALLOC | _EXECINSTR, code, 0),
        (".dynstr", _STRTAB, _ALLOC, strings, 0),
        (".dynamic", _DYNAMIC, _ALLOC, entries + _TAG.pack(0, 0), 3 if build_id else 2),
        (".nv_fatbin", _PROGBITS, _ALLOC, fatbin, 0),
        (".interp", _PROGBITS, _ALLOC, (interpreter or "").encode() + b"\0", 0),
    ]
    names = b"\0" + b"".join(name.encode() + b"\0" for name, *_ in sections) + b".shstrtab\0"
    sections.append((".shstrtab", _STRTAB, 0, names, 0))
    segments = 1 if interpreter is None else 2
    body, places = b"", {}
    start = _HEADER.size + segments * _SEGMENT.size
    for name, _, _, data, _ in sections:
        body += bytes(-len(body) % 8)
        places[name] = (start + len(body), len(data))
        body += data
    body += bytes(-len(body) % 8)
    table = _SECTION.pack(*[0] * 10)
    for name, kind, flags, _, link in sections:
        offset, size = places[name]
        at = names.index(name.encode() + b"\0")
        entry_size = _TAG.size if kind == _DYNAMIC else 0
        table += _SECTION.pack(at, kind, flags, offset, offset, size, link, 0, 8, entry_size)
    program = _segment(_PT_DYNAMIC, *places[".dynamic"])
    if interpreter is not None:
        program += _segment(_PT_INTERP, *places[".interp"])
    header = _HEADER.pack(
        b"\x7fELF\x02\x01\x01" + bytes(9),
        *(3, machine, 1, 0, _HEADER.size, start + len(body), 0, _HEADER.size),
        *(_SEGMENT.size, segments, _SECTION.size, len(sections) + 1, len(sections)),
    )
    return header + program + body + table


def _segment(kind: int, offset: int, size: int) -> bytes:
    return _SEGMENT.pack(kind, 4, offset, offset, offset, size, size, 8)
