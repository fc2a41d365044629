"""One tree of errors. Each says what happened, why, and what to do next, and knows its exit code.

Exit codes: 0 yes · 1 the answer is no · 2 usage, pins or a file · 3 bug · 4 engine ·
5 build failed · 6 remote unavailable · 7 ref not found · 8 a published name is taken ·
130 interrupted.
"""

import errno

from builder.common.redaction import redacted


class BuilderError(Exception):
    """A failure that the user can act on.

    `what` is one line; `why` may be several; `hint` is the next command or edit. No login of an
    address is in them.
    """

    exit_code = 3

    def __init__(self, what: str, *, why: str = "", hint: str = "") -> None:
        self.what, self.why, self.hint = map(redacted, (what, why, hint))
        super().__init__(self.what)


class BuilderFaultError(BuilderError):
    """A bug in builder, where it ended one variant, fork or part, and the others went on."""


class UsageError(BuilderError):
    """A command line that cannot be obeyed."""

    exit_code = 2


class PinsError(BuilderError):
    """pins.toml is missing, is no TOML, or says something impossible."""

    exit_code = 2


class FileError(BuilderError):
    """A file or folder of this machine that cannot be read or written, as on a full disk."""

    exit_code = 2

    @classmethod
    def of(cls, error: OSError) -> "FileError | None":
        """What the system said of a file; None for an error that is not of a file."""
        if type(error).__module__ != "builtins" or error.errno not in _OF_FILES:
            return None
        name = error.filename2 or error.filename
        what = error.strerror or str(error)
        return cls(
            f"{name}: {what}" if name else f"a file cannot be read or written: {what}",
            hint=_OF_FILES[error.errno],
        )


_MAKE_ROOM = (
    "make room on that disk; `docker builder prune` frees most where it is the engine's too"
)
_ELSEWHERE = "XDG_CACHE_HOME names another folder for caches; results lie beside pins.toml"
_OF_FILES: dict[int | None, str] = {
    errno.EACCES: _ELSEWHERE,
    errno.EDQUOT: _MAKE_ROOM,
    errno.EEXIST: "",
    errno.EFBIG: "a limit of this shell or file system: `ulimit -f`",
    errno.EIO: "the disk may be broken: the kernel's log says more",
    errno.EISDIR: "",
    errno.ELOOP: "take the link away, or name another folder",
    errno.EMFILE: "a limit of this shell: `ulimit -n`",
    errno.ENAMETOOLONG: "",
    errno.ENFILE: "",
    errno.ENOENT: "",
    errno.ENOSPC: _MAKE_ROOM,
    errno.ENOTDIR: _ELSEWHERE,
    errno.EPERM: _ELSEWHERE,
    errno.EROFS: _ELSEWHERE,
}
"""What the system says of files, each with what to do."""


class EngineError(BuilderError):
    """The Docker engine, BuildKit or buildx is missing, not running or refused."""

    exit_code = 4


class BuildFailedError(BuilderError):
    """The build ran and failed; `why` holds the first error, `log` the whole log's path.

    `commits_fault`: the source was refused, not the machine at fault, so another commit may build.
    """

    exit_code = 5

    def __init__(
        self,
        what: str,
        *,
        why: str = "",
        hint: str = "",
        log: str = "",
        commits_fault: bool = False,
    ) -> None:
        super().__init__(what, why=why, hint=hint)
        self.log = log
        self.commits_fault = commits_fault


class RemoteUnavailableError(BuilderError):
    """A git host, registry or package index did not answer, or no longer has what was asked for."""

    exit_code = 6


class NotAllowedError(RemoteUnavailableError):
    """The remote answered that this login may not do that, or that nobody may."""


class RefNotFoundError(BuilderError):
    """The remote answered, and has no such branch, tag or commit."""

    exit_code = 7


class NotProvenError(BuilderError):
    """An image has not passed what the policy asks of a release: it gets no name.

    `stage` is where, "audit", "smoke" or "policy"; `log` the path of the servers' logs, or empty.
    """

    exit_code = 1

    def __init__(
        self, what: str, *, why: str = "", hint: str = "", stage: str = "policy", log: str = ""
    ) -> None:
        super().__init__(what, why=why, hint=hint)
        self.stage = stage
        self.log = log


class NameTakenError(BuilderError):
    """A published name stands for another digest than this command may give it."""

    exit_code = 8
