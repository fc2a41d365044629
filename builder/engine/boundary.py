"""Any failure in words, where several variants, forks or parts are asked and each stands alone."""

import traceback
from pathlib import Path

from builder.common.errors import BuilderError, BuilderFaultError, FileError
from builder.engine import client as engine


def known(error: Exception) -> BuilderError | None:
    """What a user can act on, with an exit code of its own; None for a fault of builder's."""
    if isinstance(error, BuilderError):
        return error
    lost = engine.lost(error)
    if lost is None and isinstance(error, OSError):
        return FileError.of(error)
    return lost


def failure(error: Exception) -> BuilderError:
    """The failure that one variant, fork or part is reported with; the others go on.

    A fault of builder's is one too, named with the line that it comes from.
    """
    found = known(error)
    if found is not None:
        return found
    frames = traceback.extract_tb(error.__traceback__)
    line = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "no line"
    return BuilderFaultError(
        f"builder failed: {type(error).__name__}: {str(error)[:300]}",
        why=f"at {line}",
        hint="this is a bug in builder: please report these lines",
    )
