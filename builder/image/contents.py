"""What a list of an image's parts needs: Debian's packages, and the files that came from a build.

Read from a container that is never started, as it would see its files.
"""

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from builder.common import paths, signals
from builder.common.files import write_atomically
from builder.engine import client as engine
from builder.engine import containers as container
from builder.engine import restrictions
from builder.image import stream as image_stream

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

_STATUS = "/var/lib/dpkg/status"
_RELEASE = "/etc/os-release"
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Package:
    """A package as dpkg has it installed."""

    name: str
    version: str
    architecture: str


@dataclass(frozen=True, slots=True)
class HashedFile:
    """A file at an absolute path. `size` in bytes, the sums in hex."""

    path: str
    size: int
    sha1: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Contents:
    """The packages, the files of `/opt/llama`, the distribution's ID ("debian"; "": unknown)."""

    packages: tuple[Package, ...]
    files: tuple[HashedFile, ...]
    distribution: str


def read(client: "DockerClient", image_id: str) -> Contents:
    """The contents of an image on the engine. A package manager other than dpkg tells nothing.

    What was read once is remembered: 780 MB take some 5 s. Raises EngineError, RefNotFoundError.
    """
    from pydantic import TypeAdapter, ValidationError

    found = container.image_id(client, image_id)
    kept = paths.cache() / "contents" / f"{found.removeprefix('sha256:')}.json"
    adapter = TypeAdapter(Contents)
    with contextlib.suppress(OSError, ValidationError):
        return adapter.validate_json(kept.read_bytes())
    contents = _read(client, found)
    with contextlib.suppress(OSError):  # what is not remembered is read again
        write_atomically(kept, adapter.dump_json(contents))
    return contents


def _read(client: "DockerClient", image_id: str) -> Contents:
    with _created(client, image_id) as made:
        status = b"".join(one.read() for _, one in _files(made, _STATUS))
        release = b"".join(one.read() for _, one in _files(made, _RELEASE))
        files = [_hashed(path, content) for path, content in _files(made, OURS.rstrip("/"))]
    return Contents(
        packages=tuple(packages(status.decode(errors="replace"))),
        files=tuple(sorted(files, key=lambda one: one.path)),
        distribution=distribution(release.decode(errors="replace")),
    )


def packages(status: str) -> Iterator[Package]:
    """The installed packages that dpkg's status file lists, in its order."""
    for stanza in status.split("\n\n"):
        lines = (line for line in stanza.splitlines() if not line.startswith(" "))
        fields = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
        if fields.get("Status", "").endswith(" installed"):
            yield Package(fields["Package"], fields["Version"], fields.get("Architecture", "all"))


def distribution(release: str) -> str:
    """The ID of an os-release file."""
    fields = dict(line.partition("=")[::2] for line in release.splitlines())
    return fields.get("ID", "").strip("\"'")


@contextlib.contextmanager
def _created(client: "DockerClient", image_id: str) -> "Iterator[Container]":
    handle = None
    try:
        # An interrupted call may leave a container that nobody knows of: it has to come back.
        with signals.held(), engine.engine_errors("create a container"):
            handle = client.containers.create(
                image_id,
                command=["never-started"],
                name=container.new_name(),
                labels=container.labels(),
                network_mode="none",
                **restrictions.always(),
            )
        yield handle
    finally:
        if handle is not None:
            with signals.held(), engine.engine_errors("remove a container"):
                handle.remove(force=True, v=True)


def _files(made: "Container", path: str) -> Iterator[tuple[str, IO[bytes]]]:
    """The files at a path or below it, each open for as long as it is the current one.

    A link to a file in the same folder is followed, as /etc/os-release is one in Debian.
    """
    from docker.errors import NotFound

    with engine.engine_errors(f"send {path}"):
        try:
            chunks, found = made.get_archive(path)
        except NotFound:
            return
        if found and found.get("linkTarget"):
            yield from _files(made, str(found["linkTarget"]))
            return
        with image_stream.opened(chunks) as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content is not None:
                    yield f"{path.rpartition('/')[0]}/{member.name}", content


def _hashed(path: str, content: IO[bytes]) -> HashedFile:
    sha1, sha256, size = hashlib.sha1(usedforsecurity=False), hashlib.sha256(), 0
    while chunk := content.read(_CHUNK):
        sha1.update(chunk)
        sha256.update(chunk)
        size += len(chunk)
    return HashedFile(path, size, sha1.hexdigest(), sha256.hexdigest())


OURS = "/opt/llama/"
"""Where the template puts what was compiled, and what it needs of the CUDA toolkit."""

_TOOLKIT = ("libcu", "libnv")


def compiled_by_us(path: str) -> bool:
    """Whether a file under this path was compiled from the fork's source."""
    return path.startswith(OURS) and not path.rpartition("/")[2].startswith(_TOOLKIT)
