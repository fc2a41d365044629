"""The offload probe over logs.

CPU_LOG is copied from a run of mainline 0c1e57098. GPU_LOG was never run: it is written after the
sources' format strings, with the sizes that the same model would have.
"""

import pytest

from builder.llama.placement import Placement, placement
from builder.model.finding import Finding
from builder.model.pins import Profile
from builder.smoke.probes.offload import floor, offload

CPU_LOG = """\
0.00.003.864 I load_backend: loaded CPU backend from /opt/llama/libggml-cpu.so
0.00.014.396 I load_tensors: loading model tensors, this can take a while... (load_mode = mmap)
0.00.016.655 I load_tensors:   CPU_Mapped model buffer size =     9.27 MiB
0.00.017.096 I llama_context: flash_attn            = enabled
0.00.017.148 I llama_context:        CPU  output buffer size =     0.00 MiB
0.00.017.677 I llama_kv_cache:        CPU KV buffer size =     9.00 MiB
0.00.026.548 I sched_reserve:        CPU compute buffer size =     6.09 MiB
0.00.026.591 I sched_reserve: graph: nodes = 366, splits = 1, input objects = 4, input tensors = 8
"""

GPU_LOG = """\
ggml_cuda_init: found 1 CUDA devices (Total VRAM: 24124 MiB):
load_tensors: offloading output layer to GPU
load_tensors: offloading 7 repeating layers to GPU
load_tensors: offloaded 9/9 layers to GPU
load_tensors:   CPU_Mapped model buffer size =     0.13 MiB
load_tensors:        CUDA0 model buffer size =     9.27 MiB
llama_context: flash_attn    = enabled
llama_context:  CUDA_Host  output buffer size =     0.01 MiB
llama_kv_cache:      CUDA0 KV buffer size =     8.38 MiB
sched_reserve:      CUDA0 compute buffer size =     6.09 MiB
sched_reserve:  CUDA_Host compute buffer size =     4.51 MiB
sched_reserve: graph splits = 2
"""

MODEL_BYTES = 9_735_000


def judged(log: str = GPU_LOG, **measured: object) -> Finding:
    good = {"model_bytes": MODEL_BYTES, "decode_tokens_s": 900.0, "memory_mib": 420.0}
    return offload(log, **{**good, **measured})  # type: ignore[arg-type]


def gpu_log(old: str, new: str) -> str:
    assert old in GPU_LOG
    return GPU_LOG.replace(old, new)


def test_a_gpu_that_does_all_the_work_passes() -> None:
    found = judged()
    assert (found.probe, found.status) == ("offload", "pass")
    assert "9/9 layers" in found.observed
    assert "8.38 MiB in CUDA0" in found.observed


def test_without_a_gpu_nothing_is_proven() -> None:
    found = judged(CPU_LOG, no_gpu="no GPU here")
    assert found.status == "unproven"
    assert "no GPU here: nothing to offload to" in found.observed


@pytest.mark.parametrize(
    ("log", "observed"),
    [
        (CPU_LOG, "no layer is on a GPU: a CPU run; 9.00 MiB of KV cache in CPU"),
        ("", "no layer is on a GPU: a CPU run; flash attention is not in the log; no KV buffer"),
        (
            "ggml_cuda_init: failed to initialize CUDA: forward compatibility was attempted\n"
            + CPU_LOG,
            "no layer is on a GPU: a CPU run (failed to initialize CUDA: forward compat",
        ),
        (gpu_log("offloaded 9/9", "offloaded 8/9"), "8 of 9 layers offloaded"),
        (gpu_log("offloaded 9/9", "offloaded 0/9"), "0 of 9 layers offloaded"),
        (
            GPU_LOG + "load_tensors: offloaded 2/5 layers to GPU\n",
            "2 of 5 layers offloaded",
        ),
        (gpu_log("= enabled", "= disabled"), "flash attention disabled"),
        (gpu_log("= enabled", "= auto"), "flash attention auto"),
        (
            gpu_log("= enabled", "= auto") + "llama_context: Flash Attention was auto, set to "
            "disabled\n",
            "flash attention disabled",
        ),
        (gpu_log("graph splits = 2", "graph splits = 17"), "the graph is split in 17"),
        (
            gpu_log("graph splits = 2", "graph: nodes = 366, splits = 17, input objects = 4"),
            "the graph is split in 17",
        ),
        (gpu_log("CUDA0 KV", "CPU KV"), "8.38 MiB of KV cache in CPU"),
        (gpu_log("CUDA0 KV", "CUDA_Host KV"), "8.38 MiB of KV cache in CUDA_Host"),
        (
            GPU_LOG + "llama_kv_cache:        CPU KV buffer size =     1.06 MiB\n",
            "1.06 MiB of KV cache in CPU",
        ),
    ],
)
def test_offload_fails(log: str, observed: str) -> None:
    found = judged(log)
    assert found.status == "fail"
    assert found.observed.startswith(observed)


