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


class WarnOnce:
    """Passes all on but warnings that it passed on before: for a verb that repeats another."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._told: set[str] = set()

    def step(self, text: str) -> None:
        self._progress.step(text)

    def detail(self, text: str) -> None:
        self._progress.detail(text)

    def warn(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._progress.warn(text)


class Silent:
    """Progress that nobody watches."""

    def step(self, text: str) -> None: ...

    def detail(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...
