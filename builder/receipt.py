"""Receipts on disk: one JSON file a build, under build/receipts/ beside pins.toml."""

import dataclasses
import json
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


def of_image(results: Path, image_id: str) -> Receipt | None:
    """The newest receipt of this very image; one of another schema is none."""
    from pydantic import TypeAdapter, ValidationError

    adapter = TypeAdapter(Receipt)
    for path in sorted(folder(results).glob("*.json"), reverse=True):
        try:
            found = adapter.validate_json(path.read_bytes())
        except (ValidationError, OSError):
            continue
        if found.image_id == image_id:
            return found
    return None
