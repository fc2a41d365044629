"""How a verb tells what it is doing. The command line decides what that looks like."""

from typing import Protocol


class Progress(Protocol):
    """Receives the news of one running verb."""

    def step(self, text: str) -> None:
        """A new phase has begun."""

    def detail(self, text: str) -> None:
        """Where the current phase stands; replaces the previous detail."""

    def warn(self, text: str) -> None:
        """Something that the user must not miss, although the work goes on."""


class Silent:
    """Progress that nobody watches."""

    def step(self, text: str) -> None: ...

    def detail(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...
