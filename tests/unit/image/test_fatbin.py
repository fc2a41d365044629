"""Device code in bytes of nvcc's layout; tests/engine/test_fatbin.py reads nvcc's own."""

import io

import pytest

from builder.image import fatbin
from builder.image.fatbin import Code
from tests.support.fatbin_bytes import COMPRESSED, PTX, SASS, unit

NO_HEADER = fatbin.UNIT.pack(fatbin.MAGIC, 1, 0, 0)


def read(data: bytes) -> tuple[fatbin.Unit, ...]:
    return fatbin.read(io.BytesIO(b"before" + data + b"after"), len(b"before"), len(data))


def test_a_unit_has_the_architectures_of_its_entries():
    found = read(unit((PTX, 86), (SASS, 86), (SASS, 80)))

    assert found == ({Code("ptx", 86), Code("sass", 86), Code("sass", 80)},)


def test_each_translation_unit_is_a_unit():
    assert read(unit((SASS, 86)) + unit((SASS, 89))) == ({Code("sass", 86)}, {Code("sass", 89)})


def test_a_compressed_entry_names_its_architecture_too():
    assert read(unit((SASS, 75, 0x11 | COMPRESSED))) == ({Code("sass", 75)},)


def test_zeros_between_units_are_no_units():
    assert len(read(unit((SASS, 86)) + bytes(24) + unit((SASS, 86)) + bytes(8))) == 2


def test_a_unit_without_entries_is_left_out():
    assert read(unit() + unit((PTX, 86))) == ({Code("ptx", 86)},)


def test_code_for_one_architecture_alone_is_told_apart():
    plain, specific = read(unit((SASS, 90)) + unit((SASS, 90, 0x11 | fatbin.SPECIFIC)))

    assert (*map(str, plain), *map(str, specific)) == ("sm_90", "sm_90a")


def test_the_short_header_of_nvidias_own_code_is_told_apart():
    ours, theirs = unit((SASS, 86)), unit((SASS, 86), short=True)

    assert [[code.short_header for code in one] for one in read(ours + theirs)] == [[False], [True]]


@pytest.mark.parametrize(
    "data",
    [
        b"not a fat binary at all",
        unit((SASS, 86))[:-4],
        unit((SASS, 86)).replace(b"\x48", b"\x02"),
        NO_HEADER,
    ],
    ids=["no magic", "cut short", "an entry's header of 2 bytes", "a unit's header of 0"],
)
def test_what_is_no_row_of_units_is_an_error(data):
    with pytest.raises(fatbin.FatbinError):
        read(data)


@pytest.mark.parametrize(
    ("code", "runs", "does_not"),
    [
        (Code("sass", 80), [80, 86, 89], [75, 90, 120]),
        (Code("sass", 86), [86, 89], [80, 90]),
        (Code("sass", 90, specific=True), [90], [89, 100]),
        (Code("ptx", 80), [80, 86, 90, 120], [75]),
        (Code("ptx", 90, specific=True), [90], [89, 100]),
    ],
    ids=str,
)
def test_where_code_runs(code, runs, does_not):
    assert [one for one in [*runs, *does_not] if code.runs_on(one)] == runs


@pytest.mark.parametrize(
    ("code", "made_for"),
    [(Code("sass", 80), [80]), (Code("sass", 86), [86]), (Code("ptx", 80), [])],
    ids=str,
)
def test_what_code_was_made_for(code, made_for):
    assert [one for one in (75, 80, 86, 120) if code.is_for(one)] == made_for
