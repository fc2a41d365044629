"""An image read through the engine: its configuration, its layers' files, what its server prints.

Layers are read as one stream, the way `docker save` sends them: only so are files seen that a
later layer hides. Nothing is unpacked to disk but ELF files too large to hold.
"""

import contextlib
import dataclasses
import hashlib
import posixpath
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import IO, TYPE_CHECKING

from builder.common.printable import printable
from builder.engine import client as engine
from builder.engine import containers as container
from builder.image import elf
from builder.image import stream as image_stream
from builder.image import tree as image_tree
from builder.image.tree import File, Layer

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container
    from docker.models.images import Image

KEPT = ("/etc/ld.so.cache", "/etc/passwd")
"""The files whose content is kept as it is."""

_CHUNK = 1024 * 1024
_WINDOW = 256 * 1024  # fits the processor's cache: many searches of it cost one read of memory
_OVERLAP = 1024
_IN_MEMORY = 512 * 1024 * 1024
_ENDS_S = 30
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_CAPABILITY = "SCHILY.xattr.security.capability"

Scan = Callable[[str, bytes], frozenset[str]]
"""Finds, by a file's path, what must not be in a window of its content.

A hit is no longer than a kilobyte.
"""


@dataclass(frozen=True, slots=True)
class Config:
    """How the image wants to be run. `user` is empty for the default, root.

    `healthcheck` is as the image has it (["CMD", …]), `shell` what runs one that is CMD-SHELL,
    `environment` NAME=value, `history` the commands that made the layers.
    """

    user: str = ""
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    healthcheck: tuple[str, ...] = ()
    shell: tuple[str, ...] = ("/bin/sh", "-c")
    history: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Printed:
    """What a container printed, both streams, and its exit code; None when it did not end."""

    text: str
    exit_code: int | None


def config(image: "Image") -> Config:
    """The image's configuration and history.

    Raises EngineError.
    """
    with engine.engine_errors("show the image's history"):
        history = image.history()
    found = image.attrs["Config"]
    return Config(
        user=found.get("User") or "",
        entrypoint=tuple(found.get("Entrypoint") or ()),
        command=tuple(found.get("Cmd") or ()),
        environment=tuple(found.get("Env") or ()),
        labels=found.get("Labels") or {},
        healthcheck=tuple((found.get("Healthcheck") or {}).get("Test") or ()),
        shell=tuple(found.get("Shell") or ("/bin/sh", "-c")),
        history=tuple(str(one["CreatedBy"]) for one in reversed(history)),
    )


def layers(image: "Image", *, scan: Scan, deep: Callable[[str], bool]) -> tuple[Layer, ...]:
    """The image's layers, lowest first.

    `scan` sees all content; `deep` says of which ELF files machine and device code are read.
    Raises EngineError.
    """
    found = image_stream.layers(image, lambda content: _layer(content, scan, deep))
    return _joined(found[digest] for digest in image_stream.digests(image))


def _joined(layers: Iterable[Layer]) -> tuple[Layer, ...]:
    """The layers, lowest first, with second names given the files that lower layers hold.

    One whose first name is nowhere is a link that leads nowhere: a container has nothing there.
    """
    joined: list[Layer] = []
    for layer in layers:
        below = image_tree.merge(joined).files if layer.second_names else {}
        files = (
            dataclasses.replace(below[first], path=path, size=0)
            if first in below
            else File(path, "link", target=first)
            for path, first in layer.second_names.items()
        )
        joined.append(dataclasses.replace(layer, files=(*layer.files, *files), second_names={}))
    return tuple(joined)


def _layer(content: IO[bytes], scan: Scan, deep: Callable[[str], bool]) -> Layer:
    """The layer in this tar archive; raises tarfile.TarError when it is none."""
    files: dict[str, File] = {}
    removed, emptied = set(), set()
    elsewhere: dict[str, str] = {}
    with tarfile.open(fileobj=content, mode="r|", bufsize=_CHUNK) as archive:
        for member in archive:
            path = _path(member.name)
            folder, name = posixpath.split(path)
            if name == _OPAQUE:
                emptied.add(folder)
            elif name.startswith(_WHITEOUT):
                removed.add(posixpath.join(folder, name.removeprefix(_WHITEOUT)))
            elif member.islnk():
                # A second name of a file that came before, in this layer or a lower one.
                first = _path(member.linkname)
                if first in files:
                    files[path] = dataclasses.replace(files[first], path=path, size=0)
                else:
                    elsewhere[path] = first
            else:
                files[path] = _file(archive, member, path, scan, deep)
    return Layer(tuple(files.values()), frozenset(removed), frozenset(emptied), elsewhere)


