"""Files from a package index: found by name and version, checked by hash."""

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from builder.common.errors import FileError, RemoteUnavailableError
from builder.common.progress import Progress
from builder.model.pins import Source, Wheel

if TYPE_CHECKING:
    from pypi_simple import DistributionPackage, PyPISimple

    from builder.common.limited_http import Body

Kind = Literal["sdist", "wheel"]

_TIMEOUT_S = 30
_LARGEST_PAGE = 8 << 20
"""Bytes of a project's page: it is held in memory, and takes some forty times as much in parts."""
_LARGEST: Mapping[str, int] = {"sdist": 512 << 20, "wheel": 2 << 30}
"""Bytes of a file: five times llama.cpp's source, and three times CUDA's largest wheel."""
_SLOWEST = 100_000
"""Bytes a second."""
_SETTING = re.compile(r"(?P<place>\S+?)\.(?P<key>index-url|cert)='(?P<value>.*)'")
# A release has a wheel for each system and processor.
_FITS = re.compile(r"-(none-any|\S*linux\S*_x86_64)\.whl$")


@dataclass(frozen=True, slots=True)
class Listed:
    """One source archive on the index. `yanked` is the reason, "" without one; None: it is not.

    `sha256` is None where the index does not tell it.
    """

    version: str
    sha256: str | None
    yanked: str | None


def download(pinned: Source | Wheel, kind: Kind, target: Path, progress: Progress) -> None:
    """The pinned release's file as `target`; a wheel is the one for Linux on x86-64.

    Raises RemoteUnavailableError when the index does not answer, lacks the file or sends another.
    """
    from builder.common.limited_http import Limits

    with _index() as index:
        url = _find(index, pinned, kind)
        with index.s.get(url, stream=True, timeout=_TIMEOUT_S) as response:
            response.raise_for_status()
            cast("Body", response.raw).allow(Limits(_LARGEST[kind], _TIMEOUT_S, _SLOWEST))
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isascii() and length.isdigit() else 0
            digest = _save(response.iter_content(1 << 20), target, total, progress)
    if digest != pinned.sha256:
        raise RemoteUnavailableError(
            f"{url.rpartition('/')[2]} is not the file that pins.toml names",
            why=f"sha256 is {digest}, pinned is {pinned.sha256}",
        )


def listed(package: str) -> list[Listed]:
    """The source archives of a package on the index; none of a package that it does not have.

    Raises RemoteUnavailableError when the index does not answer.
    """
    with _index() as index:
        packages = _packages(index, package)
    return [
        Listed(
            version=one.version,
            sha256=one.digests.get("sha256"),
            yanked=(one.yanked_reason or "") if one.is_yanked else None,
        )
        for one in packages
        if one.package_type == "sdist" and one.version is not None
    ]


@contextmanager
def _index() -> Iterator["PyPISimple"]:
    from pypi_simple import (
        PYPI_SIMPLE_ENDPOINT,
        PyPISimple,
        UnsupportedContentTypeError,
        UnsupportedRepoVersionError,
    )
    from requests import RequestException

    from builder.common.limited_http import Limits
    from builder.sources import index_login

    settings = _pip_settings()
    limits = Limits(_LARGEST_PAGE, _TIMEOUT_S, _SLOWEST)
    address, session = index_login.session(settings.get("index-url", PYPI_SIMPLE_ENDPOINT), limits)
    with PyPISimple(address, session=session) as index:
        if "cert" in settings:
            index.s.verify = settings["cert"]
        try:
            yield index
        except (
            RequestException,
            OSError,
            UnsupportedContentTypeError,
            UnsupportedRepoVersionError,
        ) as error:
            if isinstance(error, OSError) and FileError.of(error):
                raise  # it is this machine's disk
            raise RemoteUnavailableError(
                "the package index does not answer", why=str(error), hint="try `pip download`"
            ) from error


def _packages(index: "PyPISimple", project: str) -> "list[DistributionPackage]":
    """The files on a project's page; none of one that is not there."""
    from pypi_simple import NoSuchProjectError, UnsupportedContentTypeError
    from pypi_simple import UnsupportedRepoVersionError as OtherVersionError
    from requests import RequestException

    try:
        return index.get_project_page(project, timeout=_TIMEOUT_S).packages
    except NoSuchProjectError:
        return []
    except (RequestException, OSError, UnsupportedContentTypeError, OtherVersionError):
        raise
    # pypi_simple takes the page to pieces before it looks at their kinds.
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise RemoteUnavailableError(
            f"the package index answers in a shape that is not its own about {project}",
            why=f"{type(error).__name__}: {error}"[:200],
        ) from error


def _find(index: "PyPISimple", pinned: Source | Wheel, kind: Kind) -> str:
    """The address of the file."""
    for package in _packages(index, pinned.package):
        if (
            package.package_type == kind
            and package.version == pinned.version
            and (kind == "sdist" or _FITS.search(package.filename))
        ):
            return package.url
    raise RemoteUnavailableError(
        f"the package index has no {kind} of {pinned.package} {pinned.version}",
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
