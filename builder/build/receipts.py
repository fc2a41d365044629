"""Receipts on disk: one JSON file a build, under build/receipts/ beside pins.toml."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

from builder.common.errors import UsageError
from builder.common.files import write_atomically
from builder.model.pins import Receipt


def folder(results: Path) -> Path:
    """Where receipts lie."""
    return results / "build" / "receipts"


def to_json(receipt: Receipt) -> str:
    """The receipt as indented JSON."""
    document = dataclasses.asdict(receipt)
    if receipt.ccache is not None:
        document["ccache"]["hit_rate"] = round(receipt.ccache.hit_rate, 4)
    return json.dumps(document, indent=2)


def write(receipt: Receipt, results: Path) -> Path:
    """Write the receipt under a name of its own; never a half-written file.

    In the file the log's path begins at `results`, as what is kept or published names no machine's
    folders.
    """
    log = Path(receipt.log)
    if log.is_relative_to(results):
        receipt = dataclasses.replace(receipt, log=str(log.relative_to(results)))
    stamp = receipt.created.replace("-", "").replace(":", "")
    path = folder(results) / f"{stamp}-{receipt.variant}-{receipt.commit[:9]}.json"
    write_atomically(path, to_json(receipt) + "\n")
    return path


def read(path: Path) -> Receipt:
    """The receipt in a file. Raises UsageError when it is none."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(Receipt).validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path}: cannot be read", why=str(error)) from error
    except ValidationError as error:
        raise UsageError(f"{path}: is no receipt of a build", why=str(error)) from error


def of_image(results: Path, image_id: str) -> Receipt | None:
    """The newest receipt of this very image; one of another schema is none."""
    return next((one for one in _newest_first(results, "*") if one.image_id == image_id), None)


def of_variant(results: Path, variant: str) -> Iterator[Receipt]:
    """The receipts of a variant, newest first; one of another schema is none."""
    return (one for one in _newest_first(results, f"*-{variant}-*") if one.variant == variant)


def _newest_first(results: Path, name: str) -> Iterator[Receipt]:
    from pydantic import TypeAdapter, ValidationError

    adapter = TypeAdapter(Receipt)
    for path in sorted(folder(results).glob(f"{name}.json"), reverse=True):
        try:
            yield adapter.validate_json(path.read_bytes())
        except (ValidationError, OSError):
            continue
