"""Templates + pins → Dockerfile. Pure, but for reading the templates."""

import hashlib
from dataclasses import dataclass

from builder.common import paths
from builder.model.labels import LABEL
from builder.model.pins import Base, Bootstrap, Fork, Pins, Variant, created, git_address
from builder.pins import cuda

_RECIPE: dict[str, bool | str] = {
    "CMAKE_BUILD_TYPE": "Release",
    "BUILD_SHARED_LIBS": True,
    # The runtime stage's ldconfig finds the libraries; a RUNPATH would name the build tree.
    "CMAKE_SKIP_RPATH": True,
    "CMAKE_C_COMPILER_LAUNCHER": "ccache",
    "CMAKE_CXX_COMPILER_LAUNCHER": "ccache",
    "GGML_CCACHE": False,
    # Without it the image carries the build machine's instruction set (ggml-org/llama.cpp#537).
    "GGML_NATIVE": False,
    "LLAMA_BUILD_EXAMPLES": False,
    "LLAMA_BUILD_TESTS": False,
    # TLS for `-hf`; LLAMA_CURL is ignored since early 2026.
    "LLAMA_OPENSSL": True,
    # The web UI's three names over time; newer commits would download it.
    "LLAMA_BUILD_WEBUI": False,
    "LLAMA_BUILD_UI": False,
    "LLAMA_USE_PREBUILT_UI": False,
}

_CUDA_RECIPE: dict[str, bool | str] = {
    "GGML_CUDA": True,
    # Needed when K and V types differ; without it the op moves to the CPU, which has no turbo.
    "GGML_CUDA_FA_ALL_QUANTS": True,
    # Linked whenever configure finds it, and then missing at run time.
    "GGML_CUDA_NCCL": False,
    "CMAKE_CUDA_COMPILER_LAUNCHER": "ccache",
    # By default nvcc compresses PTX only, and SASS takes 2.7 times as much. Every driver reads it.
    # GGML_CUDA_COMPRESSION_MODE goes with it where nvcc has one.
    "CMAKE_CUDA_FLAGS": "-Xfatbin=-compress-all",
}

_PRUNED_RECIPE: dict[str, bool | str] = {
    # FindCUDAToolkit's own variables, from CMake 3.17 on: what a fork links as CUDA::cublas, and
    # the cublasLt that newer ones add to it, is the archives of parts/cublas.j2.
    "CUDA_cublas_LIBRARY": "/cublas/libcublas.so",
    "CUDA_cublasLt_LIBRARY": "/cublas/libcublas.so",
}

# From GGML's options: what GGML_NATIVE=OFF turns on by default is x86-64-v3.
_ABOVE_V2 = ("GGML_AVX", "GGML_AVX2", "GGML_BMI2", "GGML_F16C", "GGML_FMA")


@dataclass(frozen=True, slots=True)
class Rendered:
    """A Dockerfile's text; its SHA-256 is the recipe's identity."""

    variant: str
    text: str

    @property
    def sha256(self) -> str:
        """64 hex digits."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def file_name(self) -> str:
        """The name under dockerfiles/rendered/."""
        return f"{self.variant}.Dockerfile"


def bootstrap_tag(recipe: Bootstrap) -> str:
    """The local name of the base image that mmdebstrap makes from this very recipe."""
    # A recipe without wheels has the name that it had before there were any.
    text = repr(recipe).replace(", wheels=[])", ")")
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"turboquant-base:{recipe.suite}-{digest[:8]}"


def render(pins: Pins, name: str, base_name: str | None = None) -> Rendered:
    """The Dockerfile of one variant, on its own base or on another one.

    The names are known to exist: `pins.variant` and `pins.with_base` check them.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    variant = pins.variants[name]
    environment = Environment(
        loader=FileSystemLoader(paths.templates()),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 -- a Dockerfile is no HTML; pins.py checks what goes in
    )
    template = environment.get_template("variant.Dockerfile.j2")
    values = _values(pins.forks[variant.fork], variant, pins.bases, base_name or variant.base)
    return Rendered(name, template.render(variant=name, fork=variant.fork, label=LABEL, **values))


def _values(
    fork: Fork, variant: Variant, bases: dict[str, Base], base_name: str
) -> dict[str, object]:
    base = bases[base_name]
    devel, runtime = base.devel, base.runtime
    if base.bootstrap is not None:
        devel = devel or bootstrap_tag(base.bootstrap.devel)
        runtime = runtime or bootstrap_tag(base.bootstrap.runtime)
    assert devel and runtime, "pins_problems.py asks for an image or a bootstrap"  # noqa: S101, PT018
    runtime_name, _, runtime_digest = runtime.partition("@")
    return {
        "devel_image": devel,
        "runtime_image": runtime,
        "runtime_name": runtime_name,
        "runtime_digest": runtime_digest,
        "source_url": git_address(fork.url) if fork.url else None,
        "commit": fork.commit,
        "build_number": fork.build_number or 0,
        "created": created(fork),
        "devel_packages": sorted(_devel_packages(variant, base)),
        "runtime_packages": sorted(base.runtime_packages),
        "compiler": base.compiler,
        "cuda": base.cuda,
        # Backends that are linked bring libcuda.so.1 into the server's own needs.
        "needs_driver": base.cuda is not None and fork.linkage == "static-backends",
        "architectures": variant.architectures,
        "cublas": variant.cublas,
        "kept": cuda.runnable(base.cuda.version, variant.architectures) if base.cuda else [],
        "kv_types": list(fork.kv_types),
        "codebooks": fork.codebooks,
        "options": cmake_options(fork, variant, base),
    }


def _devel_packages(variant: Variant, base: Base) -> list[str]:
    pruning = base.cuda.nvprune if base.cuda and variant.cublas == "pruned" else None
    return [*base.devel_packages, *([pruning] if pruning else [])]


def cmake_options(fork: Fork, variant: Variant, base: Base) -> dict[str, str]:
    """Every CMake option of a variant, sorted; the variant's own win over the fork's."""
    dynamic = fork.linkage == "backend-dl"
    options: dict[str, bool | str] = {
        **_RECIPE,
        "CMAKE_C_COMPILER": base.compiler.c,
        "CMAKE_CXX_COMPILER": base.compiler.cxx,
        # Backends opened at run time: the image starts where there is no driver.
        "GGML_BACKEND_DL": dynamic,
        "GGML_CPU_ALL_VARIANTS": variant.cpu == "all",
    }
    if variant.cpu == "x86-64-v2":
        options |= dict.fromkeys(_ABOVE_V2, False)
    if base.cuda is not None:
        options |= _CUDA_RECIPE
        options["CMAKE_CUDA_HOST_COMPILER"] = base.compiler.cxx
        # -real: code for the architecture itself, no PTX for others.
        options["CMAKE_CUDA_ARCHITECTURES"] = ";".join(f"{a}-real" for a in variant.architectures)
        if variant.cublas == "pruned":
            options |= _PRUNED_RECIPE
        if cuda.has_compress_mode(base.cuda.version):
            # ggml's own default, said here because it decides which drivers run the image.
            options["GGML_CUDA_COMPRESSION_MODE"] = "size"
    options |= fork.options | variant.options
    return {name: _cmake(options[name]) for name in sorted(options)}


def _cmake(value: bool | str) -> str:
    if isinstance(value, str):
        return value
    return "ON" if value else "OFF"
