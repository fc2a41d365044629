"""What every Dockerfile says, read in the rendered text."""

import dataclasses
import functools
import re

import jinja2
import pytest

from builder.build import render
from builder.common import paths
from builder.model import labels
from builder.model.pins import Bootstrap, git_address
from builder.pins import load as pins
from tests.conftest import ROOT

REAL = pins.load(ROOT / "pins.toml")
ALL = list(REAL.variants)
CUDA = [name for name in ALL if REAL.bases[REAL.variants[name].base].cuda]
CPU = [name for name in ALL if name not in CUDA]
UNPINNED = [name for name in ALL if REAL.forks[REAL.variants[name].fork].unpinned]
PINNED = [name for name in ALL if name not in UNPINNED]

every = pytest.mark.parametrize("name", ALL)
every_cuda = pytest.mark.parametrize("name", CUDA)
every_cpu = pytest.mark.parametrize("name", CPU)


@functools.cache
def text(name, base=None):
    return render.render(REAL, name, base).text


def stage(name, stage_name, base=None):
    """One stage's lines, from its FROM to the next."""
    found = re.search(
        rf"^FROM \S+ AS {stage_name}\n.*?(?=^FROM |\Z)", text(name, base), re.MULTILINE | re.DOTALL
    )
    return found[0]


def instructions(part):
    """The instructions of a text, continuation lines joined, comments left out."""
    lines = "".join(line for line in part.splitlines(True) if not line.startswith("#"))
    return lines.replace("\\\n", " ").splitlines()


def uses(name, stage_name):
    """The variables that a stage's instructions use; those of a script in it are its own."""
    script = re.compile(r"<<'EOF'.*?^EOF$", re.MULTILINE | re.DOTALL)
    body = "\n".join(instructions(script.sub("", stage(name, stage_name)))[1:])
    return set(re.findall(r"\$\{([A-Z_]+)", body))


def declares(name, stage_name):
    """The variables that a stage has by ARG and ENV."""
    lines = [
        line for line in instructions(stage(name, stage_name)) if line.startswith(("ARG", "ENV"))
    ]
    return set(re.findall(r"([A-Z_]+)(?==|$)", "\n".join(lines), re.MULTILINE))


def options(name, base=None):
    """The -D options of the compile step."""
    return dict(re.findall(r'"-D(\w+)=([^"]*)"', stage(name, "build", base)))


def edited(**forks):
    """The real pins with fields of the fork spiritbuun replaced."""
    fork = dataclasses.replace(REAL.forks["spiritbuun"], **forks)
    return dataclasses.replace(REAL, forks={**REAL.forks, "spiritbuun": fork})


# --- usable alone


@every
def test_no_line_pulls_a_frontend(name):
    assert "syntax=" not in text(name)


@every
def test_both_images_are_pinned_by_digest(name):
    images = re.findall(r"^ARG (?:DEVEL|RUNTIME)_IMAGE=(.*)$", text(name), re.MULTILINE)

    assert [image[-72:-64] for image in images] == ["@sha256:", "@sha256:"]


@pytest.mark.parametrize("name", PINNED)
def test_the_pinned_commit_is_the_default(name):
    commit = REAL.forks[REAL.variants[name].fork].commit

    assert f"\nARG COMMIT={commit}\n" in text(name)


@pytest.mark.parametrize("name", PINNED)
def test_the_pinned_build_number_is_the_default(name):
    number = REAL.forks[REAL.variants[name].fork].build_number

    assert f"\nARG BUILD_NUMBER={number}\n" in text(name)


@pytest.mark.parametrize("name", PINNED)
def test_the_forks_repository_is_the_default_source(name):
    url = REAL.forks[REAL.variants[name].fork].url

    assert f"\nARG SOURCE_URL={url}.git\n" in text(name)


def test_there_are_unpinned_forks():
    assert UNPINNED == ["turbo-tan-cuda12-sm86", "aaryan-kapoor-cpu"]


