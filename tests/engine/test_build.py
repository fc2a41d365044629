"""`builder build` on the real engine: what it makes, and what it leaves when it cannot."""

import contextlib
import io
import json
import os
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from builder.build import buildx, render
from builder.build import run as builds
from builder.model.labels import LABEL
from tests.conftest import ROOT, SAMPLES, Repository, builder, start_builder
from tests.engine.conftest import without_buildx
from tests.support import http_git

pytestmark = pytest.mark.engine

BROKEN = "int main() { return undeclared_thing; }\n"


def build(pins: Path, *words: object) -> dict:
    result = builder("build", "--json", "--pins", pins, *words)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def label(engine, image: str, name: str) -> str:
    return engine.images.get(image).labels[name]


# --- mainline-cpu, the real thing


def test_mainline_cpu_runs_and_names_its_commit(engine, mainline_cpu_receipt):
    output = engine.containers.run(
        mainline_cpu_receipt["image_id"], ["--version"], remove=True, stderr=True
    )
    assert mainline_cpu_receipt["commit"] in output.decode()


def test_a_receipt_says_that_an_sdists_commit_is_claimed(mainline_cpu_receipt):
    assert mainline_cpu_receipt["commit_claimed"] is True


def test_a_receipt_says_where_the_bases_came_from(mainline_cpu_receipt):
    assert {base["origin"] for base in mainline_cpu_receipt["bases"]} <= {"hub", "bootstrap"}


def test_a_receipt_measures_the_image(engine, mainline_cpu_receipt):
    size = engine.images.get(mainline_cpu_receipt["image_id"]).attrs["Size"]
    assert mainline_cpu_receipt["size_bytes"] == size > mainline_cpu_receipt["compressed_bytes"]


def test_nothing_changed_gives_the_same_image(mainline_cpu_receipt, real_pins_copy):
    again = build(real_pins_copy, "mainline-cpu")
    assert again["image_id"] == mainline_cpu_receipt["image_id"]


def test_what_users_chose_for_their_own_builds_changes_no_image(
    mainline_cpu_receipt, real_pins_copy, monkeypatch
):
    monkeypatch.setenv("BUILDX_BUILDER", "nosuch")
    monkeypatch.setenv("DOCKER_CONTEXT", "nosuch")
    monkeypatch.setenv("DOCKER_DEFAULT_PLATFORM", "linux/arm64")
    again = build(real_pins_copy, "mainline-cpu")
    assert again["image_id"] == mainline_cpu_receipt["image_id"]


def test_labels_name_the_rendered_file(engine, mainline_cpu_receipt, real_pins):
    expected = render.render(real_pins, "mainline-cpu").sha256
    assert label(engine, mainline_cpu_receipt["image"], f"{LABEL}.dockerfile-sha256") == (expected)


def test_the_image_runs_as_nobody_special(engine, mainline_cpu_image):
    assert engine.images.get(mainline_cpu_image).attrs["Config"]["User"] == "10001:10001"


@pytest.mark.parametrize("place", ["/var/lib/apt/lists", "/usr/bin/cc", "/usr/bin/gcc", "/build"])
def test_the_image_lacks_what_only_a_build_needs(engine, mainline_cpu_image, place):
    command = ["-c", f'test ! -e {place} || test -z "$(ls -A {place})"']
    engine.containers.run(mainline_cpu_image, command, entrypoint="/bin/bash", remove=True)


def test_no_file_names_a_folder_to_load_from(engine, mainline_cpu_image):
    container = engine.containers.create(mainline_cpu_image)
    try:
        chunks, _ = container.get_archive("/opt/llama")
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
            files = [tar.extractfile(member) for member in tar if member.isfile()]
            named = [tag for file in files for tag in run_paths(file)]
    finally:
        container.remove()
    assert len(files) > 5
    assert named == []


def run_paths(file) -> list[str]:
    dynamic = ELFFile(file).get_section_by_name(".dynamic")
    return [
        t.entry.d_tag for t in dynamic.iter_tags() if t.entry.d_tag in {"DT_RPATH", "DT_RUNPATH"}
    ]


def test_every_library_resolves_inside_the_image(engine, mainline_cpu_image):
    command = ["-c", "ldd /opt/llama/llama-server /opt/llama/*.so | grep 'not found' || true"]
    found = engine.containers.run(mainline_cpu_image, command, entrypoint="/bin/bash", remove=True)
    assert found.decode() == ""


def test_the_model_cache_is_writable(engine, mainline_cpu_image):
    command = ["-c", "mkdir -p ~/.cache/llama.cpp && touch ~/.cache/llama.cpp/model"]
    engine.containers.run(mainline_cpu_image, command, entrypoint="/bin/bash", remove=True)


