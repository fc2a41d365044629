"""The pull request that moves a fork's pin to what a night has proven: one a fork."""

from dataclasses import replace
from datetime import UTC
from pathlib import Path

from builder.bump import fork as bumps
from builder.bump.report import BumpReport, to_markdown
from builder.common.files import write_atomically
from builder.common.progress import Progress
from builder.git import remote as git
from builder.git.github import Github
from builder.git.github_threads import Threads
from builder.git.pushed_branches import Checkout
from builder.pins import edit as pins_edit


def branch(fork: str) -> str:
    """The branch that moves this fork's pin."""
    return f"builder/bump-{fork}"


def propose(
    file: Path,
    move: BumpReport,
    release: str,
    threads: Threads | None,
    results: Path,
    progress: Progress,
) -> str:
    """Have one open pull request that makes this move, and say where it is.

    A branch with one commit on top of the default branch, pushed anew when the move is another.
    `threads` None, or a pins.toml in no git checkout: its text goes to a file. Raises
    branches.NotOursError, RefNotFoundError, RemoteUnavailableError.
    """
    text = _text(move, release)
    root = git.top(file)
    if threads is None or root is None:
        return _to_file(move.fork, text, results, "a token" if threads is None else "a checkout")
    host: Github = threads.host
    base = threads.default_branch()
    title = f"{move.fork}: pin {move.new.commit[:9]}"
    made = Checkout(root, host).write(
        branch(move.fork),
        base,
        f"{title}\n\n{move.headline}\n",
        move.new.date.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        lambda tree: _edit(tree / file.resolve().relative_to(root), move),
        progress,
    )
    if made is None:
        return f"{base} has the pin {move.new.commit[:9]} already"
    known = threads.pull(branch(move.fork))
    if known is None:
        return f"opened {threads.open_pull(branch(move.fork), base, title, text).page}"
    return f"updated {threads.write_pull(known.number, title, text).page}"


def _edit(file: Path, move: BumpReport) -> bool:
    """Move the pin in another checkout's pins.toml, and its Dockerfiles; False: it is there."""
    text = bumps.read(file)
    edited = pins_edit.with_pin(text, move.fork, move.new)
    if edited == text:
        return False
    bumps.replace_all(file, text, bumps.Edit.of(file, edited, "fork", move.fork).files)
    return True


def _text(move: BumpReport, release: str) -> str:
    tail = f"Published and promoted as `{release}` by `builder nightly`, which writes this anew."
    return f"{to_markdown(replace(move, written=True))}\n{tail}\n"


def _to_file(fork: str, text: str, results: Path, wanting: str) -> str:
    path = results / "build" / "nights" / f"{fork}-pull-request.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text)
    return f"no pull request was written, for want of {wanting}: its text is in {path}"
