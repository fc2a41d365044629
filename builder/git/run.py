"""Runs git: the one place through which every call of it goes, in an environment of our own.

The only importer of GitPython.

A caller's `GIT_DIR`, hooks, filters, attributes and signing never reach what builder does. Their
git settings (mirrors, credentials, proxies) count where a remote is asked, and nowhere else.
"""

import base64
import fcntl
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast
from urllib.parse import unquote

from builder.common.errors import EngineError, FileError

_LARGEST = 256 * 1024 * 1024
"""Bytes of one answer: mainline's whole history as SHAs is under half a megabyte."""
_TAIL = 16 * 1024
"""Bytes of what git says on stderr that are kept, the last ones."""
_LONGEST_S = 3600.0
"""For one call, a fetch of a whole history too."""
_PATIENCE_S = 10.0

# A remote that asks for a password or sends nothing for 30 s is a remote that does not answer. What
# a fetch left out is never fetched later: at a shallow remote git would do so without end.
_FIXED = {
    "GIT_ASKPASS": "",
    "GIT_DEFAULT_HASH": "sha1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
    "GIT_TERMINAL_PROMPT": "0",
    "LANGUAGE": "C",
    "LC_ALL": "C",
}
# What a user may say of reaching a remote, beside the settings.
_OF_REMOTES = re.compile(r"GIT_(SSL|PROXY|HTTP_PROXY)_\w+|GIT_CONFIG_(GLOBAL|SYSTEM|NOSYSTEM)")
_NO_SETTINGS = {
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
}
_RELIED_ON = {
    "commit.gpgSign": "false",
    "core.attributesFile": os.devnull,
    "core.autocrlf": "false",
    "core.excludesFile": os.devnull,
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,
    "core.protectHFS": "true",
    "core.protectNTFS": "true",
    "core.quotePath": "false",
    "fetch.recurseSubmodules": "false",
    # Nothing of ours goes on in the background, where it would hold locks.
    "gc.autoDetach": "false",
    "http.lowSpeedLimit": "1000",
    "http.lowSpeedTime": "30",
    "i18n.commitEncoding": "UTF-8",
    "i18n.logOutputEncoding": "UTF-8",
    "log.showSignature": "false",
    "maintenance.autoDetach": "false",
    "push.followTags": "false",
    "push.gpgSign": "false",
    "push.recurseSubmodules": "no",
    "submodule.recurse": "false",
}

_ADDRESS = re.compile(r"remote\..+\.(url|pushurl)")
_LOGIN = re.compile(
    r"(?P<scheme>https?://)(?P<user>[^/?#:]*)(:(?P<password>[^/?#]*))?@", re.IGNORECASE
)

_OF_THE_DISK = re.compile(
    r"^(?!remote:|fatal: remote error)(.*: "
    r"(No space left on device|Disk quota exceeded|Read-only file system|Input/output error"
    r"|File too large|Too many open files)"
    # Of a checkout it does not say why: what cannot be created has other words.
    r"|error: unable to write file .*|fatal: .*write error\b.*)$",
    re.M,
)
# git names its child by the first word, an option too.
_KILLED = re.compile(r"^error: (?!git-?upload-pack|ssh)\S+ died of signal (\d+)$", re.M)
_DISK_HINT = "make room on that disk; XDG_CACHE_HOME names another folder for caches"


class CommandError(Exception):
    """A git command failed; `why` is the end of what it said, `code` its exit code."""

    def __init__(self, why: str, code: int = 1) -> None:
        super().__init__(why)
        self.why = why
        self.code = code


class TooLongError(CommandError):
    """A git command was ended: it went on for too long, or its answer did not end."""


@dataclass(frozen=True, slots=True)
class Said:
    """What git printed. In text, bytes that are no UTF-8 are replaced."""

    raw: bytes
    stderr: str

    @property
    def stdout(self) -> str:
        """Its answer as text."""
        return self.raw.decode(errors="replace")


