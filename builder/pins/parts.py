"""What pins.toml names of a fork and a commit may lack: found in its tree, and left out.

Each has a word, as `codebooks`, `kv_types.turbo3_tcq` or `options.GGML_RPC`: its place in pins.toml
below the fork, or the variant. Receipts and labels have these words, so that the Dockerfile of an
image can be rendered again without the tree.
"""

import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from builder.common import tree_files
from builder.model.pins import Fork, Pins, Variant

CODEBOOKS = "codebooks"
TYPES_TABLE = Path("ggml/src/ggml.c")
# As upstream and the forks spiritbuun, TheTom and Madreag write the table of types.
_TYPE_NAME = re.compile(r'\.type_name\s*=\s*"([^"]+)"')
# Strings come first, so that a "//" in one begins no comment. What is never closed goes to the end:
# looked for anew from each beginning, a stranger's file would take hours.
_COMMENT_OF_C = re.compile(
    r'("(?:\\.|[^"\\\n])*")|//[^\n]*|/\*.*?(?:\*/|\Z)'
    r"|^[ \t]*#[ \t]*if[ \t]+0\b.*?(?:^[ \t]*#[ \t]*(?:endif|else|elif)\b|\Z)",
    re.DOTALL | re.MULTILINE,
)
_COMMENT_OF_CMAKE = re.compile(
    r'("(?:\\.|[^"\\])*(?:"|\Z))|#\[(=*)\[.*?(?:\]\2\]|\Z)|#[^\n]*', re.DOTALL
)
# CMake's own, which no project declares.
_OF_CMAKE = ("CMAKE_", "CUDA_", "BUILD_")
_MOST_OF_CMAKE = 32 << 20
"""Forty times llama.cpp's."""


def kv_types(text: str) -> frozenset[str]:
    """The names of ggml's types by the text of TYPES_TABLE; none when it has no such table.

    A type that is only in a comment, or behind `#if 0`, is not compiled.
    """
    return frozenset(_TYPE_NAME.findall(_COMMENT_OF_C.sub(r"\1", text)))


def kv_types_of(tree: Path) -> frozenset[str]:
    """The names of ggml's types in a tree; none when the tree has no table of them.

    Raises TreeError.
    """
    return kv_types(tree_files.text(tree, TYPES_TABLE) or "")


def lacking(fork: Fork, variant: Variant, tree: Path) -> tuple[str, ...]:
    """The words of what the pins name and a tree does not have.

    A tree without a table of KV types is not judged by them. Raises TreeError.
    """
    return tuple(_lacking(fork, variant, tree))


def _lacking(fork: Fork, variant: Variant, tree: Path) -> Iterator[str]:
    if fork.codebooks and not tree_files.is_folder(tree, fork.codebooks):
        yield CODEBOOKS
    there = kv_types_of(tree)
    yield from (f"kv_types.{name}" for name in fork.kv_types if there and name not in there)
    options = [name for name in fork.options | variant.options if not name.startswith(_OF_CMAKE)]
    if options:
        known = _words_of_cmake(tree)
        yield from (f"options.{name}" for name in options if name not in known)


def _words_of_cmake(tree: Path) -> frozenset[str]:
    """Every word of the tree's CMake files, without comments: no other option has an effect."""
    words: set[str] = set()
    left = _MOST_OF_CMAKE
    for path in tree_files.walk(tree, frozenset({".git"})):
        # What a link of such a name leads to is in the tree itself, or is not read.
        if not (path.name == "CMakeLists.txt" or path.suffix == ".cmake"):
            continue
        if not stat.S_ISREG(path.lstat().st_mode):
            continue
        text = tree_files.text(tree, path.relative_to(tree)) or ""
        left -= len(text)
        if left < 0:
            raise tree_files.TreeError(
                f"the tree has more than {_MOST_OF_CMAKE} characters of CMake files"
            )
        words.update(re.findall(r"\w+", _COMMENT_OF_CMAKE.sub(r"\1", text)))
    return frozenset(words)


def without(pins: Pins, variant_name: str, left_out: Iterable[str]) -> Pins:
    """The pins without what is left out; a word of which they know nothing changes nothing."""
    gone = frozenset(left_out)
    if not gone:
        return pins
    variant = pins.variants[variant_name]
    fork = pins.forks[variant.fork]
    fork = replace(
        fork,
        codebooks=None if CODEBOOKS in gone else fork.codebooks,
        kv_types={k: one for k, one in fork.kv_types.items() if f"kv_types.{k}" not in gone},
        options={k: one for k, one in fork.options.items() if f"options.{k}" not in gone},
    )
    options = {k: one for k, one in variant.options.items() if f"options.{k}" not in gone}
    return replace(
        pins,
        forks=pins.forks | {variant.fork: fork},
        variants=pins.variants | {variant_name: replace(variant, options=options)},
    )


def words(label: str) -> tuple[str, ...]:
    """The words of a label, which has them with commas between."""
    return tuple(filter(None, label.split(",")))
