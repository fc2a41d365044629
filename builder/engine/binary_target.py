"""A llama-server program on this machine as something that servers are started from."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from builder.common import signals
from builder.common.errors import UsageError
from builder.engine import ownership, processes, strangers_environment
from builder.llama.target import CheckCommand, CheckRun, Serving, State

_SETTINGS = ("LLAMA_", "TURBO", "BUILDER_REGISTRY_")
"""What variables of the user begin with that change a server unasked, or are none of its matter."""

_LOOPBACK = "127.0.0.1"
_ANSWER_S = 10.0
_SIGNAL_CODES = 128
_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    os._exit(128 + signal.SIGKILL)
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True, slots=True)
class BinaryTarget:
    """A program file. `env` is added to this process's environment.

    Without `held_back` and what is secret in it.
    """

    path: Path
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    def output(self, *arguments: str) -> str:
        """What llama-server prints for these arguments until it ends by itself.

        Raises UsageError when the file is no program, or does not end within ten seconds.
        """
        try:
            result = subprocess.run(
                [self.path.absolute(), *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=self._environment(),
                timeout=_ANSWER_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UsageError(f"{self.path} cannot be run", why=str(error)) from error
        return result.stdout.decode(errors="replace")

    def held_back(self) -> list[str]:
        """Variables of this process's environment that the program is not given, by name."""
        return sorted(name for name in os.environ.keys() - self.env if name.startswith(_SETTINGS))

    def _environment(self) -> dict[str, str]:
        known, settings = strangers_environment.environment(), self.held_back()
        kept = {name: value for name, value in known.items() if name not in settings}
        return {**kept, **self.env}

    def check_command(self) -> CheckCommand | None:
        """None: a program has no HEALTHCHECK, an image has."""
        return None

    def check_alone(self) -> CheckRun | None:
        """None, as for `check_command`."""
        return None

    @contextlib.contextmanager
    def serve(
        self, arguments: Sequence[str], model: Path, *, port: int | None = None
    ) -> Iterator[Serving]:
        """Start the program on a model, listening on loopback only; killed at the end.

        At a port that is free: `port` is a container's matter, and here it may be another's.
        """
        del port
        chosen = _free_port()
        place = ["-m", str(model), "--host", _LOOPBACK, "--port", str(chosen)]
        with signals.interrupting(), tempfile.TemporaryFile() as log:
            process = subprocess.Popen(
                [*_dying_with_us(self.path), *place, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**self._environment(), ownership.VARIABLE: ownership.mark()},
                # All that it starts is known by the session, and ends with it.
                start_new_session=True,
            )
            try:
                yield _Process(process, chosen, log.fileno())
            finally:
                _kill(process)


@dataclass(frozen=True, slots=True)
class _Process:
    process: "subprocess.Popen[bytes]"
    port: int
    log_descriptor: int

    @property
    def url(self) -> str:
        return f"http://{_LOOPBACK}:{self.port}"

    def listens(self) -> bool | None:
        return processes.listens(self.process.pid, self.port)

    def state(self) -> State:
        code = self.process.poll()
        if code is None:
            return State(running=True)
        return State(running=False, exit_code=code if code >= 0 else _SIGNAL_CODES - code)

    def log(self) -> str:
        # Read at its start, whatever the position that the child shares and writes at.
        size = os.fstat(self.log_descriptor).st_size
        return os.pread(self.log_descriptor, size, 0).decode(errors="replace").rstrip()

    def terminate(self) -> None:
        self.process.terminate()

    def check(self) -> CheckRun | None:
        return None


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """SIGKILL to the program and to what it started, also when it was a script."""
    members = processes.session(process.pid)
    process.kill()
    for pid in members:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def _dying_with_us(program: Path) -> list[str]:
    """The beginning of a command whose process the kernel kills when this one is gone: on Linux.

    A program of its own asks for it, and becomes the other: no code of ours runs between fork and
    exec, where threads make that unsafe.
    """
    found = str(program.absolute())
    if sys.platform != "linux":
        return [found]
    return [sys.executable, "-ISc", _DIE_WITH_PARENT, str(os.getpid()), found]


def _free_port() -> int:
    """A port that nobody listened on a moment ago: somebody may take it before the server does."""
    with socket.create_server((_LOOPBACK, 0)) as free:
        port: int = free.getsockname()[1]
        return port
