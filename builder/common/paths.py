"""Where things lie: templates and pins of the installation, results beside pins.toml, caches."""

from pathlib import Path

import platformdirs

_PACKAGE = Path(__file__).parent.parent
_CARRIED = _PACKAGE / "_data"

INSTALLATION = _CARRIED if _CARRIED.is_dir() else _PACKAGE.parent
"""Holds dockerfiles/ and pins.toml: inside the wheel, or the checkout of an editable install."""


def templates() -> Path:
    """The folder of the Dockerfile templates."""
    return INSTALLATION / "dockerfiles"


def results(pins_file: Path) -> Path:
    """The folder under which rendered files and receipts go: beside pins.toml.

    The pins that a wheel carries lie in a folder nobody writes to: the current one instead.
    """
    folder = pins_file.resolve().parent
    return Path.cwd() if folder == _CARRIED.resolve() else folder


def record(results: Path) -> Path:
    """The folder of the record of releases and nights, unless another is named."""
    return results / "build" / "record"


def cache() -> Path:
    """The folder for what can be fetched or made again: git objects, sdists, models."""
    return Path(platformdirs.user_cache_dir("turboquant-builder"))
