"""The text of a pins.toml with one fork's or base's pin replaced, and every other byte kept."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, cast

from builder.common.errors import UsageError

if TYPE_CHECKING:
    from tomlkit import TOMLDocument
    from tomlkit.items import Table

_MARK = "@builder-bump@"


@dataclass(frozen=True, slots=True)
class Pin:
    """What a fork is pinned to: the full SHA, `git rev-list --count`, the commit's date (UTC).

    `build_number` is None where pins.toml does not tell it.
    """

    commit: str
    build_number: int | None
    date: datetime


def with_pin(text: str, fork: str, pin: Pin) -> str:
    """The text with this fork's `commit`, `build_number` and `date`, and without `unpinned`.

    A value that is right stays as it is written; one that is absent gets a line below `commit`.
    The text is a valid pins.toml that has the fork. Raises UsageError where the fork is written in
    a way that is not edited safely, such as an inline table.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    values = {"commit": pin.commit, "build_number": pin.build_number, "date": pin.date}
    try:
        document = tomlkit.parse(text)
        edited = _edited(document, fork, values)
        done = tomllib.loads(edited) == _expected(text, fork, values)
    except (TOMLKitError, tomllib.TOMLDecodeError, StopIteration):
        done = False
    if not done:
        raise UsageError(
            f"forks.{fork} is written in a way that is not edited here",
            why=f"only values below a heading [forks.{fork}] are",
            hint=f"write commit, build_number and date of {pin.commit} by hand",
        )
    return edited


def with_images(text: str, base: str, images: Mapping[str, str]) -> str:
    """The text with these images (by `devel` or `runtime`) in place of the base's.

    The text is a valid pins.toml that has them. Raises UsageError where they are written in a way
    that is not edited safely.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    wanted = tomllib.loads(text)
    wanted["bases"][base] |= images
    try:
        document = tomlkit.parse(text)
        table = cast("Table", cast("Table", document["bases"])[base])
        for role, image in images.items():
            table[role] = image
        edited = document.as_string()
        done = tomllib.loads(edited) == wanted
    except (TOMLKitError, tomllib.TOMLDecodeError):
        done = False
    if not done:
        raise UsageError(
            f"bases.{base} is written in a way that is not edited here",
            hint="; ".join(f"write by hand: {role} = {image}" for role, image in images.items()),
        )
    return edited


def _expected(text: str, fork: str, values: Mapping[str, object]) -> dict[str, object]:
    document = tomllib.loads(text)
    document["forks"][fork].pop("unpinned", None)
    document["forks"][fork] |= values
    return document


def _edited(document: "TOMLDocument", fork: str, values: Mapping[str, object]) -> str:
    table = cast("Table", cast("Table", document["forks"])[fork])
    anchor = "commit" if "commit" in table else "unpinned"
    absent = [name for name in values if name not in table and name != "commit"]
    for name, value in values.items():
        if name in table and table[name] != value:
            table[name] = value
    if anchor == "commit" and not absent:
        return document.as_string()
    table[anchor] = _MARK
    return _with_lines(document.as_string(), anchor, {n: values[n] for n in ["commit", *absent]})


def _with_lines(text: str, anchor: str, values: Mapping[str, object]) -> str:
    """The marked line becomes the first value's, what else stands on it stays; the rest follow."""
    import tomlkit

    lines = text.splitlines(keepends=True)
    index = next(number for number, line in enumerate(lines) if _MARK in line)
    start, _, end = lines[index].partition(f'"{_MARK}"')
    newline = "\r\n" if end.endswith("\r\n") else "\n"
    indent = start[: len(start) - len(start.lstrip())]
    written = {name: tomlkit.item(value).as_string() for name, value in values.items()}
    first, *others = written
    lines[index] = start.replace(anchor, first, 1) + written[first] + (end or newline)
    lines[index + 1 : index + 1] = [f"{indent}{o} = {written[o]}{newline}" for o in others]
    return "".join(lines)
