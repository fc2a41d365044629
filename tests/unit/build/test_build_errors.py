"""Which line of a failed build's output is told: the true first error, and no other."""

import pytest

from builder.build.failures import Cause, cause

# The lines of real compilers: the parents of fixes of the spiritbuun fork, CUDA 12.4 and gcc 13.
# Command lines are cut, and what the compilers quote of the source is left out.
FORKS = {
    "14bf515f3": (
        """\
[1/1] Building CUDA object ggml/src/ggml-cuda/CMakeFiles/ggml-cuda.dir/set-rows.cu.o
FAILED: ggml/src/ggml-cuda/CMakeFiles/ggml-cuda.dir/set-rows.cu.o
/usr/bin/nvcc -forward-unknown-to-host-compiler -ccbin=g++-13 -c /src/ggml/src/ggml-cuda/set-rows.cu
/src/ggml/src/ggml-cuda/turbo-quant-cuda.cuh(774): error: identifier "d_tcq_norm_alpha" is undefined

1 error detected in the compilation of "/src/ggml/src/ggml-cuda/set-rows.cu".
ninja: build stopped: subcommand failed.
""",
        Cause(
            "/src/ggml/src/ggml-cuda/turbo-quant-cuda.cuh(774): error: "
            'identifier "d_tcq_norm_alpha" is undefined',
            "source",
            "ggml/src/ggml-cuda/turbo-quant-cuda.cuh:774",
        ),
    ),
    "a60bc4c40": (
        """\
FAILED: ggml/src/ggml-cuda/CMakeFiles/ggml-cuda.dir/fattn.cu.o
/usr/bin/nvcc -forward-unknown-to-host-compiler -ccbin=g++-13 -c /src/ggml/src/ggml-cuda/fattn.cu
/src/ggml/src/ggml-cuda/fattn.cu(933): error: case label value has already appeared in this switch \
at line 928

1 error detected in the compilation of "/src/ggml/src/ggml-cuda/fattn.cu".
ninja: build stopped: subcommand failed.
""",
        Cause(
            "/src/ggml/src/ggml-cuda/fattn.cu(933): error: case label value has already appeared "
            "in this switch at line 928",
            "source",
            "ggml/src/ggml-cuda/fattn.cu:933",
        ),
    ),
    "e1cf4bf52": (
        """\
FAILED: ggml/src/CMakeFiles/ggml-base.dir/ggml.c.o
/usr/bin/gcc-13 -Werror=implicit-int -Werror=implicit-function-declaration -c /src/ggml/src/ggml.c
In file included from /src/ggml/src/ggml.c:23:
/src/ggml/src/ggml.c:1103:1: error: static assertion failed: "GGML_OP_COUNT != 97"
      | ^~~~~~~~~~~~~
/src/ggml/src/ggml.c:1214:1: error: static assertion failed: "GGML_OP_COUNT != 97"
      | ^~~~~~~~~~~~~
ninja: build stopped: subcommand failed.
""",
        Cause(
            '/src/ggml/src/ggml.c:1103:1: error: static assertion failed: "GGML_OP_COUNT != 97"',
            "source",
            "ggml/src/ggml.c:1103",
        ),
    ),
    "162e3c135": (
        """\
FAILED: src/CMakeFiles/llama.dir/models/qwen35moe.cpp.o
/usr/bin/g++-13 -Wall -Wextra -c /src/src/models/qwen35moe.cpp
/src/src/models/qwen35moe.cpp: In member function 'ggml_tensor* build_layer_attn_linear(int)':
/src/src/models/qwen35moe.cpp:348:38: error: invalid use of incomplete type 'struct dflash_tape_gpu'
In file included from /src/src/./llama-batch.h:5,
                 from /src/src/./llama-graph.h:4,
/src/src/./llama-cparams.h:8:8: note: forward declaration of 'struct dflash_tape_gpu'
/src/src/models/qwen35moe.cpp:349:21: error: invalid use of incomplete type 'struct dflash_tape_gpu'
ninja: build stopped: subcommand failed.
""",
        Cause(
            "/src/src/models/qwen35moe.cpp:348:38: error: invalid use of incomplete type "
            "'struct dflash_tape_gpu'",
            "source",
            "src/models/qwen35moe.cpp:348",
        ),
    ),
    "aecbbd5da": (
        """\
FAILED: ggml/src/ggml-cuda/CMakeFiles/ggml-cuda.dir/fattn.cu.o
/usr/bin/nvcc "--generate-code=arch=compute_50,code=[compute_50]" -c fattn.cu
/src/ggml/src/ggml-cuda/fattn.cu(911): error: no instance of overloaded function "atomicAdd" \
matches the argument list
            argument types are: (double *, double)
/usr/include/sm_20_atomic_functions.hpp(82): note #3326-D: function "atomicAdd(float *, float)" \
does not match because argument #1 does not match parameter

1 error detected in the compilation of "/src/ggml/src/ggml-cuda/fattn.cu".
ninja: build stopped: subcommand failed.
""",
        Cause(
            '/src/ggml/src/ggml-cuda/fattn.cu(911): error: no instance of overloaded function "'
            'atomicAdd" matches the argument list',
            "source",
            "ggml/src/ggml-cuda/fattn.cu:911",
        ),
    ),
}


