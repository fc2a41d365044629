"""What llama-server's log says of why it ended, in words of somebody who wants to serve.

Each text was printed by mainline 0c1e57098 but where another source is named.
"""

import re
from dataclasses import dataclass

from builder.llama import readiness
from builder.llama.readiness import Phase, Wait

_SHOWN = 5
_PREFIX = re.compile(r"^[\d.]+ [A-Z] ")
_EMPTY = re.compile(r"failed to load model|failed to create.context|exiting due|cleaning up")


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a server did not come up, what it said itself, and what to do."""

    what: str
    words: str
    hint: str


_KNOWN: tuple[tuple[str, str, str], ...] = (
    (
        r"data is not within the file bounds",
        "the model file is cut short",
        "download or copy it again, and compare its size",
    ),
    (
        r"failed to read key-value pairs|failed to read tensor info|invalid magic",
        "the model file is no whole GGUF",
        "download or copy it again, and compare its size",
    ),
    (
        r"unknown model architecture: '(?P<name>[^']+)'",
        "this commit knows no model of architecture {name}",
        "take an image of a newer commit, or another model",
    ),
    (
        r"(?P<half>[KV]) cache type (?P<type>\S+) with block size (?P<block>\d+) does not divide "
        r"n_embd_head_[kv]=(?P<size>\d+)",
        "the model has heads of {size} values, and {type} packs {block} at a time: {half} cannot "
        "be held as it",
        "give the profile a type that packs fewer, q8_0 (32) or f16 (1); `builder fit` lists what "
        "suits",
    ),
    (
        r"quantized V cache requires flash_attn|V cache quantization requires flash_attn",
        "V can be held as this type with flash attention only, and the profile turns it off",
        "take `-fa` out of the profile's flags",
    ),
    (
        r"Unsupported cache type: (?P<name>\S+)",
        "this commit has no KV type {name}",
        "give the profile another type, or name an image of a fork that has it",
    ),
    (
        r"invalid argument: (?P<name>\S+)",
        "this commit knows no flag {name}",
        "take it out of the profile's flags; `docker run --rm IMAGE --help` lists what there is",
    ),
    (
        r'error while handling argument "(?P<name>[^"]+)"',
        "the value of {name} is none that this commit takes",
        "correct it in the profile",
    ),
    (
        # ggml-cuda.cu, at the same commit: no card was at hand.
        r"cudaMalloc failed: out of memory|unable to allocate CUDA\d* buffer",
        "the card has not the memory for it",
        "`builder fit --model PATH` says what fits; `nvidia-smi` who else is on the card",
    ),
    (
        r"unable to allocate \S+ buffer|failed to allocate buffer|std::bad_alloc",
        "the machine has not the memory for it",
        "a smaller model, fewer slots or less context",
    ),
    (
        r"error while loading shared libraries: (?P<name>[^:]+)",
        "the image lacks {name}",
        "`builder audit IMAGE`; libcuda.so.1 comes with the machine's NVIDIA driver",
    ),
    (
        r"couldn't bind|bind HTTP server socket",
        "the port that it listens on inside the container is not free there",
        "take LLAMA_ARG_ variables and ports out of the image",
    ),
)

_MEMORY = (
    "the machine's memory, or the container's limit, is too small for the model and its context"
)
_KILLED = 137


def reason(wait: Wait, log: str) -> Reason:
    """Why a server that is over, and not ready, never got ready; `log` is all that it wrote."""
    if wait.last.out_of_memory:
        hint = "a smaller model, fewer slots or less context, or a higher --memory"
        return Reason("the kernel killed it for want of memory", _MEMORY, hint)
    for pattern, what, hint in _KNOWN:
        if found := re.search(pattern, log):
            return Reason(what.format(**found.groupdict()), _line(log, found.start()), hint)
    if wait.phase is Phase.TIMED_OUT:
        seconds = f"{wait.timeout_s:.0f} s"
        what = f"it was {'still loading' if wait.loading_seen else 'not answering'} after {seconds}"
        return Reason(what, _end(log), "give it longer: --timeout S")
    if wait.last.exit_code == _KILLED:
        hint = "`dmesg` names what was killed; a smaller model, fewer slots or less context"
        return Reason("it was killed, as the kernel does for want of memory", _end(log), hint)
    how = readiness.ending(wait.last.exit_code, out_of_memory=False)
    return Reason(f"it ended by itself: {how}", _end(log), "the log tells all that it said")


def _line(log: str, at: int) -> str:
    """The line of the log around a place, without time and level."""
    start = log.rfind("\n", 0, at) + 1
    end = log.find("\n", at)
    return _PREFIX.sub("", log[start : end if end >= 0 else None]).strip()


def _end(log: str) -> str:
    """The last lines that say something."""
    lines = [_PREFIX.sub("", line).strip() for line in log.splitlines()]
    telling = [line for line in lines if line and not _EMPTY.search(line)]
    return "\n".join(telling[-_SHOWN:])
