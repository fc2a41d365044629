"""SIGKILL before every single write of a run, to a registry or to a record, and after the last."""

import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

from builder.registry.client import RegistryClient

_READS = {"GET", "HEAD"}


def each(limit: int = 100) -> Iterator[int]:
    """The numbers of the points, to be left when `kill` says that a run came to its end."""
    yield from range(1, limit)
    raise AssertionError(f"{limit} writes and more")


def kill(run: Callable[[], object], number: int) -> bool:
    """Do it in a process that is killed before its `number`-th write; False: it had fewer.

    Then it came to its end.
    """
    process = multiprocessing.get_context("fork").Process(target=_run, args=(run, number))
    process.start()
    process.join()
    assert process.exitcode in {0, -signal.SIGKILL}, f"it failed before write {number}"
    return process.exitcode != 0


def _run(run: Callable[[], object], number: int) -> None:
    writes = itertools.count(1)

    def point() -> None:
        if next(writes) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    rename, once = os.rename, RegistryClient._once

    def renamed(*words: Any, **more: Any) -> None:
        point()
        rename(*words, **more)

    def asked(client: RegistryClient, method: str, *words: Any) -> Any:
        if method not in _READS:
            point()
        return once(client, method, *words)

    os.rename = renamed
    RegistryClient._once = asked  # type: ignore[method-assign]
    run()
