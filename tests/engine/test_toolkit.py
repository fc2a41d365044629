"""nvcc from the package index's wheels, in a bootstrapped image: it compiles, links and starts.

Without cuBLAS: its 0.4 GB of download prove nothing that the rest does not.
"""

import dataclasses

import pytest

from builder.build import bootstrap
from builder.common.progress import Silent
from builder.image import elf

pytestmark = pytest.mark.engine

PROGRAM = r"""
#include <cstdio>
#include <cuda.h>
#include <cub/version.cuh>
#include <cuda_fp16.h>
__global__ void twice(half *a) { a[threadIdx.x] *= 2; }
int main() {
    twice<<<1, 32>>>(nullptr);
    std::printf("the driver says %d\n", cuInit(0));
}
"""

# The runtime by the loader's way to it, the driver by nvcc's own way to the stub.
SCRIPT = """
cd /w
nvcc -gencode arch=compute_86,code=sm_86 -Xfatbin=-compress-all -compress-mode=size \
  -cudart shared program.cu -lcuda -o program
LD_PRELOAD=/usr/local/cuda/lib64/stubs/libcuda.so ./program
"""


@pytest.fixture(scope="module")
def run(engine, real_pins, tmp_path_factory):
    """A folder with the compiled program, and what it printed."""
    whole = real_pins.bases["pypi-cuda130"].bootstrap.devel
    opened = ("nvidia-cublas", "nvidia-cuda-nvrtc")
    wheels = [wheel for wheel in whole.wheels if wheel.package not in opened]
    recipe = dataclasses.replace(whole, packages=["g++"], wheels=wheels)
    folder = tmp_path_factory.mktemp("wheels")
    (folder / "program.cu").write_text(PROGRAM, encoding="utf-8")
    tag = bootstrap.ensure(engine, recipe, Silent())[0]
    try:
        output = engine.containers.run(
            tag,
            ["bash", "-ec", SCRIPT],
            volumes={str(folder): {"bind": "/w", "mode": "rw"}},
            network_mode="none",
            remove=True,
        )
    finally:
        engine.images.remove(tag, force=True)
    return folder, output.decode()


def test_a_program_is_compiled_linked_and_started(run):
    assert run[1] == "the driver says 34\n"


def test_device_code_packed_for_size_is_read(run):
    with (run[0] / "program").open("rb") as file:
        units = elf.read(file, deep=True).units or ()

    assert {str(code) for unit in units for code in unit} == {"sm_86"}
