"""Which source tree a build takes, and what is known about it."""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from builder.common import files, tree_files
from builder.common.errors import UsageError
from builder.common.locks import locked
from builder.common.progress import Progress
from builder.git import remote as git
from builder.model.pins import Fork, Pins, Receipt, created
from builder.sources import archive as source_archive
from builder.sources import sdist

FROM_DISK = "--source "
"""What the origin of a tree from disk begins with."""

_SHA = re.compile(r"[0-9a-f]{7,40}")


@dataclass(frozen=True, slots=True)
class Tree:
    """A source tree on disk. `claimed`: nobody checked that it is that commit's.

    `build_number` None and `created` "" say that they are unknown.
    """

    path: Path
    ref: str
    commit: str
    claimed: bool
    build_number: int | None
    created: str
    origin: str


@contextmanager
def tree(
    pins: Pins, variant_name: str, ref: str | None, folder: Path | None, progress: Progress
) -> Iterator[Tree]:
    """The tree to build, unchanged while the context lasts.

    From `folder`, which may be an archive of one, when given, else from the variant's sdist when no
    ref is asked for, else from git. Raises UsageError, RemoteUnavailableError, RefNotFoundError.
    """
    variant = pins.variants[variant_name]
    fork = pins.forks[variant.fork]
    if folder is not None and folder.is_file():
        yield _from_archive(fork, ref, folder, progress)
    elif folder is not None:
        yield _from_disk(fork, ref, folder)
    elif variant.source is not None and ref is None:
        source = pins.sources[variant.source]
        path = sdist.tree(source, progress)
        origin = f"{source.package} {source.version} from the package index"
        yield Tree(path, source.upstream, source.upstream, True, None, "", origin)
    else:
        with _from_git(variant.fork, fork, ref, progress) as found:
            yield found


@contextmanager
def again(pins: Pins, receipt: Receipt, progress: Progress) -> Iterator[Tree]:
    """The tree that an image was built from, by its receipt.

    Raises UsageError when it came from disk and is gone or has changed; else as `tree` does.
    """
    variant = pins.variants[receipt.variant]
    if receipt.source.startswith(FROM_DISK):
        path = _unchanged(receipt)
        with tree(pins, receipt.variant, receipt.commit, path, progress) as found:
            yield found
        return
    archive = pins.sources[variant.source].upstream if variant.source else None
    ref = None if receipt.commit_claimed and receipt.commit == archive else receipt.commit
    with tree(pins, receipt.variant, ref, None, progress) as found:
        yield found


def _unchanged(receipt: Receipt) -> Path:
    """The folder or archive of a receipt, if it is as it was when the build ended."""
    named = receipt.source.removeprefix(FROM_DISK)
    path, _, sha256 = named.removesuffix(")").partition(" (sha256:")
    place, why = Path(path), ""
    if not place.exists():
        why = "it is gone"
    elif sha256 and (place.is_dir() or files.file_sha256(place) != sha256):
        why = "it is another file now"
    elif not sha256 and source_archive.newest(place) > datetime.fromisoformat(receipt.created):
        why = "something in it is newer than the image"
    if why:
        raise UsageError(
            f"{place} is not what {receipt.image} was built from", why=why, hint="build it again"
        )
    return place


def described(pins: Pins, variant_name: str, ref: str | None, folder: Path | None) -> str:
    """What `tree` will take, in words, without asking anybody."""
    variant = pins.variants[variant_name]
    fork = pins.forks[variant.fork]
    if folder is not None:
        return f"--source {folder}"
    if variant.source is not None and ref is None:
        source = pins.sources[variant.source]
        return f"{source.package} {source.version} from the package index"
    wanted = ref or (f"its pin {fork.commit}" if fork.commit else "a commit that --ref names")
    return f"fork {variant.fork} at {wanted}"


def _from_archive(fork: Fork, ref: str | None, archive: Path, progress: Progress) -> Tree:
    unpacked = source_archive.unpack(archive, progress)
    known = unpacked.known
    commit = _claimed(fork, ref, archive, known.commit)
    # What the archive says is said of its own commit.
    own, pinned = commit == known.commit, commit == fork.commit
    return Tree(
        path=unpacked.path,
        ref=ref or commit,
        commit=commit,
        claimed=True,
        build_number=(known.build_number if own else None)
        or (fork.build_number if pinned else None),
        created=(known.created if own else "") or (created(fork) if pinned else ""),
        origin=f"{FROM_DISK}{archive} (sha256:{unpacked.sha256})",
    )


def _from_disk(fork: Fork, ref: str | None, folder: Path) -> Tree:
    if not tree_files.has_file(folder, "CMakeLists.txt"):
        raise UsageError(
            f"--source {folder}: is no source tree",
            why="it holds no CMakeLists.txt",
            hint="name the folder that `git clone` made, or an archive",
        )
    commit = _claimed(fork, ref, folder, None if ref else git.head(folder))
    pinned = commit == fork.commit
    return Tree(
        path=folder.resolve(),
        ref=ref or commit,
        commit=commit,
        claimed=True,
        build_number=fork.build_number if pinned else None,
        created=created(fork) if pinned else "",
        origin=f"{FROM_DISK}{folder}",
    )


def _claimed(fork: Fork, ref: str | None, path: Path, said: str | None) -> str:
    """The commit that a tree is taken for: as --ref, the tree or the pin says."""
    if ref is not None and not _SHA.fullmatch(ref):
        raise UsageError(
            f"--ref {ref}: with --source it names the commit that the tree is said to be",
            hint="give 7 to 40 hex digits",
        )
    commit = ref or said or fork.commit
    if commit is None:
        raise UsageError(
            f"--source {path}: no commit is known for it", hint="say it with --ref SHA"
        )
    return commit


@contextmanager
def _from_git(name: str, fork: Fork, ref: str | None, progress: Progress) -> Iterator[Tree]:
    wanted = ref or fork.commit
    if fork.url is None:
        raise UsageError(
            f"fork {name} has no url",
            why=fork.unpinned or "",
            hint=f"write forks.{name}.url into pins.toml, or pass --source DIR",
        )
    if wanted is None:
        raise UsageError(
            f"fork {name} is not pinned", why=fork.unpinned or "", hint="say which: --ref REF"
        )
    git.require()
    remote = git.Remote(name, fork.url)
    with _alone(remote, "history", progress):
        commit = git.resolve(remote, wanted, progress)
        pinned = commit == fork.commit
        number = fork.build_number if pinned else git.build_number(remote, commit, progress)
    if number is None:
        progress.warn("build number unknown: the server will call itself b0")
    with _alone(remote, "checkout", progress):
        path, created = git.checkout(remote, commit, progress)
        yield Tree(path, wanted, commit, False, number, created, fork.url)


def _alone(remote: git.Remote, what: str, progress: Progress) -> AbstractContextManager[None]:
    """One history and one work tree a fork: a second build of it waits for the first."""
    return locked(remote.cache(what), f"another build of fork {remote.fork}", progress)
