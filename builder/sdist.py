"""Source trees from a package index: downloaded by name, version and hash, unpacked once."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from builder import paths
from builder.errors import RemoteUnavailableError
from builder.model import Source
from builder.progress import Progress

if TYPE_CHECKING:
    from pypi_simple import PyPISimple

_TIMEOUT_S = 30
_SETTING = re.compile(r"(?P<place>\S+?)\.(?P<key>index-url|cert)='(?P<value>.*)'")


def tree(source: Source, progress: Progress) -> Path:
    """The folder of the source tree inside the unpacked archive.

    Raises RemoteUnavailableError when the index does not answer, lacks the file or sends others.
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
        _download(source, scratch / "archive", progress)
        _unpack(scratch / "archive", scratch / "tree")
        (scratch / "tree").rename(home)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _download(source: Source, target: Path, progress: Progress) -> None:
    from pypi_simple import PYPI_SIMPLE_ENDPOINT, PyPISimple
    from requests import RequestException

    settings = _pip_settings()
    with PyPISimple(settings.get("index-url", PYPI_SIMPLE_ENDPOINT)) as index:
        if "cert" in settings:
            index.s.verify = settings["cert"]
        try:
            url = _find(index, source)
            with index.s.get(url, stream=True, timeout=_TIMEOUT_S) as response:
                response.raise_for_status()
                total = int(response.headers.get("Content-Length", 0))
                digest = _save(response.iter_content(1 << 20), target, total, progress)
        except (RequestException, OSError) as error:
            raise RemoteUnavailableError(
                "the package index does not answer", why=str(error), hint="try `pip download`"
            ) from error
    if digest != source.sha256:
        raise RemoteUnavailableError(
            f"{url.rpartition('/')[2]} is not the file that pins.toml names",
            why=f"sha256 is {digest}, pinned is {source.sha256}",
        )


def _find(index: "PyPISimple", source: Source) -> str:
    """The address of the source's sdist."""
    from pypi_simple import NoSuchProjectError

    try:
        packages = index.get_project_page(source.package, timeout=_TIMEOUT_S).packages
    except NoSuchProjectError:
        packages = []
    for package in packages:
        if package.package_type == "sdist" and package.version == source.version:
            return package.url
    raise RemoteUnavailableError(
        f"the package index has no sdist of {source.package} {source.version}",
        hint="was it yanked? `pip index versions` lists what is there",
    )


def _save(chunks: Iterable[bytes], target: Path, total: int, progress: Progress) -> str:
    digest, size = hashlib.sha256(), 0
    with target.open("wb") as file:
        for chunk in chunks:
            digest.update(chunk)
            size += file.write(chunk)
            progress.detail(f"{size / 1e6:.0f} of {total / 1e6:.0f} MB")
    return digest.hexdigest()


def _unpack(archive: Path, target: Path) -> None:
    with tarfile.open(archive) as tar:
        # Debian 12's Python 3.11.2 has no filters yet; the archive is the one whose hash is pinned.
        tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
        tar.extractall(target)  # noqa: S202


def _pip_settings() -> dict[str, str]:
    """pip's own index and certificate, wherever they were set: what pip reaches, this reaches."""
    result = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    settings: dict[str, str] = {}
    # pip lists files first and the environment last wins: sort ":env:" behind the rest.
    rows = sorted(
        _SETTING.finditer(result.stdout), key=lambda row: row["place"].startswith(":env:")
    )
    for row in rows:
        settings[row["key"]] = row["value"]
    for key, name in (("index-url", "PIP_INDEX_URL"), ("cert", "PIP_CERT")):
        if name in os.environ:
            settings[key] = os.environ[name]
    return settings
