"""Which exit codes a command or a short script of a shell can have, as far as is plain.

What is not plain, a loop, a `case`, a function, `eval`, can have any.
"""

import posixpath
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import dropwhile, pairwise, takewhile

Outcome = tuple[bool, bool]
"""Whether the script ends here, and whether the exit code is 0."""
Outcomes = frozenset[Outcome]

_GOOD, _BAD = (False, True), (False, False)
_ANY: Outcomes = frozenset({_GOOD, _BAD})
_OPAQUE: Outcomes = _ANY | {(True, True), (True, False)}

_ALWAYS_GOOD = {"true", ":", "echo", "printf", "sleep", "date", "pwd", "id", "whoami", "uname"}
_ALWAYS_GOOD |= {"hostname", "nproc", "arch", "uptime", "export", "umask", "free"}
_CONSTANT: dict[str, Outcomes] = dict.fromkeys(_ALWAYS_GOOD, frozenset({_GOOD}))
_CONSTANT["false"] = frozenset({_BAD})
"""What ends in the same way whatever a server does."""

_READS = {"cat", "tee", "head", "tail", "sort", "wc"}
"""What ends with 0 at the end of a pipe, whatever came through it."""

_NOT_PLAIN = {"while", "until", "for", "case", "function", "select", "eval", ".", "source", "trap"}
_NOT_PLAIN |= {"return", "break", "continue", "alias", "kill", "coproc"}
_CLOSING = {"then", "elif", "else", "fi", "}", ")", "do", "done", "esac"}
_SHELLS = {"sh", "bash", "dash", "ash"}
_STARTS_ANOTHER = {
    "env",
    "nice",
    "nohup",
    "setsid",
    "timeout",
    "command",
    "builtin",
    "time",
    "exec",
}
_OF_SHELL = re.compile(r"&&|\|\||;;|[;&|()]")

_COMMENT = re.compile(r"(?m)(?:^|(?<=[\s;]))#[^\n]*")
_REDIRECTION = re.compile(r"(\d*|&)(<>|>>|>|<)(&[\d-]|\s*[^\s;&|()]+)")
_INNERMOST = re.compile(r"\$\([^()]*\)|`[^`]*`")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)

_UNARY: dict[str, Callable[[str], bool]] = {"-n": bool, "-z": lambda one: not one}
_BINARY: dict[str, Callable[[str, str], bool]] = {
    "=": str.__eq__,
    "==": str.__eq__,
    "!=": str.__ne__,
    "-eq": lambda one, two: int(one) == int(two),
    "-ne": lambda one, two: int(one) != int(two),
    "-lt": lambda one, two: int(one) < int(two),
    "-le": lambda one, two: int(one) <= int(two),
    "-gt": lambda one, two: int(one) > int(two),
    "-ge": lambda one, two: int(one) >= int(two),
}


def of_command(words: Sequence[str]) -> Outcomes:
    """The outcomes of one program, started without a shell."""
    if not words:
        return frozenset({_GOOD})
    name = posixpath.basename(words[0])
    if name in _STARTS_ANOTHER and len(words) > 1:
        return of_command([*dropwhile(_is_of_starter, words[1:])])
    if name in _SHELLS:
        return _of_shell(words[1:])
    if name in {"test", "[", "[["}:
        return _of_test([one for one in words[1:] if one not in {"]", "]]"}])
    return _CONSTANT.get(name, _ANY)


def _of_shell(words: Sequence[str]) -> Outcomes:
    for flag, script in pairwise(words):
        if re.fullmatch(r"-[a-z]*c[a-z]*", flag):
            return frozenset((False, good) for _, good in of_script(script))
    return _ANY


def _is_of_starter(word: str) -> bool:
    """Whether it is an option, an assignment or a time of what starts another program."""
    return re.fullmatch(r"-.*|[A-Za-z_]\w*=.*|\d[\d.]*[smhd]?", word) is not None


def of_script(text: str) -> Outcomes:
    """The outcomes of a script; all of them where it cannot be read."""
    plain = _COMMENT.sub("", text.replace("\\\n", " "))
    while (inner := _INNERMOST.sub("$_", plain)) != plain:
        plain = inner
    lexer = shlex.shlex(
        _REDIRECTION.sub(" ", plain).replace("\n", " ; "), posix=True, punctuation_chars=";&|()"
    )
    lexer.commenters = ""
    lexer.whitespace_split = True
    try:
        parser = _Parser([*_split(lexer)])
        found = parser.list()
    except (ValueError, _UnreadableError):
        return _OPAQUE
    return _OPAQUE if parser.left or parser.opaque or "<<" in plain else found


def _split(words: Iterable[str]) -> Iterator[str]:
    """The words, with operators that stand together apart."""
    for word in words:
        yield from _OF_SHELL.findall(word) if re.fullmatch(r"[;&|()]+", word) else (word,)


def can_fail(outcomes: Outcomes) -> bool:
    """Whether the exit code can be another than 0."""
    return any(not good for _, good in outcomes)


def can_succeed(outcomes: Outcomes) -> bool:
    """Whether the exit code can be 0."""
    return any(good for _, good in outcomes)


def _of_test(words: Sequence[str]) -> Outcomes:
    """The outcomes of `test`: certain where it compares what is written there."""
    if any("$" in one or "*" in one for one in words):
        return _ANY
    if words[:1] == ["!"]:
        return _inverted(_of_test(words[1:]))
    try:
        if len(words) == len("ab"):
            holds = _UNARY[words[0]](words[1])
        elif len(words) == len("abc"):
            holds = _BINARY[words[1]](words[0], words[2])
        elif len(words) < len("ab"):
            holds = any(words)
        else:
            return _ANY
    except (KeyError, ValueError):
        return _ANY
    return frozenset({(False, holds)})


