"""What is read of ELF files: small ones written by hand, and the Python that runs the tests."""

import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from builder.image import elf, instructions
from tests.support.elf_bytes import AARCH64, bent
from tests.support.elf_bytes import elf as made
from tests.support.fatbin_bytes import SASS, unit

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


@pytest.mark.parametrize(
    ("names", "first"),
    [((), False), (("rpath",), True), (("runpath",), False), (("rpath", "runpath"), False)],
)
def test_whether_a_file_searches_before_the_environments_folders(names, first):
    assert read(made(tags=tuple((name, "/a") for name in names))).first is first


def test_the_interpreter_of_a_program():
    assert read(made(interpreter="/lib/ld.so")).interpreter == "/lib/ld.so"


def test_the_name_that_a_library_gives_itself():
    assert read(made(tags=(("soname", "libcuda.so.1"),))).soname == "libcuda.so.1"
    assert read(made()).soname == ""


def test_the_python_that_runs_here_needs_a_c_library():
    with Path(sys.executable).resolve().open("rb") as file:
        found = elf.read(file, deep=False)

    assert any(name.startswith("libc.so") for name in found.needed)


def test_the_versions_that_a_file_wants_and_those_that_it_defines():
    wants = (("libc.so.6", "GLIBC_2.34"), ("libgomp.so.1", "OMP_1.0"))
    found = read(made(wants=wants, weak=(("libc.so.6", "GLIBC_2.99"),), defines=("A", "B_2")))
    assert (found.wants, found.defines) == (wants, {"A", "B_2"})


def test_versions_are_read_where_the_table_of_sections_is_stripped():
    found = read(stripped(made(wants=(("libc.so.6", "GLIBC_2.34"),))))
    assert (found.wants, found.units) == ((("libc.so.6", "GLIBC_2.34"),), None)


@pytest.mark.parametrize("executable", [True, False])
def test_code_is_read_where_the_table_of_sections_is_stripped(executable):
    found = read(stripped(made(code=VADDPS, executable=executable))).extensions
    assert found is not None
    assert ("AVX" in found) == executable


def stripped(data: bytes) -> bytes:
    """The file without its table of sections."""
    return data[:40] + bytes(8) + data[48:58] + bytes(6) + data[64:]


def test_what_follows_the_end_of_the_dynamic_table_counts_for_nothing():
    data = made(tags=(("needed", "first"), ("needed", "second")))
    table = data.index((1).to_bytes(8, "little") + (1).to_bytes(8, "little"))
    cut = data[: table + 16] + bytes(16) + data[table + 32 :]
    # Without its table of strings, which comes later, it can name nothing.
    assert "first" not in read(cut).needed
    assert "second" not in read(cut).needed


def test_the_versions_are_those_that_binutils_lists():
    """Of the C++ library that this machine has, where it has one and readelf."""
    readelf = shutil.which("readelf")
    libraries = sorted(Path("/usr/lib/x86_64-linux-gnu").glob("libstdc++.so.6"))
    if not (readelf and libraries):
        pytest.skip("needs readelf and a libstdc++")
    command = [readelf, "--version-info", "--wide", libraries[0]]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    definitions, _, needs = listed.partition("Version needs section")
    found = read(libraries[0].read_bytes(), deep=False)

    assert found.defines == set(re.findall(r"Index: \d+ .*Name: (\S+)", definitions))
    assert {version for _, version in found.wants} == set(re.findall(r"  Name: (\S+)", needs))


def test_the_symbols_that_a_file_takes_and_gives():
    found = read(made(imports=("malloc", "free"), exports=("ggml_init",)))
    assert (found.imports, found.exports) == ({"malloc", "free"}, {"ggml_init"})


def test_a_file_that_gives_no_symbol_still_takes_some(tmp_path):
    compiler = shutil.which("gcc")
    if not compiler:
        pytest.skip("needs gcc")
    source, library = tmp_path / "a.c", tmp_path / "a.so"
    hidden = '__attribute__((constructor, visibility("hidden")))'
    source.write_text(f"extern void gone(void); {hidden} void f(void) {{ gone(); }}")
    command = [compiler, "-shared", "-fPIC", "-Wl,--hash-style=gnu", source, "-o", library]
    subprocess.run(command, check=True)
    assert read(library.read_bytes(), deep=False).imports == {"gone"}


LIBRARIES = "/usr/lib/x86_64-linux-gnu"


@pytest.mark.parametrize(
    "path",
    ["/usr/bin/true", *(f"{LIBRARIES}/{one}.so.6" for one in ("libstdc++", "libm", "libc"))],
)
def test_the_symbols_are_those_that_binutils_lists(path):
    """Of a file that this machine has, where it has it and nm."""
    nm, path = shutil.which("nm"), Path(path)
    if not (nm and path.exists()):
        pytest.skip(f"needs nm and {path}")
    command = [nm, "--dynamic", "--without-symbol-versions", path]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    kinds = [line.split()[-2:] for line in listed.splitlines()]
    found = read(path.read_bytes(), deep=False)

    assert found.imports == {name for kind, name in kinds if kind == "U"}
    assert found.exports == {name for kind, name in kinds if kind not in {"U", "w", "v"}}


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


WHOLE = made(
    tags=(("needed", "libc.so.6"), ("soname", "a"), ("runpath", "/a:/b")),
    interpreter="/lib/ld.so",
    fatbin=unit((SASS, 86)) + unit((SASS, 86), (SASS, 80)),
    wants=(("libc.so.6", "GLIBC_2.34"), ("libc.so.6", "GLIBC_2.2.5")),
    defines=("A_1", "A_2"),
    imports=("malloc",),
    exports=("ggml_init", "ggml_free"),
)


def test_no_bent_file_is_a_reason_to_stop():
    problems = 0
    for data in bent(WHOLE, times=2000):
        problems += read(data).problem is not None
        assert isinstance(elf.sections(io.BytesIO(data)), tuple)

    # Many are bent where nobody looks, many where one must.
    assert 400 < problems < 1600


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (0x20, 2**64 - 1),
        (0x28, 2**63),
        (0x28, 2**64 - 8),
        (0x36, 0),
        (0x3A, 0),
        (0x38, 65535),
        (0x3C, 65535),
    ],
    ids=[
        "segments",
        "sections",
        "sections at the end",
        "rows of 0",
        "section rows of 0",
        "65535",
        "65535 sections",
    ],
)
def test_a_header_with_impossible_numbers_is_a_problem(offset, value):
    width = 8 if offset < 0x30 else 2
    assert read(WHOLE[:offset] + value.to_bytes(width, "little") + WHOLE[offset + width :]).problem


def test_sections_that_overlap_are_not_read_again_and_again():
    table = int.from_bytes(WHOLE[0x28:0x30], "little")
    text = WHOLE[table + 64 : table + 128]
    whole = text[:24] + (0).to_bytes(8, "little") + len(WHOLE).to_bytes(8, "little") + text[40:]
    data = WHOLE[:table] + WHOLE[table : table + 64] + whole * 6 + WHOLE[table + 448 :]
    assert "overlap" in (read(data).problem or "")


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
