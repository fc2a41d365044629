"""The start of a GGUF: its keys, and what each of its tensors weighs.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import math
import mmap
import re
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from builder.errors import UsageError

Value = int | float | bool | str | list[int] | list[float] | list[bool] | None
Header = Mapping[str, Value]
"""Keys and values. A list of texts reads as None: vocabularies are long, and say nothing here."""

_ALIGNMENT = 32
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor: its sizes, innermost first as ggml counts them, and bytes in the file."""

    name: str
    sizes: tuple[int, ...]
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Contents:
    """A model: the keys of its first file, the tensors of all its files."""

    keys: Header
    tensors: tuple[Tensor, ...]


def read_keys(path: Path) -> Header:
    """The keys of one file. Raises UsageError when its header cannot be read."""
    with _mapped(path) as data:
        return _Reader.start(data)[0]


def read(path: Path) -> Contents:
    """Keys and tensors; the header's bytes are enough, what follows may be missing.

    A model in several files (`…-00001-of-00003.gguf`) is read whole. Raises UsageError when a
    header cannot be read, or a file of several is not there.
    """
    files = [_read_one(each) for each in _shards(path)]
    tensors = tuple(tensor for one in files for tensor in one.tensors)
    if not tensors:
        raise UsageError(f"{path} has no tensors", why="it is a vocabulary or an adapter's header")
    return Contents(files[0].keys, tensors)


def _shards(path: Path) -> list[Path]:
    named = _SHARD.fullmatch(path.name)
    if named is None:
        return [path]
    count = int(named["count"])
    every = [
        path.with_name(f"{named['stem']}-{number:05}-of-{count:05}.gguf")
        for number in range(1, count + 1)
    ]
    missing = [each.name for each in every if not each.exists()]
    if missing:
        raise UsageError(
            f"{path.name} is one of {count} files", why=f"not there: {', '.join(missing)}"
        )
    return every


def _read_one(path: Path) -> Contents:
    with _mapped(path) as data:
        keys, reader, count = _Reader.start(data)
        infos = sorted((reader.tensor() for _ in range(count)), key=lambda info: info.offset)
        given = keys.get("general.alignment")
        alignment = given if isinstance(given, int) and given > 0 else _ALIGNMENT
        begin = -(-reader.at // alignment) * alignment
        # Where one ends is where the next begins, of whatever type it is.
        sizes = [after.offset - info.offset for info, after in pairwise(infos)]
        if infos:
            sizes.append(_last_size(infos, sizes, len(data) - begin))
        tensors = zip(infos, sizes, strict=True)
        return Contents(keys, tuple(Tensor(info.name, info.sizes, size) for info, size in tensors))


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data
    except (OSError, ValueError, LookupError, struct.error) as error:
        raise UsageError(f"the header of {path} cannot be read", why=str(error)) from error


@dataclass(frozen=True, slots=True)
class _Info:
    """Where a tensor is, in bytes from where the file's tensors begin, and its type's number."""

    name: str
    sizes: tuple[int, ...]
    kind: int
    offset: int

    @property
    def values(self) -> int:
        return math.prod(self.sizes)


def _last_size(infos: list[_Info], sizes: list[int], available: int) -> int:
    """The last tensor's bytes; the header is enough for it.

    They follow from the largest other tensor of its type, else from ggml's table, and for a type
    that is a fork's own from the file's end.
    """
    last = infos[-1]
    alike = [each for each in zip(infos, sizes, strict=False) if each[0].kind == last.kind]
    if alike:
        info, size = max(alike, key=lambda each: each[1])
        return round(last.values * size / info.values)
    # numpy comes with it: 0.2 s that most files do not need
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(last.kind)]
    except (ValueError, KeyError) as error:
        if available <= last.offset:
            raise ValueError(
                f"it ends before {last.name}, whose type {last.kind} is not known here"
            ) from error
        return available - last.offset
    return last.values // block * block_bytes


_FORMATS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_TEXT, _LIST = 8, 9
_VERSIONS = (2, 3)
"""Version 1 counted in 32 bits; nothing has written it since 2023."""


@dataclass(slots=True)
class _Reader:
    """A place in a GGUF, moving forward.

    Raises ValueError, struct.error or LookupError when there is no header, or not a whole one.
    """

    data: "bytes | mmap.mmap"
    at: int

    @classmethod
    def start(cls, data: "bytes | mmap.mmap") -> "tuple[Header, _Reader, int]":
        """The keys, the place after them, and how many tensors are described there."""
        magic, version = struct.unpack_from("<4sI", data)
        if magic != b"GGUF" or version not in _VERSIONS:
            raise ValueError(f"it begins with {magic!r}, version {version}")
        reader = cls(data, 8)
        tensors, keys = reader.number("Q"), reader.number("Q")
        return dict(reader.pair() for _ in range(keys)), reader, tensors

    def tensor(self) -> _Info:
        name, dimensions = self.text(), self.number("I")
        sizes = tuple(self.number("Q") for _ in range(dimensions))
        return _Info(name, sizes, self.number("I"), self.number("Q"))

    def pair(self) -> tuple[str, Value]:
        key = self.text()
        return key, self.value(self.number("I"))

    def number(self, code: str) -> int:
        (found,) = struct.unpack_from(f"<{code}", self.data, self.at)
        self.at += struct.calcsize(code)
        return int(found)

    def text(self) -> str:
        size = self.number("Q")
        found = self.data[self.at : self.at + size]
        if len(found) < size:
            raise ValueError("it is cut short")
        self.at += size
        return found.decode(errors="replace")

    def value(self, kind: int) -> Value:
        if kind == _TEXT:
            return self.text()
        if kind == _LIST:
            return self.list(self.number("I"), self.number("Q"))
        code = _FORMATS[kind]
        (found,) = struct.unpack_from(f"<{code}", self.data, self.at)
        self.at += struct.calcsize(code)
        return found  # type: ignore[no-any-return]

    def list(self, kind: int, count: int) -> Value:
        if kind == _TEXT:
            self._pass_texts(count)
            return None
        code = f"<{count}{_FORMATS[kind]}"
        found = list(struct.unpack_from(code, self.data, self.at))
        self.at += struct.calcsize(code)
        return found

    def _pass_texts(self, count: int) -> None:
        data, at = self.data, self.at
        unpack = struct.Struct("<Q").unpack_from
        for _ in range(count):
            at += 8 + unpack(data, at)[0]
        self.at = at
