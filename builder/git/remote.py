"""Git remotes, and a local cache of what they hold.

Three bare repositories a fork: `trees` holds single commits with their files, `history` commits
without files (`--filter=tree:0`), which is enough to expand a short SHA and to count, and `names`
commits with the names of their files (`--filter=blob:none`), which tell what a commit touches.
"""

import bisect
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from builder.common import paths
from builder.common.errors import (
    BuildFailedError,
    FileError,
    RefNotFoundError,
    RemoteUnavailableError,
    UsageError,
)
from builder.common.locks import locked
from builder.common.progress import Progress, Silent
from builder.common.suggest import suggestion
from builder.git import commits
from builder.git import run as git_run
from builder.git.cache import BrokenCacheError, GitCache, anew, drop, failure
from builder.git.run import Said, TooLongError, run_git

_FULL = re.compile(r"[0-9a-f]{40}")
_SHORT = re.compile(r"[0-9a-f]{7,39}")
_REDIRECT = re.compile(r"warning: redirecting to (\S+)")

CommandError = git_run.CommandError
require = git_run.require

_MOST_FILES = 200_000
_MOST_BYTES = 4 * 1024**3
"""Of one commit's tree; llama.cpp has some 3,000 files of 150 MB."""

_QUESTION_S = 300.0
"""For an `ls-remote`."""


@dataclass(frozen=True, slots=True)
class Remote:
    """A fork's repository; `url` may be a mirror's by git's own `url.<base>.insteadOf`."""

    fork: str
    url: str

    def cache(self, kind: str) -> Path:
        """The folder of one of the fork's local repositories."""
        key = hashlib.sha256(self.url.encode()).hexdigest()[:8]
        return paths.cache() / "git" / f"{self.fork}-{key}" / kind

    def open(self, kind: str) -> GitCache:
        """One of the fork's local repositories, whose lock the caller holds."""
        return GitCache(self.cache(kind), self.url)


def resolve(remote: Remote, ref: str, progress: Progress) -> str:
    """The full SHA of a branch, tag, short or full SHA.

    A branch comes before a tag of the same name; `refs/tags/NAME` is the tag. A full SHA asks
    nobody; a branch or tag costs one `ls-remote`; a short SHA needs the history. Raises
    RemoteUnavailableError, RefNotFoundError.
    """
    if _FULL.fullmatch(ref):
        return ref
    progress.step(f"resolve {ref} at {remote.url}")
    names = _ls_remote(remote, progress)
    for full in (ref, f"refs/heads/{ref}", f"refs/tags/{ref}"):
        # An annotated tag is listed twice: as itself, and as the commit that it stands for.
        if full in names:
            return names.get(f"{full}^{{}}", names[full])
    if _SHORT.fullmatch(ref):
        return _expand(remote, ref, progress)
    shown = (name for name in names if not name.startswith("refs/pull/"))
    known = [name.removeprefix("refs/heads/").removeprefix("refs/tags/") for name in shown]
    raise RefNotFoundError(
        f"{remote.url} has no branch, tag or commit {ref!r}",
        hint=suggestion(ref, known),
    )


def branch_head(remote: Remote, branch: str | None, progress: Progress) -> str:
    """The full SHA of a branch's newest commit; None: of the default branch.

    A tag of the same name is never taken for the branch. Costs one `ls-remote`. Raises
    RemoteUnavailableError, RefNotFoundError.
    """
    progress.step(f"resolve {branch or 'HEAD'} at {remote.url}")
    found = heads(remote, branch)
    _warn_moved(remote, found.moved_to, progress)
    if found.commit is not None:
        return found.commit
    if branch is None:
        raise RefNotFoundError(f"{remote.url} has no commit on its default branch")
    names = _ls_remote(remote, progress)
    branches = (name for name in names if name.startswith("refs/heads/"))
    tagged = f"refs/tags/{branch}" in names
    raise RefNotFoundError(
        f"{remote.url} has no branch {branch!r}",
        why="it has a tag of that name, which never moves" if tagged else "",
        hint=suggestion(branch, (name.removeprefix("refs/heads/") for name in branches)),
    )


