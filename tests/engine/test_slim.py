"""cuBLAS pruned and linked in: nothing that the GPU can run is lost, and nothing else is left."""

import collections
import dataclasses
import re
import subprocess

import pytest

from builder.audit import run as audit
from builder.build import bootstrap, render
from builder.common.progress import Silent
from builder.image import elf
from builder.pins import cuda
from tests.engine.test_cuda_template import BASE, BY_NAME, VARIANT, docker_build, shell

pytestmark = pytest.mark.engine

TAG = "turboquant-test:cuda-slim"
ARCHIVES = ("libcublas_static", "libcublasLt_static")

# Stages beside the template's: only what they list leaves the engine.
LISTS = """
FROM cublas AS listing
RUN mkdir /lists && cd /lists{commands}
FROM scratch AS lists
COPY --from=listing /lists/ /
"""

# As a GPU of compute capability 8.6 sees it: CUDA C++ Programming Guide, "Binary Compatibility".
RUNS = re.compile(r"sm_8[0-6]")


@pytest.fixture(scope="module")
def pins(real_pins):
    """The sample as a variant for sm_86 whose cuBLAS is pruned."""
    chosen = dataclasses.replace(
        real_pins.variants[VARIANT], options={"SAMPLE_DRIVER": BY_NAME}, cublas="pruned"
    )
    return dataclasses.replace(real_pins, variants={VARIANT: chosen})


@pytest.fixture(scope="module", autouse=True)
def devel(engine, real_pins):
    recipes = real_pins.bases[BASE].bootstrap
    bootstrap.ensure(engine, recipes.runtime, Silent())
    return bootstrap.ensure(engine, recipes.devel, Silent())[0]


@pytest.fixture(scope="module")
def archives(pins, tmp_path_factory):
    """What cuobjdump lists of NVIDIA's archives, of the template's, and of sm_86's alone."""
    folder = tmp_path_factory.mktemp("archives")
    lists = LISTS.format(commands="".join(f" \\\n && {one}" for one in commands()))
    dockerfile = render.render(pins, VARIANT, BASE).text + lists
    made = docker_build(dockerfile, folder, "--target=lists", f"--output=type=local,dest={folder}")
    assert made.returncode == 0, made.stderr
    return folder


def commands():
    for name in ARCHIVES:
        whole = f'"$(find /usr -name {name}.a)"'
        yield f"nvprune -arch sm_86 {whole} -o /tmp/{name}.a"
        places = {"whole": whole, "pruned": f"/cublas/{name}.a", "too far": f"/tmp/{name}.a"}
        for what, place in places.items():
            yield f"cuobjdump -symbols {place} >'{name} {what}'"
        yield f"cuobjdump --list-ptx {whole} >'{name} ptx'"


def kernels(folder, name, what):
    """Every kernel of an archive, as (member, kernel), by the architecture that it is made for."""
    found = collections.defaultdict(set)
    member = architecture = ""
    for line in (folder / f"{name} {what}").read_text().splitlines():
        if line.startswith("member "):
            member = line.rpartition(".a:")[2]
        elif line.startswith("arch = "):
            architecture = line.removeprefix("arch = ")
        elif " STO_ENTRY " in line:
            found[architecture].add((member, line.split()[-1]))
    return found


def runnable(found):
    return {one: names for one, names in found.items() if RUNS.fullmatch(one)}


@pytest.mark.parametrize("name", ARCHIVES)
def test_pruning_keeps_every_kernel_that_the_gpu_runs(archives, name):
    whole = runnable(kernels(archives, name, "whole"))

    assert set(whole) == {"sm_80", "sm_86"}
    assert kernels(archives, name, "pruned") == whole


@pytest.mark.parametrize("name", ARCHIVES)
def test_pruning_to_sm_86_alone_would_lose_kernels(archives, name):
    pruned, too_far = (
        set().union(*kernels(archives, name, what).values()) for what in ("pruned", "too far")
    )

    assert too_far < pruned


@pytest.mark.parametrize("name", ARCHIVES)
def test_there_is_no_ptx_to_keep(archives, name):
    made_for = set(re.findall(r"\.(sm_\d+a?)\.ptx", (archives / f"{name} ptx").read_text()))

    assert [one for one in made_for if int(one[3:].rstrip("a")) <= 86] == []


@pytest.fixture(scope="module")
def image(engine, pins, tmp_path_factory):
    """The sample through the real template."""
    made = docker_build(
        render.render(pins, VARIANT, BASE).text, tmp_path_factory.mktemp("slim"), f"--tag={TAG}"
    )
    assert made.returncode == 0, made.stderr
    yield TAG
    engine.images.remove(TAG, force=True)


@pytest.fixture(scope="module")
def library(engine, image, tmp_path_factory):
    """libggml-cuda.so of the image."""
    folder = tmp_path_factory.mktemp("library")
    volumes = {str(folder): {"bind": "/out", "mode": "rw"}}
    shell(engine, image, "cp /opt/llama/libggml-cuda.so /out", user="0", volumes=volumes)
    return folder / "libggml-cuda.so"


def test_of_the_toolkit_the_image_holds_the_runtime_alone(engine, image):
    libraries = shell(engine, image, "cd /opt/llama && ls | grep -vE 'ggml|llama-server|init'")

    assert libraries == ["libcudart.so.12"]


def test_the_loader_finds_all_but_the_driver(engine, image):
    missing = shell(engine, image, "ldd /opt/llama/* | grep 'not found'")

    assert {line.strip() for line in missing} == {"libcuda.so.1 => not found"}


def test_the_server_starts_when_the_driver_is_mounted(engine, image, devel, real_pins, tmp_path):
    stub = f"{real_pins.bases[BASE].cuda.stubs}/libcuda.so"
    out = {str(tmp_path): {"bind": "/out", "mode": "rw"}}
    shell(engine, devel, f"cp {stub} /out/libcuda.so.1", volumes=out)
    place = {"bind": "/usr/lib/x86_64-linux-gnu/libcuda.so.1", "mode": "ro"}
    volumes = {str(tmp_path / "libcuda.so.1"): place}

    output = engine.containers.run(image, remove=True, network_mode="none", volumes=volumes)

    assert output.decode().splitlines()[-1] == "device 0: does not work"


def test_nobody_sees_the_linked_cublas(library):
    # Of what is exported, what the sample itself defines.
    listed = subprocess.run(
        ["nm", "--dynamic", "--defined-only", library], capture_output=True, text=True, check=True
    )

    names = [line.split()[-1] for line in listed.stdout.splitlines()]
    assert names == ["_Z15ggml_cuda_worksv", "_Z16ggml_cuda_driverv"]


def test_the_library_holds_device_code_for_the_gpu_and_no_other(library, pins):
    with library.open("rb") as file:
        units = elf.read(file, deep=True).units or ()

    kept = cuda.runnable(pins.bases[BASE].cuda.version, pins.variants[VARIANT].architectures)
    assert {str(code) for unit in units for code in unit} == {f"sm_{one}" for one in kept}
    # cuBLAS's units and ours.
    assert len(units) > 1


def test_the_audit_passes_what_is_linked_in(engine, image, pins, tmp_path):
    report = audit.audit(engine, image, pins, results=tmp_path, progress=Silent())
    found = {one.probe: one for one in report.findings}

    assert "cuBLAS is linked in" in found["device_code"].observed
    rules = ("device_code", "cpu_baseline", "needs", "runpath", "stub", "leftovers", "secrets")
    assert {rule: found[rule].status for rule in rules} == dict.fromkeys(rules, "pass")
