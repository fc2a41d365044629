"""The record of releases to read, from a folder or from where it is published."""

from dataclasses import dataclass
from pathlib import Path

from builder.common import http as web
from builder.common.errors import RemoteUnavailableError, UsageError
from builder.release import record
from builder.release.record import Index, Release

_OK, _NOT_FOUND = 200, 404


@dataclass(frozen=True, slots=True)
class RecordSource:
    """`place` is a folder, or an http(s) address under which the same files lie."""

    place: str

    def index(self) -> Index:
        """The index. Raises UsageError when there is none, RemoteUnavailableError."""
        if not self._remote:
            found = record.read_index(Path(self.place))
            if found is None:
                raise UsageError(f"--record {self.place}: holds no index.json")
            return found
        return record.parse(self._get("index.json"), Index, f"{self.place}/index.json", "index")

    def release(self, name: str) -> Release:
        """A release by its name. Raises UsageError, RemoteUnavailableError."""
        if not self._remote:
            return record.read_release(Path(self.place), name)
        path = f"releases/{name}.json"
        return record.parse(self._get(path), Release, f"{self.place}/{path}", name)

    @property
    def _remote(self) -> bool:
        return self.place.startswith(("http://", "https://"))

    def _get(self, path: str) -> bytes:
        url = f"{self.place.rstrip('/')}/{path}"
        with web.session() as session:
            answer = web.ask(session, url)
        if answer.status == _NOT_FOUND:
            raise UsageError(f"--record {self.place}: holds no {path}")
        if answer.status != _OK:
            raise RemoteUnavailableError(f"{url} refuses", why=f"HTTP {answer.status}")
        return answer.body