@anew
def first_with(
    remote: Remote,
    path: str,
    has_it: Callable[[str], bool],
    old: str,
    new: str,
    progress: Progress,
) -> str:
    """The first commit after `old`, on the way to `new`, in which a file's text has something.

    Asks the remote for a few versions of that file: what was added is taken to have stayed. "" when
    `new` has it not, or does not contain `old`. Raises RemoteUnavailableError, RefNotFoundError.
    """
    with locked(remote.cache("names"), f"another look-up of fork {remote.fork}", progress):
        return Branch(remote).first_with(path, has_it, old, new)


@anew
def build_number(remote: Remote, commit: str, progress: Progress) -> int | None:
    """`git rev-list --count`, llama.cpp's build number; None when the remote does not tell."""
    try:
        return int(_history(remote, progress).ask("rev-list", "--count", commit))
    except BrokenCacheError:
        raise
    except (RemoteUnavailableError, CommandError):
        return None


@dataclass(frozen=True, slots=True)
class History:
    """The cached commits of a remote's branches, without files, as `history` fetched them.

    Nothing here asks the remote but `bring`. The caller holds the lock of the history, and does its
    work again where BrokenCacheError is raised: `git_cache.anew`.
    """

    remote: Remote
    repository: GitCache

    def has(self, commit: str) -> bool:
        """Whether the commit is here."""
        return self.repository.has(commit)

    def bring(self, commit: str, progress: Progress) -> None:
        """Have a commit here, on a branch or not, with all its ancestors.

        Raises RefNotFoundError when the remote does not give it out, RemoteUnavailableError when it
        does not answer, or is a shallow clone itself and lacks an ancestor.
        """
        if not self.has(commit):
            _fetch_history(self.repository, self.remote, "tree:0", commit, progress)
        self.build_number(commit)

    def is_ancestor(self, old: str, new: str) -> bool:
        """Whether `new` contains `old`; a commit contains itself."""
        try:
            self.repository.ask("merge-base", "--is-ancestor", old, new)
        except CommandError:
            return False
        return True

    def build_number(self, commit: str) -> int:
        """`git rev-list --count`, llama.cpp's build number. Raises as `bring` does."""
        why = ""
        try:
            # Not `--count`: git would ask the remote for each parent that is not here.
            listed = self.repository.ask("rev-list", "--missing=print", commit).splitlines()
        except CommandError as error:
            listed, why = [], error.why
        if not listed or any(line.startswith("?") for line in listed):
            raise RemoteUnavailableError(
                f"{self.remote.url} does not give out all that led to {commit[:9]}",
                why=why,
                hint="a shallow clone cannot be counted or compared: ask a whole one",
            )
        return len(listed)

    def date(self, commit: str) -> str:
        """The commit's date as RFC 3339 in UTC; "" where it states none that can be read."""
        return commit_date(self.repository, commit)

    def between(self, old: str, new: str) -> list[commits.Commit]:
        """What `new` has and `old` lacks, newest first, without files; a merge is one step."""
        return _log(self.repository, "--first-parent", f"{old}..{new}")


def history(remote: Remote, progress: Progress) -> History:
    """The commits of all branches, fetched now. Raises RemoteUnavailableError."""
    return History(remote, _history(remote, progress))


def checkout(remote: Remote, commit: str, progress: Progress) -> tuple[Path, str]:
    """The commit's files in the fork's one work tree, and the commit's date as `History.date`.

    Only files that differ are rewritten, so that a rebuild sends BuildKit only those. The caller
    holds the fork's lock for as long as it reads the tree. Raises RemoteUnavailableError,
    RefNotFoundError; BuildFailedError, by the commit's fault, for files that no disk can hold;
    FileError for a disk that is full, and then keeps none of the files.
    """
    tree = remote.cache("checkout")
    try:
        return tree, _check_out_or_again(remote, commit, tree, progress)
    except CommandError as error:
        drop(tree)
        raise _too_odd(remote, commit, error.why) from error
    except FileError:
        # What fills the disk would fill it for every other fork too.
        drop(tree)
        raise


