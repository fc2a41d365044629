"""The CUDA template, with a small project of ggml's shape, on a CUDA base of Debian packages."""

import dataclasses
import re
import subprocess

import pytest

from builder.build import bootstrap, render
from builder.common.progress import Silent
from tests.conftest import SAMPLES

pytestmark = pytest.mark.engine

VARIANT = "thetom-cuda12-sm86"
BASE = "debian-cuda124"

# How libggml-cuda.so links the driver's library. PUBLIC: llama-server has it on its own link line.
BY_NAME = "PRIVATE;cuda"
BY_NAME_TWICE = "PUBLIC;cuda"
BY_TARGET = "PRIVATE;CUDA::cuda_driver"
BY_PATH = "PRIVATE;/usr/lib/x86_64-linux-gnu/stubs/libcuda.so"

TRIO = {
    "symlink": r"RUN ln -sf libcuda\.so \S+/libcuda\.so\.1\n",
    "LIBRARY_PATH": r"ENV LIBRARY_PATH=\S+\n",
    "rpath-link": r"ENV LDFLAGS=-Wl,-rpath-link,\S+\n",
}

# What is seen when one of the three is missing: the link that breaks, and what ld says first.
BUILDS = "builds"
NEED = (
    "bin/llama-server: warning: libcuda.so.1, needed by bin/libggml-cuda.so.0.1.2, not found "
    "(try using -rpath or -rpath-link)"
)
NAME = "bin/llama-server: cannot find -lcuda: No such file or directory"
WITHOUT = {
    (BY_NAME, "symlink"): NEED,
    (BY_NAME, "rpath-link"): NEED,
    # nvcc's own profile names the stub folder, and CMake takes it over for what it links as CUDA.
    (BY_NAME, "LIBRARY_PATH"): BUILDS,
    # What is on the link line under its soname is not looked up again.
    (BY_NAME_TWICE, "symlink"): BUILDS,
    (BY_NAME_TWICE, "rpath-link"): BUILDS,
    (BY_NAME_TWICE, "LIBRARY_PATH"): NAME,
    # CMake from 3.30 on finds the stub, and puts its path on llama-server's link line too.
    (BY_TARGET, "symlink"): BUILDS,
    (BY_TARGET, "rpath-link"): BUILDS,
    (BY_TARGET, "LIBRARY_PATH"): BUILDS,
    # What the imported target is to CMake up to 3.28 (Ubuntu 22.04 has 3.22): a path for the
    # library's own link only.
    (BY_PATH, "symlink"): NEED,
    (BY_PATH, "rpath-link"): NEED,
    (BY_PATH, "LIBRARY_PATH"): BUILDS,
}


def docker_build(dockerfile, context, *words):
    """`docker buildx build` of the sample; its log is on stderr."""
    command = ["docker", "buildx", "build", "--progress=plain", f"--file={context}/Dockerfile"]
    command += [f"--build-context=source={SAMPLES / 'cuda'}"]
    (context / "Dockerfile").write_text(dockerfile, encoding="utf-8")
    return subprocess.run(
        [*command, *words, str(context)], capture_output=True, text=True, check=False
    )


def recipe(pins, driver):
    """The real template's Dockerfile, for the sample linked in this way."""
    chosen = dataclasses.replace(pins.variants[VARIANT], options={"SAMPLE_DRIVER": driver})
    return render.render(dataclasses.replace(pins, variants={VARIANT: chosen}), VARIANT, BASE).text


def compiled(dockerfile):
    """The Dockerfile up to the step that compiles and links."""
    return dockerfile[: dockerfile.index("# Every library with its soname link.")]


def without(dockerfile, part):
    text, removed = re.subn(f"^{TRIO[part]}", "", dockerfile, flags=re.MULTILINE)
    assert removed == 1
    return text


def outcome(result):
    """The link that failed and the linker's first words, or that there was none."""
    if result.returncode == 0:
        return BUILDS
    link = re.search(r"FAILED: (?:\[code=\d+\] )?(\S+)", result.stderr)
    words = re.search(r"/usr/bin/ld: (.*)", result.stderr)
    return f"{link[1]}: {words[1]}" if link and words else result.stderr[-2000:]


@pytest.fixture(scope="session", autouse=True)
def bases(engine, real_pins):
    recipes = real_pins.bases[BASE].bootstrap
    bootstrap.ensure(engine, recipes.runtime, Silent())
    return bootstrap.ensure(engine, recipes.devel, Silent())[0]


