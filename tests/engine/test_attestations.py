"""What BuildKit states of a build: with containerd's image store it is kept, and goes with it."""

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient

from builder.build import attestations
from builder.build import receipts as receipt
from builder.build import run as builds
from builder.image import contents as image_contents
from builder.pins import load as pins
from builder.registry import referrers
from builder.registry.client import RegistryClient
from builder.release import attach as attest
from builder.release.record_source import RecordSource
from builder.verify import run as verify
from tests.conftest import SAMPLES, Repository, builder
from tests.engine.conftest import COMPILERS
from tests.support import published

pytestmark = pytest.mark.engine

SCANNER = f"{attestations.SCANNER}:stable-1"
# https://github.com/moby/buildkit/blob/master/docs/attestations/sbom-protocol.md
SCAN = """\
FROM {base}
COPY <<'EOF' /scan
set -e
server=$(ls "$BUILDKIT_SCAN_SOURCE"/opt/llama/llama-server)
cat >"$BUILDKIT_SCAN_DESTINATION/sbom.spdx.json" <<END
{{"_type": "https://in-toto.io/Statement/v0.1", "predicateType": "https://spdx.dev/Document",
 "predicate": {{"spdxVersion": "SPDX-2.3", "SPDXID": "SPDXRef-DOCUMENT", "name": "sbom",
               "comment": "$server"}}}}
END
EOF
ENTRYPOINT ["sh", "/scan"]
"""
# A time that no two compilers see: whoever compiled twice has another image.
CLOCK = """
execute_process(COMMAND date +%s%N OUTPUT_VARIABLE now OUTPUT_STRIP_TRAILING_WHITESPACE)
set_source_files_properties(backend.c PROPERTIES COMPILE_DEFINITIONS "NOW=\\"${now}\\"")
"""


def build(pins_file: Path, *words: str, engine: str | None = None) -> tuple[dict[str, Any], str]:
    """The receipt of a build and what was told, on another engine if it is named."""
    environment = os.environ | ({"DOCKER_HOST": engine} if engine else {})
    command = ["build", "--json", "--pins", pins_file, f"--set=devel={COMPILERS}", *words]
    result = builder(*command, env=environment)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout), result.stderr


def kept(pins_file: Path, made: dict[str, Any]) -> dict[str, Any]:
    """The statements of an image, read."""
    files = attestations.read(pins_file.parent, made["image_id"])
    return {name: json.loads(content) for name, content in files.items()}


def compiled(made: dict[str, Any]) -> bool:
    """Whether the compile step of a build ran."""
    (step,) = (one for one in made["stages"] if "cmake --build" in one["name"])
    return not step["cached"]


@pytest.fixture
def nobody_elses(repository: Repository) -> None:
    """A commit that nobody has built, on this machine or another, and that asks the clock."""
    cmake = (SAMPLES / "tiny" / "CMakeLists.txt").read_text(encoding="utf-8")
    word = os.urandom(8).hex()
    backend = f'const char *ggml_backend_built(void) {{ return "{word} " NOW; }}\n'
    repository.commit("clock", CMakeLists_txt=cmake + CLOCK, backend_c=backend)


@pytest.fixture
def scanner(store: str, cpu_base: str, tmp_path: Path) -> Iterator[None]:
    """A stand-in for BuildKit's scanner on the second engine, where nothing can be pulled."""
    folder = tmp_path / "scanner"
    folder.mkdir()
    (folder / "Dockerfile").write_text(SCAN.format(base=cpu_base), encoding="utf-8")
    words = ["--load", "--provenance=false", f"--tag={SCANNER}", folder]
    environment = os.environ | {"DOCKER_HOST": store}
    command = ["docker", "buildx", "build", *words]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    yield
    DockerClient(base_url=store).images.remove(SCANNER)


@pytest.mark.usefixtures("nobody_elses")
def test_with_the_store_buildkits_provenance_is_kept_and_nothing_compiles_twice(
    compiled_pins, store
):
    engine = DockerClient(base_url=store)
    made, told = build(compiled_pins, "--ref=HEAD", engine=store)
    assert "BuildKit's" not in told
    assert compiled(made)

    (provenance,) = kept(compiled_pins, made).values()
    predicate = provenance["predicate"]
    digests = {one["digest"]["sha256"] for one in predicate["materials"]}
    assert digests == {one["digest"].removeprefix("sha256:") for one in made["bases"]}
    # What was asked with mode=max would be here, and Docker's proxies with their passwords.
    assert set(predicate["invocation"]["parameters"]["args"]) == {"context:source", "frontend.caps"}
    logs = [Path(made["log"]), Path(made["log"]).with_suffix(".attestations.log")]
    ninjas = [re.findall(r"(?m)^\[\d+/\d+\] ", one.read_text(encoding="utf-8")) for one in logs]
    assert ninjas[0]
    assert not ninjas[1]

    again, _ = build(compiled_pins, "--ref=HEAD", engine=store)
    assert again["image_id"] == made["image_id"] == engine.images.get(made["image"]).id
    assert not compiled(again)
    assert kept(compiled_pins, again) == {attestations.PROVENANCE: provenance}


