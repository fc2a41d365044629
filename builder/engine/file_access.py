"""How a container's user gets to read a model file that is somebody else's."""

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

COPY_BYTES = 64 * 1024 * 1024
"""A model up to this size is copied into the container, which takes some 0.1 s: nothing about its
owner, mode, folder or the engine's user mapping matters then."""


@dataclass(frozen=True, slots=True)
class FileStatus:
    """What `stat` says of a file, as far as it matters here. Size in bytes."""

    size: int
    mode: int
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Access:
    """How the container gets to read the model, and as whom it must run for that.

    `user` None: the image's own. `groups` are added to the image's user.
    """

    way: Literal["copy", "mount"]
    user: str | None = None
    groups: tuple[int, ...] = ()


def access_to(status: FileStatus, *, remapped: bool) -> Access:
    """How a container that runs as some unknown user can read a file of this size and mode.

    `remapped`: users inside are others than outside (rootless engine, userns-remap).

    The file itself is mounted, so the folders above it need no permission. What its mode denies to
    others, its group or its owner may have: the container then runs with that group or as that
    owner (root without capabilities, for root's files). Adding CAP_DAC_READ_SEARCH is no way: a
    user other than root gets no capability from the engine. When users are remapped, neither is
    the same one inside, and only a copy is sure.
    """
    if status.size <= COPY_BYTES:
        return Access("copy")
    if status.mode & stat.S_IROTH:
        return Access("mount")
    if remapped:
        return Access("copy")
    if status.mode & stat.S_IRGRP:
        return Access("mount", groups=(status.gid,))
    return Access("mount", user=f"{status.uid}:{status.gid}")


def access_to_model(model: Path | None, info: dict[str, object]) -> Access:
    """The same for a file on disk and the engine of this `docker info`."""
    if model is None:
        return Access("copy")
    found = model.stat()
    status = FileStatus(found.st_size, found.st_mode, found.st_uid, found.st_gid)
    options = info.get("SecurityOptions") or []
    names = {option.split(",")[0] for option in options} if isinstance(options, list) else set()
    return access_to(status, remapped=bool({"name=rootless", "name=userns"} & names))