@pytest.fixture(scope="session", params=[BY_NAME, BY_TARGET], ids=["-lcuda", "cuda_driver"])
def image(request, engine, real_pins, tmp_path_factory):
    tag = "turboquant-test:cuda-sample"
    context = tmp_path_factory.mktemp("image")
    made = docker_build(recipe(real_pins, request.param), context, f"--tag={tag}")
    assert made.returncode == 0, made.stderr
    yield tag
    engine.images.remove(tag, force=True)


def shell(engine, image, script, **kwargs):
    """What bash prints in a container of the image."""
    output = engine.containers.run(
        image, ["-c", script], entrypoint="/bin/bash", remove=True, network_mode="none", **kwargs
    )
    return output.decode().splitlines()


def test_the_image_holds_the_project_and_its_closure(engine, image):
    assert sorted(shell(engine, image, "ls /opt/llama")) == [
        "init",
        "libcublas.so.12",
        "libcublasLt.so.12",
        "libcudart.so.12",
        "libggml-cuda.so",
        "libggml-cuda.so.0",
        "libggml-cuda.so.0.1.2",
        "llama-server",
    ]


def test_a_library_keeps_its_soname_links(engine, image):
    links = shell(engine, image, "cd /opt/llama && readlink libggml-cuda.so libggml-cuda.so.0")

    assert links == ["libggml-cuda.so.0", "libggml-cuda.so.0.1.2"]


def test_the_loader_finds_all_but_the_driver(engine, image):
    missing = shell(engine, image, "ldd /opt/llama/* | grep 'not found'")

    assert {line.strip() for line in missing} == {"libcuda.so.1 => not found"}


def test_the_image_has_no_stub_and_no_driver(engine, image):
    assert shell(engine, image, "find / -xdev -name 'libcuda.so*'", user="0") == []


def test_the_server_starts_when_the_driver_is_mounted(engine, image, bases, real_pins, tmp_path):
    # The stub in the driver's place, where the container toolkit mounts the real one.
    stub = f"{real_pins.bases[BASE].cuda.stubs}/libcuda.so"
    out = {str(tmp_path): {"bind": "/out", "mode": "rw"}}
    shell(engine, bases, f"cp {stub} /out/libcuda.so.1", volumes=out)
    place = {"bind": "/usr/lib/x86_64-linux-gnu/libcuda.so.1", "mode": "ro"}

    output = engine.containers.run(
        image,
        remove=True,
        network_mode="none",
        volumes={str(tmp_path / "libcuda.so.1"): place},
    )

    assert output.decode().splitlines()[-1] == "device 0: does not work"


def test_without_a_driver_it_says_that_it_needs_one(engine, image, real_pins):
    container = engine.containers.run(image, detach=True, network_mode="none")
    try:
        assert container.wait()["StatusCode"] == 127
        said = container.logs().decode()
    finally:
        container.remove()

    lowest = real_pins.bases[BASE].cuda.driver
    assert f"init: this image starts only beside an NVIDIA driver, {lowest} or newer" in said


def test_no_file_names_the_build_tree(engine, image):
    named = "grep -lE '/(build|src)/' /opt/llama/llama-server /opt/llama/libggml-cuda.so || true"

    assert shell(engine, image, named) == []


def test_the_linkers_paths_stay_in_the_build(engine, image):
    names = {word.partition("=")[0] for word in engine.images.get(image).attrs["Config"]["Env"]}

    assert names.isdisjoint({"LIBRARY_PATH", "LDFLAGS"})


def test_the_image_runs_as_a_user_without_rights(engine, image):
    assert shell(engine, image, "id -u") == ["10001"]


def test_the_image_has_no_apt_lists(engine, image):
    assert shell(engine, image, "ls -A /var/lib/apt/lists") == []


def test_the_image_has_no_compiler(engine, image):
    assert shell(engine, image, "compgen -c | grep -xE '(cc|ld|nvcc|g(cc|[+][+]).*)' || true") == []


