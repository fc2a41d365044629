"""The program: the commands, and what becomes of their errors."""

import sys

from builder import console, signals
from builder.command import (  # noqa: F401 -- they register on `app`
    building,
    checking,
    clients,
    deploying,
    fitting,
    nights,
    pinning,
    publishing,
    reporting,
    serving,
    verifying,
)
from builder.command.app import NO, InterruptedByUserError, app
from builder.errors import BuilderError

BUG = 3


def main() -> None:
    """Run the command line and exit with the documented code."""
    try:
        # SIGTERM and SIGHUP go the same way out: containers are removed and buildx is told.
        with signals.interrupting():
            app()
    except BuilderError as error:
        console.complain(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(InterruptedByUserError.exit_code)
    except BrokenPipeError:
        # the reader of our output has gone, as `| head` does
        sys.stderr.close()
        sys.exit(NO)
    except Exception:
        import traceback

        traceback.print_exc()
        console.tell("error: this is a bug in builder: please report the lines above")
        sys.exit(BUG)