def moe_log(splits: int, offloaded: int = 49) -> str:
    """The log of a model of 48 layers."""
    log = gpu_log("offloaded 9/9", f"offloaded {offloaded}/49")
    return log.replace("graph splits = 2", f"graph splits = {splits}")


@pytest.mark.parametrize("flags", [["-ngl", "99"], ["-ngl", "49"], ["-ngl", "-1"]])
def test_as_many_layers_as_there_are_leave_nothing_to_the_cpu(flags: list[str]) -> None:
    every = placed(*flags)
    assert judged(moe_log(2), placed=every).status == "pass"
    assert judged(moe_log(2), placed=every).expected == judged(moe_log(2)).expected
    on_host = judged(moe_log(2).replace("CUDA0 KV", "CPU KV"), placed=every)
    assert on_host.observed.startswith("8.38 MiB of KV cache in CPU")
    assert judged(moe_log(2), placed=every, decode_tokens_s=1.0).status == "fail"
    experts = judged(moe_log(98), placed=placed(*flags, "--cpu-moe"), decode_tokens_s=1.0)
    assert (experts.status, "leaves to the CPU: --cpu-moe" in experts.expected) == ("pass", True)


SIZE = (
    "llama_kv_cache: size =    8.38 MiB (  2048 cells,   8 layers,  2/2 seqs), "
    "K (f16):    4.19 MiB, V (f16):    4.19 MiB\n"
)


def context(buffer_mib: str, flash: str) -> str:
    return (
        f"constructing llama_context\nllama_context: flash_attn    = {flash}\n"
        f"llama_kv_cache:      CUDA0 KV buffer size =     {buffer_mib} MiB\n{SIZE}"
    )


@pytest.mark.parametrize(
    ("contexts", "status"),
    [
        ([("8.38", "disabled"), ("8.38", "enabled")], "fail"),
        ([("8.38", "enabled"), ("8.38", "disabled")], "fail"),
        ([("8.38", "enabled"), ("8.38", "enabled")], "pass"),
        # A dry run of `--fit`.
        ([("0.00", "auto"), ("8.38", "enabled")], "pass"),
    ],
)
def test_each_contexts_flash_attention_counts(contexts: list[tuple[str, str]], status: str) -> None:
    log = gpu_log("llama_context: flash_attn    = enabled\n", "")
    assert judged(log + "".join(context(*each) for each in contexts)).status == status


def placed(*flags: str) -> Placement:
    return placement(Profile("a", 1, 512, flags=list(flags)))


@pytest.mark.parametrize(
    ("flags", "log"),
    [
        # As `fit` advises for a mixture that is larger than its card.
        (["-ncmoe", "20"], moe_log(82)),
        (["-ncmoe", "20"], moe_log(42)),
        (["--cpu-moe"], moe_log(98)),
        (["-ot", r"\.ffn_.*_exps\.=CPU"], moe_log(98)),
        (["-ngl", "40"], moe_log(4, offloaded=40)),
        (["-ngl", "40"], moe_log(4, offloaded=40).replace("CUDA0 KV", "CPU KV")),
        (["-nkvo"], moe_log(98).replace("CUDA0 KV", "CPU KV")),
    ],
)
def test_what_the_profile_leaves_to_the_cpu_is_named_and_no_fault(
    flags: list[str], log: str
) -> None:
    found = judged(log, placed=placed(*flags), decode_tokens_s=1.0)
    assert found.status == "pass"
    assert f"as the profile says: {' '.join(flags)}" in found.observed
    assert f"leaves to the CPU: {' '.join(flags)}" in found.expected