@pytest.mark.usefixtures("bases")
def test_the_closure_holds_what_cublas_opens_by_name(engine, real_pins, tmp_path):
    # As cuBLAS 12.8 does: its libcublasLt holds this name, and libnvrtc that of its builtins.
    named = "printf 'libnvrtc.so.12' >>/usr/lib/x86_64-linux-gnu/libcublasLt.so.12"
    start = "FROM devel AS build\n"
    dockerfile = recipe(real_pins, BY_NAME).replace(start, f"{start}RUN {named}\n")
    tag = "turboquant-test:cuda-closure"
    made = docker_build(dockerfile, tmp_path, "--target=build", f"--tag={tag}")
    assert made.returncode == 0, made.stderr

    try:
        closure = shell(engine, tag, "ls /out/toolkit")
    finally:
        engine.images.remove(tag, force=True)

    assert {"libnvrtc.so.12", "libnvrtc-builtins.so.12.4"} <= set(closure)


@pytest.mark.parametrize(
    ("driver", "part"), WITHOUT, ids=[f"{driver}-{part}" for driver, part in WITHOUT]
)
@pytest.mark.usefixtures("bases")
def test_each_of_the_trio_is_there_for_a_link(real_pins, tmp_path, driver, part):
    dockerfile = without(compiled(recipe(real_pins, driver)), part)

    result = docker_build(dockerfile, tmp_path, "--output=type=cacheonly")

    assert outcome(result) == WITHOUT[driver, part]


@pytest.mark.parametrize("driver", [BY_NAME, BY_NAME_TWICE, BY_TARGET, BY_PATH])
@pytest.mark.usefixtures("bases")
def test_with_all_three_every_way_of_linking_builds(real_pins, tmp_path, driver):
    dockerfile = compiled(recipe(real_pins, driver))

    assert outcome(docker_build(dockerfile, tmp_path, "--output=type=cacheonly")) == BUILDS


def with_architectures(pins, *architectures):
    """The real template's Dockerfile for these, which pins.toml would refuse for the base."""
    chosen = dataclasses.replace(pins.variants[VARIANT], architectures=list(architectures))
    return render.render(dataclasses.replace(pins, variants={VARIANT: chosen}), VARIANT, BASE).text


REFUSED = (
    "#!/bin/sh\necho \"nvcc fatal   : Unsupported gpu architecture 'compute_86'\" >&2\nexit 1\n"
)


@pytest.mark.usefixtures("bases")
def test_an_architecture_that_nvcc_does_not_know_is_found_before_anything_is_compiled(
    real_pins, tmp_path
):
    result = docker_build(
        with_architectures(real_pins, "86", "120"), tmp_path, "--output=type=cacheonly"
    )

    assert result.returncode != 0
    assert "error: nvcc of this devel image does not compile for 86, 120 with g++-13: " in (
        result.stderr
    )
    assert "Unsupported gpu architecture 'compute_120'; take another devel" in result.stderr
    assert "Building" not in result.stderr


def test_a_devel_image_with_an_older_nvcc_is_found_before_anything_is_compiled(
    engine, real_pins, bases, tmp_path
):
    (tmp_path / "nvcc").write_text(REFUSED, encoding="utf-8")
    (tmp_path / "nvcc").chmod(0o755)
    (tmp_path / "Dockerfile").write_text(
        f"FROM {bases}\nCOPY nvcc /usr/bin/nvcc\n", encoding="utf-8"
    )
    tag = "turboquant-test:older-nvcc"
    engine.images.build(path=str(tmp_path), tag=tag)
    dockerfile = recipe(real_pins, BY_NAME)

    try:
        result = docker_build(
            dockerfile, tmp_path, f"--build-arg=DEVEL_IMAGE={tag}", "--output=type=cacheonly"
        )
    finally:
        engine.images.remove(tag, force=True)

    assert "Unsupported gpu architecture 'compute_86'; take another devel" in result.stderr
    assert "Building" not in result.stderr


@pytest.mark.usefixtures("bases")
def test_a_compiler_too_new_for_nvcc_is_found_before_anything_is_compiled(real_pins, tmp_path):
    # gcc 13 that calls itself 14, which is all that nvcc's header looks at.
    newer = 'exec g++-13 -U__GNUC__ -D__GNUC__=14 "$@"'
    start = "FROM ${DEVEL_IMAGE} AS devel\n"
    script = f"RUN printf '#!/bin/sh\\n{newer}\\n' >/bin/g++-14 && chmod +x /bin/g++-14\n"
    dockerfile = recipe(real_pins, BY_NAME).replace(start, start + script)

    result = docker_build(
        dockerfile.replace("g++-13 \\\n", "g++-14 \\\n", 1), tmp_path, "--output=type=cacheonly"
    )

    assert "gcc versions later than 13 are not supported; take another devel" in result.stderr
    assert "Building" not in result.stderr