@pytest.mark.parametrize("fix", FORKS)
def test_the_fork_commits_that_do_not_build_tell_why(fix):
    output, expected = FORKS[fix]
    assert cause(output.splitlines()) == expected


def failed(*words: str, made: str = "CMakeFiles/x.dir/a.cu.o", command: str = "cc") -> list[str]:
    """What ninja prints of a command that failed, between what others print."""
    return [
        "/src/b.cpp:1:2: warning: unused variable 'b' [-Wunused-variable]",
        f"FAILED: {made} ",
        command,
        *words,
        "[3/9] Building CXX object CMakeFiles/x.dir/c.cpp.o",
        "/src/c.cpp:7:7: error: told by a command that failed later",
        "ninja: build stopped: subcommand failed.",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "/src/a.cpp:1:2: fatal error: ggml.h: No such file or directory",
        "/src/a.cpp:1:2: internal compiler error: in build_over_call, at cp/call.cc:9",
        "/src/a.cu(3): error: identifier x is undefined",
        "/src/a.cu(3): error #20011-D: calling a __host__ function from a __device__ one",
        '/src/a.cu(1): catastrophic error: cannot open source file "x.h"',
        "ptxas error   : Entry function 'k' uses too much shared data (0x1c000 bytes, 0xc000 max)",
        "ptxas /tmp/x.ptx, line 12; error   : Feature 'mma' requires .target sm_80 or higher",
        "ptxas fatal   : Unresolved extern function 'f'",
        "nvlink error   : Undefined reference to 'f' in 'a.cu.o'",
        "nvcc error   : 'ptxas' died due to signal 11 (Invalid memory reference)",
        "nvcc fatal   : Unsupported gpu architecture 'compute_120'",
        "/tmp/ccx.s:12: Error: no such instruction: `vpdpbusd'",
        "/usr/bin/ld: a.o: undefined reference to `cuInit'",
        "a.cpp:(.text+0x5): undefined reference to `f'",
        "/usr/bin/ld: cannot find -lcuda: No such file or directory",
        "ld.lld: error: undefined symbol: f",
        "collect2: error: ld returned 1 exit status",
        "g++-13: fatal error: cannot execute 'cc1plus': execvp: No such file or directory",
        "cc1plus: error: unrecognized command-line option '-mx'",
        "E: Unable to locate package nvidia-cuda-dev",
        "error: nvcc of this devel image does not compile for 120",
        "ninja: error: loading 'build.ninja': No such file or directory",
    ],
)
def test_an_error_of_every_tool_is_known(line):
    output = failed(
        "  quoted", line, "collect2: error: ld returned 1 exit status", "a.c:1:1: error: x"
    )
    assert cause(output).text == line


