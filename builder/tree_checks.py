"""What is asked of a source tree before anything is compiled, and told when it then fails."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from builder import pins
from builder.errors import BuildFailedError
from builder.model import Fork, Pins
from builder.progress import Progress
from builder.source import Tree

_TABLE = Path("ggml/src/ggml.c")
# As upstream and the forks spiritbuun, TheTom and Madreag write the table of types.
_TYPE_NAME = re.compile(r'^\s*\.type_name\s*=\s*"([^"]+)"', re.MULTILINE)


def kv_types(tree: Path) -> frozenset[str]:
    """The names of ggml's types in a tree; none when the tree has no table of them."""
    try:
        text = (tree / _TABLE).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    return frozenset(_TYPE_NAME.findall(text))


@contextmanager
def checked(everything: Pins, variant_name: str, tree: Tree, progress: Progress) -> Iterator[None]:
    """Judge the tree of a variant, and let a build of it fail with what is known of its commit.

    Raises BuildFailedError when the KV type that the variant is smoked with is not in the tree.
    """
    variant = everything.variants[variant_name]
    fork = everything.forks[variant.fork]
    subject = f"{variant.fork} at {tree.commit[:9]}"
    known = pins.broken(fork, tree.commit)
    if known:
        progress.warn(f"{subject} is known to be broken: {known}")
    _require_kv_types(subject, fork, variant.smoke_kv, tree, progress)
    try:
        yield
    except BuildFailedError as error:
        told = known and error.commits_fault
        raise BuildFailedError(
            f"{subject}: {error.what}",
            why=f"{error.why}\nknown of this commit: {known}" if told else error.why,
            hint="; ".join(filter(None, [_advice(fork, tree, error), error.hint])),
            log=error.log,
            commits_fault=error.commits_fault,
        ) from error


def _require_kv_types(
    subject: str, fork: Fork, smoke_kv: str, tree: Tree, progress: Progress
) -> None:
    there = kv_types(tree.path)
    if not there:
        return
    lacking = [name for name in fork.kv_types if name not in there]
    if smoke_kv not in there:
        own = ", ".join(name for name in fork.kv_types if name in there)
        raise BuildFailedError(
            f"{subject}: has no KV type {smoke_kv}; nothing was compiled",
            why=f"{_TABLE} names {f'only {own}' if own else 'none'} of the fork's types. A branch "
            "can lose them: a force-push once dropped all turbo code from TheTom's "
            "(TheTom/llama-cpp-turboquant#56)",
            hint=f"another {'tree' if tree.claimed else 'commit with --ref'}, or another smoke_kv "
            "for the variant in pins.toml",
            commits_fault=True,
        )
    if lacking:
        progress.warn(f"{subject}: {_TABLE} has no KV type {', '.join(lacking)}")


def _advice(fork: Fork, tree: Tree, error: BuildFailedError) -> str:
    """Another commit, where the source is at fault and git gives out others."""
    if tree.claimed or not error.commits_fault:
        return ""
    if fork.commit in {None, tree.commit}:
        return "another commit may build: --ref REF"
    return f"another commit may build: --ref REF, or without it the pin {str(fork.commit)[:9]}"