@pytest.mark.parametrize("name", UNPINNED)
def test_an_unpinned_forks_commit_has_no_default(name):
    assert "\nARG COMMIT\n" in text(name).partition("FROM ")[0]


@every
def test_a_missing_commit_stops_the_build_with_its_name(name):
    assert "${COMMIT:?COMMIT_is_a_required_build_argument}" in stage(name, "source")


@every
def test_a_missing_source_stops_the_build_with_its_name(name):
    assert "${SOURCE_URL:?SOURCE_URL_is_a_required_build_argument}" in stage(name, "source")


@every
@pytest.mark.parametrize("stage_name", ["source", "devel", "build", "runtime"])
def test_a_stage_declares_the_variables_it_uses(name, stage_name):
    # What it does not, Docker takes for empty.
    assert uses(name, stage_name) - declares(name, stage_name) == set()


# --- the compile step


@every
def test_compiling_has_no_network(name):
    step = next(line for line in instructions(stage(name, "build")) if "cmake --build" in line)

    assert step.startswith("RUN --network=none ")


@every
def test_no_step_after_it_has_a_network(name):
    steps = [line for line in instructions(stage(name, "build")) if line.startswith("RUN")]

    assert [step for step in steps if "--network=none" not in step] == []


@every
def test_the_source_is_only_lent_to_the_compile_step(name):
    assert "--mount=type=bind,from=source,target=/src" in stage(name, "build")


@every
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("GGML_NATIVE", "OFF"),
        ("BUILD_SHARED_LIBS", "ON"),
        ("CMAKE_BUILD_TYPE", "Release"),
        ("CMAKE_SKIP_RPATH", "ON"),
        ("LLAMA_BUILD_UI", "OFF"),
        ("LLAMA_BUILD_WEBUI", "OFF"),
        ("LLAMA_OPENSSL", "ON"),
        ("CMAKE_CXX_COMPILER_LAUNCHER", "ccache"),
        ("LLAMA_BUILD_NUMBER", "${BUILD_NUMBER}"),
        ("LLAMA_BUILD_COMMIT", "${COMMIT:0:9}"),
    ],
)
def test_every_build_has_the_recipes_options(name, option, value):
    assert options(name)[option] == value


@every_cuda
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("GGML_CUDA", "ON"),
        ("GGML_CUDA_FA_ALL_QUANTS", "ON"),
        ("GGML_CUDA_NCCL", "OFF"),
        ("CMAKE_CUDA_COMPILER_LAUNCHER", "ccache"),
    ],
)
def test_every_cuda_build_has_cudas_options(name, option, value):
    assert options(name)[option] == value


@every_cuda
def test_cuda_code_is_made_for_the_variants_architectures(name):
    architectures = options(name)["CMAKE_CUDA_ARCHITECTURES"].split(";")

    assert architectures == [f"{a}-real" for a in REAL.variants[name].architectures]


@pytest.mark.parametrize(
    ("base", "mode"),
    [("nvidia-cuda126", None), ("nvidia-cuda128", "size"), ("pypi-cuda130", "size")],
)
def test_device_code_is_packed_as_tight_as_the_toolkit_can(base, mode):
    found = options("spiritbuun-cuda12-sm86", base)

    assert found["CMAKE_CUDA_FLAGS"] == "-Xfatbin=-compress-all"
    assert found.get("GGML_CUDA_COMPRESSION_MODE") == mode


@every_cpu
def test_no_cpu_build_has_cudas_options(name):
    assert [option for option in options(name) if "CUDA" in option] == []


def test_options_are_sorted():
    names = [name for name in options(ALL[0]) if not name.startswith("LLAMA_BUILD_")]

    assert names == sorted(names)


def test_a_fork_with_backend_dl_opens_its_backends():
    assert options("spiritbuun-cuda12-sm86")["GGML_BACKEND_DL"] == "ON"


