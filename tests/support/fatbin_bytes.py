"""Fat binaries in the layout that nvcc 12.4 writes, with nothing in them."""

from builder.image import fatbin

PTX, SASS = 1, 2
COMPRESSED = 0x2000


def unit(*entries: tuple[int, int] | tuple[int, int, int], short: bool = False) -> bytes:
    """One translation unit with entries of (kind, architecture[, flags]).

    `short`: with the headers that NVIDIA's own cuBLAS has.
    """
    body = b"".join(_entry(*one, short=short) for one in entries)
    return fatbin.UNIT.pack(fatbin.MAGIC, 1, fatbin.UNIT.size, len(body)) + body


def _entry(kind: int, architecture: int, flags: int = 0x11, *, short: bool) -> bytes:
    code = b"code" * 4
    # nvcc writes headers of 64 to 120 bytes; what is read of them is less.
    header = 64 if short else 72 if kind == SASS else 88
    fields = fatbin.ENTRY.pack(
        *(kind, 0x101, header, len(code), 0, 0, 7, 1, architecture, 0, 0, flags)
    )
    return fields.ljust(header, b"\0") + code
