"""A local repository of what a remote holds: mended after a kill, dropped where it is broken."""

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar

from builder.common.errors import RefNotFoundError, RemoteUnavailableError
from builder.git.run import CommandError, Said, TooLongError, alone, run_git

P = ParamSpec("P")
T = TypeVar("T")

_REFUSED = re.compile(
    r"unadvertised object|not our ref|no such remote ref|couldn't find remote ref"
)
_LOCK = re.compile(r".*\.lock|gc\.pid")
_HALF_WRITTEN = re.compile(r"\.?tmp[-_].*")


class BrokenCacheError(RemoteUnavailableError):
    """What was fetched earlier cannot be read: it was dropped, and is fetched anew when asked."""


def anew(work: Callable[P, T]) -> Callable[P, T]:
    """Does the work once more where a broken cache was dropped in its course."""

    @functools.wraps(work)
    def twice(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return work(*args, **kwargs)
        except BrokenCacheError:
            return work(*args, **kwargs)

    return twice


class GitCache:
    """A bare repository with a remote `origin`, made where it is missing.

    Whoever opens it holds its lock for as long as it is used: what a killed builder left locked or
    half written goes away here.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self._settings = {"remote.origin.url": url}
        drop(self._new)
        if folder.exists():
            with alone(self._running):
                _tidy(folder)
            if not self._is_sound():
                drop(folder)
        if not folder.exists():
            self._make()

    @property
    def _new(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.new")

    @property
    def _running(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.running")

    def _make(self) -> None:
        """Made whole under another name: a kill leaves none that is half made."""
        self._new.parent.mkdir(parents=True, exist_ok=True)
        run_git(["init", "--bare", "--quiet", "--template=", str(self._new)])
        self._new.rename(self.folder)

    def ask(self, *words: str, environment: Mapping[str, str] | None = None) -> str:
        """What git answers from here, asking nobody. Raises CommandError, which may mean no."""
        said = self._run(words, environment=environment)
        return said.stdout.removesuffix("\n")

    def read(self, *words: str, environment: Mapping[str, str] | None = None) -> str:
        """What git answers where it must have an answer.

        Raises BrokenCacheError where it has none, and drops the cache.
        """
        try:
            return self.ask(*words, environment=environment)
        except TooLongError as error:
            raise RemoteUnavailableError(f"{self.url} holds too much", why=error.why) from error
        except CommandError as error:
            raise self._dropped(error.why) from error

    def check_out(self, commit: str, tree: Path) -> None:
        """Has a work tree hold exactly the files of a commit that is here. Raises CommandError."""
        tree.mkdir(exist_ok=True)
        words = ["checkout", "--quiet", "--force", "--detach", commit]
        self._run(words, work_tree=tree)
        self._run(["clean", "-ffdxq"], work_tree=tree)

    def has(self, commit: str) -> bool:
        """Whether the commit is here. A partial clone's `cat-file -e` would fetch it."""
        try:
            return bool(self.ask("rev-list", "--missing=allow-any", "--no-walk", commit))
        except CommandError:
            return False

    def fetch(self, *words: str) -> Said:
        """Ask the remote. Raises RemoteUnavailableError, RefNotFoundError, BrokenCacheError."""
        arguments = ["fetch", "--no-tags", "--no-write-fetch-head", *words]
        try:
            return run_git(
                arguments, git_dir=self.folder, of_user=True, settings=self._settings.items()
            )
        except CommandError as error:
            if not _REFUSED.search(error.why) and not self._is_whole():
                raise self._dropped(error.why) from error
            raise failure(self.url, error) from error

    def _run(
        self,
        words: Sequence[str],
        *,
        work_tree: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Said:
        """Run git here with nobody's settings. It is waited for by whoever comes after a kill."""
        return run_git(
            words,
            git_dir=self.folder,
            work_tree=work_tree,
            lock=self._running,
            environment=environment,
        )

    def _is_sound(self) -> bool:
        """Whether it is a repository whose refs are of objects that are there."""
        try:
            said = self._run(["for-each-ref", "--format=%(objecttype)"])
        except CommandError:
            return False
        return not said.stderr

    def _is_whole(self) -> bool:
        """Whether all is there that its refs need."""
        try:
            self.ask("fsck", "--connectivity-only", "--no-dangling", "--no-progress")
        except CommandError:
            return False
        return True

    def _dropped(self, why: str) -> BrokenCacheError:
        drop(self.folder)
        return BrokenCacheError(
            f"what was fetched of {self.url} cannot be read",
            why=why,
            hint="it was dropped: the same command fetches it anew",
        )


def failure(url: str, error: CommandError) -> RemoteUnavailableError | RefNotFoundError:
    """What a remote's silence, refusal or nonsense is called."""
    if _REFUSED.search(error.why):
        return RefNotFoundError(f"{url} does not give out that commit", why=error.why)
    return RemoteUnavailableError(
        f"{url} does not answer as a git repository",
        why=error.why,
        hint=f"try `git ls-remote {url}`; `--source DIR` builds a tree from disk",
    )


def drop(folder: Path) -> None:
    """Remove a folder, whatever is in it."""
    if not folder.exists():
        return
    try:
        shutil.rmtree(folder)
    except (OSError, RecursionError):
        # A stranger's tree may be deeper than Python goes.
        subprocess.run(["rm", "-rf", "--", str(folder)], check=True, capture_output=True)


def _tidy(folder: Path) -> None:
    """Remove the locks and half written files of a git that was killed."""
    for path, _, names in os.walk(folder):
        place = Path(path)
        objects = folder / "objects" in {place, *place.parents}
        for name in names:
            if _LOCK.fullmatch(name) or (objects and _HALF_WRITTEN.fullmatch(name)):
                (place / name).unlink(missing_ok=True)
