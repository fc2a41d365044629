"""Which CUDA toolkit goes with which compiler, architecture and driver."""

import pytest

from builder.pins import cuda


@pytest.mark.parametrize(
    ("toolkit", "gcc"), [("12.4.131", "13"), ("12.6.3", "11"), ("12.6.3", "13"), ("12.8.1", "14")]
)
def test_nvcc_takes_a_gcc_up_to_its_newest(toolkit, gcc):
    assert cuda.compiler_conflict(toolkit, gcc) is None


@pytest.mark.parametrize(
    ("toolkit", "gcc", "advice"),
    [
        ("12.3.2", "13", "gcc 12 or older"),
        ("12.4.131", "14.2", "gcc 13 or older"),
        ("12.8.1", "15", "gcc 14 or older"),
    ],
)
def test_nvcc_refuses_a_newer_gcc(toolkit, gcc, advice):
    assert cuda.compiler_conflict(toolkit, gcc) == cuda.Conflict(
        "compiler.version", f"gcc {gcc} is too new for nvcc {toolkit}", advice
    )


def test_a_toolkit_that_nobody_looked_up_is_said_to_be_unknown():
    conflict = cuda.compiler_conflict("14.0", "15")

    assert (conflict.key, conflict.problem) == ("cuda.version", "CUDA 14.0 is not in the table")


@pytest.mark.parametrize(
    ("toolkit", "architecture"),
    [
        ("12.4.131", "86"),
        ("12.6.3", "89"),
        ("12.6.3", "90a"),
        ("12.8.1", "120"),
        ("12.8.1", "120a"),
        ("12.9.0", "120f"),
        ("12.9.1", "61"),
        ("13.0.0", "75"),
    ],
)
def test_a_toolkit_compiles_for_the_architectures_it_knows(toolkit, architecture):
    assert cuda.architecture_conflict(toolkit, architecture) is None


@pytest.mark.parametrize(
    ("toolkit", "architecture", "problem", "advice"),
    [
        (
            "12.6.3",
            "120",
            "CUDA 12.6.3 does not know architecture 120",
            "a base with CUDA 12.8 or newer",
        ),
        (
            "12.8.1",
            "120f",
            "CUDA 12.8.1 does not know architecture 120f",
            "a base with CUDA 12.9 or newer",
        ),
        (
            "13.0.0",
            "61",
            "CUDA 13.0.0 no longer compiles for architecture 61",
            "a base with CUDA older than 13.0",
        ),
    ],
)
def test_an_architecture_outside_a_toolkits_time_names_the_toolkit_to_take(
    toolkit, architecture, problem, advice
):
    assert cuda.architecture_conflict(toolkit, architecture) == cuda.Conflict(
        "architectures", problem, advice
    )


@pytest.mark.parametrize("word", ["8.6", "sm_86", "86a", "86-real", "native", "", "86\nRUN id"])
def test_what_is_no_architecture_is_said_to_be_unknown(word):
    conflict = cuda.architecture_conflict("12.8.1", word)

    assert conflict.problem == f"unknown CUDA architecture {word!r}"


@pytest.mark.parametrize("driver", ["525.60.13", "550.54.14"])
def test_a_driver_from_the_lowest_on_runs_the_toolkits_code(driver):
    assert cuda.driver_conflict("12.6.3", driver) is None


@pytest.mark.parametrize(
    ("toolkit", "driver", "lowest"),
    [
        ("12.6.3", "525.60.11", "525.60.13"),
        ("12.8.1", "525.60.13", "550.54.14"),
        ("12.9.1", "550.54.10", "550.54.14"),
        ("13.0.0", "575.57.08", "580.65.06"),
    ],
)
def test_an_older_driver_is_refused_with_the_lowest_that_does(toolkit, driver, lowest):
    assert cuda.driver_conflict(toolkit, driver) == cuda.Conflict(
        "cuda.driver",
        f"driver {driver} cannot run code of CUDA {toolkit}",
        f"{lowest} or newer",
    )


@pytest.mark.parametrize(
    ("toolkit", "architectures", "kept"),
    [
        ("12.4.131", ["80"], ["80"]),
        ("12.4.131", ["86"], ["80", "86"]),
        ("12.6.3", ["89"], ["80", "86", "89"]),
        ("12.6.3", ["90"], ["90", "90a"]),
        ("12.6.3", ["61"], ["60", "61"]),
        ("13.0.0", ["89"], ["80", "86", "88", "89"]),
        # Each toolkit knows more of Blackwell's than the one before.
        ("12.8.1", ["120"], ["120", "120a"]),
        ("12.8.1", ["120a"], ["120", "120a"]),
        ("12.9.1", ["120"], ["120", "120a", "120f"]),
        ("12.9.1", ["121a"], ["120", "120f", "121", "121a", "121f"]),
        ("12.8.1", ["86", "89", "120"], ["80", "86", "89", "120", "120a"]),
        # Jetson's stay among themselves.
        ("12.6.3", ["87"], ["87"]),
    ],
)
def test_what_machine_code_gpus_run(toolkit, architectures, kept):
    assert cuda.runnable(toolkit, architectures) == kept


@pytest.mark.parametrize(("capability", "architecture"), [("8.6", "86"), ("12.0", "120")])
def test_a_compute_capability_names_its_architecture(capability, architecture):
    assert cuda.variant_architecture(capability) == architecture
