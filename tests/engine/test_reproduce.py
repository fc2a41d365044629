"""`builder audit --reproduce`: on the engine as it is, and on one with the containerd store."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SAMPLES, Repository, builder
from tests.engine.conftest import COMPILERS

pytestmark = pytest.mark.engine

BACKEND = "/opt/llama/libggml-cpu.so"
# coreutils' date knows no SOURCE_DATE_EPOCH, as CMake's and the compiler's do.
CLOCK = """
execute_process(COMMAND date +built-at-%s%N OUTPUT_VARIABLE now OUTPUT_STRIP_TRAILING_WHITESPACE)
set_source_files_properties(backend.c PROPERTIES COMPILE_DEFINITIONS "NOW=\\"${now}\\"")
"""
# As ggml's does, a configuration that sees SOURCE_DATE_EPOCH is another one; compilers need it.
DATED = """
if(DEFINED ENV{SOURCE_DATE_EPOCH})
  message(FATAL_ERROR "the configuration sees SOURCE_DATE_EPOCH")
endif()
"""
DATED_BACKEND = 'const char *ggml_backend_built(void) { return __DATE__ " " __TIME__; }\n'
CLOCK_BACKEND = "const char *ggml_backend_built(void) { return NOW; }\n"


@pytest.fixture
def dated(repository: Repository) -> None:
    """A commit that asks the compiler for the time."""
    cmake = (SAMPLES / "tiny" / "CMakeLists.txt").read_text(encoding="utf-8")
    repository.commit("dated", CMakeLists_txt=cmake + DATED, backend_c=DATED_BACKEND)


@pytest.fixture
def clock(repository: Repository) -> None:
    """A commit that puts the time of its build into the backend."""
    cmake = (SAMPLES / "tiny" / "CMakeLists.txt").read_text(encoding="utf-8")
    repository.commit("clock", CMakeLists_txt=cmake + CLOCK, backend_c=CLOCK_BACKEND)


def reproduce(
    pins: Path, target: str, *words: str, engine: str | None = None
) -> tuple[int, dict[str, Any]]:
    """The exit code and the JSON of a reproduction, on another engine if it is named."""
    environment = os.environ | ({"DOCKER_HOST": engine} if engine else {})
    command = ["audit", target, "--reproduce", "--json", "--pins", pins]
    result = builder(*command, f"--set=devel={COMPILERS}", *words, env=environment)
    assert result.stdout, result.stderr
    return result.returncode, json.loads(result.stdout)


def by_files(found: dict[str, Any]) -> list[tuple[str, list[str], str]]:
    return [(one["path"], one["what"], one["content"]["section"]) for one in found["files"]]


@pytest.mark.usefixtures("tiny_tags")
def test_without_the_store_an_images_files_are_compared_and_no_digest_is_proven(
    engine, compiled_pins
):
    built = builder(
        "build",
        "--ref=v1",
        "--tag=turboquant:tiny-again",
        f"--set=devel={COMPILERS}",
        "--pins",
        compiled_pins,
    )
    assert built.returncode == 0, built.stderr

    found = reproduce(compiled_pins, "turboquant:tiny-again")[1]

    assert found["findings"], "an image is audited too"
    again = found["reproduce"]
    assert (again["status"], again["digests"], again["files"]) == ("unproven", [], [])
    assert (
        again["commit"]
        == engine.images.get("turboquant:tiny-again").labels["org.opencontainers.image.revision"]
    )
    assert [
        tag
        for image in engine.images.list("turboquant")
        for tag in image.tags
        if ":reproduce-" in tag
    ] == []


@pytest.mark.usefixtures("clock")
def test_without_the_store_a_clock_in_a_file_is_found(compiled_pins):
    code, found = reproduce(compiled_pins, "tiny", "--ref=HEAD")

    assert (code, found["passed"]) == (1, False)
    assert by_files(found["reproduce"]) == [(BACKEND, ["content"], ".rodata")]
    where = found["reproduce"]["files"][0]["content"]
    digits = [bytes.fromhex(where[side]).rstrip(b"\0").decode() for side in ("first", "second")]
    assert digits[0][0] != digits[1][0]
    assert where["looks_like"] == "seconds or nanoseconds since 1970"


@pytest.mark.usefixtures("dated")
def test_with_the_store_both_builds_give_one_manifest(compiled_pins, store):
    code, found = reproduce(compiled_pins, "tiny", "--ref=HEAD", engine=store)

    again = found["reproduce"]
    assert (code, again["status"]) == (0, "pass"), again
    assert len(set(again["digests"])) == 1
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", again["digests"][0])


@pytest.mark.usefixtures("clock")
def test_with_the_store_a_clock_in_a_file_gives_two_manifests(compiled_pins, store):
    code, found = reproduce(compiled_pins, "tiny", "--ref=HEAD", engine=store)

    again = found["reproduce"]
    assert (code, again["status"], len(set(again["digests"]))) == (1, "fail", 2)
    assert by_files(again) == [(BACKEND, ["content"], ".rodata")]
