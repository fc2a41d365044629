"""Rebuilds as a table, from receipts: the build from nothing first, then each step.

.venv/bin/python benchmarks/steps.py RECEIPT… > table.md
.venv/bin/python benchmarks/steps.py RECEIPT… --json > steps.json

Receipts lie in build/receipts/ beside pins.toml.
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any


def step(path: Path) -> dict[str, Any]:
    """One receipt's commit, seconds and compiler calls."""
    receipt = json.loads(path.read_text(encoding="utf-8"))
    compiled = next(one for one in receipt["stages"] if one["name"].startswith("[build 1/"))
    return {
        "commit": receipt["commit"],
        "image_id": receipt["image_id"],
        "compile_s": round(compiled["duration_s"], 1),
        "total_s": round(receipt["duration_s"], 1),
        "compiled": receipt["ccache"]["misses"],
        "from_ccache": receipt["ccache"]["hits"],
    }


def table(steps: list[dict[str, Any]]) -> str:
    """The steps in Markdown, and how much faster than the first they were."""
    rows = ["| to | compile step | in all | compiled | from ccache |", "|---|---|---|---|---|"]
    for one in steps:
        name = one["commit"][:9] + (", from nothing" if one is steps[0] else "")
        times = f"{one['compile_s']:.0f} s | {one['total_s']:.0f} s"
        rows.append(f"| {name} | {times} | {one['compiled']} | {one['from_ccache']} |")
    for key, words in (("compile_s", "Compile step"), ("total_s", "In all")):
        cold, *warm = [one[key] for one in steps]
        median, worst = cold / statistics.median(warm), cold / max(warm)
        rows.append(f"\n{words}: {median:.0f} × faster by the median, {worst:.1f} × at worst.")
    return "\n".join(rows)


def main() -> None:
    words = sys.argv[1:]
    steps = [step(Path(word)) for word in words if word != "--json"]
    print(json.dumps(steps, indent=2) if "--json" in words else table(steps))


if __name__ == "__main__":
    main()