def _check_out_or_again(remote: Remote, commit: str, tree: Path, progress: Progress) -> str:
    try:
        return _check_out(remote, commit, tree, progress)
    except CommandError:
        # Either of the two may be what a kill or a power cut left broken.
        drop(remote.cache("trees"))
        drop(tree)
    return _check_out(remote, commit, tree, progress)


def _too_odd(remote: Remote, commit: str, why: str) -> BuildFailedError:
    return BuildFailedError(
        f"{remote.url} at {commit[:9]}: its files cannot be written",
        why=why,
        hint="another commit: --ref REF",
        commits_fault=True,
    )


def _check_size(repository: GitCache, remote: Remote, commit: str) -> None:
    """Raises BuildFailedError for files that would fill a disk: a few folders can name millions.

    CommandError where not all of them are here, as after a fetch that was killed.
    """
    try:
        listed = repository.ask("ls-tree", "-r", "-l", "-z", "--full-tree", commit).split("\0")
    except TooLongError as error:
        raise _too_odd(remote, commit, "it names millions of files") from error
    # "-" is a submodule's, "BAD" that of a file which is not here.
    sizes = [line.split(maxsplit=4)[3] for line in listed if line]
    if "BAD" in sizes:
        raise CommandError("files of it are not here")
    total = sum(int(size) for size in sizes if size != "-")
    if len(sizes) > _MOST_FILES or total > _MOST_BYTES:
        why = f"it holds {len(sizes)} files of {total} bytes"
        most = f"at most {_MOST_FILES} of {_MOST_BYTES} are taken"
        raise _too_odd(remote, commit, f"{why}; {most}")


@anew
def _check_out(remote: Remote, commit: str, tree: Path, progress: Progress) -> str:
    """The date of a commit whose files are in the work tree then. Raises CommandError."""
    repository = remote.open("trees")
    _bring_files(repository, remote, commit, progress)
    _check_size(repository, remote, commit)
    repository.check_out(commit, tree)
    return commit_date(repository, commit)


@anew
def diff_stat(remote: Remote, old: str, new: str, progress: Progress) -> str:
    """`git diff --stat` of two commits, its last line the sum; at most 30 files are listed.

    From the trees that `checkout` fetched, or fetches them. The caller holds the fork's lock.
    Raises RemoteUnavailableError, RefNotFoundError.
    """
    repository = remote.open("trees")
    for commit in (old, new):
        _bring_files(repository, remote, commit, progress)
    words = ["--stat=100", "--stat-count=30", "--no-color", "--no-ext-diff", "--no-textconv"]
    return repository.read("diff", *words, old, new).strip("\n")


def commit_date(repository: GitCache, commit: str) -> str:
    """The commit's date as RFC 3339 in UTC; "" where it states none that can be read."""
    # Not `git show -s`: it reads trees, which git would fetch into a history that has none.
    words = ["-1", "--no-walk", "--no-show-signature", "--format=%cd", _DATE, commit]
    return commits.readable_date(repository.read("log", *words, environment=_UTC))


_OF_USER = {"config", "fetch", "ls-remote", "push", "remote", "rev-parse"}
"""What is asked of a user's own checkout or remote, and so with the user's settings."""


def command(
    folder: Path,
    words: tuple[str, ...],
    environment: Mapping[str, str],
    settings: Iterable[tuple[str, str]] = (),
) -> str:
    """What `git` says, run in a folder. Raises CommandError; nobody is asked for a password.

    Hooks, filters and signing of the user are left out.
    """
    return output(folder, words, environment, settings=settings).decode(errors="replace").strip()


def output(
    folder: Path,
    words: tuple[str, ...],
    environment: Mapping[str, str],
    given: bytes = b"",
    settings: Iterable[tuple[str, str]] = (),
) -> bytes:
    """The bytes that `git` writes, run in a folder, with `given` on stdin. Raises CommandError."""
    return run_git(
        words,
        folder=folder,
        of_user=words[0] in _OF_USER,
        settings=settings,
        environment=environment,
        given=given,
    ).raw


