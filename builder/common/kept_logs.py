"""What servers wrote, kept where a verdict was no."""

import datetime
import re
from collections.abc import Mapping
from pathlib import Path

from builder.common.files import write_atomically
from builder.common.progress import Progress


def keep(logs: Mapping[str, str], name: str, results: Path, progress: Progress) -> Path | None:
    """Write the logs, by their titles, beside those of builds; never a half-written file.

    Where they cannot be written the verdict is worth as much: None, and a warning.
    """
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    safe = re.sub(r"[^\w.-]+", "-", name).strip("-")
    path = results / "build" / "logs" / f"{stamp}-{safe}.log"
    text = "".join(f"==== {title} ====\n{log}\n" for title, log in logs.items())
    try:
        write_atomically(path, text)
    except OSError as error:
        progress.warn(f"the servers' logs are not kept: {path}: {error.strerror}")
        return None
    return path