def require() -> None:
    """Raises EngineError when git is not installed."""
    if shutil.which("git") is None:
        raise EngineError(
            "git is not installed", hint="`builder doctor --fix`, or `apt-get install git`"
        )


def run_git(
    words: Sequence[str],
    *,
    git_dir: Path | None = None,
    work_tree: Path | None = None,
    folder: Path | None = None,
    lock: Path | None = None,
    of_user: bool = False,
    settings: Iterable[tuple[str, str]] = (),
    environment: Mapping[str, str] | None = None,
    given: bytes = b"",
    longest_s: float = _LONGEST_S,
) -> Said:
    """Run git in the repository `git_dir`; None: in none, or in the one that `folder` lies in.

    `of_user`: with the settings of whoever calls, as a remote wants. `settings`, and those that
    `environment` counts, come on top, and stand in no list of processes. `given` is its stdin.
    `lock`: a file that is locked until git has ended, and so waits
    for a git that outlived its builder. Raises CommandError; FileError for what is the machine's
    fault: a full disk, a kill.
    """
    where = [f"--git-dir={git_dir}"] if git_dir else []
    where += [f"--work-tree={work_tree}"] if work_tree else []
    env = _environment(settings, environment or {}, of_user=of_user)
    if git_dir is None and folder is None:
        # Else git would look for one from here upwards.
        env["GIT_DIR"] = os.devnull
    command = ["git", "--no-pager", *where, *words]
    require()
    with alone(lock) as kept_open:
        cwd = folder or work_tree
        code, stdout, stderr, ended = _run(command, cwd, env, given, kept_open, longest_s)
    said = "\n".join(line for line in stderr.splitlines() if line.strip())[-1000:]
    if ended:
        raise TooLongError(f"git {words[0]}: {ended}\n{said}".strip())
    _check_machine(words[0], code, stderr)
    if code:
        raise CommandError(said, code)
    return Said(stdout, stderr)


@contextmanager
def alone(file: Path | None) -> Iterator[tuple[int, ...]]:
    """Holds a lock, by descriptors that are git's too: the last process that ends gives it back."""
    if file is None:
        yield ()
        return
    lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield (lock,)
    finally:
        os.close(lock)


