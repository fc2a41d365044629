"""What goes with a real image, and a release rebuilt from it alone when its fork is gone."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace

import pytest
from docker import DockerClient
from spdx_tools.spdx.parser.jsonlikedict.json_like_dict_parser import JsonLikeDictParser
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from builder.build import receipts as receipt
from builder.image import contents as image_contents
from builder.image.contents import Contents
from builder.pins import load as pins
from builder.release import attach as attest
from builder.release import sbom
from tests.conftest import Repository, builder
from tests.support.docker_registry import DockerRegistry
from tests.support.published import DIGEST, REPOSITORY, URL, a_receipt, a_release

pytestmark = pytest.mark.engine


@pytest.fixture
def pushed(engine: DockerClient, docker_registry_server: DockerRegistry) -> Iterator[str]:
    """The name of an image in a registry that tests may push to, on the engine too."""
    name = f"{docker_registry_server.host}/me/tiny:x"
    yield name
    engine.images.remove(name)


@pytest.mark.usefixtures("tiny_tags", "private_cache")
def test_a_release_is_rebuilt_from_its_registry_when_the_fork_is_gone(
    engine,
    pushed,
    docker_registry_server,
    tiny_pins,
    repository: Repository,
    tmp_path,
    monkeypatch,
    progress,
):
    commit = repository.git("rev-parse", "HEAD")
    first = builder("build", "--json", "--pins", tiny_pins, "--ref", commit)
    assert first.returncode == 0, first.stderr
    built = json.loads(first.stdout)
    engine.images.get(built["image_id"]).tag(pushed)
    engine.images.push(pushed)
    made = receipt.of_image(tiny_pins.parent, built["image_id"])
    assert made is not None
    digest = docker_registry_server.digest("me/tiny", "x")
    release = a_release(made, f"{docker_registry_server.host}/me/tiny", str(digest))
    attest.attach(engine, release, pins.load(tiny_pins), None, progress)

    shutil.rmtree(repository.path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another-machine"))
    words = ("--source-of", pushed, "--tag", "turboquant:tiny-again")
    second = builder("build", "--json", "--pins", tiny_pins, *words)
    assert second.returncode == 0, second.stderr
    again = json.loads(second.stdout)

    assert again["commit_claimed"] is True
    for key in ("variant", "commit", "build_number", "dockerfile_sha256"):
        assert again[key] == built[key]
    layers = [engine.images.get(one["image_id"]).attrs["RootFS"] for one in (built, again)]
    assert layers[0] == layers[1]


@pytest.fixture(scope="module")
def contents(engine: DockerClient, mainline_cpu_image: str) -> Contents:
    return image_contents.read(engine, mainline_cpu_image)


def test_the_parts_of_a_real_image_are_valid_spdx(contents):
    document = sbom.document(
        REPOSITORY, DIGEST, a_receipt(), contents, url=URL, licence="MIT", archive="e" * 64
    )
    assert validate_full_spdx_document(JsonLikeDictParser().parse(document)) == []


def test_the_packages_are_dpkgs_own(engine, mainline_cpu_image, contents):
    show = ["-W", "-f", "${Package} ${Version} ${Architecture}\n"]
    told = engine.containers.run(mainline_cpu_image, show, entrypoint="dpkg-query", remove=True)
    listed = {f"{one.name} {one.version} {one.architecture}" for one in contents.packages}
    assert listed == set(told.decode().splitlines())
    assert contents.distribution == "debian"


def test_the_files_have_the_sums_that_they_have(engine, mainline_cpu_image, contents):
    find = ["/opt/llama", "-type", "f", "-exec", "sha256sum", "{}", "+"]
    told = engine.containers.run(mainline_cpu_image, find, entrypoint="find", remove=True)
    sums = {path: sha256 for sha256, path in (one.split() for one in told.decode().splitlines())}
    assert {one.path: one.sha256 for one in contents.files} == sums


@pytest.mark.usefixtures("private_cache")
def test_what_was_read_once_is_remembered(engine, mainline_cpu_image, monkeypatch):
    first = image_contents.read(engine, mainline_cpu_image)
    monkeypatch.setattr(image_contents, "_read", lambda *_: replace(first, packages=()))
    assert image_contents.read(engine, mainline_cpu_image) == first
