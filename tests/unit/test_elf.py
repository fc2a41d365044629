"""What is read of ELF files: small ones written by hand, and the Python that runs the tests."""

import io
import sys
from pathlib import Path

import pytest

from builder import elf, instructions
from tests.elf_bytes import AARCH64
from tests.elf_bytes import elf as made
from tests.fatbin_bytes import SASS, unit

VADDPS = bytes.fromhex("c5f058c2")
PSHUFB = bytes.fromhex("660f3800c1")
LZCNT = bytes.fromhex("f3480fbdc1")
TZCNT = bytes.fromhex("f30fbcc1")
CPUID = bytes.fromhex("0fa2")
XGETBV = bytes.fromhex("0f01d0")
NOTHING = bytes.fromhex("06")
RET = bytes.fromhex("c3")


def read(data: bytes, *, deep: bool = True) -> elf.Elf:
    return elf.read(io.BytesIO(data), deep=deep)


def test_the_needs_of_a_file():
    assert read(made(tags=(("needed", "liba.so.1"), ("needed", "libb.so")))).needed == (
        "liba.so.1",
        "libb.so",
    )


@pytest.mark.parametrize(
    ("tags", "search"),
    [
        ((), ()),
        ((("rpath", "/a:/b"),), ("/a", "/b")),
        ((("runpath", "$ORIGIN:"),), ("$ORIGIN", "")),
        ((("rpath", "/a"), ("runpath", "/b")), ("/b",)),
    ],
    ids=["none", "RPATH", "RUNPATH with an empty end", "RUNPATH wins"],
)
def test_where_a_file_searches(tags, search):
    assert read(made(tags=tags)).search == search


def test_the_interpreter_of_a_program():
    assert read(made(interpreter="/lib/ld.so")).interpreter == "/lib/ld.so"


def test_the_name_that_a_library_gives_itself():
    assert read(made(tags=(("soname", "libcuda.so.1"),))).soname == "libcuda.so.1"
    assert read(made()).soname == ""


def test_the_python_that_runs_here_needs_a_c_library():
    with Path(sys.executable).resolve().open("rb") as file:
        found = elf.read(file, deep=False)

    assert any(name.startswith("libc.so") for name in found.needed)


def test_device_code_is_read_from_its_section():
    (only,) = read(made(fatbin=unit((SASS, 86)))).units or ()

    assert [str(code) for code in only] == ["sm_86"]


def test_a_file_without_device_code_has_no_units():
    assert read(made()).units == ()


def test_code_and_device_code_are_read_only_when_asked():
    found = read(made(code=VADDPS, fatbin=unit((SASS, 86))), deep=False)

    assert (found.extensions, found.units) == (None, None)


def test_instructions_of_another_machine_are_not_judged():
    assert read(made(machine=AARCH64)).extensions is None


@pytest.mark.parametrize(
    "data",
    [b"\x7fELF", made()[:300], made(fatbin=b"no fat binary, sir")],
    ids=["a magic alone", "cut short", "a broken fat binary"],
)
def test_a_broken_file_says_so(data):
    assert read(data).problem


@pytest.mark.parametrize(
    ("code", "extension", "instruction"),
    [
        (VADDPS, "AVX", "vaddps"),
        (PSHUFB, "SSSE3", "pshufb"),
        (LZCNT, "LZCNT", "lzcnt"),
        (CPUID, "CPUID", "cpuid"),
        (NOTHING, instructions.UNDECODED, "(bad)"),
    ],
)
def test_an_instruction_names_its_extension(code, extension, instruction):
    assert instructions.extensions(RET + code + RET)[extension] == instruction


@pytest.mark.parametrize("code", [TZCNT, XGETBV], ids=["rep bsf", "xgetbv"])
def test_what_every_cpu_survives_names_none(code):
    assert set(instructions.extensions(code)) == set()


def test_every_executable_section_is_read():
    assert "AVX" in (read(made(code=RET * 5000 + VADDPS)).extensions or {})
