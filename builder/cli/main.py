"""The program: the commands, and what becomes of their errors."""

import sys

from builder.cli import (  # noqa: F401 -- they register on `app`
    building,
    checking,
    clients,
    console,
    deploying,
    fitting,
    nights,
    pinning,
    publishing,
    recording,
    reporting,
    serving,
    verifying,
)
from builder.cli.app import NO, InterruptedByUserError, app
from builder.common import signals
from builder.common.errors import FileError
from builder.engine import boundary

BUG = 3


def main() -> None:
    """Run the command line and exit with the documented code."""
    console.prepare()
    code = _run()
    try:
        unwritten = console.lost()
    except BrokenPipeError:
        sys.exit(code or NO)
    if unwritten:
        console.tell(f"error: the answer cannot be written: {unwritten.strerror}")
        code = code or FileError.exit_code
    sys.exit(code)


def _run() -> int:
    """The exit code of the command line."""
    try:
        # SIGTERM and SIGHUP go the same way out: containers are removed and buildx is told.
        with signals.interrupting():
            app()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    except KeyboardInterrupt:
        return InterruptedByUserError.exit_code
    except BrokenPipeError:
        # the reader of our output has gone, as `| head` does
        sys.stderr.close()
        return NO
    except Exception as error:
        known = boundary.known(error)
        if known is None:
            return _bug()
        console.complain(known)
        return known.exit_code
    return 0


def _bug() -> int:
    import traceback

    console.tell(traceback.format_exc().rstrip())
    console.tell("error: this is a bug in builder: please report the lines above")
    return BUG