def _counted(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """The settings that variables hold: https://git-scm.com/docs/git-config#ENVIRONMENT."""
    count = environment.get("GIT_CONFIG_COUNT", "")
    pairs: list[tuple[str, str]] = []
    while count.isascii() and count.isdigit() and len(pairs) < int(count):
        key = environment.get(f"GIT_CONFIG_KEY_{len(pairs)}")
        value = environment.get(f"GIT_CONFIG_VALUE_{len(pairs)}")
        if key is None or value is None:
            break
        pairs.append((key, value))
    return pairs


def _signed_in(
    settings: Iterable[tuple[str, str]], more: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """The settings with the login of a remote's address as a header.

    git gives an address to its helper on the command line, where every user of the machine reads
    it. With a header of the caller's the address is only without its login.
    """
    signed = any(key.lower().endswith(".extraheader") for key, _ in _counted(more))
    for key, value in settings:
        login = _LOGIN.match(value) if _ADDRESS.fullmatch(key) else None
        if login is None:
            yield key, value
            continue
        address = f"{login['scheme']}{value[login.end() :]}"
        yield key, address
        if not signed:
            shown = ":".join(unquote(part) for part in (login["user"], login["password"] or ""))
            word = base64.b64encode(shown.encode()).decode()
            yield f"http.{address}.extraHeader", f"Authorization: Basic {word}"


def _environment(
    settings: Iterable[tuple[str, str]], more: Mapping[str, str], *, of_user: bool
) -> dict[str, str]:
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or (of_user and _OF_REMOTES.fullmatch(name))
    }
    pairs = [*(_counted(os.environ) if of_user else []), *_RELIED_ON.items()]
    pairs += [*_signed_in(settings, more), *_counted(more)]
    counted = {"GIT_CONFIG_COUNT": str(len(pairs))}
    for i, (key, value) in enumerate(pairs):
        counted |= {f"GIT_CONFIG_KEY_{i}": key, f"GIT_CONFIG_VALUE_{i}": value}
    return own | ({} if of_user else _NO_SETTINGS) | _FIXED | dict(more) | counted


def _run(
    command: list[str],
    folder: Path | None,
    env: Mapping[str, str],
    given: bytes,
    kept_open: tuple[int, ...],
    longest_s: float,
) -> tuple[int, bytes, str, str]:
    """The exit code, stdout and the end of stderr; why it was ended, or ""."""
    from git.cmd import Git

    if folder is not None:
        # Raises OSError: in a folder that cannot be entered GitPython takes the caller's.
        os.stat(f"{folder}/.")  # noqa: PTH116 -- pathlib drops the dot, and with it the question
    # GitPython adds to the environment of whoever calls: what git is not to have is taken away.
    taken = [word for name in os.environ if name not in env for word in ("-u", name)]
    with _stdin(given) as stdin:
        started = Git(folder).execute(
            ["env", *taken, *command],
            istream=stdin.fileno(),
            env=dict(env),
            as_process=True,
            pass_fds=kept_open,
        )
        with cast("subprocess.Popen[bytes]", started.proc) as process:
            too_late = threading.Event()
            late = threading.Timer(longest_s, _kill, (process, too_late))
            tail = bytearray()
            reader = threading.Thread(target=_keep_tail, args=(process.stderr, tail), daemon=True)
            late.start()
            reader.start()
            try:
                answer, whole = _read(process.stdout)
                if not whole:
                    process.kill()
                process.wait()
                # What outlives git and holds its stderr, as an agent does, is not waited for.
                reader.join(_PATIENCE_S)
            except BaseException:
                _end(process)
                raise
            finally:
                late.cancel()
    ended = "" if whole else f"no end after {len(answer)} bytes"
    ended = f"no end after {longest_s:.0f} s" if too_late.is_set() else ended
    return process.returncode, answer, tail.decode(errors="replace"), ended


@contextmanager
def _stdin(given: bytes) -> Iterator[IO[bytes]]:
    """A file that begins with these bytes: a pipe would have to be written while git is read."""
    with tempfile.TemporaryFile() as file:
        file.write(given)
        file.seek(0)
        yield file


def _read(stream: IO[bytes] | None) -> tuple[bytes, bool]:
    """All of a stream, and whether it was all: at most `_LARGEST` bytes."""
    parts, size = [], 0
    while stream and (part := stream.read1(1 << 20)):  # type: ignore[attr-defined]
        parts.append(part)
        size += len(part)
        if size > _LARGEST:
            return b"".join(parts), False
    return b"".join(parts), True


def _keep_tail(stream: IO[bytes] | None, tail: bytearray) -> None:
    while stream and (part := stream.read1(1 << 16)):  # type: ignore[attr-defined]
        tail += part
        del tail[:-_TAIL]


def _kill(process: "subprocess.Popen[bytes]", too_late: threading.Event) -> None:
    too_late.set()
    process.kill()


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End git so that it takes its locks away, if it still can."""
    process.terminate()
    try:
        process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()


def _check_machine(word: str, code: int, stderr: str) -> None:
    """Raises FileError for what neither a commit nor a remote is to blame for."""
    killed = _KILLED.search(stderr) if code else None
    number = int(killed[1]) if killed else -code
    if number == signal.SIGXFSZ:
        raise FileError(f"git {word}: File too large", hint="a limit of this shell: `ulimit -f`")
    if killed or code < 0:
        hint = "the kernel's log says whether memory ran out"
        raise FileError(f"git {word} was ended by {signal.Signals(number).name}", hint=hint)
    full = _OF_THE_DISK.search(stderr) if code else None
    if full:
        raise FileError(f"git {word}: {full[0].strip()}", hint=_DISK_HINT)
