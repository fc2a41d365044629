"""A record that is kept on a branch: fetched into a folder, merged by meaning, pushed.

The folder is a git repository of its own, whose work tree the record is. Git never writes that
tree: what was pushed is read from git's objects, so that neither a link nor an attribute nor a
hook of a stranger's has a say, and written by builder. So there is no rebase to be stuck in, and
what is killed at any moment is taken up by the next run: files first, then the branch.
"""

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from builder.common.errors import UsageError
from builder.common.files import LARGEST, is_left_over, read_regular, sweep, write_atomically
from builder.common.progress import Progress
from builder.git import pushed_branches as branches
from builder.git.github import Github
from builder.git.pushed_branches import Checkout
from builder.git.run import CommandError, run_git
from builder.release import record, record_merge

_TRIES = 6
"""Pushes that somebody else was faster than; each merges again."""
_REMOTE = "builder-record-origin"
"""The remote's name within a command: its address, which may hold a login, is in no file."""
_FILE_MODES = {"100644", "100755", "100664"}
_LEFT_OPEN = ("rebase-merge", "rebase-apply")
_ASK = {"fetch", "ls-remote", "push"}
"""What is asked of the remote, and so with the settings by which the user reaches it."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file in a tree of git's."""

    mode: str
    blob: str
    content: bytes


