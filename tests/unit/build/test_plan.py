"""What a build needs and how long it takes, judged without a machine."""

import dataclasses

import pytest

from builder.build import plan
from builder.build.plan import GB
from builder.common.errors import EngineError

MACHINE = plan.Machine(cores=8, memory=64 * GB, disk="/var/lib/docker", disk_free=100 * GB)

# Eleven times of one compile step, of the length of the spiritbuun fork's. Cold: .cu files come
# late and take longest. Warm: all from ccache in even steps, and the links at the end.
COLD = [10.0, 40, 75, 120, 300, 620, 980, 1350, 1720, 2100, 2485]
WARM = [9.0, 10, 11, 12, 13, 14, 15, 16, 17, 18, 26]


def machine(**changes: object) -> plan.Machine:
    return dataclasses.replace(MACHINE, **changes)


# --- compilers at once


def test_every_core_compiles_where_memory_allows_it():
    assert plan.jobs(MACHINE, cuda=True) == 8


@pytest.mark.parametrize(
    ("memory", "cuda", "jobs"), [(4 * GB, True, 3), (4 * GB, False, 6), (2 * GB, True, 1)]
)
def test_memory_limits_the_compilers(memory, cuda, jobs):
    assert plan.jobs(machine(memory=memory), cuda=cuda) == jobs


def test_a_hosted_runner_uses_all_its_cores():
    # 4 cores, 16 GB: https://docs.github.com/actions/reference/runners/github-hosted-runners
    assert plan.jobs(machine(cores=4, memory=16 * GB), cuda=True) == 4


def test_memory_for_not_even_one_compiler_is_refused():
    with pytest.raises(
        EngineError, match=r"1\.8 GB of memory, one compiler takes 1\.9 GB"
    ) as caught:
        plan.jobs(machine(memory=GB * 18 // 10), cuda=True)
    assert "--builder" in caught.value.hint


# --- disk


def test_a_hosted_runner_has_room_for_mainline_cpu():
    plan.check_disk(
        machine(disk_free=14 * GB), plan.disk_need(cuda=False, devel_here=False, image=None)
    )


@pytest.mark.parametrize(("here", "need"), [(False, 25 * GB), (True, 14 * GB)])
def test_a_cuda_base_that_is_here_needs_no_room(here, need):
    assert plan.disk_need(cuda=True, devel_here=here, image=None) == need


def test_a_rebuild_needs_what_the_last_image_tells():
    assert plan.disk_need(cuda=True, devel_here=False, image=GB) == 4 * GB


def test_a_disk_without_room_is_refused_with_what_frees_it():
    with pytest.raises(EngineError, match=r"5\.0 GB are free in /var/lib/docker") as caught:
        plan.check_disk(machine(disk_free=5 * GB), 6 * GB)
    assert "needs 6.0 GB" in caught.value.what
    assert "docker builder prune" in caught.value.hint


def test_nothing_is_refused_where_the_disk_cannot_be_seen():
    plan.check_disk(machine(disk_free=None), 1000 * GB)


# --- pace


def paced(steps: list[tuple[int, int, float]]) -> list[float]:
    pace: list[float] = []
    for done, of, seconds in steps:
        plan.mark(pace, done, of, seconds)
    return pace


def test_a_pace_has_the_first_step_and_each_tenth():
    steps = [(n, 713, float(n)) for n in range(1, 714)]
    assert paced(steps) == [1, 72, 143, 214, 286, 357, 428, 500, 571, 642, 713]


def test_a_pace_of_few_steps_has_all_tenths():
    assert paced([(1, 2, 3.0), (2, 2, 4.0)]) == [3, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4]


def test_a_build_that_stopped_has_no_whole_pace():
    pace = paced([(1, 10, 1.0), (9, 10, 2.0)])
    assert not plan.whole(pace)


# --- time left


def test_nothing_is_invented_without_an_earlier_build():
    assert plan.outlook([], 0.5, 100.0) == ""


def test_the_first_tenth_says_what_the_last_one_took():
    assert plan.outlook([COLD, WARM], 0.05, 20.0) == "41 min last time"


def test_a_build_as_fast_as_the_last_one_ends_as_it_did():
    # At half of the steps the cold one had 2485 - 620 seconds to go.
    assert plan.outlook([COLD], 0.5, 610.0) == "about 31 min left"


def test_files_that_come_late_count_although_the_steps_are_even():
    # 30 % of the steps in 110 s; a straight line would say 4 minutes.
    assert plan.outlook([COLD], 0.3, 110.0) == "about 39 min left"


def test_a_machine_twice_as_slow_takes_twice_as_long():
    assert plan.outlook([COLD], 0.5, 1220.0) == "about 62 min left"


def test_a_warm_build_after_a_cold_one_is_told_by_its_own_speed():
    assert plan.outlook([COLD], 0.5, 5.0) == "about 20 s left"


def test_a_cold_build_after_a_warm_one_is_told_by_the_cold_one_before():
    assert plan.outlook([WARM, COLD], 0.5, 610.0) == "about 31 min left"


def test_between_two_tenths_the_time_is_between():
    assert plan.outlook([COLD], 0.55, 790.0) == "about 28 min left"


def test_the_end_is_no_time_away():
    assert plan.outlook([COLD], 1.0, 2475.0) == "about 0 s left"
