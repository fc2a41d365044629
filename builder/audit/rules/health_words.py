"""What the words of a HEALTHCHECK run: which programs, and whether they can say no at all."""

import posixpath
import re
import shlex
from collections.abc import Sequence

from builder.audit.rules import shell_outcome

_SHELLS = ("sh", "bash", "dash", "ash")
_SEPARATORS = {";", "&", "&&", "|", "||", "(", ")", ";;"}
_BEFORE = {
    "if",
    "then",
    "elif",
    "else",
    "while",
    "until",
    "do",
    "!",
    "{",
    "time",
    "exec",
    "command",
}
"""Words of a shell after which a command comes."""

_BUILT_IN = (
    {"true", ":", "echo", "printf", "exit", "return", "set", "exec", "trap", "kill"}
    | {"if", "while", "until", "for", "case", "function"}
    | {"false", "test", "[", "[[", "read", "cd", "export", "wait", "ulimit", "eval", "."}
    | {"source", "local", "shift", "unset", "fi", "done", "esac", "}", "in"}
)
"""What a shell runs, or reads, without a program of that name."""

_REDIRECTION = re.compile(r"(\d*|&)(<>|>>|>|<)(&[\d-]|\s*[^\s;&|()]+)")
_COMMAND_FLAG = re.compile(r"-[a-z]*c[a-z]*")
_PLAIN = re.compile(r"(?!-)[\w./+-]*[A-Za-z][\w./+-]*")


def programs(test: Sequence[str]) -> list[str]:
    """The programs that a HEALTHCHECK (["CMD", …] or ["CMD-SHELL", …]) starts, as far as is plain.

    What a shell only makes up while it runs, as `$check`, is left out.
    """
    direct, script = _read(test)
    names = [words[0] for words in _commands(script or "")]
    # The patterns of a `case` and the text of a here-document look like commands.
    clear = "case" not in names and "<<" not in (script or "")
    plain = [name for name in names if name not in _BUILT_IN and _PLAIN.fullmatch(name)]
    return list(dict.fromkeys([*direct, *(plain if clear else [])]))


def always_yes(test: Sequence[str]) -> bool:
    """Whether a HEALTHCHECK says yes whatever happens, as far as is plain."""
    return not shell_outcome.can_fail(_outcomes(test))


def always_no(test: Sequence[str]) -> bool:
    """Whether a HEALTHCHECK says no whatever happens, as far as is plain."""
    return not shell_outcome.can_succeed(_outcomes(test))


def _outcomes(test: Sequence[str]) -> shell_outcome.Outcomes:
    if test[0] == "CMD-SHELL":
        return shell_outcome.of_script(" ".join(test[1:]))
    return shell_outcome.of_command(test[1:])


def _read(test: Sequence[str]) -> tuple[list[str], str | None]:
    """The programs that start without a shell, and the text that one reads; None: there is none."""
    if test[0] == "CMD-SHELL":
        return [], " ".join(test[1:])
    direct, words = list[str](), list(test[1:])
    if (
        words[:1]
        and posixpath.basename(words[0]) == "env"
        and _PLAIN.fullmatch("".join(words[1:2]))
    ):
        direct.append(words.pop(0))
    direct += words[:1]
    if words and posixpath.basename(words[0]) in _SHELLS:
        for index, word in enumerate(words[1:-1], start=1):
            if _COMMAND_FLAG.fullmatch(word):
                return direct, words[index + 1]
    return direct, None


def _commands(script: str) -> list[list[str]]:
    """The simple commands of a script; none where its quotes do not match."""
    line = _REDIRECTION.sub(" ", script.replace("\n", " ; "))
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|()")
    lexer.commenters = ""
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:
        return []
    found, current = list[list[str]](), list[str]()
    for word in [*words, ";"]:
        if word not in _SEPARATORS:
            current.append(word)
            continue
        if plain := _without_prefix(current):
            found.append(plain)
        current = []
    return found


def _without_prefix(words: list[str]) -> list[str]:
    """A command without assignments and words of the shell before it."""
    for index, word in enumerate(words):
        name, is_assignment, _ = word.partition("=")
        if word in _BEFORE or (is_assignment and name.isidentifier()):
            continue
        return words[index:]
    return []
