"""`builder audit --reproduce`: on the engine as it is, and on one with the containerd store."""

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient

from builder import bootstrap, render
from builder.model import Pins
from builder.progress import Silent
from tests.conftest import SAMPLES, Repository, builder
from tests.engine.second_engine import load, second_engine

pytestmark = pytest.mark.engine

COMPILERS = "turboquant-test:compilers"
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


@pytest.fixture(scope="module")
def base(engine: DockerClient, real_pins: Pins) -> str:
    recipe = real_pins.bases["debian-trixie"].bootstrap
    assert recipe is not None
    return bootstrap.ensure(engine, recipe.devel, Silent())[0]


@pytest.fixture(scope="module")
def compilers(
    engine: DockerClient, real_pins: Pins, base: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The devel stage as an image: what it installs need not be installed for each build here."""
    folder = tmp_path_factory.mktemp("compilers")
    (folder / "Dockerfile").write_text(render.render(real_pins, "mainline-cpu").text)
    words = ["--load", "--provenance=false", "--target=devel", f"--tag={COMPILERS}"]
    words += [f"--build-arg={role}_IMAGE={base}" for role in ("DEVEL", "RUNTIME")]
    subprocess.run(["docker", "buildx", "build", *words, folder], check=True, capture_output=True)
    yield COMPILERS
    engine.images.remove(COMPILERS)


@pytest.fixture(scope="module")
def store(engine: DockerClient, base: str, compilers: str) -> Iterator[str]:
    """The address of an engine with the containerd image store and both base images."""
    with (
        tempfile.TemporaryDirectory() as folder,
        second_engine(
            engine, base, Path(folder), features={"containerd-snapshotter": True}
        ) as address,
    ):
        load(engine, address, base)
        load(engine, address, compilers)
        yield address


@pytest.fixture
def pins(private_cache: Path, tiny_pins: Path, compilers: str) -> Path:  # noqa: ARG001
    """The tiny project's pins, to be built on the image that has the compilers."""
    text = tiny_pins.read_text(encoding="utf-8")
    tiny_pins.write_text(re.sub(r"(?m)^devel_packages = .*", "devel_packages = []", text))
    return tiny_pins


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
def test_without_the_store_an_images_files_are_compared_and_no_digest_is_proven(engine, pins):
    built = builder(
        "build",
        "--ref=v1",
        "--tag=turboquant:tiny-again",
        f"--set=devel={COMPILERS}",
        "--pins",
        pins,
    )
    assert built.returncode == 0, built.stderr

    found = reproduce(pins, "turboquant:tiny-again")[1]

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
def test_without_the_store_a_clock_in_a_file_is_found(pins):
    code, found = reproduce(pins, "tiny", "--ref=HEAD")

    assert (code, found["passed"]) == (1, False)
    assert by_files(found["reproduce"]) == [(BACKEND, ["content"], ".rodata")]
    where = found["reproduce"]["files"][0]["content"]
    digits = [bytes.fromhex(where[side]).rstrip(b"\0").decode() for side in ("first", "second")]
    assert digits[0][0] != digits[1][0]
    assert where["looks_like"] == "seconds or nanoseconds since 1970"


@pytest.mark.usefixtures("dated")
def test_with_the_store_both_builds_give_one_manifest(pins, store):
    code, found = reproduce(pins, "tiny", "--ref=HEAD", engine=store)

    again = found["reproduce"]
    assert (code, again["status"]) == (0, "pass"), again
    assert len(set(again["digests"])) == 1
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", again["digests"][0])


@pytest.mark.usefixtures("clock")
def test_with_the_store_a_clock_in_a_file_gives_two_manifests(pins, store):
    code, found = reproduce(pins, "tiny", "--ref=HEAD", engine=store)

    again = found["reproduce"]
    assert (code, again["status"], len(set(again["digests"]))) == (1, "fail", 2)
    assert by_files(again) == [(BACKEND, ["content"], ".rodata")]