@pytest.mark.parametrize(
    "line",
    [
        "[9/9] Building CXX object CMakeFiles/x.dir/error.cpp.o",
        "g++ -Werror=format -DTEXT='a: error: b' -o error.cpp.o -c /src/error.cpp",
        "/src/a.cpp:1:2: warning: 'error' is deprecated: error: see b [-Wdeprecated]",
        '/src/a.cu(12): warning #177-D: variable "error" was declared but never referenced',
        "/src/a.cpp:1:2: note: candidate: 'void error(int)'",
        '   12 |     throw std::runtime_error("fatal error: x");',
        '      GGML_LOG_ERROR("error: %s\\n", x);',
        "In file included from /src/error.h:5,",
        "/usr/bin/ld: warning: a.o: undefined reference to `f'",
        "/usr/bin/ld: a.o: in function `error':",
        "cc1plus: some warnings being treated as errors",
        '1 error detected in the compilation of "/src/a.cu".',
        "-- Performing Test HAS_WERROR - Failed",
    ],
)
def test_a_line_that_only_has_the_word_is_no_error(line):
    true = "/src/a.cu(3): error: identifier x is undefined"
    assert cause([line, true]).text == true


def test_the_command_that_failed_is_no_error():
    output = failed("a.c:1:1: error: x", command="error: c++ -c a.c")
    assert cause(output).text == "a.c:1:1: error: x"


def test_an_error_without_a_file_has_the_object_that_was_made():
    made = "ggml/src/ggml-cuda/CMakeFiles/ggml-cuda.dir/mmq.cu.o"
    found = cause(failed("ptxas fatal   : x", made=made))
    assert found.place == "ggml/src/ggml-cuda/mmq.cu"


def test_an_error_in_a_toolkits_header_has_the_object_that_was_made():
    found = cause(failed("/usr/include/x.hpp(82): error: y"))
    assert found.place == "a.cu"


def test_what_failed_without_an_error_that_is_known_is_quoted():
    words = ["Traceback (most recent call last):", "ValueError: bad"]
    assert cause(failed(*words)) == Cause("\n".join(words), "source", "a.cu")


def test_what_failed_without_a_word_is_named():
    assert cause(failed()).text == "FAILED: CMakeFiles/x.dir/a.cu.o "


def test_a_step_without_output_has_buildkits_word():
    assert cause([], "lstat /codebooks: no such file") == Cause(
        "lstat /codebooks: no such file", "other", ""
    )


def test_cmake_says_what_is_wrong_below():
    output = [
        "-- x",
        "CMake Error at CMakeLists.txt:3 (find_package):",
        "  Could not find CUDAToolkit",
        "",
        "  (missing: nvcc)",
        "Call Stack (most recent call first):",
        "-- Configuring incomplete, errors occurred!",
    ]
    assert cause(output).text == "\n".join([*output[1:3], output[4]])


@pytest.mark.parametrize(
    "words",
    [
        ["nvcc error   : 'cicc' died due to signal 9 (Kill signal)"],
        ["c++: fatal error: Killed signal terminated program cc1plus", "compilation terminated."],
        [
            "{standard input}: Assembler messages:",
            "{standard input}: Error: open CFI at the end of file; missing .cfi_endproc directive",
            "g++-13: fatal error: Killed signal terminated program cc1plus",
        ],
        ["cc1plus: out of memory allocating 65536 bytes after a total of 1 bytes"],
        ["virtual memory exhausted: Cannot allocate memory"],
        ["collect2: fatal error: ld terminated with signal 9 [Killed]"],
        ["Killed"],
    ],
)
def test_a_compiler_that_was_killed_lacked_memory(words):
    found = cause(failed(*words))
    assert (found.kind, found.place) == ("memory", "a.cu")


def test_a_step_that_was_killed_lacked_memory():
    assert cause([], "process did not complete successfully: exit code: 137").kind == "memory"


def test_a_kill_after_the_first_error_is_not_the_cause():
    output = failed("/src/a.cpp:1:2: error: x")
    output += ["FAILED: b.o", "cc", "nvcc error   : 'cicc' died due to signal 9 (Kill signal)"]
    assert cause(output).kind == "source"


def test_a_full_disk_is_the_cause_wherever_it_is_named():
    output = ["dpkg-deb: error: paste subprocess was killed", "x: No space left on device"]
    assert cause(output) == Cause(output[1], "disk", "")
