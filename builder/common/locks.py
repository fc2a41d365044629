"""Locks between processes, told to whoever waits."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from builder.common.progress import Progress


@contextmanager
def locked(path: Path, what: str, progress: Progress) -> Iterator[None]:
    """Hold the lock beside `path`; `what` is waited for, in words, where somebody else has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{path}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress.step(f"wait for {what}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
