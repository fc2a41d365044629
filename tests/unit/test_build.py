"""What of the machine and of earlier builds goes into a build."""

from dataclasses import replace

import pytest

from builder import build, ccache_dir, receipt, render
from builder.errors import EngineError
from builder.plan import GB, Machine, Plan
from tests.unit.test_bump import a_receipt

RECIPE = render.Rendered("tiny", "FROM scratch\n")


@pytest.mark.parametrize(
    ("cores", "jobs", "arguments"),
    [(8, 3, {"JOBS": "3"}), (8, 8, {}), (None, None, {}), (None, 2, {"JOBS": "2"})],
    ids=["little memory", "the usual", "another machine", "another machine, asked for"],
)
def test_the_compile_step_is_the_same_on_every_machine_that_has_memory(cores, jobs, arguments):
    plan = Plan("tiny", "a test", [], cores, jobs, None, 0, None, None)
    assert build._compiling(plan, build.Request("tiny")) == arguments


@pytest.mark.parametrize("variant", ["mainline-cpu", "spiritbuun-cuda12-sm86"])
def test_too_little_memory_is_refused_before_anything_is_fetched(
    real_pins, tmp_path, monkeypatch, variant
):
    small = Machine(cores=2, memory=GB, disk="/var/lib/docker", disk_free=100 * GB)
    monkeypatch.setattr("builder.machine.look", lambda _: small)
    monkeypatch.setattr("builder.base_images.expected", lambda *_: [])
    with pytest.raises(EngineError, match=r"1\.0 GB of memory, one compiler takes"):
        build.plan(None, real_pins, build.Request(variant), tmp_path)


def test_a_folder_for_ccache_has_a_cache_mount_of_its_own(tmp_path):
    plan = Plan("tiny", "a test", [], 1, 1, None, 0, None, None)
    request = build.Request("tiny", ccache_dir=tmp_path)
    assert build._compiling(plan, request)["CCACHE_ID"] == ccache_dir.mount_id(tmp_path)


def test_the_pace_of_the_same_recipe_is_preferred_to_a_newer_one(tmp_path):
    paces = {}
    for day, sha in ((1, "other"), (2, RECIPE.sha256), (3, "other")):
        paces[day] = [float(day)] * 11
        made = a_receipt("d" * 40, created=f"2026-11-{day:02d}", dockerfile_sha256=sha)
        receipt.write(replace(made, pace=paces[day]), tmp_path)
    assert build._paces(tmp_path, RECIPE) == [paces[2], paces[3], paces[1]]


def test_a_build_that_compiled_nothing_has_no_pace(tmp_path):
    receipt.write(a_receipt("d" * 40), tmp_path)
    assert build._paces(tmp_path, RECIPE) == []
