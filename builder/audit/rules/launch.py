"""How the image is started, as whom, and whether anybody notices when it is not well."""

import itertools
import posixpath
import re
from collections.abc import Sequence

from builder.audit.rules import health_words
from builder.audit.rules.secret import shown
from builder.audit.rules.subject import Subject, some, verdict_on
from builder.image.tree import File
from builder.model.finding import Finding

USER = "user"
ENTRYPOINT = "entrypoint"
HEALTHCHECK = "healthcheck"
SETTINGS = "settings"

_INITS = ("init", "tini", "tini-static", "dumb-init", "docker-init", "catatonit")
_SERVER = "llama-server"
_GIVEN = {
    "LLAMA_ARG_HOST": "0.0.0.0",  # noqa: S104 - inside a container
    "LLAMA_ARG_PORT": "8080",
    "NVIDIA_VISIBLE_DEVICES": "all",
}
"""What the template sets."""

# What llama-server, ggml, the forks, OpenMP and the loader read; LLAMA_CACHE is where downloads go.
_READ = re.compile(
    r"(?!LLAMA_CACHE$)(LLAMA|GGML|OMP|GOMP)_.*|TURBO.*"
    r"|LD_PRELOAD|LD_AUDIT|CUDA_VISIBLE_DEVICES|NVIDIA_VISIBLE_DEVICES"
)
_SHOWN = 100
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def user(subject: Subject) -> Finding:
    """Whether the image runs as somebody other than root."""
    name = subject.config.user.partition(":")[0]
    number = name if _is_number(name) else _number(subject, name)
    faults = []
    if not name or (number is not None and not number.strip("0")):
        faults = [f"it is root ({subject.config.user or 'no USER'})"]
    elif number is None:
        faults = [f"the image knows no user {name}"]
    return verdict_on(
        USER, faults, expected="a user other than root", good=f"{subject.config.user}"
    )


def entrypoint(subject: Subject) -> Finding:
    """Whether PID 1 is the server itself or an init: a shell passes no signal on."""
    return verdict_on(
        ENTRYPOINT,
        [fault] if (fault := _entrypoint_fault(subject)) else [],
        expected="the server as PID 1, or an init that starts it: no shell, no script",
        good=shown(" ".join(subject.config.entrypoint)),
    )


def healthcheck(subject: Subject) -> Finding:
    """Whether there is a HEALTHCHECK that can say no, and what it runs is in the image."""
    test = subject.config.healthcheck
    return verdict_on(
        HEALTHCHECK,
        _healthcheck_faults(subject, test),
        expected="a HEALTHCHECK that can say no, and all that it runs",
        good=shown(" ".join(test[1:]))[:_SHOWN],
    )


def _healthcheck_faults(subject: Subject, test: Sequence[str]) -> list[str]:
    if not test or test[0] == "NONE":
        return ["none"]
    words = shown(" ".join(test[1:]))[:_SHOWN]
    if not test[1:]:
        return ["nothing to run"]
    shell = subject.config.shell[:1] if test[0] == "CMD-SHELL" else ()
    needed = [*shell, *health_words.programs(test)]
    missing = [name for name in needed if program(subject, name) is None]
    faults = [f"{words}: {', '.join(missing)} is not in the image"] if missing else []
    if health_words.always_yes(test):
        faults.append(f"{words}: it always says yes")
    elif health_words.always_no(test):
        faults.append(f"{words}: it always says no")
    return faults


def settings(subject: Subject) -> Finding:
    """Whether a plain `docker run` is what it seems: nothing baked in changes the server's own way.

    That is an environment that it reads, or options after it in ENTRYPOINT and CMD.
    """
    environment = dict(one.partition("=")[::2] for one in subject.config.environment)
    faults = [
        _setting(name, value)
        for name, value in environment.items()
        if _READ.fullmatch(name) and _GIVEN.get(name) != value
    ]
    words = _options(subject)
    if words:
        options = [word.partition("=")[0] for word in words if word.startswith("-")]
        faults.append(f"the server's command line has {some(options or ['a word'])}")
    given = [f"{name}={environment[name]}" for name in _GIVEN if name in environment]
    return verdict_on(
        SETTINGS,
        faults,
        expected="no setting of the server baked in but the address and port",
        good=", ".join(given) or "none",
    )


def program(subject: Subject, name: str) -> File | None:
    """The file that this word of a command runs; None when there is none."""
    if "/" in name:
        return subject.tree.resolve(name)
    environment = dict(one.partition("=")[::2] for one in subject.config.environment)
    folders = environment.get("PATH", _DEFAULT_PATH).split(":")
    found = (subject.tree.resolve(posixpath.join(folder, name)) for folder in folders if folder)
    return next((file for file in found if file is not None), None)


def _number(subject: Subject, name: str) -> str | None:
    """The user's number in the image's /etc/passwd."""
    passwd = subject.tree.resolve("/etc/passwd")
    text = (passwd.text if passwd else None) or b""
    rows = [line.split(":") for line in text.decode(errors="replace").splitlines()]
    numbers = (row[2] for row in rows if row[0] == name and len(row) > 2)  # noqa: PLR2004
    return next(filter(_is_number, numbers), None)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _after_flags(words: list[str]) -> list[str]:
    """What an init starts: the words after its own flags."""
    if "--" in words:
        return words[words.index("--") + 1 :]
    return list(itertools.dropwhile(lambda word: word.startswith("-"), words))


def _setting(name: str, value: str) -> str:
    """The setting in words, without a value that may be a secret."""
    is_secret = re.search(r"KEY|TOKEN", name) or shown(value) != value
    return f"{name} is set" if is_secret else f"{name}={value[:_SHOWN]}"


def _options(subject: Subject) -> list[str]:
    """What follows the server's name in ENTRYPOINT and CMD."""
    words = [*subject.config.entrypoint, *subject.config.command]
    if words and posixpath.basename(words[0]) in _INITS:
        words = _after_flags(words[1:])
    return words[1:] if words and posixpath.basename(words[0]) == _SERVER else []


def _entrypoint_fault(subject: Subject) -> str | None:
    words = list(subject.config.entrypoint or subject.config.command)
    all_ = shown(" ".join(words))
    if not words:
        return "none"
    if posixpath.basename(words[0]) in _INITS:
        if program(subject, words[0]) is None:
            return f"{words[0]} is not in the image"
        words = _after_flags(words[1:])
    found = program(subject, words[0]) if words else None
    if found is None:
        return f"{words[0]} is not in the image" if words else f"{all_} starts nothing"
    if found.elf is None:
        return f"{words[0]} is a script" if found.script else f"{words[0]} is no program"
    is_server = posixpath.basename(found.path) == _SERVER
    return None if is_server else f"{words[0]} is not {_SERVER}: {all_}"