@dataclass(frozen=True, slots=True)
class RecordBranch:
    """A branch of a remote, and the folder that has its files here.

    `origin` is the remote's address, `reached` the settings of git by which it is reached, `host`
    whose token it is pushed with, if any.
    """

    origin: str
    reached: tuple[tuple[str, str], ...]
    host: Github
    branch: str
    folder: Path

    @classmethod
    def of(cls, checkout: Checkout, branch: str, folder: Path) -> "RecordBranch":
        """A branch of a checkout's remote `origin`."""
        own = "remote.origin."
        reached = tuple(
            (f"remote.{_REMOTE}.{key.removeprefix(own)}" if key.startswith(own) else key, value)
            for key, value in checkout.reached()
        )
        return cls(checkout.origin or "", reached, checkout.host, branch, folder)

    def take(self, progress: Progress) -> None:
        """Have what was pushed in the folder, merged with what an earlier run left there.

        A branch that is not there yet is an empty folder. Raises RemoteUnavailableError; UsageError
        for a branch that holds what no record holds, such as a link, or a folder with another
        branch; FileError and OSError for a full disk.
        """
        progress.step(f"fetch the branch {self.branch}")
        self.folder.mkdir(parents=True, exist_ok=True)
        with record.alone(self.folder, progress), self._failing("was not fetched"):
            self._ready(progress)
            self._bring(progress)

    def give(self, message: str, progress: Progress) -> None:
        """Push what the folder of `take` holds.

        Who pushed meanwhile loses nothing: theirs is fetched and merged, then pushed again. Raises
        as `take`; what was not pushed stays in the folder, for the next `take`.
        """
        progress.step(f"push the branch {self.branch}")
        with record.alone(self.folder, progress), self._failing("was not pushed"):
            self._give(message, progress)

    def _give(self, message: str, progress: Progress) -> None:
        stood = 0
        for _ in range(_TRIES):
            tip = self._local()
            made = self._committed(tip, message, progress)
            if made is None or made == self._ref(self._tracking):
                return
            try:
                progress.detail("push")
                self._git("push", "--quiet", "--no-verify", _REMOTE, f"{made}:{self._ref_name}")
            except CommandError as error:
                refused = error
            else:
                self._stand_on(made, progress)
                return
            progress.detail(f"it was refused: {refused.why.partition(chr(10))[0]}")
            stood += self._bring(progress) == tip
            if stood > 1:
                break
        raise refused

    # --- The repository

    def _ready(self, progress: Progress) -> None:
        """A repository in the folder that works, whatever a kill has left of it."""
        for folder in (self.folder, self.folder / "releases", self.folder / "nights"):
            sweep(folder)
        progress.detail("look at its repository")
        inside = self.folder / ".git"
        whole = not inside.is_dir() or inside.stat().st_uid == os.geteuid()
        try:
            if whole:
                self._open()
                return
        except CommandError:
            if not os.path.lexists(inside):
                raise
        aside = self.folder.with_name(f"{self.folder.name}-git-broken")
        progress.warn(f"{inside} is not a whole repository of this user: it is now {aside}")
        shutil.rmtree(aside, ignore_errors=True)
        inside.rename(aside)
        self._open()

    def _open(self) -> None:
        """Make the repository, or see that it is one; what git left open is closed."""
        self._git("init", "--quiet", f"--initial-branch={self.branch}")
        there = self._inside
        for lock in (*there.glob("*.lock"), *(there / "refs").rglob("*.lock")):
            lock.unlink(missing_ok=True)
        on = self._on()
        if on not in {None, self._ref_name} and self._ref(str(on)):
            raise UsageError(
                f"{self.folder} has the branch {str(on).removeprefix('refs/heads/')}, "
                f"not {self.branch}",
                hint=f"`git -C {self.folder} switch {self.branch}`, or another folder: `--record`",
            )
        # What power loss left of objects and refs is found now, while all may be made anew.
        self._git("fsck", "--no-dangling", "--no-progress")
        shown = _without_login(self.origin)
        known = self._config("remote.origin.url")
        if known is None or known == self.origin:
            self._git("config", "--replace-all", "remote.origin.url", shown)
            self._git("config", "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*")

    @property
    def _inside(self) -> Path:
        """Where git keeps its own; that of a work tree beside another lies elsewhere."""
        inside = self.folder.resolve() / ".git"
        return inside if inside.is_dir() else Path(self._git("rev-parse", "--absolute-git-dir"))

    @property
    def _ref_name(self) -> str:
        return f"refs/heads/{self.branch}"

    @property
    def _tracking(self) -> str:
        return f"refs/remotes/origin/{self.branch}"

    def _on(self) -> str | None:
        """The branch that is checked out; None in the middle of a rebase."""
        with contextlib.suppress(CommandError):
            return self._git("symbolic-ref", "--quiet", "HEAD")
        return None

    def _ref(self, name: str) -> str | None:
        """The commit of a ref; None: there is no such ref."""
        with contextlib.suppress(CommandError):
            return self._git("rev-parse", "--quiet", "--verify", f"{name}^{{commit}}")
        return None

    def _local(self) -> str | None:
        return self._ref(self._ref_name)

    def _config(self, name: str) -> str | None:
        with contextlib.suppress(CommandError):
            return self._git("config", "--local", "--get", name)
        return None

    # --- Merging

    def _bring(self, progress: Progress) -> str | None:
        """Fetch, and merge into the folder. What its branch is now; None: it is nowhere yet."""
        progress.detail("fetch")
        if not self._git("ls-remote", _REMOTE, self._ref_name):
            if self._ref(self._tracking):
                self._git("update-ref", "-d", self._tracking)
            return self._local()
        refs = f"+{self._ref_name}:{self._tracking}"
        self._git("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", _REMOTE, refs)
        tip, own = self._ref(self._tracking), self._local()
        if tip is None:
            raise CommandError(f"{self._tracking} was fetched and is not there")
        progress.detail("merge")
        self._merge(tip, own, progress)
        self._stand_on(tip, progress)
        return tip

    def _merge(self, tip: str, own: str | None, progress: Progress) -> None:
        """Write into the folder what it makes together with a commit."""
        base = _contents(self._entries(found)) if (found := self._common(own, tip)) else {}
        here = self._files()
        merged = _contents(self._entries(tip))
        if own and self._on() is None:
            # An older builder was stuck in a rebase: its branch has what is not here yet.
            merged = record_merge.merge(base, _contents(self._entries(own)), merged)
        merged = record_merge.merge(base, here, merged)
        # The index last: it names the others.
        for name in sorted(merged, key=lambda one: (one == record_merge.INDEX, one)):
            if here.get(name) != merged[name]:
                progress.detail(f"write {name}")
                write_atomically(self.folder / name, merged[name], root=self.folder)
        for name in here.keys() - merged.keys():
            progress.detail(f"take away {name}")
            (self.folder / name).unlink(missing_ok=True)

    def _common(self, own: str | None, tip: str) -> str | None:
        if own is None:
            return None
        with contextlib.suppress(CommandError):
            return self._git("merge-base", own, tip)
        return None

    def _stand_on(self, commit: str, progress: Progress) -> None:
        """The folder's files are this commit's, and what is to be committed on top of it."""
        progress.detail("move its branch")
        both = f"update {self._ref_name} {commit}\nupdate {self._tracking} {commit}\n"
        self._git("update-ref", "--stdin", given=both.encode())
        self._git("symbolic-ref", "HEAD", self._ref_name)
        for name in _LEFT_OPEN:
            shutil.rmtree(self._inside / name, ignore_errors=True)
        # For whoever asks `git status` here; nothing of ours reads it.
        self._git("read-tree", commit)

    def _committed(self, tip: str | None, message: str, progress: Progress) -> str | None:
        """A commit of the folder's files on top of another; that one when they are the same."""
        progress.detail("commit")
        there = self._entries(tip) if tip else {}
        lines = []
        for name, content in self._files().items():
            known = there.get(name)
            mode = known.mode if known else "100644"
            same = known is not None and known.content == content
            blob = known.blob if known and same else self._blob(content)
            lines.append(f"{mode} {blob}\t{name}\0")
        if not lines and tip is None:
            return None
        tree = self._tree("".join(lines))
        if tip and tree == self._git("rev-parse", f"{tip}^{{tree}}"):
            return tip
        parents = ("-p", tip) if tip else ()
        return self._git("commit-tree", tree, *parents, "-m", message)

    def _blob(self, content: bytes) -> str:
        return self._git("hash-object", "-w", "--no-filters", "--stdin", given=content)

    def _tree(self, lines: str) -> str:
        """A tree of these files, by an index that nobody else has."""
        index = self._inside / "builder-index"
        index.unlink(missing_ok=True)
        more = {"GIT_INDEX_FILE": str(index)}
        self._git("update-index", "-z", "--index-info", given=os.fsencode(lines), more=more)
        try:
            return self._git("write-tree", more=more)
        finally:
            index.unlink(missing_ok=True)

    def _files(self) -> dict[str, bytes]:
        """The record's files in the folder. Raises UsageError for what is no file."""
        found = {}
        for at, folders, names in os.walk(self.folder):
            here = Path(at)
            if here == self.folder:
                folders[:] = [name for name in folders if name != ".git"]
            for name in (*folders, *names):
                path = here / name
                told = str(path.relative_to(self.folder))
                mode = path.lstat().st_mode
                if stat.S_ISDIR(mode) or is_left_over(name) or told == ".git":
                    continue
                if not stat.S_ISREG(mode):
                    raise UsageError(
                        f"{path} is not a regular file: a record holds no links and no devices",
                        hint=f"take it away: `rm {path}`",
                    )
                found[told] = read_regular(path, root=self.folder)
        return dict(sorted(found.items()))

    def _entries(self, commit: str) -> dict[str, _Entry]:
        """The files of a commit. Raises UsageError for what no record holds."""
        listed = os.fsdecode(self._output("ls-tree", "-r", "-z", "-l", "--full-tree", commit))
        rows = []
        for line in filter(None, listed.split("\0")):
            told, _, name = line.partition("\t")
            mode, kind, blob, size = told.split()
            self._check(name, mode, kind, size)
            rows.append((name, mode, blob))
        asked = "".join(f"{blob}\n" for _, _, blob in rows)
        contents = _blobs(self._output("cat-file", "--batch", given=asked.encode()))
        return {name: _Entry(mode, blob, next(contents)) for name, mode, blob in rows}

    def _check(self, name: str, mode: str, kind: str, size: str) -> None:
        if kind != "blob" or mode not in _FILE_MODES:
            what = "a link" if mode == "120000" else "not a regular file"
        elif any(part.casefold() in {"", ".", "..", ".git"} for part in name.split("/")):
            what = "no name of a file"
        elif int(size) > LARGEST:
            what = f"over {LARGEST} bytes"
        else:
            return
        raise UsageError(
            f"the branch {self.branch} holds {name!r}, which is {what}: nothing of it was taken",
            why="whoever may push to that branch put it there",
            hint=f"in a clone of it: `git rm {name}`, commit and push",
        )

    # --- Commands

    @contextmanager
    def _failing(self, what: str) -> Iterator[None]:
        try:
            yield
        except CommandError as error:
            origin = _without_login(self.origin)
            raise branches.failed(f"the branch {self.branch} of {origin} {what}", error) from error

    def _git(self, *words: str, given: bytes = b"", more: Mapping[str, str] | None = None) -> str:
        return os.fsdecode(self._output(*words, given=given, more=more)).strip()

    def _output(
        self, *words: str, given: bytes = b"", more: Mapping[str, str] | None = None
    ) -> bytes:
        # A broken repository here is not the one of a folder above.
        above = {"GIT_CEILING_DIRECTORIES": str(self.folder.resolve().parent)}
        asks = words[0] in _ASK
        environment = {**branches.IDENTITY, **above, **(more or {})}
        return run_git(
            words,
            folder=self.folder.resolve(),
            of_user=asks,
            settings=self.reached if asks else (),
            environment=environment | (branches.signed(self.host) if asks else {}),
            given=given,
        ).raw


def _without_login(address: str) -> str:
    """An address that may be shown and stored."""
    found = urlsplit(address)
    if found.scheme not in {"http", "https"} or "@" not in found.netloc:
        return address
    return found._replace(netloc=found.netloc.rpartition("@")[2]).geturl()


def _contents(entries: Mapping[str, _Entry]) -> dict[str, bytes]:
    return {name: one.content for name, one in entries.items()}


def _blobs(batch: bytes) -> Iterator[bytes]:
    """The contents in what `git cat-file --batch` writes: `<blob> blob <size>`, line by line."""
    at = 0
    while at < len(batch):
        head, at = batch.index(b"\n", at), batch.index(b"\n", at) + 1
        told = batch[batch.rfind(b"\n", 0, head) + 1 : head].split()
        if len(told) != 3:  # noqa: PLR2004 -- `<blob> missing`
            raise CommandError(os.fsdecode(b" ".join(told)))
        size = int(told[2])
        yield batch[at : at + size]
        at += size + 1
