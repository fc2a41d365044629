"""Whether servers run on a GPU: of the machine, the program and the profile, each can say no."""

from dataclasses import replace
from pathlib import Path

import pytest

from builder.engine import containers as container
from builder.engine import facts as doctor_facts
from builder.engine import gpu_use
from builder.engine.binary_target import BinaryTarget
from builder.engine.facts import Gpu
from builder.llama.placement import EVERY, Placement, placement
from builder.model.labels import CUDA, VARIANT
from builder.model.pins import Kv, Pins, Profile
from builder.smoke.options import Options
from builder.smoke.run import PROFILE, _case

CPU_VARIANT, CUDA_VARIANT = "mainline-cpu", "mainline-cuda12-sm86"

WITHOUT_DEVICES = "Available devices:\n  (none)\n"
WITH_DEVICES = (
    "ggml_cuda_init: found 1 CUDA devices:\nAvailable devices:\n"
    "  CUDA0: NVIDIA GeForce RTX 3090 (24124 MiB, 23000 MiB free)\n"
)


@pytest.mark.parametrize(
    ("labels", "named", "built"),
    [
        ({VARIANT: CPU_VARIANT}, None, False),
        ({VARIANT: CUDA_VARIANT}, None, True),
        # What the image says goes before what its user says.
        ({VARIANT: CPU_VARIANT}, CUDA_VARIANT, False),
        ({VARIANT: CUDA_VARIANT}, CPU_VARIANT, True),
        # A variant of other pins: its labels say whether there is CUDA in it.
        ({VARIANT: "dropped-cuda", CUDA: "12.6.3"}, CPU_VARIANT, True),
        ({VARIANT: "dropped-cpu"}, CUDA_VARIANT, False),
        ({}, CPU_VARIANT, False),
        ({}, CUDA_VARIANT, True),
        ({}, "unknown", None),
        ({}, None, None),
    ],
)
def test_what_an_image_is_built_for(
    labels: dict[str, str], named: str | None, built: bool | None, real_pins: Pins
) -> None:
    assert gpu_use.built_for_gpu(labels, real_pins, named) is built


@pytest.mark.parametrize(
    ("devices", "any_"),
    [
        (WITH_DEVICES, True),
        (WITHOUT_DEVICES, False),
        ("Available devices:\n", False),
        ("Available devices:\n  BLAS: OpenBLAS (0 MiB, 0 MiB free)\n", False),
        ("Available devices:\n  Vulkan0: AMD RX 7900 (RADV) (24560 MiB, 24000 MiB free)\n", True),
        *(
            (f"Available devices:\n  {cpu} (7000 MiB, 7000 MiB free)\n", False)
            for cpu in (
                "Vulkan0: llvmpipe (LLVM 19.1.7, 256 bits)",
                "Vulkan0: lavapipe",
                "Vulkan1: SwiftShader Device (Subzero)",
                "Vulkan0: Microsoft Basic Render Driver",
                "GPUOpenCL: cpu-haswell-AMD EPYC 9654",
                "SYCL0: Intel(R) Xeon(R) Platinum 8480+",
                "OpenCL0: softpipe",
                "RPC0: 192.168.1.7:50052",
                "ZenDNN: ZenDNN",
            )
        ),
        # One emulated, one real.
        (WITH_DEVICES + "  Vulkan1: llvmpipe (7000 MiB, 7000 MiB free)\n", True),
        ("  warning: x\n  note: no driver\nAvailable devices:\n  (none)\n", False),
        ("Available devices:\n  warning: 3 devices (of 4)\n", False),
        ("error: invalid argument: --list-devices\n", False),
    ],
)
def test_a_list_of_devices(devices: str, any_: bool) -> None:
    assert gpu_use.lists_gpu(devices) is any_


def image_without_gpu(pins: Pins, variant: str, profile: Profile = PROFILE, **env: str) -> str:
    return gpu_use.image_without_gpu(
        None,  # type: ignore[arg-type]  # its engine is never asked: see `machine_with_gpu`
        "sha256:0",
        {VARIANT: variant},
        pins,
        profile,
        env=env,
    )


@pytest.fixture
def machine_with_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "has_gpu", lambda _client: True)
    monkeypatch.setattr(doctor_facts, "find_gpus", lambda: [Gpu("RTX 3090", "570.1", "8.6")])


@pytest.mark.usefixtures("machine_with_gpu")
def test_a_variant_with_cuda_uses_the_gpu(real_pins: Pins) -> None:
    assert image_without_gpu(real_pins, CUDA_VARIANT) == ""


@pytest.mark.usefixtures("machine_with_gpu")
def test_a_cpu_variant_does_not(real_pins: Pins) -> None:
    assert image_without_gpu(real_pins, CPU_VARIANT) == "built for the CPU alone"


def test_without_one_nothing_does(real_pins: Pins, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "has_gpu", lambda _client: False)
    assert image_without_gpu(real_pins, CUDA_VARIANT) == "no GPU here"


