"""Variants of forks whose source could not be had, each with a tree of the same shape."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker import DockerClient

from builder.model.labels import LABEL
from tests.conftest import ROOT, SAMPLES, builder

pytestmark = pytest.mark.engine

TAG = "turboquant-test:unseen"
COMMIT = "1fb1fb3ab6b3"
HOLD = {"needs", "runpath", "stub", "leftovers", "permissions", "secrets", "user", "entrypoint"}
"""Rules of the audit that a recipe keeps whatever it compiles."""


@pytest.fixture
def pins(tmp_path: Path) -> Path:
    """A copy of the real file: receipts and logs land beside it."""
    return Path(shutil.copy(ROOT / "pins.toml", tmp_path))


@pytest.fixture(
    params=[
        ("turbo-tan-cuda12-sm86", "cuda", ("--base", "debian-cuda124")),
        ("aaryan-kapoor-cpu", "tiny", ()),
    ],
    ids=lambda param: param[0],
)
def variant(request, engine: DockerClient, pins) -> Iterator[str]:
    name, sample, words = request.param
    command = ["build", name, "--source", SAMPLES / sample, "--ref", COMMIT, "--tag", TAG]
    made = builder(*command, "--pins", pins, *words)
    assert made.returncode == 0, made.stderr
    yield name
    for tag in engine.images.get(TAG).tags:
        engine.images.remove(tag)


def test_its_recipe_makes_an_image(engine, variant, real_pins, pins):
    labels = engine.images.get(TAG).labels
    kv_types = real_pins.forks[real_pins.variants[variant].fork].kv_types
    assert labels[f"{LABEL}.kv-types"] == ",".join(kv_types)
    assert labels["org.opencontainers.image.revision"] == COMMIT
    audited = json.loads(builder("audit", TAG, "--json", "--pins", pins).stdout)
    verdicts = {one["probe"]: one["status"] for one in audited["findings"]}
    assert {name for name in HOLD if verdicts[name] != "pass"} == set()
