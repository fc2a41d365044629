"""A CUDA toolkit from wheels: what lies where, from a small index on loopback."""

import dataclasses
import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.build import cuda_wheels as toolkit
from builder.common import paths
from builder.common.errors import PinsError, RemoteUnavailableError
from builder.common.progress import Progress
from builder.model.pins import Wheel
from tests.support import simple_index

pytestmark = pytest.mark.usefixtures("private_cache", "index")

HEADER = """\
#define cuMemAlloc                          cuMemAlloc_v2
#if defined(CUDA_API_PER_THREAD_DEFAULT_STREAM)
    #define cuMemcpy                            __CUDA_API_PTDS(cuMemcpy)
    #define cuMemcpyHtoDAsync                   __CUDA_API_PTSZ(cuMemcpyHtoDAsync_v2)
#endif
 * but ::cuNamedInAComment() is not
CUresult CUDAAPI cuInit(unsigned int Flags);
CUresult CUDAAPI cuMemAlloc(CUdeviceptr *dptr, size_t bytesize);
__CUDA_DEPRECATED CUresult CUDAAPI cuLaunch(CUfunction f);
"""

NVCC = {
    "nvidia/cu13/bin/nvcc": "a program",
    "nvidia/cu13/bin/nvcc.profile": "TOP = $(_HERE_)/..",
    "nvidia/cu13/nvvm/bin/cicc": "a program",
    "nvidia/cu13/.metadata/sizes.txt": "1",
    "nvidia_cuda_nvcc-13.0.88.dist-info/METADATA": "Name: nvidia-cuda-nvcc",
}
RUNTIME = {
    "nvidia/cu13/include/cuda.h": HEADER,
    "nvidia/cu13/lib/libcudart.so.13": "a library",
    "nvidia/cu13/lib/libcudart_static.a": "an archive",
    "nvidia/cu13/lib/libnvrtc-builtins.so.13.0": "a library",
    "nvidia/cu13/lib/libnvrtc.alt.so.13": "a library",
}


def wheel(files: dict[str, str]) -> bytes:
    """The files, with the modes of NVIDIA's wheels: programs are for their owner alone."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            member = zipfile.ZipInfo(name)
            member.external_attr = (0o744 if text == "a program" else 0o644) << 16
            archive.writestr(member, text)
    return buffer.getvalue()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A simple index with two of the toolkit's projects, for two processors."""
    name = "{}-13.0.88-py3-none-manylinux2014_{}.whl"
    for project, files in (("nvidia-cuda-nvcc", NVCC), ("nvidia-cuda-runtime", RUNTIME)):
        stem = project.replace("-", "_")
        here = {name.format(stem, "aarch64"): b"", name.format(stem, "x86_64"): wheel(files)}
        simple_index.publish(tmp_path / "index", project, here)
    with simple_index.served(tmp_path / "index") as address:
        monkeypatch.setenv("PIP_INDEX_URL", address)
        yield tmp_path / "index" / "simple"


def pin(package: str, files: dict[str, str]) -> Wheel:
    return Wheel(package, "13.0.88", hashlib.sha256(wheel(files)).hexdigest())


WHEELS = [pin("nvidia-cuda-nvcc", NVCC), pin("nvidia-cuda-runtime", RUNTIME)]


@pytest.fixture
def cuda(tmp_path: Path, progress: Progress) -> Path:
    """The toolkit of both wheels, but for one library."""
    toolkit.lay_out(WHEELS, ["/usr/local/cuda/lib64/*.alt.*"], tmp_path / "cuda", progress)
    return tmp_path / "cuda"


def files(folder: Path) -> list[str]:
    found = (p for p in folder.rglob("*") if p.is_file() and not p.is_symlink())
    return sorted(str(path.relative_to(folder)) for path in found)


def test_the_wheels_make_one_folder(cuda):
    assert files(cuda) == [
        "bin/nvcc",
        "bin/nvcc.profile",
        "include/cuda.h",
        "lib64/libcudart.so.13",
        "lib64/libcudart_static.a",
        "lib64/libnvrtc-builtins.so.13.0",
        "lib64/stubs/libcuda.c",
        "nvvm/bin/cicc",
    ]


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("lib", "lib64"),
        ("lib64/libcudart.so", "libcudart.so.13"),
        ("lib64/libnvrtc-builtins.so", "libnvrtc-builtins.so.13.0"),
    ],
)
def test_the_linker_finds_libraries_by_name(cuda, link, target):
    assert (cuda / link).readlink() == Path(target)


@pytest.mark.parametrize(
    ("file", "mode"), [("bin/nvcc", 0o755), ("nvvm/bin/cicc", 0o755), ("include/cuda.h", 0o644)]
)
def test_everybody_may_read_the_files_and_run_the_programs(cuda, file, mode):
    assert (cuda / file).stat().st_mode & 0o777 == mode


def test_the_stub_has_the_functions_that_the_header_leads_to():
    assert toolkit.driver_functions(HEADER) == [
        "cuInit",
        "cuLaunch",
        "cuMemAlloc",
        "cuMemAlloc_v2",
        "cuMemcpy",
        "cuMemcpyHtoDAsync_v2",
        "cuMemcpyHtoDAsync_v2_ptsz",
        "cuMemcpy_ptds",
    ]


def test_the_stub_answers_that_it_is_one(cuda):
    source = (cuda / "lib64" / "stubs" / "libcuda.c").read_text()

    assert source.splitlines()[0] == "int cuInit(void) { return 34; }"


def test_a_wheel_is_downloaded_once(index, progress, tmp_path):
    toolkit.lay_out(WHEELS, [], tmp_path / "once", progress)
    for file in index.rglob("*.whl"):
        file.unlink()

    toolkit.lay_out(WHEELS, [], tmp_path / "again", progress)

    assert (tmp_path / "again" / "bin" / "nvcc").is_file()


def test_another_files_hash_is_refused_and_nothing_is_kept(tmp_path, progress):
    bad = dataclasses.replace(WHEELS[0], sha256="0" * 64)

    with pytest.raises(RemoteUnavailableError, match="is not the file that"):
        toolkit.lay_out([bad], [], tmp_path / "cuda", progress)

    assert files(paths.cache()) == []


def test_a_version_that_the_index_lacks_is_said(tmp_path, progress):
    other = dataclasses.replace(WHEELS[0], version="13.1.0")

    with pytest.raises(RemoteUnavailableError, match="no wheel of nvidia-cuda-nvcc"):
        toolkit.lay_out([other], [], tmp_path / "cuda", progress)


def test_wheels_without_the_drivers_header_are_refused(tmp_path, progress):
    with pytest.raises(PinsError) as caught:
        toolkit.lay_out(WHEELS[:1], [], tmp_path / "cuda", progress)

    assert caught.value.hint == "add nvidia-cuda-runtime"


@pytest.mark.parametrize(
    "name", ["nvidia/cu13/include/../../../../escaped", "nvidia/cu13/bin/..", "nvidia/cu13/x/../y"]
)
def test_a_wheel_leaves_no_file_outside_of_the_folder(tmp_path, progress, name):
    file = tmp_path / "evil.whl"
    file.write_bytes(wheel({name: "evil"}))
    with pytest.raises(PinsError, match=r"evil\.whl holds a file that leaves the toolkit's folder"):
        toolkit._unpack(file, [], tmp_path / "a" / "b" / "cuda", progress)
    assert not [one for one in tmp_path.rglob("*") if one.name in {"escaped", "y", "a"}]
