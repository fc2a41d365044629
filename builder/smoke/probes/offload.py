"""Does the GPU do the work: layers, KV cache and flash attention on it, and a speed that shows it.

No log of a run on a GPU has been seen. The lines are read in the sources of spiritbuun 1c4788192
and mainline 0c1e57098 (llama-model.cpp, llama-kv-cache.cpp, llama-context.cpp, ggml-cuda.cu), which
write them alike but for the graph's splits; a run of mainline on a CPU had the ones that it has.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from builder.llama.client import OK, Server, post
from builder.llama.placement import EVERY, LAYERS, Placement
from builder.model.finding import Finding, Status, not_asked
from builder.smoke.probes import kv_bytes

PROBE = "offload"

TOKENS = 64
"""How many tokens the speed of decoding is measured over."""

_NOTHING = Placement()

BANDWIDTH = 60e9
"""Bytes a second; see `floor`."""

OVERHEAD_S = 0.010
"""Seconds a token; see `floor`."""

_LAYERS = re.compile(r"offloaded (\d+)/(\d+) layers to GPU")
_FLASH = re.compile(r"flash_attn\s*= (\w+)|Flash Attention was auto, set to (\w+)")
_BUFFER = re.compile(r"(\S+) (model|KV|RS) buffer size =\s*(\d+(?:\.\d+)?) MiB")
_SPLITS = re.compile(r"\bsplits\s*= (\d+)")
_WHY = re.compile(
    r"failed to initialize \w+: .*|no usable GPU found|ggml_cuda_init: no .*|no CUDA-capable .*"
)


def offload(
    log: str,
    *,
    no_gpu: str = "",
    placed: Placement = _NOTHING,
    model_bytes: int,
    decode_tokens_s: float | None,
    memory_mib: float | None,
) -> Finding:
    """Whether a server's log and figures show that a GPU did all the work.

    `log` is one of verbosity 4. `no_gpu` is why the server was to run on none; empty: it was to.
    `placed` is what the profile leaves to the CPU: that is named, and no fault.
    `model_bytes` is the size of the GGUF, `decode_tokens_s` what `decode_speed` gave, `memory_mib`
    what the driver says is in use on all GPUs in MiB (2^20 bytes), None where no driver answers.
    """
    if no_gpu:
        return not_asked(PROBE, f"{no_gpu}: nothing to offload to")
    placed = _really(placed, log)
    split = _splits(log, placed)
    faults = [*_layers(log, placed), *_flash_attention(log), *split.faults]
    faults += [*_buffers(log, placed), *_memory(log, memory_mib)]
    least = floor(model_bytes)
    # What the CPU computes takes its time: the floor is one for a GPU alone.
    if decode_tokens_s is not None and decode_tokens_s < least and not placed.by_hand:
        faults.append(f"{decode_tokens_s:.0f} tokens/s, under the floor")
    open_ = ["the speed of decoding was not measured"] if decode_tokens_s is None else []
    open_ += split.open
    status: Status = "fail" if faults else "unproven" if open_ else "pass"
    rest = f"and at least {least:.0f} tokens/s"
    if placed.by_hand:
        rest = f"but for what the profile leaves to the CPU: {', '.join(placed.words)}"
    good = _good(log, placed, decode_tokens_s, memory_mib)
    return Finding(
        PROBE,
        status,
        expected=f"all layers, KV cache and flash attention on the GPU, {rest}",
        observed="; ".join(faults or [*open_, good]),
    )


def floor(model_bytes: int) -> float:
    """Tokens a second that decoding on a GPU reaches with a model of this size in bytes.

    A dense model's weights are read once a token, so the speed is a memory bandwidth in disguise.
    60 GB/s is above what a CPU with two channels of DDR4-3200 has at best (51 GB/s), and some half
    of what decoding reaches on the slowest card of sm_86 with 8 GB (RTX 3050: 224 GB/s on paper).
    10 ms a token on top are for what does not shrink with the model: kernel launches, sampling,
    HTTP. [inferred, not measured]

    A CPU server with twelve channels, a mixture of experts (which reads a part of its weights), or
    a model of some megabytes gets over this floor without any GPU: it is one piece of evidence
    beside the log's.
    """
    return 1.0 / (model_bytes / BANDWIDTH + OVERHEAD_S)


def decode_speed(server: Server) -> float | None:
    """Tokens a second that the server says it decoded one request at, or None if it does not say.

    The prompt's time is not in it.
    """
    body = {
        "prompt": "Count from one to a hundred: one, two,",
        "n_predict": TOKENS,
        "ignore_eos": True,
        "temperature": 0,
        "cache_prompt": False,
    }
    answer = post(server, "/completion", body)
    count, speed = (answer.at("timings", name) for name in ("predicted_n", "predicted_per_second"))
    # A few tokens say nothing: the first comes with the prompt.
    if answer.status != OK or type(count) is not int or count < TOKENS // 2:
        return None
    if isinstance(speed, bool) or not isinstance(speed, int | float):
        return None
    return float(speed) if math.isfinite(speed) and speed > 0 else None


def _really(placed: Placement, log: str) -> Placement:
    """What is left to the CPU: nothing by a number of layers where all of them were offloaded.

    The number may be as high as they are, or the server's own choice.
    """
    counts = _counts(log)
    if placed.layers is None or not counts:
        return placed
    some_left = any(some < all_ for some, all_ in counts)
    if some_left and placed.layers < max(all_ for _, all_ in counts):
        return placed
    words = tuple(word for word in placed.words if word.split(" ")[0] not in LAYERS)
    return replace(placed, layers=None, words=words)


def _layers(log: str, placed: Placement) -> list[str]:
    """What is wrong with the number of layers. A second line is a draft model's."""
    found = _counts(log)
    wanted = EVERY if placed.layers is None else max(placed.layers, 1)
    if not found:
        why = _WHY.search(log)
        return [f"no layer is on a GPU: a CPU run{f' ({why[0].strip()})' if why else ''}"]
    return [
        f"{some} of {all_} layers offloaded" for some, all_ in found if some < min(all_, wanted)
    ]


