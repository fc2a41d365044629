"""The committed Dockerfiles under dockerfiles/rendered/: write them, or say how they differ."""

import difflib
from pathlib import Path

from builder.build.render import Rendered
from builder.common.files import write_atomically


def folder(results: Path) -> Path:
    """Where they lie, beside pins.toml."""
    return results / "dockerfiles" / "rendered"


def write(files: list[Rendered], target: Path) -> int:
    """Write those that differ, each whole or not at all; the number written."""
    changed = [one for one in files if _read(target / one.file_name) != one.text]
    for one in changed:
        write_atomically(target / one.file_name, one.text.encode())
    return len(changed)


def difference(files: list[Rendered], target: Path, *, whole: bool) -> str:
    """A unified diff from the committed files to the rendered ones; empty when they agree.

    `whole`: the files are all there should be, and any other is a difference too.
    """
    pairs = {one.file_name: one.text for one in files}
    if whole:
        pairs |= {p.name: "" for p in target.glob("*.Dockerfile") if p.name not in pairs}
    lines: list[str] = []
    for name, text in pairs.items():
        old = _read(target / name)
        lines += difflib.unified_diff(
            old.splitlines(),
            text.splitlines(),
            f"committed/{name}",
            f"rendered/{name}",
            lineterm="",
        )
    return "\n".join(lines)


def _read(path: Path) -> str:
    return path.read_bytes().decode() if path.exists() else ""
