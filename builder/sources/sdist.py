"""Source trees from a package index: downloaded by name, version and hash, unpacked once."""

import shutil
from pathlib import Path

from filelock import FileLock

from builder.common import paths
from builder.common.errors import RemoteUnavailableError, UsageError
from builder.common.progress import Progress
from builder.model.pins import Source
from builder.sources import archive as source_archive
from builder.sources import package_index


def tree(source: Source, progress: Progress) -> Path:
    """The folder of the source tree inside the unpacked archive.

    Raises RemoteUnavailableError when the index does not answer, lacks the file or sends others, or
    when the archive leads out of its folder.
    """
    home = paths.cache() / "sdist" / f"{source.package}-{source.version}-{source.sha256[:12]}"
    home.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{home}.lock"):
        if not home.exists():
            progress.step(f"download {source.package} {source.version} from the package index")
            _make(source, home, progress)
    found = next(home.glob(f"*/{source.subfolder}"), None)
    if found is None:
        raise RemoteUnavailableError(
            f"{source.package} {source.version} has no folder {source.subfolder}",
            hint="correct `subfolder` in pins.toml",
        )
    return found


def _make(source: Source, home: Path, progress: Progress) -> None:
    # A fixed name, under the lock: whatever a kill leaves here, the next run removes.
    scratch = home.with_name(f"{home.name}.part")
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        package_index.download(source, "sdist", scratch / "archive", progress)
        _unpack(source, scratch / "archive", scratch / "tree")
        (scratch / "tree").rename(home)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _unpack(source: Source, archive: Path, target: Path) -> None:
    try:
        source_archive.extract(archive, target)
    except UsageError as error:
        raise RemoteUnavailableError(
            f"{source.package} {source.version} from the package index cannot be unpacked",
            why=error.why,
            hint="pin another version of it in pins.toml",
        ) from error
