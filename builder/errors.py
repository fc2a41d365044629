"""One tree of errors. Each says what happened, why, and what to do next, and knows its exit code.

Exit codes: 0 yes · 1 the answer is no · 2 usage or pins · 3 bug · 4 engine · 5 build failed ·
6 remote unavailable · 7 ref not found · 8 a published name is taken · 130 interrupted.
"""


class BuilderError(Exception):
    """A failure that the user can act on.

    `what` is one line; `why` may be several; `hint` is the next command or edit.
    """

    exit_code = 3

    def __init__(self, what: str, *, why: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.hint = hint


class UsageError(BuilderError):
    """A command line that cannot be obeyed."""

    exit_code = 2


class PinsError(BuilderError):
    """pins.toml is missing, is no TOML, or says something impossible."""

    exit_code = 2


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
