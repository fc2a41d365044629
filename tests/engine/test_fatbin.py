"""The reader of fat binaries on nvcc's own output, held against the toolkit's cuobjdump."""

import dataclasses
import re

import pytest

from builder.audit import run as audit
from builder.build import bootstrap, render
from builder.common.progress import Silent
from builder.image import elf
from tests.engine.test_cuda_template import BASE, BY_NAME, VARIANT, docker_build

pytestmark = pytest.mark.engine

KERNEL = """\
__global__ void twice(float *a) { a[threadIdx.x] *= 2; }
extern "C" void run(float *a) { twice<<<1, 32>>>(a); }
"""

COMPILE = "nvcc -ccbin g++-13 -Xcompiler -fPIC kernel.cu"
SM_86, SM_80, SM_75, SM_90A = (
    f"-gencode arch=compute_{one},code=sm_{one}" for one in (86, 80, 75, "90a")
)
PTX_86 = "-gencode arch=compute_86,code=compute_86"

FILES = {
    "one": f"-shared {SM_86}",
    "several": f"-shared {SM_86} {SM_80} {PTX_86}",
    "compressed": f"-shared -Xfatbin -compress-all {SM_86} {SM_75} {PTX_86}",
    "ptx": f"-shared {PTX_86}",
    # Not linked: cuobjdump calls the empty cubin that nvcc's link adds sm_90, its header says 90a.
    "specific": f"-c {SM_90A} {PTX_86}",
}


@pytest.fixture(scope="module")
def devel(engine, real_pins):
    """The image with nvcc in it."""
    recipes = real_pins.bases[BASE].bootstrap
    bootstrap.ensure(engine, recipes.runtime, Silent())
    return bootstrap.ensure(engine, recipes.devel, Silent())[0]


@pytest.fixture(scope="module")
def made(engine, devel, tmp_path_factory):
    """A folder with a library for each of FILES, and what cuobjdump lists of it beside it."""
    folder = tmp_path_factory.mktemp("nvcc")
    (folder / "kernel.cu").write_text(KERNEL, encoding="utf-8")
    (folder / "make.sh").write_text("\n".join(script()), encoding="utf-8")
    volumes = {str(folder): {"bind": "/w", "mode": "rw"}}
    engine.containers.run(
        devel, ["bash", "-e", "/w/make.sh"], volumes=volumes, network_mode="none", remove=True
    )
    return folder


def script():
    yield "cd /w"
    for name, words in FILES.items():
        yield f"{COMPILE} {words} -o {name}.so && strip --strip-unneeded {name}.so"
        for listed in ("elf", "ptx"):
            yield f"cuobjdump --list-{listed} {name}.so >{name}.{listed} || true"


@pytest.mark.parametrize("name", FILES)
def test_it_reads_what_cuobjdump_lists(made, name):
    with (made / f"{name}.so").open("rb") as file:
        units = elf.read(file, deep=True).units or ()

    found = sorted(str(code) for unit in units for code in unit)

    assert found == sorted(listed(made, name))


def listed(folder, name):
    """The architectures in cuobjdump's lists: names like one.2.sm_86.cubin, one.1.sm_86.ptx."""
    elves = re.findall(r"\.(sm_\d+a?)\.cubin", (folder / f"{name}.elf").read_text())
    ptx = re.findall(r"\.sm_(\d+a?)\.ptx", (folder / f"{name}.ptx").read_text())
    return [*elves, *(f"compute_{one}" for one in ptx)]


@pytest.fixture(
    params=[("86-real", "86"), ("80-real", "86"), ("86-real;75-real", "86")],
    ids=["as pinned", "another", "one too many"],
)
def compiled(request, engine, real_pins, tmp_path):
    """The sample through the real template with these architectures: image, pins, architectures."""
    architectures, pinned = request.param
    options = {"SAMPLE_DRIVER": BY_NAME, "CMAKE_CUDA_ARCHITECTURES": architectures}
    chosen = dataclasses.replace(
        real_pins.variants[VARIANT], options=options, architectures=[pinned]
    )
    pins = dataclasses.replace(real_pins, variants={VARIANT: chosen})
    tag = "turboquant-test:audit-cuda"
    result = docker_build(render.render(pins, VARIANT, BASE).text, tmp_path, f"--tag={tag}")
    assert result.returncode == 0, result.stderr
    yield tag, pins, architectures
    engine.images.remove(tag, force=True)


@pytest.mark.usefixtures("devel")
def test_an_image_of_the_cuda_template_is_judged_by_its_device_code(engine, compiled, tmp_path):
    image, pins, architectures = compiled
    report = audit.audit(engine, image, pins, results=tmp_path, progress=Silent())
    found = {one.probe: (one.status, one.observed) for one in report.findings}

    assert (
        found["device_code"]
        == {
            "86-real": ("pass", "sm_86 in 1 units"),
            "80-real": (
                "fail",
                "nothing for 86 in 1 of 1 units of /opt/llama/libggml-cuda.so.0.1.2",
            ),
            "86-real;75-real": ("fail", "sm_75 runs on none of them"),
        }[architectures]
    )
    # What the sample is too small for stays out: it is no llama-server.
    about_files = ("needs", "runpath", "stub", "leftovers", "permissions", "secrets", "user")
    assert {found[rule][0] for rule in about_files} == {"pass"}
    assert found["version"] == (
        "unproven",
        "not proven: the server starts only beside an NVIDIA driver",
    )


def test_what_nvidia_compiled_holds_what_cuobjdump_counts(engine, devel, tmp_path):
    place = "/usr/lib/x86_64-linux-gnu/libcublas.so.12"
    counted = "cuobjdump --list-elf libcublas.so.12 | grep -c sm_86"
    output = engine.containers.run(
        devel,
        ["bash", "-c", f"cp -L {place} /w && cd /w && {counted}"],
        volumes={str(tmp_path): {"bind": "/w", "mode": "rw"}},
        network_mode="none",
        remove=True,
    )
    with (tmp_path / "libcublas.so.12").open("rb") as file:
        units = elf.read(file, deep=True).units or ()

    assert sum("sm_86" in map(str, unit) for unit in units) == int(output)