# --- from git, by the tiny project


@pytest.fixture
def real_pins_copy(tmp_path: Path) -> Path:
    copy = tmp_path / "real" / "pins.toml"
    copy.parent.mkdir()
    copy.write_bytes((ROOT / "pins.toml").read_bytes())
    return copy


tiny = pytest.mark.usefixtures("private_cache", "tiny_tags")


@tiny
def test_a_ref_is_built_and_the_image_names_it(engine, tiny_pins, repository: Repository):
    receipt = build(tiny_pins, "--ref", "HEAD")
    output = engine.containers.run(receipt["image_id"], remove=True)
    commit = repository.git("rev-parse", "HEAD")
    assert output.decode().strip() == f"version: 3 ({commit[:9]}), answer 42"


@tiny
def test_labels_carry_the_commit_and_its_date(engine, tiny_pins, repository, monkeypatch):
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2026-05-18T11:26:29-04:00")
    commit = repository.commit("dated")
    image = build(tiny_pins, "--ref", commit)["image"]
    assert label(engine, image, "org.opencontainers.image.revision") == commit
    assert label(engine, image, "org.opencontainers.image.created") == "2026-05-18T15:26:29Z"


@tiny
def test_what_a_commit_lacks_is_left_out_and_said(engine, tiny_pins, repository: Repository):
    text = tiny_pins.read_text().replace("linkage =", 'codebooks = "books"\nlinkage =')
    tiny_pins.write_text(text)
    before = repository.git("rev-parse", "HEAD")
    (repository.path / "books").mkdir()
    (repository.path / "books" / "one.bin").write_text("1")
    first = repository.commit("books")
    lacking, whole = (build(tiny_pins, "--ref", commit) for commit in (before, first))
    assert (lacking["left_out"], whole["left_out"]) == (["codebooks"], [])
    labels = [engine.images.get(one["image_id"]).labels for one in (lacking, whole)]
    left_out = [one.get("io.github.turboquant-builder.left-out") for one in labels]
    assert left_out == ["codebooks", None]
    found = builder("audit", lacking["image_id"], "--json", "--pins", tiny_pins)
    findings = {one["probe"]: one for one in json.loads(found.stdout)["findings"]}
    assert findings["labels"]["status"] == "pass", findings["labels"]


@tiny
def test_a_tree_from_disk_has_a_claimed_commit(tiny_pins):
    receipt = build(tiny_pins, "--source", SAMPLES / "tiny", "--ref", "abcdef123")
    assert (receipt["commit"], receipt["commit_claimed"]) == ("abcdef123", True)


@tiny
def test_an_unchanged_ref_gives_the_same_image(tiny_pins):
    first, second = (build(tiny_pins, "--ref", "HEAD") for _ in range(2))
    assert first["image_id"] == second["image_id"]


@tiny
def test_a_commit_of_one_file_compiles_only_that(tiny_pins, repository: Repository):
    build(tiny_pins, "--ref", "HEAD")
    answer = str(int.from_bytes(os.urandom(3)))
    text = (SAMPLES / "tiny" / "llama.c").read_text().replace("42", answer)
    commit = repository.commit("another answer", llama_c=text)
    # llama.c, and the build info, which names the commit
    cache = build(tiny_pins, "--ref", commit)["ccache"]
    assert (cache["hits"], cache["misses"], cache["hit_rate"]) == (2, 2, 0.5)


@tiny
def test_a_tag_of_ones_own_replaces_the_floating_one(engine, tiny_pins):
    build(tiny_pins, "--ref", "HEAD", "--tag", "turboquant:tiny-mine")
    assert not engine.images.list("turboquant:tiny")
    assert engine.images.list("turboquant:tiny-mine")


@tiny
def test_a_failed_build_leaves_the_previous_image(engine, tiny_pins, repository: Repository):
    good = build(tiny_pins, "--ref", "HEAD")
    broken = repository.commit("broken", server_cpp=BROKEN)
    result = builder("build", "--pins", tiny_pins, "--ref", broken)
    assert result.returncode == 5
    assert engine.images.get("turboquant:tiny").id == good["image_id"]


@tiny
def test_a_failed_build_says_the_first_error_and_where_the_log_is(tiny_pins, repository):
    broken = repository.commit("broken", server_cpp=BROKEN)
    result = builder("build", "--pins", tiny_pins, "--ref", broken)
    assert "server.cpp:1:21: error: 'undeclared_thing' was not declared" in result.stderr.replace(
        "‘", "'"
    ).replace("’", "'")
    log = next((tiny_pins.parent / "build" / "logs").glob("*.log"))
    assert str(log) in result.stderr