def top(file: Path) -> Path | None:
    """The root of the git work tree that a file lies in; None when it lies in none."""
    try:
        return Path(command(file.resolve().parent, ("rev-parse", "--show-toplevel"), {})).resolve()
    except CommandError:
        return None


def head(tree: Path) -> str | None:
    """The commit that a work tree on disk says it is, or None when it is no git work tree.

    Its `.git` is a file in a linked worktree and in a submodule. Raises UsageError where it says
    what cannot be followed: no other commit is the tree's then.
    """
    place = tree / ".git"
    if not place.exists() and not place.is_symlink():
        return None
    require()
    try:
        words = ["rev-parse", "--verify", "--end-of-options", "HEAD^{commit}"]
        return run_git(words, git_dir=place).stdout.strip()
    except CommandError as error:
        raise UsageError(
            f"{tree}: git does not say which commit it is at",
            why=error.why,
            hint="say it with --ref SHA",
        ) from error


@dataclass(frozen=True, slots=True)
class Heads:
    """What one `ls-remote` tells of a branch.

    `commit` None: there is no such branch. `moved_to` is the address that the remote redirects to.
    """

    commit: str | None
    default_branch: str | None
    moved_to: str | None


def heads(remote: Remote, branch: str | None) -> Heads:
    """The commit of a branch (None: of HEAD), and the default branch, in one `ls-remote`.

    Raises RemoteUnavailableError.
    """
    wanted = f"refs/heads/{branch}" if branch else "HEAD"
    # With the names given the server sends no others: mainline has tens of thousands.
    said = _run(remote, "ls-remote", "--symref", remote.url, "HEAD", wanted)
    lines = _pairs(said.stdout)
    targets = {name: value for value, name in lines if value.startswith("ref:")}
    default = targets.get("HEAD")
    found = {name: value for value, name in lines if not value.startswith("ref:")}
    return Heads(
        commit=found.get(wanted),
        default_branch=default.removeprefix("ref: refs/heads/") if default else None,
        moved_to=_redirect(said.stderr),
    )