def test_a_fork_with_static_backends_links_them():
    assert options("thetom-cuda12-sm86")["GGML_BACKEND_DL"] == "OFF"


def test_all_cpu_variants_are_built_where_backends_are_opened():
    assert options("spiritbuun-cuda12-sm86")["GGML_CPU_ALL_VARIANTS"] == "ON"


def test_one_cpu_backend_is_built_where_backends_are_linked():
    assert options("thetom-cuda12-sm86")["GGML_CPU_ALL_VARIANTS"] == "OFF"


@pytest.mark.parametrize("option", ["GGML_AVX", "GGML_AVX2", "GGML_BMI2", "GGML_F16C", "GGML_FMA"])
def test_x86_64_v2_has_no_newer_instructions(option):
    assert options("mainline-cpu")[option] == "OFF"


def test_a_forks_option_wins_over_the_recipe():
    rendered = render.render(edited(options={"LLAMA_OPENSSL": False}), "spiritbuun-cpu").text

    assert '"-DLLAMA_OPENSSL=OFF"' in rendered


def test_a_variants_option_wins_over_the_forks():
    changed = edited(options={"GGML_LTO": False})
    variant = dataclasses.replace(REAL.variants["spiritbuun-cpu"], options={"GGML_LTO": "AUTO"})

    rendered = render.render(
        dataclasses.replace(changed, variants={"spiritbuun-cpu": variant}), "spiritbuun-cpu"
    ).text

    assert '"-DGGML_LTO=AUTO"' in rendered


@every
def test_the_compiling_bases_packages_are_installed(name):
    install = next(line for line in instructions(stage(name, "devel")) if "apt-get" in line)

    assert set(REAL.bases[REAL.variants[name].base].devel_packages) <= set(install.split())


# --- libcuda


def stubs(name, base=None):
    return REAL.bases[base or REAL.variants[name].base].cuda.stubs


@every_cuda
def test_the_stub_has_the_drivers_soname(name):
    folder = stubs(name)

    assert f"RUN ln -sf libcuda.so {folder}/libcuda.so.1" in instructions(stage(name, "devel"))


@every_cuda
def test_the_linker_finds_the_stub_by_name(name):
    assert f"ENV LIBRARY_PATH={stubs(name)}" in instructions(stage(name, "devel"))


@every_cuda
def test_the_linker_finds_the_stub_that_a_library_needs(name):
    assert f"ENV LDFLAGS=-Wl,-rpath-link,{stubs(name)}" in instructions(stage(name, "devel"))


@every_cuda
def test_no_stub_is_named_in_the_runtime_stage(name):
    assert "stubs" not in stage(name, "runtime")


@every_cpu
def test_a_cpu_dockerfile_says_nothing_of_the_driver(name):
    assert "libcuda" not in text(name)


# --- cuBLAS

SLIM = "spiritbuun-cuda12-sm86-slim"
SHARED = [name for name in CUDA if REAL.variants[name].cublas == "shared"]


def kept(name):
    """The architectures that nvprune is told to keep, with those of the same instructions."""
    return re.findall(r"-gencode arch=compute_(\w+),code=sm_(\w+) ", stage(name, "cublas"))


def test_pruning_keeps_what_the_pinned_gpus_run():
    assert kept(SLIM) == [("80", "80"), ("86", "86")]


@pytest.mark.parametrize("option", ["CUDA_cublas_LIBRARY", "CUDA_cublasLt_LIBRARY"])
def test_a_fork_that_asks_for_cublas_gets_the_pruned_archives(option):
    assert options(SLIM)[option] == "/cublas/libcublas.so"


def test_pruning_does_not_wait_for_the_source():
    # Nor is it done again for another commit: a stage of its own knows none.
    assert re.findall("source|COMMIT", stage(SLIM, "cublas").partition("\n")[2]) == []