def _inverted(outcomes: Outcomes) -> Outcomes:
    return frozenset((ends, good if ends else not good) for ends, good in outcomes)


def _ended(outcomes: Outcomes) -> Outcomes:
    return frozenset((True, good) for _, good in outcomes)


class _UnreadableError(Exception):
    """Words that no shell takes, or that this one does not know."""


@dataclass(slots=True)
class _Parser:
    """Reads words of a script from the left, and says which outcomes what was read has."""

    left: list[str]
    opaque: bool = False
    ends_on_error: bool = False
    pipefail: bool = False
    begun: bool = False

    def list(self) -> Outcomes:
        """Commands up to a closing word: each runs when those before did not end the script."""
        done: Outcomes = frozenset()
        last: Outcomes = frozenset({_GOOD})
        while self._word() and self._word() not in _CLOSING:
            if self._word() in {";", "&"}:
                self.left.pop(0)
                continue
            found = self._and_or()
            if self._word() == "&":
                found = frozenset({_GOOD})
            done |= {one for one in found if one[0]}
            last = frozenset(one for one in found if not one[0])
            if self.ends_on_error and _BAD in last:
                done, last = done | {(True, False)}, last - {_BAD}
            if not last:
                self._skip()
        return done | last

    def _skip(self) -> None:
        """Pass over what is never run; what it could do is of no matter."""
        ending, self.ends_on_error = self.ends_on_error, False
        while self._word() and self._word() not in _CLOSING:
            if self._word() in {";", "&"}:
                self.left.pop(0)
            else:
                self._and_or()
        self.ends_on_error = ending

    def _and_or(self) -> Outcomes:
        found = self._pipeline()
        while self._word() in {"&&", "||"}:
            wanted = self.left.pop(0) == "&&"
            right = self._pipeline()
            kept = {one for one in found if one[0] or one[1] is not wanted}
            found = frozenset(kept) | (right if (False, wanted) in found else frozenset())
        return found

    def _pipeline(self) -> Outcomes:
        turned = False
        while self._word() == "!":
            self.left.pop(0)
            turned = not turned
        found = self._command(piped=False)
        while self._word() == "|":
            self.left.pop(0)
            # Each part of a pipe is a shell of its own.
            found = frozenset((False, good) for _, good in self._command(piped=True))
        return _inverted(found) if turned else found

    def _command(self, *, piped: bool) -> Outcomes:
        word = self._word()
        if word == "if":
            self.left.pop(0)
            return self._if()
        if word in {"(", "{"}:
            self.begun = True
            self.left.pop(0)
            found = self.list()
            self._take(")" if word == "(" else "}")
            return frozenset((False, good) for _, good in found) if word == "(" else found
        return self._simple(piped=piped)

    def _if(self) -> Outcomes:
        """After `if` or `elif`, up to `fi`."""
        self.begun = True
        ending, self.ends_on_error = self.ends_on_error, False
        asked = self.list()
        self.ends_on_error = ending
        self._take("then")
        body = self.list()
        word = self.left.pop(0) if self.left else ""
        if word == "elif":
            other = self._if()
        elif word == "else":
            other = self.list()
            self._take("fi")
        elif word == "fi":
            other = frozenset({_GOOD})
        else:
            raise _UnreadableError
        found = frozenset(one for one in asked if one[0])
        found |= body if _GOOD in asked else frozenset()
        return found | (other if _BAD in asked else frozenset())

    def _simple(self, *, piped: bool) -> Outcomes:
        words = [*takewhile(lambda one: not re.fullmatch(r"[;&|()]+", one), self.left)]
        del self.left[: len(words)]
        if not words or self._word() == "(":
            raise _UnreadableError
        given = "$_" in " ".join(words)
        while words and _ASSIGNMENT.fullmatch(words[0]):
            words.pop(0)
        if not words:
            # A substitution's own exit code is the assignment's.
            return _ANY if given else frozenset({_GOOD})
        found = self._plain(words, piped=piped)
        self.begun = True
        return _ended(found) if words[0] == "exec" and len(words) > 1 else found

    def _plain(self, words: Sequence[str], *, piped: bool) -> Outcomes:
        name = words[0]
        if name in _NOT_PLAIN:
            self.opaque = True
        if name == "set":
            # Anywhere but at the start it may not be run at all.
            self.opaque |= self.begun
            self._set(words[1:])
            return frozenset({_GOOD})
        if name == "exit":
            codes = words[1:] or ["?"]
            known = codes[0].isdecimal()
            return frozenset({(True, int(codes[0]) == 0)}) if known else _ended(_ANY)
        if piped and posixpath.basename(name) in _READS and not self.pipefail:
            return frozenset({_GOOD})
        return of_command(words)

    def _set(self, options: Sequence[str]) -> None:
        if any(re.fullmatch(r"-[a-z]*e[a-z]*", one) for one in options) or "errexit" in options:
            self.ends_on_error = True
        if "pipefail" in options:
            self.pipefail = True

    def _word(self) -> str:
        return self.left[0] if self.left else ""

    def _take(self, word: str) -> None:
        if self._word() != word:
            raise _UnreadableError
        self.left.pop(0)
