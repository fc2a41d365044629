"""What servers wrote, kept where a verdict was no."""

import datetime
import re
from collections.abc import Mapping
from pathlib import Path


def keep(logs: Mapping[str, str], name: str, results: Path) -> Path:
    """Write the logs, by their titles, beside those of builds; never a half-written file."""
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    safe = re.sub(r"[^\w.-]+", "-", name).strip("-")
    path = results / "build" / "logs" / f"{stamp}-{safe}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    text = "".join(f"==== {title} ====\n{log}\n" for title, log in logs.items())
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    return path