@tiny
def test_a_failed_build_repeats_what_pins_toml_knows_of_the_commit(tiny_pins, repository):
    broken = repository.commit("broken", server_cpp=BROKEN)
    with tiny_pins.open("a") as text:
        text.write(f'\n[forks.tiny.broken]\n{broken} = "lacks a declaration; fixed by v1"\n')
    result = builder("build", "--pins", tiny_pins, "--ref", broken)
    before, _, after = result.stderr.partition("error: ")
    assert f"tiny at {broken[:9]} is known to be broken: lacks a declaration" in before
    assert after.startswith(f"tiny at {broken[:9]}: the build failed at server.cpp:1\n")
    assert "known of this commit: lacks a declaration; fixed by v1" in after


@tiny
def test_a_failed_build_writes_no_receipt(tiny_pins, repository):
    broken = repository.commit("broken", server_cpp=BROKEN)
    builder("build", "--pins", tiny_pins, "--ref", broken)
    assert not (tiny_pins.parent / "build" / "receipts").exists()


@tiny
def test_two_builds_of_one_variant_at_once_both_end_well(engine, tiny_pins):
    running = [
        start_builder("build", "--json", "--pins", tiny_pins, "--ref", "HEAD") for _ in range(2)
    ]
    answers = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0, 0], answers
    ids = {json.loads(answer)["image_id"] for answer, _ in answers}
    assert ids == {engine.images.get("turboquant:tiny").id}


@tiny
@pytest.mark.parametrize("stage", ["fetch", "[build 1/2]", "exporting to image"])
def test_ctrl_c_ends_a_build_and_leaves_nothing(tiny_pins, repository, stage):
    # A commit of its own: nothing of it is cached, each stage is reached anew.
    commit = repository.commit("unique", notes_md=os.urandom(8).hex())
    running = start_builder("build", "--pins", tiny_pins, "--ref", commit)
    assert running.stderr is not None
    seen = next((line for line in running.stderr if stage in line), None)
    running.send_signal(signal.SIGINT)
    _, rest = running.communicate(timeout=60)
    assert seen is not None, rest
    assert running.returncode == 130, rest
    assert not list((tiny_pins.parent / "build").glob("receipts/*"))
    assert not [line for line in command_lines() if f"COMMIT={commit}" in line]


