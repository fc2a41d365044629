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

from builder.common.errors import UsageError
from builder.llama.gguf import not_gguf

Value = int | float | bool | str | list[int] | list[float] | list[bool] | None
Header = Mapping[str, Value]
"""Keys and values. A list of texts reads as None: vocabularies are long, and say nothing here."""

_ALIGNMENT = 32
_NAMED = 5
"""Missing files that an error names."""

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
    if named is None or not 1 <= int(named["number"]) <= int(named["count"]):
        return [path]
    count = int(named["count"])
    every = [
        path.with_name(f"{named['stem']}-{number:05}-of-{count:05}.gguf")
        for number in range(1, count + 1)
    ]
    missing = [each.name for each in every if not each.exists()]
    if missing:
        raise UsageError(
            f"{path.name} is one of {count} files",
            why=f"not there: {', '.join(missing[:_NAMED])}"
            + (f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""),
        )
    return every


def _read_one(path: Path) -> Contents:
    with _mapped(path) as data:
        keys, reader, count = _Reader.start(data)
        infos = sorted(reader.tensors(count), key=lambda info: (info.offset, info.values > 0))
        given = keys.get("general.alignment")
        alignment = given if isinstance(given, int) and given > 0 else _ALIGNMENT
        begin = -(-reader.at // alignment) * alignment
        # Where one ends is where the next begins, of whatever type it is.
        sizes = [after.offset - info.offset for info, after in pairwise(infos)]
        for info, size in zip(infos, sizes, strict=False):
            if not bool(info.values) <= size <= _WIDEST * info.values + alignment:
                raise ValueError(f"{info.name}: {info.values} values in {size} bytes")
        if infos:
            sizes.append(_last_size(infos, sizes, len(data) - begin))
        tensors = zip(infos, sizes, strict=True)
        return Contents(keys, tuple(Tensor(info.name, info.sizes, size) for info, size in tensors))


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    if path.exists() and not path.is_file():
        # a pipe would be waited for
        raise UsageError(f"the header of {path} cannot be read", why="it is no regular file")
    if path.exists() and not path.stat().st_size:
        raise UsageError(f"the header of {path} cannot be read", why="it is empty")
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if other := not_gguf.known(data[: not_gguf.START]):
                raise UsageError(f"{path} is no GGUF", why=other.what, hint=other.hint)
            yield data
    except (OSError, ValueError, LookupError, struct.error) as error:
        why = "it is cut short" if isinstance(error, struct.error) else str(error)
        raise UsageError(f"the header of {path} cannot be read", why=why) from error


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
    alike = [
        each
        for each in zip(infos, sizes, strict=False)
        if each[0].kind == last.kind and each[0].values
    ]
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

_WIDEST = 8
"""Bytes of a value of ggml's widest types, i64 and f64."""

_MOST_DIMENSIONS, _MOST_VALUES, _LONGEST_NAME = 4, 2**63 - 1, 64
"""Of a tensor: GGML_MAX_DIMS, what a signed 64-bit number counts, GGML_MAX_NAME."""

_LONGEST_KEY, _LONGEST_TEXT, _LONGEST_LIST = 2**16 - 1, 2**26, 2**24
"""Bytes of a key, as the format has it; bytes of a text and items of a list, well above any model's
(vocabularies have some 260,000 words, merges 520,000, a tokenizer's file 35 MB)."""


@dataclass(slots=True)
class _Reader:
    """A place in a GGUF, moving forward.

    Raises ValueError, struct.error or LookupError when there is no header, or not a whole one.
    What it says of lengths is held against what is left of the file before anything is made of it.
    """

    data: "bytes | mmap.mmap"
    at: int

    @classmethod
    def start(cls, data: "bytes | mmap.mmap") -> "tuple[Header, _Reader, int]":
        """The keys, the place after them, and how many tensors are described there."""
        if data[:4] != b"GGUF":
            raise ValueError(f"it begins with {data[:4]!r}, a GGUF with b'GGUF'")
        (version,) = struct.unpack_from("<I", data, 4)
        if version not in _VERSIONS:
            raise ValueError(f"it is GGUF version {version}; 2 and 3 are known here")
        reader = cls(data, 8)
        tensors, count = reader.number("Q"), reader.number("Q")
        keys: dict[str, Value] = {}
        for _ in range(count):
            key, value = reader.pair()
            if key in keys:
                raise ValueError(f"it gives {key!r} twice")
            keys[key] = value
        return keys, reader, tensors

    def tensors(self, count: int) -> "list[_Info]":
        found: dict[str, _Info] = {}
        for _ in range(count):
            info = self.tensor()
            if info.name in found:
                raise ValueError(f"it describes the tensor {info.name!r} twice")
            found[info.name] = info
        return list(found.values())

    def tensor(self) -> _Info:
        name, dimensions = self.text(_LONGEST_NAME), self.number("I")
        if dimensions > _MOST_DIMENSIONS:
            raise ValueError(f"{name!r} has {dimensions} dimensions")
        sizes = tuple(self.number("Q") for _ in range(dimensions))
        found = _Info(name, sizes, self.number("I"), self.number("Q"))
        if max(found.values, found.offset, *sizes, 0) > _MOST_VALUES:
            raise ValueError(f"{name!r} is too large for any machine: {sizes}")
        return found

    def pair(self) -> tuple[str, Value]:
        key = self.text(_LONGEST_KEY)
        return key, self.value(self.number("I"))

    def number(self, code: str) -> int:
        (found,) = struct.unpack_from(f"<{code}", self.data, self.at)
        self.at += struct.calcsize(code)
        return int(found)

    def text(self, longest: int) -> str:
        size = self.number("Q")
        self._require(size, longest)
        found = self.data[self.at : self.at + size]
        self.at += size
        return found.decode(errors="replace")

    def value(self, kind: int) -> Value:
        if kind == _TEXT:
            return self.text(_LONGEST_TEXT)
        if kind == _LIST:
            return self.list(self.number("I"), self.number("Q"))
        code = _format(kind)
        (found,) = struct.unpack_from(f"<{code}", self.data, self.at)
        self.at += struct.calcsize(code)
        return found  # type: ignore[no-any-return]

    def list(self, kind: int, count: int) -> Value:
        if kind == _TEXT:
            self._require(8 * count, 8 * _LONGEST_LIST)
            self._pass_texts(count)
            return None
        code = _format(kind)
        size = struct.calcsize(code)
        self._require(size * count, size * _LONGEST_LIST)
        found = list(struct.unpack_from(f"<{count}{code}", self.data, self.at))
        self.at += size * count
        return found

    def _pass_texts(self, count: int) -> None:
        data, at, end = self.data, self.at, len(self.data)
        unpack = struct.Struct("<Q").unpack_from
        for _ in range(count):
            at += 8 + unpack(data, at)[0]
            if at > end:
                raise ValueError("it is cut short")
        self.at = at

    def _require(self, size: int, most: int) -> None:
        """Raises ValueError when so many bytes are more than `most`, or not left in the file."""
        if size > most:
            raise ValueError(f"it gives a length of {size} bytes, where {most} are the most")
        if size > len(self.data) - self.at:
            raise ValueError("it is cut short")


def _format(kind: int) -> str:
    """How `struct` names a type of the format. Raises ValueError for one that it does not have."""
    if kind not in _FORMATS:
        raise ValueError(f"it has a value of type {kind}, which the format does not know")
    return _FORMATS[kind]
