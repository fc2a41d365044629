"""What a profile's own words leave to the CPU: layers, experts, tensors, the KV cache, all of it.

Flags and variables are llama.cpp's, read at ggml-org 0c1e57098 (common/arg.cpp). Pure.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from builder.model.pins import Profile

LAYERS = ("-ngl", "--gpu-layers", "--n-gpu-layers")
DEVICE = ("-dev", "--device")
ALL_EXPERTS = ("-cmoe", "--cpu-moe")
SOME_EXPERTS = ("-ncmoe", "--n-cpu-moe")
EXPERTS = (*ALL_EXPERTS, *SOME_EXPERTS)
TENSORS = ("-ot", "--override-tensor", "-ncffn", "--n-cpu-ffn")
KV_ON_HOST = ("-nkvo", "--no-kv-offload")
KV_ON_CARD = ("-kvo", "--kv-offload")

EVERY = 10_000
"""More layers than any model has: llama.cpp takes 512."""

_WITH_VALUE = (*LAYERS, *DEVICE, *SOME_EXPERTS, *TENSORS)
_VARIABLES = {
    "LLAMA_ARG_DEVICE": "--device",
    "LLAMA_ARG_N_CPU_MOE": "--n-cpu-moe",
    "LLAMA_ARG_OVERRIDE_TENSOR": "--override-tensor",
    "LLAMA_ARG_N_CPU_FFN": "--n-cpu-ffn",
}
"""llama.cpp's variables for the flags above. The number of layers is not among them: it is always
passed as a flag, which goes before."""

_ON = {"on", "enabled", "true", "1"}
_OFF = {"off", "disabled", "false", "0"}
_HIDDEN = {"CUDA_VISIBLE_DEVICES": {"", "-1"}, "NVIDIA_VISIBLE_DEVICES": {"", "none", "void"}}


@dataclass(frozen=True, slots=True)
class Placement:
    """What may lie elsewhere than on a GPU because the profile says so.

    `layers` is how many go to the GPU: None for all of them, -1 where the server is to choose.
    `experts` is of how many layers they stay on the CPU, EVERY for `-cmoe`. `tensors`: some were
    placed by name. `kv`: the cache stays on the CPU. `words` are the flags that say all this.
    `off` is why nothing runs on a GPU at all, empty otherwise.
    """

    layers: int | None = None
    experts: int = 0
    tensors: bool = False
    kv: bool = False
    words: tuple[str, ...] = ()
    off: str = ""

    @property
    def by_hand(self) -> bool:
        """Whether anything stays on the CPU."""
        return self.layers is not None or self.experts > 0 or self.tensors or self.kv


def placement(profile: Profile, env: Mapping[str, str] | None = None) -> Placement:
    """What a profile places, in its flags and its environment. `env` is added to the profile's.

    Of two words that say the same the later one counts, and flags before the environment.
    """
    variables = {**profile.env, **(env or {})}
    said = [*_from_environment(variables), *_pairs(profile.flags)]
    layers: int | None = None
    experts, tensors, kv, device = 0, False, False, ""
    for flag, value in said:
        if flag in LAYERS:
            layers = _layers(value)
        elif flag in DEVICE:
            device = value
        elif flag in EXPERTS:
            experts = EVERY if flag in ALL_EXPERTS else _number(value, EVERY)
        elif flag in TENSORS:
            tensors = True
        elif flag in KV_ON_HOST + KV_ON_CARD:
            kv = flag in KV_ON_HOST
    words = tuple(f"{flag} {value}".strip() for flag, value in said if flag not in KV_ON_CARD)
    return Placement(layers, experts, tensors, kv, words, _off(profile, layers, device, variables))


def _off(profile: Profile, layers: int | None, device: str, env: Mapping[str, str]) -> str:
    if profile.gpu == "none":
        return 'the profile says gpu = "none"'
    if layers == 0:
        return "the profile keeps every layer on the CPU (-ngl 0)"
    if device == "none":
        return "the profile offers no device (--device none)"
    hidden = (f"{name}={env[name]}" for name, values in _HIDDEN.items() if env.get(name) in values)
    return next((f"the environment hides it ({one})" for one in hidden), "")


def _pairs(flags: list[str]) -> Iterator[tuple[str, str]]:
    """The flags that place something, each with its value, empty for one that takes none."""
    for index, flag in enumerate(flags):
        if flag in _WITH_VALUE:
            yield flag, flags[index + 1] if index + 1 < len(flags) else ""
        elif flag in ALL_EXPERTS + KV_ON_HOST + KV_ON_CARD:
            yield flag, ""


def _from_environment(env: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, flag in _VARIABLES.items():
        if name in env:
            yield flag, env[name]
    if env.get("LLAMA_ARG_CPU_MOE", "").lower() in _ON:
        yield "--cpu-moe", ""
    on_host = env.get("LLAMA_ARG_KV_OFFLOAD", "").lower() in _OFF
    if on_host or "LLAMA_ARG_NO_KV_OFFLOAD" in env:
        yield "--no-kv-offload", ""


def _layers(value: str) -> int | None:
    return None if value == "all" else _number(value, -1)


def _number(value: str, otherwise: int) -> int:
    return int(value) if value.isdecimal() else otherwise