def command_lines() -> Iterator[str]:
    """Those of all processes."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield path.read_text(encoding="utf-8", errors="replace")


def interrupted(stage: str, *words: object) -> int:
    """The exit code of a build that gets Ctrl-C when it tells of this stage."""
    running = start_builder("build", *words)
    assert running.stderr is not None
    assert any(stage in line for line in running.stderr)
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=60)
    return running.returncode


def test_ctrl_c_ends_a_download_and_leaves_no_part(private_cache, real_pins_copy):
    assert interrupted("download llama-cpp-python", "mainline-cpu", "--pins", real_pins_copy) == 130
    assert [path.suffix for path in (private_cache / "sdist").iterdir()] == [".lock"]


@tiny
def test_ctrl_c_ends_a_bootstrap_and_leaves_no_image(engine, tiny_pins, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    text = tiny_pins.read_text().replace('["ca-certificates"] }', '["ca-certificates", "less"] }')
    tiny_pins.write_text(text)
    before = {image.id for image in engine.images.list(all=True)}
    assert interrupted("bootstrap turboquant-base", "--ref", "HEAD", "--pins", tiny_pins) == 130
    assert {image.id for image in engine.images.list(all=True)} == before
    assert not list(tmp_path.glob("mmdebstrap.*"))


@pytest.mark.usefixtures("private_cache")
def test_a_rebuild_sends_only_what_changed_of_a_tree(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "large").write_bytes(os.urandom(3_000_000))
    first = sent(tmp_path, tree)
    (tree / "small").write_bytes(os.urandom(1_000))
    assert first > 3_000_000
    assert sent(tmp_path, tree) < 100_000


def sent(scratch: Path, tree: Path) -> int:
    """The bytes of the tree that BuildKit was sent."""
    dockerfile = scratch / "Dockerfile"
    dockerfile.write_text("FROM scratch AS source\nFROM scratch\nCOPY --from=source / /\n")
    context = builds.context(tree)
    order = buildx.Order(dockerfile, tree, context, tags=[], arguments={}, labels={})
    words = buildx.command(order, scratch / "id")
    made = subprocess.run(words, capture_output=True, text=True, check=True)
    events = buildx._events(iter(made.stderr.splitlines(keepends=True)))
    statuses = [status for event in events for status in event.get("statuses") or []]
    return max(s["current"] for s in statuses if s["id"] == "transferring source:")


# --- a rendered file alone


def docker_build(variant: str, **arguments: str) -> "subprocess.CompletedProcess[str]":
    """What somebody types who has Docker, a rendered file, and no builder."""
    words = [f"--build-arg={name}={value}" for name, value in arguments.items()]
    file = ROOT / "dockerfiles" / "rendered" / f"{variant}.Dockerfile"
    command = ["docker", "buildx", "build", "--load", *words, "--tag=turboquant:tiny-alone"]
    return subprocess.run(
        [*command, f"--file={file}", str(SAMPLES)], capture_output=True, text=True, check=False
    )


@pytest.fixture
def bases(mainline_cpu_receipt) -> dict[str, str]:
    """Base images that need no hub, as build arguments."""
    found = mainline_cpu_receipt["bases"]
    return {f"{base['role'].upper()}_IMAGE": base["reference"] for base in found}


@tiny
def test_a_rendered_file_builds_a_commit_alone(engine, bases, repository: Repository, tmp_path):
    commit = repository.git("rev-parse", "HEAD~1")
    (tmp_path / "fork.git").symlink_to(repository.path / ".git")
    with http_git.serve(tmp_path, moved={}) as address:
        made = docker_build(
            "mainline-cpu",
            **bases,
            SOURCE_URL=f"{address}/fork.git",
            COMMIT=commit,
            BUILD_NUMBER="2",
        )
    assert made.returncode == 0, made.stderr
    output = engine.containers.run("turboquant:tiny-alone", remove=True)
    assert output.decode().strip() == f"version: 2 ({commit[:9]}), answer 42"


def test_an_unpinned_fork_alone_asks_for_its_commit(bases):
    made = docker_build("turbo-tan-cuda12-sm86", **bases)
    assert made.returncode != 0
    assert "COMMIT_is_a_required_build_argument" in made.stderr


# --- refusals


@tiny
@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["tinny", "--ref", "HEAD"], 2, "did you mean 'tiny'?"),
        (["tiny"], 2, "fork tiny is not pinned"),
        (["tiny", "--ref", "no-such-branch"], 7, "has no branch, tag or commit 'no-such-branch'"),
        (["tiny", "--ref", "d" * 40], 7, "has no commit"),
        (["tiny", "--ref", "HEAD", "--base", "nowhere"], 2, "unknown base 'nowhere'"),
        (["tiny", "--ref", "HEAD", "--set", "develop=x"], 2, "is not devel=IMAGE"),
    ],
)
def test_a_build_that_cannot_be_is_refused(tiny_pins, words, code, message):
    result = builder("build", *words, "--pins", tiny_pins)
    assert result.returncode == code, result.stderr
    assert message in result.stderr


@tiny
def test_a_folder_without_cmake_is_no_source(tiny_pins, tmp_path):
    (tmp_path / "empty").mkdir()
    result = builder(
        "build", "--source", tmp_path / "empty", "--ref", "abc1234", "--pins", tiny_pins
    )
    assert (result.returncode, "no CMakeLists.txt" in result.stderr) == (2, True)


@tiny
def test_a_repository_that_is_gone_is_exit_6(tiny_pins, repository: Repository):
    repository.path.rename(repository.path.with_name("elsewhere"))
    assert builder("build", "--ref", "HEAD", "--pins", tiny_pins).returncode == 6


@tiny
def test_a_mirror_that_is_gone_is_exit_6_and_named(tiny_pins):
    mirror = "devel=127.0.0.1:1/debian:trixie-slim"
    result = builder("build", "--ref", "HEAD", "--set", mirror, "--pins", tiny_pins)
    assert result.returncode == 6
    assert "127.0.0.1:1/debian:trixie-slim" in result.stderr


@tiny
def test_a_docker_command_without_buildx_is_exit_4(tiny_pins, tmp_path):
    result = without_buildx(tmp_path, "build", "--ref", "HEAD", "--pins", tiny_pins)
    assert result.returncode == 4, result.stderr
    assert "BuildKit was not reached" in result.stderr


def test_an_engine_that_is_not_running_is_exit_4(tiny_pins):
    environment = os.environ | {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}
    result = builder("build", "--ref", "HEAD", "--pins", tiny_pins, env=environment)
    assert result.returncode == 4
    assert "builder doctor" in result.stderr