def test_the_archives_are_only_lent_to_the_compile_step():
    assert "--mount=type=bind,from=cublas,source=/cublas,target=/cublas" in stage(SLIM, "build")


def test_pruned_archives_keep_the_path_that_finds_the_driver():
    flags = next(line for line in instructions(stage(SLIM, "build")) if "LDFLAGS" in line)

    assert flags.startswith('ENV LDFLAGS="${LDFLAGS} ')


def test_a_devel_image_that_may_lack_nvprune_gets_it():
    assert "cuda-nvprune-12-6" in stage(SLIM, "devel")


@pytest.mark.parametrize("name", SHARED)
def test_nothing_is_pruned_where_cublas_is_shared(name):
    assert re.findall("nvprune|/cublas|gc-sections", text(name)) == []


@pytest.mark.parametrize(
    ("name", "value"), [("spiritbuun-cuda12-sm86", "shared"), (SLIM, "pruned")]
)
def test_a_label_says_how_the_image_has_cublas(name, value):
    assert f'{labels.LABEL}.cublas="{value}"' in stage(name, "runtime")


# --- the runtime stage


@every
@pytest.mark.parametrize("package", ["ca-certificates", "libgomp1", "libssl3t64"])
def test_the_runtime_packages_are_installed(name, package):
    install = next(line for line in instructions(stage(name, "runtime")) if "apt-get" in line)

    assert package in install.split()


@every
@pytest.mark.parametrize(
    "line",
    [
        "ENV LLAMA_ARG_HOST=0.0.0.0",
        "ENV LLAMA_ARG_PORT=8080",
        "USER 10001:10001",
        'ENTRYPOINT ["/opt/llama/init", "/opt/llama/llama-server"]',
    ],
)
def test_every_image_says_how_it_runs(name, line):
    assert line in instructions(stage(name, "runtime"))


@every
def test_the_health_check_asks_every_second_while_the_server_starts(name):
    check = next(line for line in instructions(stage(name, "runtime")) if "HEALTHCHECK" in line)

    assert "--start-interval=1s" in check


@every_cuda
def test_the_driver_is_asked_for_by_the_containers_variables(name):
    assert "ENV NVIDIA_VISIBLE_DEVICES=all      NVIDIA_DRIVER_CAPABILITIES=compute,utility" in (
        instructions(stage(name, "runtime"))
    )


@every_cpu
def test_a_cpu_image_asks_for_no_driver(name):
    assert "NVIDIA" not in text(name)


def test_codebooks_are_carried_where_the_fork_has_them():
    assert "COPY --from=source /codebooks/ /opt/llama/codebooks/" in (
        instructions(stage("spiritbuun-cuda12-sm86", "runtime"))
    )


def test_no_codebooks_are_carried_where_the_fork_has_none():
    assert "codebooks" not in text("thetom-cuda12-sm86")


@pytest.mark.parametrize(
    ("label", "value"),
    [
        ("org.opencontainers.image.revision", "${COMMIT}"),
        ("org.opencontainers.image.source", "${SOURCE_URL}"),
        ("org.opencontainers.image.version", "b${BUILD_NUMBER}"),
        ("org.opencontainers.image.created", "${CREATED}"),
        ("org.opencontainers.image.base.name", "docker.io/library/debian:trixie-slim"),
        (
            "org.opencontainers.image.base.digest",
            "sha256:a29215f6a35e51e22adffa17f89e9d2ef06214e64a2bad10d765c46aea49f11f",
        ),
        (f"{labels.LABEL}.variant", "spiritbuun-cuda12-sm120"),
        (f"{labels.LABEL}.kv-types", "turbo4,turbo3,turbo2,turbo3_tcq,turbo2_tcq"),
        (f"{labels.LABEL}.cuda", "12.8.1"),
        (f"{labels.LABEL}.cuda-architectures", "120"),
        (f"{labels.LABEL}.lowest-driver", "550.54.14"),
    ],
)
def test_labels_say_what_the_image_is(label, value):
    assert f'{label}="{value}"' in stage("spiritbuun-cuda12-sm120", "runtime")


