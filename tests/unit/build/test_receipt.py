"""Receipts on disk: which are found again, and what their JSON says beside the fields."""

import dataclasses
import json

from builder.build import receipts as receipt
from builder.model.pins import CacheStats
from tests.unit.bump.test_bump import a_receipt


def written(tmp_path, day: int, **changes):
    made = dataclasses.replace(
        a_receipt("d" * 40), created=f"2026-11-{day:02d}T00:00:00.000000Z", **changes
    )
    receipt.write(made, tmp_path)
    return made


def test_a_variants_receipts_are_found_newest_first(tmp_path):
    first, second = written(tmp_path, 1), written(tmp_path, 2)
    assert list(receipt.of_variant(tmp_path, "tiny")) == [second, first]


def test_a_variant_whose_name_holds_anothers_is_another(tmp_path):
    written(tmp_path, 1, variant="very-tiny")
    assert list(receipt.of_variant(tmp_path, "tiny")) == []


def test_a_receipt_from_before_there_were_paces_is_read(tmp_path):
    made = written(tmp_path, 1, ccache=CacheStats(hits=3, misses=1))
    path = next(receipt.folder(tmp_path).iterdir())
    document = json.loads(path.read_text())
    del document["pace"], document["ccache_dir"]
    del document["ccache"]["uncacheable"], document["ccache"]["hit_rate"]
    path.write_text(json.dumps(document))
    assert list(receipt.of_variant(tmp_path, "tiny")) == [made]


def test_json_gives_the_hit_rate():
    made = a_receipt("d" * 40, ccache=CacheStats(hits=2, misses=1, uncacheable=5))
    assert json.loads(receipt.to_json(made))["ccache"]["hit_rate"] == 0.6667


def test_a_receipt_on_disk_names_its_log_from_the_folder_of_results(tmp_path):
    written(tmp_path, 1, log=str(tmp_path / "build" / "logs" / "tiny.log"))
    [found] = receipt.of_variant(tmp_path, "tiny")
    assert found.log == "build/logs/tiny.log"
