"""Receipts on disk: one JSON file a build, under build/receipts/ beside pins.toml."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

from builder.model import Receipt


def folder(results: Path) -> Path:
    """Where receipts lie."""
    return results / "build" / "receipts"


def to_json(receipt: Receipt) -> str:
    """The receipt as indented JSON."""
    return json.dumps(dataclasses.asdict(receipt), indent=2)


def write(receipt: Receipt, results: Path) -> Path:
    """Write the receipt under a name of its own; never a half-written file."""
    stamp = receipt.created.replace("-", "").replace(":", "")
    path = folder(results) / f"{stamp}-{receipt.variant}-{receipt.commit[:9]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(to_json(receipt) + "\n", encoding="utf-8")
    temporary.replace(path)
    return path


def compressed_size(results: Path, image_id: str) -> int | None:
    """The compressed size that an earlier receipt measured for the same image, in bytes."""
    for text in _newest_first(results):
        try:
            found = json.loads(text)
        except json.JSONDecodeError:
            continue
        if found.get("image_id") == image_id:
            return int(found["compressed_bytes"])
    return None


def _newest_first(results: Path) -> Iterator[str]:
    for path in sorted(folder(results).glob("*.json"), reverse=True):
        yield path.read_text(encoding="utf-8")
