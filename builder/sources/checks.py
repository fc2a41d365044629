"""What is asked of a source tree before anything is compiled, and told when it then fails."""

from collections.abc import Iterator
from contextlib import contextmanager

from builder.common.errors import BuilderError, BuildFailedError
from builder.common.progress import Progress
from builder.common.tree_files import TreeError
from builder.git import remote as git
from builder.model.pins import Fork, Pins
from builder.pins import load as pins
from builder.pins import parts
from builder.pins.parts import TYPES_TABLE
from builder.sources.tree import Tree


@contextmanager
def checked(
    everything: Pins, variant_name: str, tree: Tree, progress: Progress
) -> Iterator[tuple[str, ...]]:
    """Judge the tree of a variant, and let a build of it fail with what is known of its commit.

    Gives what the pins name, the commit lacks and the variant can do without, in the words of
    `parts`. Raises BuildFailedError when the KV type that the variant is smoked with is not in the
    tree, and for a tree that cannot be looked through.
    """
    variant = everything.variants[variant_name]
    fork = everything.forks[variant.fork]
    subject = f"{variant.fork} at {tree.commit[:9]}"
    known = pins.broken(fork, tree.commit)
    if known:
        progress.warn(f"{subject} is known to be broken: {known}")
    try:
        _require_smoke_kv(subject, variant.fork, fork, variant.smoke_kv, tree, progress)
        left_out = parts.lacking(fork, variant, tree.path)
    except TreeError as error:
        raise BuildFailedError(
            f"{subject}: {error.what}; nothing was compiled",
            why=error.why,
            hint="another tree" if tree.claimed else "another commit with --ref",
            commits_fault=True,
        ) from error
    if left_out:
        progress.warn(f"{subject} has no {', '.join(left_out)}: left out")
    try:
        yield left_out
    except BuildFailedError as error:
        told = known and error.commits_fault
        raise BuildFailedError(
            f"{subject}: {error.what}",
            why=f"{error.why}\nknown of this commit: {known}" if told else error.why,
            hint="; ".join(filter(None, [_advice(fork, tree, error), error.hint])),
            log=error.log,
            commits_fault=error.commits_fault,
        ) from error


def _require_smoke_kv(
    subject: str, name: str, fork: Fork, smoke_kv: str, tree: Tree, progress: Progress
) -> None:
    there = parts.kv_types_of(tree.path)
    if not there or smoke_kv in there:
        return
    own = ", ".join(one for one in fork.kv_types if one in there)
    first = "" if tree.claimed else _first_with(name, fork, smoke_kv, tree, progress)
    another = f"a commit from {first[:9]} on" if first else "another commit"
    raise BuildFailedError(
        f"{subject}: has no KV type {smoke_kv}; nothing was compiled",
        why=f"{TYPES_TABLE} names {f'only {own}' if own else 'none'} of the fork's types. "
        + (
            f"The first commit on the way to the pin that has it is {first}"
            if first
            else "A branch can lose them: a force-push once dropped all turbo code from TheTom's "
            "(TheTom/llama-cpp-turboquant#56)"
        ),
        hint=f"{'another tree' if tree.claimed else f'{another} with --ref'}, or another smoke_kv "
        "for the variant in pins.toml",
        commits_fault=True,
    )


def _first_with(name: str, fork: Fork, kv_type: str, tree: Tree, progress: Progress) -> str:
    """The first commit from the tree's to the pin with this KV type; "" where nobody tells."""
    if fork.url is None or fork.commit is None:
        return ""

    def has_it(text: str) -> bool:
        return kv_type in parts.kv_types(text)

    remote = git.Remote(name, fork.url)
    progress.step(f"look for the first commit with {kv_type}")
    try:
        return git.first_with(remote, str(TYPES_TABLE), has_it, tree.commit, fork.commit, progress)
    except BuilderError:
        return ""


def _advice(fork: Fork, tree: Tree, error: BuildFailedError) -> str:
    """Another commit, where the source is at fault and git gives out others."""
    if tree.claimed or not error.commits_fault:
        return ""
    if fork.commit in {None, tree.commit}:
        return "another commit may build: --ref REF"
    return f"another commit may build: --ref REF, or without it the pin {str(fork.commit)[:9]}"
