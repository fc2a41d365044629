"""What of the machine and of earlier builds goes into a build."""

from dataclasses import replace

import pytest

from builder.build import ccache as ccache_dir
from builder.build import compile_cache, render
from builder.build import receipts as receipt
from builder.build import run as build
from builder.build.compile_cache import CompileCache
from builder.build.plan import GB, Machine, Plan
from builder.common.errors import EngineError
from builder.model.pins import BaseImage
from builder.sources import tree as source
from tests.unit.bump.test_bump import a_receipt

RECIPE = render.Rendered("tiny", "FROM scratch\n")
CACHE = CompileCache("turboquant-ccache-tiny", "pin", "d" * 40)
DEVEL = BaseImage("devel", "compilers@sha256:1", "sha256:1", "hub")


@pytest.mark.parametrize(
    ("cores", "jobs", "arguments"),
    [(8, 3, {"JOBS": "3"}), (8, 8, {}), (None, None, {}), (None, 2, {"JOBS": "2"})],
    ids=["little memory", "the usual", "another machine", "another machine, asked for"],
)
def test_the_compile_step_is_the_same_on_every_machine_that_has_memory(cores, jobs, arguments):
    plan = Plan("tiny", "a test", [], cores, jobs, None, 0, None, None)
    compiling = build._compiling(plan, build.Request("tiny"), CACHE)
    assert compiling == {"CCACHE_ID": CACHE.name} | arguments


@pytest.mark.parametrize("variant", ["mainline-cpu", "spiritbuun-cuda12-sm86"])
def test_too_little_memory_is_refused_before_anything_is_fetched(
    real_pins, tmp_path, monkeypatch, variant
):
    small = Machine(cores=2, memory=GB, disk="/var/lib/docker", disk_free=100 * GB)
    monkeypatch.setattr("builder.build.machine.look", lambda _: small)
    monkeypatch.setattr("builder.build.bases.expected", lambda *_: [])
    with pytest.raises(EngineError, match=r"1\.0 GB of memory, one compiler takes"):
        build.plan(None, real_pins, build.Request(variant), tmp_path)


def test_a_folder_for_ccache_has_a_cache_mount_of_its_own(tmp_path):
    plan = Plan("tiny", "a test", [], 1, 1, None, 0, None, None)
    request = build.Request("tiny", ccache_dir=tmp_path)
    mount = build._compiling(plan, request, CACHE)["CCACHE_ID"]
    assert mount == ccache_dir.mount_id(tmp_path, CACHE)


@pytest.mark.parametrize(
    ("change", "request_", "purpose"),
    [
        ({}, {}, "pin"),
        ({"commit": "e" * 40}, {}, "commits"),
        ({}, {"candidate": True}, "commits"),
        ({}, {"trial": True}, "bisect"),
        ({"origin": "--source /home/me/fork", "claimed": True}, {}, "disk"),
        ({"origin": "llama 0.1 from the package index", "claimed": True}, {}, "pin"),
    ],
    ids=["the pin", "--ref", "a night", "a bisection's", "--source that claims the pin", "sdist"],
)
def test_a_ccache_serves_one_purpose(real_pins, tmp_path, change, request_, purpose):
    pin = real_pins.forks["spiritbuun"].commit
    tree = source.Tree(tmp_path, "master", pin, False, 1, "", "https://example.org/fork")
    request = build.Request("spiritbuun-cpu", **request_)
    cache = build._cache(real_pins, request, replace(tree, **change), [DEVEL])
    assert cache.purpose == purpose


def test_a_ccache_serves_one_fork_and_one_compiler(real_pins, tmp_path):
    def name(variant: str, devel: BaseImage) -> str:
        tree = source.Tree(tmp_path, "master", "e" * 40, False, 1, "", "https://example.org")
        return build._cache(real_pins, build.Request(variant), tree, [devel]).name

    other = replace(DEVEL, digest="sha256:2", reference="theirs@sha256:2")
    names = [
        name("spiritbuun-cpu", DEVEL),
        name("thetom-cpu", DEVEL),
        name("spiritbuun-cpu", other),
    ]
    assert len(set(names)) == len(names)
    # A mirror gives out the same image.
    mirrored = replace(DEVEL, reference="mirror.example/compilers@sha256:1", origin="set")
    assert name("spiritbuun-cpu", mirrored) == names[0]


@pytest.mark.usefixtures("private_cache")
def test_what_a_commit_left_that_was_no_good_is_read_by_no_other():
    def mount(commit: str) -> str:
        cache = CompileCache("turboquant-ccache-tiny", "commits", commit)
        return compile_cache.mount_id(cache, anew=False)

    bad = mount("bad")
    assert mount("bad") == bad
    good = mount("good")
    assert good != bad
    compile_cache.settle(CompileCache("turboquant-ccache-tiny", "commits", "good"))
    assert mount("next") == good
    # It is not the next one's to call good.
    compile_cache.settle(CompileCache("turboquant-ccache-tiny", "commits", "another"))
    assert mount("one after") not in {bad, good}


@pytest.mark.usefixtures("private_cache")
def test_a_ledger_that_is_lost_or_bent_begins_anew():
    cache = CompileCache("turboquant-ccache-tiny", "commits", "good")
    first = compile_cache.mount_id(cache, anew=False)
    compile_cache.settle(cache)
    compile_cache._ledger(cache).write_text("[1, ")
    assert compile_cache.mount_id(cache, anew=False) != first


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