def _counts(log: str) -> list[tuple[int, int]]:
    """Layers that were offloaded, and all that there are, the output's among them."""
    return [(int(some), int(all_)) for some, all_ in _LAYERS.findall(log)]


def _flash_attention(log: str) -> list[str]:
    """What is wrong with flash attention as far as the server says: it is off in some context.

    Whether the GPU has a kernel for it is told by the graph: see `_splits`.
    """
    real = [context.text for context in kv_bytes.contexts(log) if not context.dry]
    for text in real or [log]:
        states = [direct or resolved for direct, resolved in _FLASH.findall(text)]
        if not states or states[-1] != "enabled":
            return [f"flash attention {states[-1] if states else 'is not in the log'}"]
    return []


@dataclass(frozen=True, slots=True)
class _Split:
    """What the parts of the graph show: what is wrong, and what they cannot tell."""

    faults: tuple[str, ...] = ()
    open: tuple[str, ...] = ()


def _splits(log: str, placed: Placement) -> _Split:
    """Whether a part of each layer runs on the CPU, unasked.

    Flash attention that the GPU has no kernel for is put on the CPU in silence, and each layer then
    makes two parts more of the graph, which has one or two on a GPU alone. Experts on the CPU make
    two to four more in each layer that leaves them there. [inferred]
    """
    counts = _counts(log)
    layers = max((all_ for _, all_ in counts), default=0)
    splits = max((int(count) for count in _SPLITS.findall(log)), default=0)
    if not layers or placed.kv:
        # Attention runs where the cache lies: on the CPU, as the profile says.
        return _Split()
    shared = min(placed.experts, layers)
    if placed.tensors:
        shared = layers
    elif placed.layers is not None:
        shared = max(shared, *(all_ - some for some, all_ in counts))
    said = f"the graph is split in {splits}: "
    if splits > max(layers, 4) + 4 * shared and not placed.tensors:
        beyond = ", beyond what the profile leaves there" if placed.by_hand else ""
        return _Split(faults=(f"{said}part of each layer runs on the CPU{beyond}",))
    if shared and splits >= 2 * (layers + shared):
        return _Split(open=(f"{said}whether flash attention runs on the CPU too is not told",))
    return _Split()


def _buffers(log: str, placed: Placement) -> list[str]:
    """What is wrong with where the caches lie. Recurrent state (RS) counts as one."""
    sizes = [(name, mib) for name, kind, mib in _sizes(log) if kind in {"KV", "RS"}]
    if not sizes:
        return ["no KV buffer in the log"]
    if placed.kv or placed.layers is not None:
        return []
    return [f"{mib:.2f} MiB of KV cache in {name}" for name, mib in sizes if _on_host(name)]


def _memory(log: str, memory_mib: float | None) -> list[str]:
    """What is wrong with the memory in use: it holds at least the buffers of the log."""
    claimed = sum(mib for name, _, mib in _sizes(log) if not _on_host(name))
    if memory_mib is None or memory_mib >= claimed:
        return []
    return [f"the driver says {memory_mib:.0f} MiB in use, the log has {claimed:.0f} on the GPU"]


def _sizes(log: str) -> Iterator[tuple[str, str, float]]:
    """Buffers that are not empty: name, kind and MiB. A dry run (`--fit on`) has empty ones."""
    for name, kind, mib in _BUFFER.findall(log):
        if float(mib) > 0:
            yield name, kind, float(mib)


def _on_host(buffer: str) -> bool:
    # CPU, CPU_Mapped, CPU_REPACK; CUDA_Host is pinned memory of the host.
    return buffer.startswith("CPU") or buffer.endswith("_Host")


def _good(
    log: str, placed: Placement, decode_tokens_s: float | None, memory_mib: float | None
) -> str:
    layers = ", ".join(f"{some}/{all_}" for some, all_ in _LAYERS.findall(log))
    kv = ", ".join(f"{mib:.2f} MiB in {name}" for name, kind, mib in _sizes(log) if kind != "model")
    speed = "" if decode_tokens_s is None else f"; {decode_tokens_s:.0f} tokens/s"
    memory = "no driver answered" if memory_mib is None else f"{memory_mib:.0f} MiB in use"
    left = ""
    if placed.by_hand:
        splits = max((int(count) for count in _SPLITS.findall(log)), default=0)
        left = f"; to the CPU as the profile says: {', '.join(placed.words)}, {splits} splits"
    return f"{layers} layers, flash attention, KV {kv}{left}{speed}; {memory}"
