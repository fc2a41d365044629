"""What a smoke needs of whatever it smokes: a way to start servers, and to look at one."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class State:
    """Whether the server runs; if not, how it ended.

    `exit_code` is as a shell gives it: 128 + the signal's number for one that ended it.
    `overdue`: builder ended it, for it had run for as long as it may.
    """

    running: bool
    exit_code: int | None = None
    out_of_memory: bool = False
    overdue: bool = False


@dataclass(frozen=True, slots=True)
class CheckRun:
    """An image's own HEALTHCHECK, run once.

    `exit_code` None: it could not be started or did not end in time, and `fault` says which.
    """

    exit_code: int | None = None
    fault: str = ""

    @property
    def healthy(self) -> bool:
        """Whether it says that all is well."""
        return self.exit_code == 0

    def __str__(self) -> str:
        """What came of it, in words."""
        return self.fault or f"exit code {self.exit_code}"


@dataclass(frozen=True, slots=True)
class CheckCommand:
    """What an image's HEALTHCHECK runs. `timeout_s`: how long it may take, in seconds."""

    words: tuple[str, ...]
    timeout_s: float


class Serving(Protocol):
    """A server that was started."""

    @property
    def url(self) -> str:
        """The base of its HTTP address, without a slash at the end."""

    @property
    def port(self) -> int | None:
        """The port on this machine's loopback; None when it ended before it had one."""

    def listens(self) -> bool | None:
        """Whether it is the one that answers at its port; None where that cannot be told."""

    def state(self) -> State:
        """How it is now."""

    def log(self) -> str:
        """All that it has written so far, both streams."""

    def terminate(self) -> None:
        """Send it SIGTERM, and do not wait."""

    def check(self) -> CheckRun | None:
        """The image's HEALTHCHECK, run once beside the server; None when there is none."""


class Target(Protocol):
    """Something with a llama-server in it: an image or a program."""

    @property
    def name(self) -> str:
        """What reports call it."""

    def output(self, *arguments: str) -> str:
        """What llama-server prints for these arguments, both streams, until it ends by itself."""

    def check_command(self) -> CheckCommand | None:
        """What HEALTHCHECK runs; None when there is none."""

    def check_alone(self) -> CheckRun | None:
        """The image's HEALTHCHECK, run once where no server is; None when there is none."""

    def serve(
        self, arguments: Sequence[str], model: Path, *, port: int | None = None
    ) -> AbstractContextManager[Serving]:
        """Start llama-server on a model; at the end of the block it is gone.

        `port` is the one that a container's is told to listen on; None: its own default. A program
        of this machine always gets a free one.
        """
