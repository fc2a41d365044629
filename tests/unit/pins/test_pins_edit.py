"""A fork's pin is replaced in the text of pins.toml, and no other byte changes."""

import re
import tomllib
from datetime import UTC, datetime

import pytest

from builder.common.errors import UsageError
from builder.pins import load as pins
from builder.pins.edit import Pin, with_images, with_pin
from tests.conftest import ROOT

TEXT = (ROOT / "pins.toml").read_bytes().decode()
FORKS = tomllib.loads(TEXT)["forks"]
PINNED = [name for name, fork in FORKS.items() if "commit" in fork]
UNPINNED = [name for name, fork in FORKS.items() if "unpinned" in fork]
NEW = Pin("0123456789" * 4, 12345, datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC))

SMALL = """# first
[forks.a]
commit   =  "{old}"   # why this one
date = 2026-01-01T00:00:00Z
# last

[forks.b]
commit = "{old}"
"""
OLD = "f" * 40


def small(text: str = SMALL) -> str:
    return text.format(old=OLD)


@pytest.mark.parametrize("fork", PINNED)
def test_exactly_the_three_lines_of_the_fork_change(fork):
    pin = FORKS[fork]
    begin = TEXT.index(f"[forks.{fork}]")
    end = TEXT.index("\n[", begin)
    section = TEXT[begin:end]
    wanted = section
    for old, new in (
        (f'commit = "{pin["commit"]}"', f'commit = "{NEW.commit}"'),
        (f"build_number = {pin['build_number']}", "build_number = 12345"),
        (f"date = {pin['date']:%Y-%m-%dT%H:%M:%SZ}", "date = 2027-01-02T03:04:05Z"),
    ):
        assert wanted.count(old) == 1
        wanted = wanted.replace(old, new)
    assert with_pin(TEXT, fork, NEW) == TEXT[:begin] + wanted + TEXT[end:]


@pytest.mark.parametrize("fork", PINNED)
def test_there_and_back_again_is_the_same_file(fork):
    old = Pin(*(FORKS[fork][key] for key in ("commit", "build_number", "date")))
    assert with_pin(with_pin(TEXT, fork, NEW), fork, old) == TEXT
    assert with_pin(TEXT, fork, old) == TEXT


@pytest.mark.parametrize("fork", UNPINNED)
def test_an_unpinned_fork_gets_a_pin_where_its_excuse_stood(fork):
    lines = f'commit = "{NEW.commit}"\nbuild_number = 12345\ndate = 2027-01-02T03:04:05Z'
    excuse = f'unpinned = "{FORKS[fork]["unpinned"]}"'
    assert with_pin(TEXT, fork, NEW) == TEXT.replace(excuse, lines)


@pytest.mark.parametrize("fork", FORKS)
def test_what_comes_out_is_a_valid_pins_toml(fork):
    # A fork without url may be pinned in words only.
    text = with_pin(TEXT, fork, NEW).replace(
        'branch = "turboquant-tq3_0"', 'url = "https://example.org/x"'
    )
    assert pins.parse(text).forks[fork].commit == NEW.commit


def test_comments_and_spaces_on_the_line_stay():
    text = with_pin(small(), "a", NEW)
    assert f'commit   =  "{NEW.commit}"   # why this one\n' in text


def test_a_build_number_that_was_not_written_gets_a_line():
    assert with_pin(small(), "a", NEW) == small().replace(
        f'commit   =  "{OLD}"   # why this one\ndate = 2026-01-01T00:00:00Z\n',
        f'commit   =  "{NEW.commit}"   # why this one\nbuild_number = 12345\n'
        "date = 2027-01-02T03:04:05Z\n",
    )


def test_a_pin_on_the_last_line_without_its_end_is_edited():
    text = small().rstrip("\n")
    assert with_pin(text, "b", NEW).endswith(
        f'commit = "{NEW.commit}"\nbuild_number = 12345\ndate = 2027-01-02T03:04:05Z\n'
    )


def test_the_line_ends_of_windows_stay():
    text = with_pin(TEXT.replace("\n", "\r\n"), "turbo-tan", NEW)
    assert not re.search(r"[^\r]\n", text)
    assert text.replace("\r\n", "\n") == with_pin(TEXT, "turbo-tan", NEW)


def test_a_right_date_with_another_offset_stays_as_written():
    text = small().replace("2026-01-01T00:00:00Z", "2027-01-02T05:04:05+02:00")
    assert "2027-01-02T05:04:05+02:00" in with_pin(text, "a", NEW)


def test_a_fork_elsewhere_in_the_file_than_its_neighbours_is_edited():
    text = TEXT.replace("\n[forks.mainline]\n", "\n[profiles.x]\nalias='x'\n\n[forks.mainline]\n")
    old = FORKS["mainline"]["commit"]
    edited = with_pin(text, "mainline", NEW)
    assert tomllib.loads(edited)["forks"]["mainline"]["commit"] == NEW.commit
    assert len(edited.splitlines()) == len(text.splitlines())
    assert old not in edited


def test_an_inline_table_that_lacks_a_value_is_refused_in_words():
    text = f'[forks]\na = {{ commit = "{OLD}", date = 2026-01-01T00:00:00Z }}\n'
    with pytest.raises(UsageError, match=r"forks\.a is written in a way"):
        with_pin(text, "a", NEW)


@pytest.mark.parametrize("base", ["debian-trixie", "nvidia-cuda126", "nvidia-cuda128"])
def test_only_the_images_of_the_base_change(base):
    begin = TEXT.index(f"[bases.{base}]")
    end = TEXT.index("\n[", begin)
    section = re.sub("sha256:[0-9a-f]{64}", f"sha256:{'e' * 64}", TEXT[begin:end])
    pinned = tomllib.loads(TEXT)["bases"][base]
    images = {
        role: f"{pinned[role].partition('@')[0]}@sha256:{'e' * 64}" for role in ("devel", "runtime")
    }
    assert with_images(TEXT, base, images) == TEXT[:begin] + section + TEXT[end:]


def test_a_comment_beside_an_image_stays():
    text = '[bases.a]\ndevel   = "x"   # why this one\nruntime = "y"\n'
    assert with_images(text, "a", {"devel": "z"}) == text.replace('"x"', '"z"')


def test_a_base_in_one_line_is_edited():
    text = 'bases = { a = { devel = "x", runtime = "y" } } # all\n'
    assert with_images(text, "a", {"runtime": "z"}) == text.replace('"y"', '"z"')
