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
    """

    running: bool
    exit_code: int | None = None
    out_of_memory: bool = False


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

    def health(self) -> str | None:
        """What HEALTHCHECK says: starting, healthy, unhealthy; None when there is none."""


class Target(Protocol):
    """Something with a llama-server in it: an image or a program."""

    @property
    def name(self) -> str:
        """What reports call it."""

    def output(self, *arguments: str) -> str:
        """What llama-server prints for these arguments, both streams, until it ends by itself."""

    def serve(
        self, arguments: Sequence[str], model: Path, *, port: int | None = None
    ) -> AbstractContextManager[Serving]:
        """Start llama-server on a model; at the end of the block it is gone.

        `port` is the one that a container's is told to listen on; None: its own default. A program
        of this machine always gets a free one.
        """
