"""SECURITY.md promises nothing that no test holds, and names no test that is not there."""

import ast
import re

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)(?:::(\w+))?`", PAGE)))


def in_file(file: str) -> set[tuple[str, ...]]:
    """The names of a file's tests, with their class where they stand in one."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    names: set[tuple[str, ...]] = set()
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name):
                names.add((name,))
            case ast.ClassDef(name=name, body=body):
                names |= {(name, one.name) for one in body if isinstance(one, ast.FunctionDef)}
    return {one for one in names if one[-1].startswith("test_")}


def bullets(text: str) -> list[str]:
    """The entries of the lists in a text, each as one line."""
    return [
        " ".join(one.split()) for one in re.findall(r"^- (.+?)(?=^- |^$|\Z)", text, re.M | re.S)
    ]


def section(mark: str) -> list[str]:
    """What stands below each `**mark**`, up to the next bold line or title."""
    return re.findall(rf"^\*\*{mark}\*\*\n(.+?)(?=^\*\*|^## |\Z)", PAGE, re.M | re.S)


@pytest.mark.parametrize("named", NAMED, ids="::".join)
def test_every_test_that_it_names_is_there(named):
    file, *name = named
    assert (ROOT / file).is_file()
    assert tuple(filter(None, name)) in in_file(file)


def test_every_protection_names_a_test():
    lines = [line for text in section("Protected") for line in bullets(text)]
    assert lines
    assert [line for line in lines if not re.search(r"`tests/[\w/]+\.py::\w+", line)] == []


def test_every_attacker_has_what_holds_and_what_does_not():
    attackers = len(re.findall(r"^## ", PAGE, re.M)) - len(
        ["reporting", "what is protected", "checkers"]
    )
    assert len(section("Protected")) == len(section("Not protected")) == attackers
