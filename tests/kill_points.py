"""SIGKILL before and after every single write of a run, to a registry or to a record."""

import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

from builder.registry_client import RegistryClient

_READS = {"GET", "HEAD"}


def each(limit: int = 200) -> Iterator[int]:
    """The numbers of points, to be left when `kill` says that a run came to its end."""
    yield from range(1, limit)
    raise AssertionError(f"more than {limit} writes")


def kill(run: Callable[[], object], number: int) -> bool:
    """Do it in a process that is killed at its `number`-th point; False: it had fewer, and ended.

    A point is the moment before a write, and the one after it.
    """
    process = multiprocessing.get_context("fork").Process(target=_run, args=(run, number))
    process.start()
    process.join()
    assert process.exitcode in {0, -signal.SIGKILL}, f"it failed at point {number}"
    return process.exitcode != 0


def _run(run: Callable[[], object], number: int) -> None:
    points = itertools.count(1)

    def point() -> None:
        if next(points) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    rename, once = os.rename, RegistryClient._once

    def renamed(*words: Any, **more: Any) -> None:
        point()
        rename(*words, **more)
        point()

    def asked(client: RegistryClient, method: str, *words: Any) -> Any:
        if method in _READS:
            return once(client, method, *words)
        point()
        answer = once(client, method, *words)
        point()
        return answer

    os.rename = renamed
    RegistryClient._once = asked  # type: ignore[method-assign]
    run()