def _path(name: str) -> str:
    return posixpath.normpath(f"/{printable(name)}")


def _file(
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    path: str,
    scan: Scan,
    deep: Callable[[str], bool],
) -> File:
    mode, owner = member.mode & 0o7777, (member.uid, member.gid)
    if member.isdir():
        return File(path, "folder", mode, owner=owner)
    if member.issym():
        return File(path, "link", mode, target=printable(member.linkname))
    content = archive.extractfile(member) if member.isfile() else None
    if content is None:
        return File(path, "device", mode)
    # Binary: the header's text holds its bytes as tarfile could decode them.
    capability = member.pax_headers.get(_CAPABILITY, "").encode(errors="surrogateescape").hex()
    bare = File(path, "file", mode, size=member.size, owner=owner, capability=capability)
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as copy:
        head, secrets = _read(
            content, partial(scan, path), copy, keep=path in KEPT or bare.has_rights
        )
        found = None
        if head.startswith(elf.MAGIC):
            copy.seek(0)
            found = elf.read(copy, deep=deep(path))  # type: ignore[arg-type]
        copy.seek(0)
        text = copy.read() if path in KEPT or bare.has_rights else b""
        return dataclasses.replace(
            bare,
            script=head.startswith(b"#!"),
            secrets=secrets,
            elf=found,
            text=text if path in KEPT else None,
            digest=hashlib.sha256(text).hexdigest() if bare.has_rights else "",
        )


def _read(
    content: IO[bytes],
    scan: Callable[[bytes], frozenset[str]],
    copy: IO[bytes],
    *,
    keep: bool,
) -> tuple[bytes, frozenset[str]]:
    """The file's beginning, and what `scan` found in all of it; ELF files are copied."""
    head, before = b"", b""
    found: frozenset[str] = frozenset()
    while chunk := content.read(_WINDOW):
        head = head or chunk
        # What begins at the end of one chunk is whole in the next window.
        found |= scan(before + chunk)
        before = chunk[-_OVERLAP:]
        if keep or head.startswith(elf.MAGIC):
            copy.write(chunk)
    return head, found


@contextlib.contextmanager
def started(
    client: "DockerClient", image_id: str, argument: str, *, gpu: bool
) -> "Iterator[Started]":
    """A container of the image with this one argument, without network; removed at the end.

    `gpu`: with all GPUs, if the engine has any. It runs while other things are done. Raises
    EngineError when it cannot be created.
    """
    launch = container.Launch(image_id, [argument], gpu=gpu, reach="none")
    name = container.new_name()
    try:
        handle, _ = container.create(client, launch, name)
        yield Started(handle, _start(handle))
    finally:
        container.remove(client, name)


@dataclass(frozen=True, slots=True)
class Started:
    """A container on its way to an end. `refused` is why the engine did not start it."""

    _handle: "Container"
    refused: str | None

    def printed(self) -> Printed:
        """All that it printed, once it ended; a container that does not end is left alone."""
        import requests

        if self.refused is not None:
            return Printed(self.refused, None)
        with engine.engine_errors("run a container"):
            try:
                code = int(self._handle.wait(timeout=_ENDS_S)["StatusCode"])
            except (requests.exceptions.ReadTimeout, requests.exceptions.ConnectionError):
                return Printed(f"it did not end in {_ENDS_S} s", None)
            return Printed(self._handle.logs().decode(errors="replace"), code)


def _start(handle: "Container") -> str | None:
    """Start it; the engine's words when it refuses: an entrypoint that is not there, say."""
    from docker.errors import APIError

    with engine.engine_errors("start a container"):
        try:
            handle.start()
        except APIError as error:
            return engine.first_line(error)
    return None