@pytest.mark.parametrize(
    ("flags", "log", "observed"),
    [
        ([], moe_log(82), "the graph is split in 82"),
        (["--top-k", "20"], moe_log(82), "the graph is split in 82"),
        (["-ncmoe", "2"], moe_log(82), "the graph is split in 82"),
        # Flash attention of every layer on the CPU as well.
        (["-ncmoe", "20"], moe_log(138), "the graph is split in 138"),
        (["-ncmoe", "20"], moe_log(82, offloaded=48), "48 of 49 layers offloaded"),
        (["-ncmoe", "20"], moe_log(82).replace("CUDA0 KV", "CPU KV"), "8.38 MiB of KV cache in"),
        (["-ngl", "40"], moe_log(4, offloaded=39), "39 of 49 layers offloaded"),
        (["-ngl", "auto"], moe_log(4, offloaded=0), "0 of 49 layers offloaded"),
    ],
)
def test_what_it_does_not_leave_there_is_a_fault_still(
    flags: list[str], log: str, observed: str
) -> None:
    found = judged(log, placed=placed(*flags))
    assert found.status == "fail"
    assert found.observed.startswith(observed)


@pytest.mark.parametrize(
    ("flags", "layers", "most"),
    [([], 49, 49), ([], 2, 4), (["-ncmoe", "2"], 49, 57), (["-ncmoe", "20"], 49, 129)],
)
def test_a_graph_may_have_so_many_parts_and_no_more(
    flags: list[str], layers: int, most: int
) -> None:
    def status(splits: int) -> str:
        log = moe_log(splits).replace("offloaded 49/49", f"offloaded {layers}/{layers}")
        return judged(log, placed=placed(*flags)).status

    assert [status(most), status(most + 1)] == ["pass", "fail"]


def test_parts_beyond_what_the_profile_leaves_are_named_so() -> None:
    found = judged(moe_log(82), placed=placed("-ncmoe", "2"))
    assert found.observed.endswith("runs on the CPU, beyond what the profile leaves there")
    assert judged(moe_log(82)).observed.endswith("part of each layer runs on the CPU")


def test_a_number_of_layers_that_the_server_chooses_is_one_at_least() -> None:
    assert judged(moe_log(2, offloaded=1), placed=placed("-ngl", "auto")).status == "pass"


def test_a_small_cache_on_the_cpu_is_one_too() -> None:
    small = "llama_kv_cache:        CPU KV buffer size =     0.50 MiB\n"
    assert judged(GPU_LOG + small).observed == "0.50 MiB of KV cache in CPU"


@pytest.mark.parametrize("flags", [["--cpu-moe"], ["-ot", "exps=CPU"]])
def test_a_graph_that_does_not_tell_where_flash_attention_runs_proves_nothing(
    flags: list[str],
) -> None:
    found = judged(moe_log(198), placed=placed(*flags))
    assert found.status == "unproven"
    assert "whether flash attention runs on the CPU too is not told" in found.observed


def test_flash_attention_that_resolved_itself_is_on() -> None:
    log = gpu_log("= enabled", "= auto")
    assert (
        judged(log + "sched_reserve: Flash Attention was auto, set to enabled\n").status == "pass"
    )


def test_the_empty_buffers_of_a_dry_run_count_for_nothing() -> None:
    dry = "llama_kv_cache:        CPU KV buffer size =     0.00 MiB\n"
    assert judged(dry + GPU_LOG).status == "pass"


def test_a_speed_under_the_floor_fails() -> None:
    found = judged(decode_tokens_s=floor(MODEL_BYTES) - 1)
    assert found.status == "fail"
    assert "under the floor" in found.observed


def test_a_speed_that_nobody_measured_is_unproven() -> None:
    found = judged(decode_tokens_s=None)
    assert found.status == "unproven"
    assert "the speed of decoding was not measured" in found.observed


def test_memory_that_the_driver_does_not_see_fails() -> None:
    found = judged(memory_mib=3.0)
    assert found.status == "fail"
    assert found.observed == "the driver says 3 MiB in use, the log has 18 on the GPU"


def test_without_a_driver_that_answers_memory_is_not_judged() -> None:
    found = judged(memory_mib=None)
    assert found.status == "pass"
    assert "no driver answered" in found.observed


@pytest.mark.parametrize(
    ("gigabytes", "low", "high"), [(0.01, 90, 100), (1, 30, 40), (5, 9, 12), (20, 2.5, 3.0)]
)
def test_the_floor_falls_with_the_size_of_the_model(
    gigabytes: float, low: float, high: float
) -> None:
    assert low < floor(int(gigabytes * 1e9)) < high


def test_a_garbled_size_is_no_size() -> None:
    assert judged(gpu_log("8.38 MiB", "8.3.8 MiB")).observed == "no KV buffer in the log"
    assert judged(GPU_LOG + SIZE.replace("4.19", "4.1.9")).status == "pass"