@pytest.mark.usefixtures("nobody_elses")
def test_a_build_without_cache_compiles_once(compiled_pins, store):
    made, told = build(compiled_pins, "--ref=HEAD", "--no-cache", engine=store)
    assert "BuildKit's" not in told
    assert kept(compiled_pins, made).keys() == {attestations.PROVENANCE}


def test_no_folder_and_no_name_of_the_machine_is_in_it(compiled_pins, store, tmp_path, monkeypatch):
    private = "kept-out-of-everything"
    config = tmp_path / "docker-config"
    config.mkdir()
    proxy = f"http://somebody:{private}@127.0.0.1:1"
    (config / "config.json").write_text(json.dumps({"proxies": {"default": {"ftpProxy": proxy}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(config))
    # A repository around the cache, as a home folder may be one.
    around = Repository(tmp_path / "cache")
    around.commit("dotfiles")
    around.git("remote", "add", "origin", f"git@private.example:{private}.git")

    words = ("--ref=v1", "--ccache-dir", str(tmp_path / "ccache"), "--tag=private.example/tiny:x")
    made, told = build(compiled_pins, *words, engine=store)

    assert "BuildKit's" not in told
    text = json.dumps(kept(compiled_pins, made))
    assert "slsa.dev/provenance" in text
    never = (private, "private.example", str(tmp_path), os.uname().nodename, "turboquant-ccache")
    assert [one for one in never if one in text] == []


def test_a_trial_and_a_named_builder_have_none(compiled_pins, store, monkeypatch, progress):
    named, _ = build(compiled_pins, "--ref=v1", "--builder=default", engine=store)
    assert kept(compiled_pins, named) == {}

    monkeypatch.setenv("DOCKER_HOST", store)
    request = builds.Request("tiny", ref="v1", sets={"devel": COMPILERS}, trial=True)
    made = builds.build(pins.load(compiled_pins), request, compiled_pins.parent, progress)
    assert attestations.read(compiled_pins.parent, made.image_id) == {}


@pytest.mark.usefixtures("tiny_tags")
def test_the_classic_store_gives_none_and_nobody_is_warned(compiled_pins):
    made, told = build(compiled_pins, "--ref=v1", "--tag=turboquant:tiny-classic")
    assert kept(compiled_pins, made) == {}
    assert "BuildKit" not in told


@pytest.mark.usefixtures("scanner")
def test_with_the_scanner_the_sbom_is_kept_too_and_both_are_published(
    compiled_pins, store, docker_registry_server, tmp_path, monkeypatch, progress
):
    made, told = build(compiled_pins, "--ref=v1", engine=store)
    assert "BuildKit's" not in told
    found = kept(compiled_pins, made)
    assert found.keys() == {attestations.PROVENANCE, attestations.SBOM}
    parts = found[attestations.SBOM]["predicate"]
    assert parts["comment"].endswith("/opt/llama/llama-server")

    everything = pins.load(compiled_pins)
    built = receipt.of_image(compiled_pins.parent, made["image_id"])
    assert built is not None
    # The registry is on the other side of the second engine's network.
    monkeypatch.setattr(image_contents, "read", lambda *_: published.CONTENTS)
    nobody: Any = None
    with RegistryClient(f"{docker_registry_server.host}/me/tiny") as repository:
        release = replace(published.released(repository, built), receipt=built)
        there = attest.attach(
            nobody, release, everything, None, progress, results=compiled_pins.parent
        )
        files = [one.files for one in referrers.attached(repository, release.digest)]
    sums = {name: sha256 for one in files for name, sha256 in one.items()}
    for name, content in attestations.read(compiled_pins.parent, built.image_id).items():
        assert sums[name] == hashlib.sha256(content).hexdigest()

    folder = published.write_record(tmp_path / "record", replace(release, attachments=there))
    records = RecordSource(str(folder))
    verified = verify.verify(f"{release.repository}:tiny", everything, progress, records=records)
    assert verified.passed, verified.findings
    unproven = [one.probe for one in verified.findings if one.status != "pass"]
    assert unproven == ["attestation", "signature"]