class Branch:
    """The commits of a branch with the names of their files, in a local repository.

    The caller holds the fork's lock. Nothing but `fetch`, `fetch_all` and `fetch_commit` asks the
    remote: a question about a commit that is not here is not put to git, which would fetch it.
    All raise RemoteUnavailableError; where it is BrokenCacheError, the work is done again.
    """

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._repository = remote.open("names")

    def fetch(self, branch: str | None) -> str:
        """Bring a branch (None: HEAD) up to date: its commit. Transfers no files' contents.

        Raises RefNotFoundError too.
        """
        wanted = f"refs/heads/{branch}" if branch else "HEAD"
        self._fetch(f"+{wanted}:refs/freshness/head")
        return self._git("rev-parse", "refs/freshness/head")

    def fetch_all(self) -> None:
        """Bring every branch up to date."""
        self._fetch("+refs/heads/*:refs/remotes/origin/*")

    def fetch_commit(self, commit: str) -> bool:
        """Whether the remote gives out this commit, and so it is here now.

        Hosts keep what a force-push dropped for a while.
        """
        try:
            self._fetch(f"+{commit}:refs/freshness/pin")
        except RefNotFoundError:
            return False
        return True

    def fetched(self) -> bool:
        """Whether the branch was ever fetched."""
        return bool(self._git("for-each-ref", "--format=%(refname)", "refs/freshness/head"))

    def holds(self, commit: str, *, below: str = "refs/freshness/head") -> bool:
        """Whether the branch's last fetch brought a commit; `below`: as a part of this one."""
        return self.fetched() and commit in self._git("rev-list", below).split()

    def branches_with(self, commit: str) -> list[str]:
        """The remote's branches that hold a commit, after `fetch_all`."""
        if commit not in self._git("rev-list", "--remotes=origin").split():
            return []
        form = "--format=%(refname:lstrip=3)"
        names = self._git("for-each-ref", form, f"--contains={commit}", "refs/remotes/origin")
        return names.split("\n") if names else []

    def count(self, *words: str) -> int:
        """How many commits `git rev-list` counts."""
        return int(self._git("rev-list", "--count", *words))

    def steps(self, pin: str, head: str) -> list[commits.Commit]:
        """The branch's own steps after the pin, newest first, each with the files it changes.

        A merge is one step, and brings what differs from its first parent.
        """
        # Finding renames would compare contents, which are not here, and hide the old name.
        words = ["--first-parent", "--name-only", "--no-renames"]
        return self._log(*words, f"{pin}..{head}")

    def first_with(self, path: str, has_it: Callable[[str], bool], old: str, new: str) -> str:
        """As the function of this name says; the commits are fetched if they are not here."""
        for commit in (new, old):
            if not self.fetch_commit(commit):
                return ""
        return self._first_with(path, has_it, old, new)

    def _first_with(self, path: str, has_it: Callable[[str], bool], old: str, new: str) -> str:
        words = ["rev-list", "--first-parent", "--reverse", f"{old}..{new}", "--", path]
        steps = self._git(*words).split()
        if not steps or not has_it(self._text(steps[-1], path)):
            return ""
        first = steps[bisect.bisect_left(steps, 1, key=lambda one: has_it(self._text(one, path)))]
        # Of a merge it is the commit on the merged branch that brought it, where one did.
        parents = self.show([first])[first].parents[:2]
        inside = self._first_with(path, has_it, *parents) if len(parents) > 1 else ""
        return inside or first

    def _text(self, commit: str, path: str) -> str:
        """A file of a commit that is here; it alone is fetched. "" where the commit has none."""
        listed = self._git("ls-tree", commit, "--", path).split()
        if not listed:
            return ""
        blob = listed[2]
        _fetch(self._repository, self._remote, ["origin", blob], Silent())
        return self._git("cat-file", "blob", blob)

    def groups(self, steps: list[commits.Commit]) -> tuple[commits.Group, ...]:
        """These steps by what they touch, most dangerous first; merges of mainline apart."""
        merged = self.upstream_merges([one for one in steps if len(one.parents) > 1])
        return commits.grouped(steps, {one.commit for one in merged})

    def upstream_merges(self, merges: list[commits.Commit]) -> list[commits.Commit]:
        """Those of the merges that brought mainline into the fork."""
        tips = self.show([one.parents[1] for one in merges])
        return [one for one in merges if commits.merges_upstream(one, tips.get(one.parents[1]))]

    def merges(self, head: str) -> list[commits.Commit]:
        """The merges that a branch is made of, newest first, without files."""
        return self._log("--first-parent", "--merges", head)

    def show(self, shas: list[str]) -> dict[str, commits.Commit]:
        """These commits, without files."""
        found = self._log("--no-walk", *shas) if shas else []
        return {one.commit: one for one in found}

    def _fetch(self, refspec: str) -> None:
        _fetch_history(self._repository, self._remote, "blob:none", refspec, Silent())

    def _log(self, *words: str) -> list[commits.Commit]:
        return _log(self._repository, *words)

    def _git(self, *words: str) -> str:
        return self._repository.read(*words)


_DATE = "--date=format-local:%Y-%m-%dT%H:%M:%SZ"
_UTC = {"TZ": "UTC"}


def _log(repository: GitCache, *words: str) -> list[commits.Commit]:
    # A field of a commit holds no NUL, and may hold anything else.
    form = "--format=%x00%H%x00%P%x00%cd%x00%cn%x00%s%x00"
    said = repository.read("log", "--no-show-signature", _DATE, form, *words, environment=_UTC)
    fields = said.split("\0")[1:]
    return [_commit(*fields[i : i + 6]) for i in range(0, len(fields), 6)]


def _commit(
    commit: str, parents: str, date: str, committer: str, subject: str, names: str
) -> commits.Commit:
    return commits.Commit(
        commit=commit,
        parents=tuple(parents.split()),
        date=commits.readable_date(date),
        committer=commits.shown(committer),
        subject=commits.shown(subject),
        # Names with a quote or a control character come in quotes.
        files=tuple(line.strip('"') for line in names.split("\n") if line),
    )