def test_created_is_the_commits_date():
    assert "\nARG CREATED=2026-05-18T15:26:29Z\n" in text("spiritbuun-cpu")


# --- another base

BASE = "debian-cuda124"


def test_another_base_names_its_bootstrapped_images():
    rendered = text("spiritbuun-cuda12-sm86", BASE)

    recipes = REAL.bases[BASE].bootstrap
    assert recipes is not None
    assert re.findall(r"^ARG \w+_IMAGE=(.*)$", rendered, re.MULTILINE) == [
        render.bootstrap_tag(recipes.devel),
        render.bootstrap_tag(recipes.runtime),
    ]


def test_bootstrapped_images_of_other_recipes_have_other_names():
    recipes = REAL.bases[BASE].bootstrap
    assert recipes is not None
    assert render.bootstrap_tag(recipes.devel) != render.bootstrap_tag(recipes.runtime)


def test_a_base_of_other_wheels_has_another_name():
    recipe = REAL.bases["pypi-cuda130"].bootstrap.devel
    fewer = dataclasses.replace(recipe, wheels=recipe.wheels[1:])

    assert render.bootstrap_tag(fewer) != render.bootstrap_tag(recipe)


def test_a_base_without_wheels_keeps_the_name_it_had_before_there_were_any():
    recipe = Bootstrap("trixie", ["ca-certificates"])

    assert render.bootstrap_tag(recipe) == "turboquant-base:trixie-2eea4d88"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("CMAKE_C_COMPILER", "gcc-13"),
        ("CMAKE_CXX_COMPILER", "g++-13"),
        ("CMAKE_CUDA_HOST_COMPILER", "g++-13"),
    ],
)
def test_another_base_brings_its_own_compiler(option, value):
    assert options("spiritbuun-cuda12-sm86", BASE)[option] == value


def test_another_base_brings_its_own_stub_folder():
    devel = instructions(stage("spiritbuun-cuda12-sm86", "devel", BASE))

    assert f"ENV LIBRARY_PATH={REAL.bases[BASE].cuda.stubs}" in devel


def test_a_base_that_has_its_packages_installs_none():
    assert "apt-get" not in stage("spiritbuun-cuda12-sm86", "devel", BASE)


def test_another_base_changes_the_recipes_hash():
    name = "spiritbuun-cuda12-sm86"

    assert render.render(REAL, name).sha256 != render.render(REAL, name, BASE).sha256


# --- rendering itself


@every
def test_rendering_again_gives_the_same_hash(name):
    assert render.render(REAL, name).sha256 == render.render(REAL, name).sha256


@every
def test_no_placeholder_is_left(name):
    assert re.search(r"\{\{|\{%|None", text(name)) is None


@every
def test_no_line_ends_in_white_space(name):
    assert re.search(r"[ \t]$", text(name), re.MULTILINE) is None


def test_a_template_that_asks_for_an_unknown_value_is_an_error(tmp_path, monkeypatch):
    folder = tmp_path / "dockerfiles"
    folder.mkdir()
    (folder / "variant.Dockerfile.j2").write_text("{{ compiler_flags }}", encoding="utf-8")
    monkeypatch.setattr(paths, "INSTALLATION", tmp_path)

    with pytest.raises(jinja2.UndefinedError, match="compiler_flags"):
        render.render(REAL, ALL[0])


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://example.org/a/b", "https://example.org/a/b.git"),
        ("https://example.org/a/b.git", "https://example.org/a/b.git"),
        ("ssh://git@example.org/a/b", "ssh://git@example.org/a/b"),
        ("git@example.org:a/b", "git@example.org:a/b"),
    ],
)
def test_an_https_address_is_told_to_be_a_repository(url, address):
    assert git_address(url) == address
