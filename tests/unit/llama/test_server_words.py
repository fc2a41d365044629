"""Why a server did not come up, from what it wrote."""

import pytest

from builder.llama.readiness import Observation, Phase, Wait
from builder.llama.startup_errors import reason

EXITED = Wait(60.0, Phase.EXITED, last=Observation(1.0, "silent", running=False, exit_code=1))
TIMED_OUT = Wait(60.0, Phase.TIMED_OUT, loading_seen=True, last=Observation(60.0, "loading"))

# As servers printed them; those of cards and of turbo4 are read in the sources.
SAID = {
    "0.00.08 E llama_model_load: error loading model: tensor 'blk.3.ffn_down.weight' data is not "
    "within the file bounds, model is corrupted or incomplete": "the model file is cut short",
    "0.00.07 E gguf_init_from_reader: failed to read key-value pairs": "no whole GGUF",
    "0.00.06 E llama_model_load: error loading model: unknown model architecture: 'llamx'": (
        "knows no model of architecture llamx"
    ),
    "llama_init_from_model: K cache type turbo4 with block size 128 does not divide "
    "n_embd_head_k=64": "heads of 64 values, and turbo4 packs 128 at a time: K cannot be held",
    "0.00.19 E llama_init_from_model: quantized V cache requires flash_attn to be enabled": (
        "with flash attention only"
    ),
    'error while handling argument "-ctk": Unsupported cache type: turbo4': "no KV type turbo4",
    "error: invalid argument: --nix": "knows no flag --nix",
    'error while handling argument "--top-k": stoi': "the value of --top-k is none",
    "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 512.00 MiB on device 0: cudaMalloc "
    "failed: out of memory": "the card has not the memory",
    "llama-server: error while loading shared libraries: libcuda.so.1: cannot open shared object "
    "file: No such file or directory": "the image lacks libcuda.so.1",
}


@pytest.mark.parametrize("line", SAID)
def test_the_line_that_tells_is_translated_and_quoted(line: str):
    log = f"0.00.01 I srv: loading\n{line}\n0.00.09 E srv  llama_server: exiting due to model"
    found = reason(EXITED, log)
    assert SAID[line] in found.what
    assert found.words in line
    assert found.hint


def test_the_kernels_kill_comes_before_anything_that_was_said():
    killed = Observation(1.0, "silent", running=False, exit_code=137, out_of_memory=True)
    found = reason(Wait(60.0, Phase.EXITED, last=killed), "error: invalid argument: --nix")
    assert found.what == "the kernel killed it for want of memory"


def test_a_kill_without_a_mark_is_told_with_a_doubt():
    killed = Observation(1.0, "silent", running=False, exit_code=137)
    found = reason(Wait(60.0, Phase.EXITED, last=killed), "loading")
    assert found.what == "it was killed, as the kernel does for want of memory"


def test_what_loads_too_long_is_told_where_it_stood():
    assert reason(TIMED_OUT, "loading").what == "it was still loading after 60 s"


def test_words_that_nobody_knows_are_quoted_from_the_end():
    log = "\n".join(["one", "two", "0.00.01 E three", "E srv load_model: failed to load model"])
    found = reason(EXITED, log)
    assert found.what == "it ended by itself: exit code 1"
    assert found.words == "one\ntwo\nthree"