def _bring_files(repository: GitCache, remote: Remote, commit: str, progress: Progress) -> None:
    """Have a commit with its files here."""
    if repository.has(commit):
        return
    progress.step(f"fetch {commit[:9]} from {remote.url}")
    try:
        _fetch(repository, remote, ["--depth=1", "origin", commit], progress)
    except RefNotFoundError:
        progress.warn(f"{remote.url} does not give out {commit[:9]} alone: fetching its branches")
    else:
        return
    _fetch(repository, remote, ["--refetch", "origin", "+refs/*:refs/remotes/origin/*"], progress)
    if not repository.has(commit):
        raise RefNotFoundError(
            f"{remote.url} has no commit {commit}",
            why="it is on none of the branches and tags; a force-push may have dropped it",
            hint="`--ref BRANCH` builds what the branch holds now",
        )


def _history(remote: Remote, progress: Progress) -> GitCache:
    repository = remote.open("history")
    progress.step(f"fetch the history of {remote.url}")
    _fetch_history(repository, remote, "tree:0", "+refs/heads/*:refs/remotes/origin/*", progress)
    return repository


@anew
def _expand(remote: Remote, short: str, progress: Progress) -> str:
    repository = _history(remote, progress)
    try:
        return repository.ask("rev-parse", "--verify", f"{short}^{{commit}}")
    except CommandError as error:
        ambiguous = "ambiguous" in error.why
        raise RefNotFoundError(
            f"{remote.url}: {short} is {'ambiguous' if ambiguous else 'on none of its branches'}",
            hint="give all 40 digits",
        ) from error


def _fetch_history(
    repository: GitCache, remote: Remote, leave_out: str, refspec: str, progress: Progress
) -> None:
    """Fetch commits with all their ancestors, without what `leave_out` filters.

    Raises RemoteUnavailableError for a remote that is a shallow clone itself.
    """
    # Without --update-shallow git 2.39 takes the parents that a shallow remote lacks for objects to
    # fetch later, and fetches them from within that fetch, for minutes. It still does so when the
    # remote knows no filters either.
    arguments = [f"--filter={leave_out}", "--update-shallow", "origin", refspec]
    # A branch that is gone stays in the way of one below its name: x of x/y.
    arguments[:0] = ["--prune"] if "*" in refspec else []
    _fetch(repository, remote, arguments, progress)
    if repository.read("rev-parse", "--is-shallow-repository") == "true":
        # It would stay cut off when the remote is whole again.
        drop(repository.folder)
        raise RemoteUnavailableError(
            f"{remote.url} gives out only a part of its history",
            why="it is a shallow clone itself",
            hint="ask a whole one",
        )


def _fetch(repository: GitCache, remote: Remote, words: list[str], progress: Progress) -> None:
    """Ask the remote; a redirect is told."""
    _warn_moved(remote, _redirect(repository.fetch(*words).stderr), progress)


def _ls_remote(remote: Remote, progress: Progress) -> dict[str, str]:
    said = _run(remote, "ls-remote", remote.url)
    _warn_moved(remote, _redirect(said.stderr), progress)
    return {name: commit for commit, name in _pairs(said.stdout)}


def _pairs(text: str) -> list[tuple[str, str]]:
    """The two fields of each line: a ref's name may hold what Python takes for an end of line."""
    split = (line.partition("\t") for line in text.split("\n") if line)
    return [(value, name) for value, _, name in split]


def _warn_moved(remote: Remote, moved_to: str | None, progress: Progress) -> None:
    if moved_to:
        progress.warn(
            f"{remote.url} has moved to {moved_to}: "
            f"write that into pins.toml, forks.{remote.fork}.url"
        )


def _run(remote: Remote, *words: str) -> Said:
    """What git printed after talking to the remote, in no repository."""
    try:
        return run_git(words, of_user=True, longest_s=_QUESTION_S)
    except CommandError as error:
        raise failure(remote.url, error) from error


def _redirect(stderr: str) -> str | None:
    found = _REDIRECT.search(stderr)
    return found[1].rstrip("/") if found else None