KEPT_OFF = [
    (replace(PROFILE, gpu="none"), {}, 'gpu = "none"'),
    (replace(PROFILE, flags=["-ngl", "0"]), {}, "-ngl 0"),
    (replace(PROFILE, flags=["--device", "none"]), {}, "--device none"),
    (replace(PROFILE, env={"LLAMA_ARG_DEVICE": "none"}), {}, "--device none"),
    (PROFILE, {"LLAMA_ARG_DEVICE": "none"}, "--device none"),
    (PROFILE, {"CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES="),
]


@pytest.mark.usefixtures("machine_with_gpu")
@pytest.mark.parametrize(("profile", "env", "why"), KEPT_OFF)
def test_a_profile_may_keep_off_it(
    profile: Profile, env: dict[str, str], why: str, real_pins: Pins
) -> None:
    assert why in image_without_gpu(real_pins, CUDA_VARIANT, profile, **env)


@pytest.mark.usefixtures("machine_with_gpu")
@pytest.mark.parametrize(
    "flags", [["-ngl", "99"], ["-dev", "CUDA0"], ["-cmoe"], ["-ngl", "0", "-ngl", "9"]]
)
def test_whatever_else_it_places_it_is_on_it(flags: list[str], real_pins: Pins) -> None:
    assert image_without_gpu(real_pins, CUDA_VARIANT, replace(PROFILE, flags=flags)) == ""


@pytest.mark.usefixtures("machine_with_gpu")
@pytest.mark.parametrize(
    ("devices", "named", "why"),
    [
        (WITH_DEVICES, None, ""),
        (WITH_DEVICES, CPU_VARIANT, ""),
        (WITHOUT_DEVICES, None, "built for the CPU alone"),
        (WITHOUT_DEVICES, CPU_VARIANT, "built for the CPU alone"),
        # Said to have CUDA: that it sees no GPU is a fault of its own.
        (WITHOUT_DEVICES, CUDA_VARIANT, ""),
    ],
)
def test_a_program_is_asked_what_it_sees(
    devices: str, named: str | None, why: str, real_pins: Pins, tmp_path: Path
) -> None:
    program = tmp_path / "llama-server"
    program.write_text(f"#!/bin/sh\n[ $1 = --list-devices ] && cat <<'END'\n{devices}END\n")
    program.chmod(0o755)
    found = gpu_use.binary_without_gpu(BinaryTarget(program), real_pins, PROFILE, named=named)
    assert found == why


# --- What a smoke makes of it


@pytest.mark.parametrize(("why", "required"), [("", {"kv"}), ("no GPU here", set())])
def test_on_a_gpu_the_kv_type_has_to_be_proven(
    why: str, required: set[str], real_pins: Pins
) -> None:
    case = _case(
        "image",
        real_pins,
        Options(kv=Kv("turbo4", "turbo4")),
        variant=CUDA_VARIANT,
        commit=None,
        without_gpu=lambda _profile: why,
    )
    assert (case.gpu, case.required) == (not why, required)


# --- What a profile places


@pytest.mark.parametrize(
    ("flags", "placed"),
    [
        ([], Placement()),
        (["--top-k", "20"], Placement()),
        (["-ncmoe", "20"], Placement(experts=20, words=("-ncmoe 20",))),
        (["--cpu-moe"], Placement(experts=EVERY, words=("--cpu-moe",))),
        (["-ngl", "30"], Placement(layers=30, words=("-ngl 30",))),
        (["-ngl", "all"], Placement(words=("-ngl all",))),
        (["-ngl", "auto"], Placement(layers=-1, words=("-ngl auto",))),
        (["-nkvo"], Placement(kv=True, words=("-nkvo",))),
        (["-nkvo", "-kvo"], Placement(words=("-nkvo",))),
        (["-ot", "exps=CPU"], Placement(tensors=True, words=("-ot exps=CPU",))),
    ],
)
def test_what_a_profile_places(flags: list[str], placed: Placement) -> None:
    assert placement(replace(PROFILE, flags=flags)) == placed


@pytest.mark.parametrize(
    ("flags", "by_hand"),
    [
        ([], False),
        (["-ngl", "all"], False),
        (["-ncmoe", "0"], False),
        (["-ncmoe", "1"], True),
        (["-ngl", "auto"], True),
        (["-nkvo"], True),
        (["-ot", "exps=CPU"], True),
    ],
)
def test_only_what_stays_on_the_cpu_is_placed_by_hand(flags: list[str], *, by_hand: bool) -> None:
    assert placement(replace(PROFILE, flags=flags)).by_hand is by_hand


def test_a_flag_whose_value_is_missing_places_what_it_may() -> None:
    assert placement(replace(PROFILE, flags=["-ngl"])).layers == -1


def test_the_environment_places_too() -> None:
    env = {"LLAMA_ARG_N_CPU_MOE": "12", "LLAMA_ARG_KV_OFFLOAD": "off"}
    found = placement(replace(PROFILE, env=env))
    assert (found.experts, found.kv) == (12, True)
