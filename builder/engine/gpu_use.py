"""Whether servers run on a GPU: what the machine has, what the program is built for, what is asked.

One answer for the smoke, for `serve` and for what `publish` says of an image. A machine's GPU alone
says nothing: a CPU image on it runs as it does everywhere.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from builder.engine import containers as container
from builder.engine.binary_target import BinaryTarget
from builder.engine.image_target import ImageTarget
from builder.llama.placement import placement
from builder.model.labels import CUDA, VARIANT
from builder.model.pins import Pins, Profile

if TYPE_CHECKING:
    from docker import DockerClient

NONE_HERE = "no GPU here"
BUILT_WITHOUT = "built for the CPU alone"

_LIST = "--list-devices"
_DEVICE = re.compile(
    r"^  (?!BLAS|CPU|RPC|z(?:en)?DNN)[a-z_]+\d*: (.*) \(\d+ MiB, \d+ MiB free\)\r?$",
    re.MULTILINE | re.IGNORECASE,
)
"""A line such as "  CUDA0: NVIDIA GeForce RTX 3090 (24124 MiB, 23000 MiB free)": common/arg.cpp."""

_ON_CPU = re.compile(
    r"llvmpipe|lavapipe|softpipe|swrast|SwiftShader|software rasterizer|Basic Render|\bWARP\b"
    r"|\bpocl\b|^(cpu|pthread|basic)\b|\bCPU\b|\bXeon|\bEPYC\b",
    re.IGNORECASE,
)
"""What drivers call themselves that compute on the CPU: Mesa's, Google's, Microsoft's, PoCL's."""


def built_for_gpu(labels: Mapping[str, str], pins: Pins, named: str | None) -> bool | None:
    """Whether an image with these labels has code for a GPU; None: neither they nor `named` tell.

    The variant on the label decides, as the pins have it. `named` is the variant that a user names.
    """
    variant = labels.get(VARIANT)
    if variant in pins.variants:
        return bool(pins.variants[variant].architectures)
    if variant:
        return bool(labels.get(CUDA))
    if named in pins.variants:
        return bool(pins.variants[named].architectures)
    return None


def image_without_gpu(
    client: "DockerClient",
    image_id: str,
    labels: Mapping[str, str],
    pins: Pins,
    profile: Profile,
    *,
    named: str | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Why servers of an image run on no GPU; empty when they do.

    An image of no known variant is asked which devices it sees. Raises EngineError.
    """
    if why := placement(profile, env).off:
        return why
    if not container.has_gpu(client):
        return NONE_HERE
    built = built_for_gpu(labels, pins, named)
    if built is None:
        target = ImageTarget(image_id, image_id, client, env or {})
        built = lists_gpu(target.output(_LIST))
    return "" if built else BUILT_WITHOUT


def binary_without_gpu(
    target: BinaryTarget,
    pins: Pins,
    profile: Profile,
    *,
    named: str | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Why servers of a program run on no GPU; empty when they do.

    One that the user calls a variant with CUDA has to use it; else it is asked which devices it
    sees. Raises UsageError when the program cannot be run.
    """
    from builder.engine import facts as doctor_facts

    if why := placement(profile, env).off:
        return why
    if not isinstance(doctor_facts.find_gpus(), list):
        return NONE_HERE
    if built_for_gpu({}, pins, named) or lists_gpu(target.output(_LIST)):
        return ""
    return BUILT_WITHOUT


def lists_gpu(devices: str) -> bool:
    """Whether what `--list-devices` prints names a GPU; one that a CPU emulates is none."""
    return any(not _ON_CPU.search(name) for name in _DEVICE.findall(devices))
