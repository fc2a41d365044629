"""Whatever ends one variant, fork, base or part is told, and ends no other."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from builder.bisect.judge import Case, Stages, judge
from builder.bump import all as bump_all
from builder.bump import fork as bump
from builder.common.errors import BuilderError, RefNotFoundError
from builder.engine.boundary import failure
from builder.freshness import look as freshness
from builder.freshness import parts as freshness_parts
from builder.freshness.report import PartReport
from builder.git import remote as git
from builder.model.pins import Fork, Pins, Policy, Release
from builder.nightly import nights
from builder.pins import load as pins
from tests.conftest import Recorder, Repository
from tests.support.night_world import World, ends
from tests.unit.bump.test_bump import a_receipt, failing, stages
from tests.unit.freshness.test_freshness import NOWHERE, START

pytestmark = pytest.mark.usefixtures("private_cache")

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "build/record/index.json")

ANY = [
    (FULL, 2, "build/record/index.json: No space left on device"),
    (ValueError("month must be in 1..12"), 3, "ValueError: month must be in 1..12"),
    (KeyError("digest"), 3, "KeyError"),
    (RecursionError("maximum depth"), 3, "RecursionError"),
    (MemoryError(), 3, "MemoryError"),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no start"), 3, "UnicodeDecodeError"),
    (RefNotFoundError("it is gone"), 7, "it is gone"),
]
any_failure = pytest.mark.parametrize(
    ("error", "code", "told"), ANY, ids=[type(one[0]).__name__ for one in ANY]
)


@pytest.fixture
def home(tiny_pins: Path, repository: Repository) -> Path:
    """A folder with pins.toml, pinned to the first commit of three."""
    bump.bump(tiny_pins, bump.Request(to=repository.git("rev-parse", "HEAD~2")), None, Recorder())
    return tiny_pins.parent


@any_failure
def test_a_night_that_ends_in_any_way_leaves_the_others_to_go_on(home, error, code, told):
    lost, world = World(home).case(), World(home)
    lost = replace(lost, stages=replace(lost.stages, look=failing(error)))
    lost = replace(lost, record=home / "elsewhere" / "record")
    report = nights.run([lost, world.case()], ends(), Recorder())
    assert [one.outcome for one in report.nights] == ["promoted"]
    (not_judged,) = report.not_judged
    assert (not_judged.variant, not_judged.exit_code, report.exit_code) == ("tiny", code, code)
    assert told in not_judged.what


@any_failure
def test_what_a_night_would_do_is_told_though_another_cannot_say(home, error, code, told):
    lost, case = World(home).case(), World(home).case()
    lost = replace(lost, stages=replace(lost.stages, look=failing(error)))
    found, report = nights.plan([lost, case], Recorder())
    assert (len(found), [one.exit_code for one in report.not_judged]) == (1, [code])
    assert told in report.not_judged[0].what


@pytest.mark.parametrize("broken", ["write_night", "write_index"])
def test_a_disk_that_fills_while_a_record_is_written_ends_that_night_alone(
    home, monkeypatch, broken
):
    full, world = World(home), World(home)
    world.record = home / "elsewhere" / "record"
    lost = full.case()

    def write(folder: Path, *words: object):
        if folder == lost.record:
            raise FULL
        return real(folder, *words)

    name = "write_night" if broken == "write_night" else "write_release"
    real = getattr(nights.record, name)
    monkeypatch.setattr(nights.record, name, write)
    report = nights.run([lost, world.case()], ends(), Recorder())
    assert [one.outcome for one in report.nights] == ["promoted"]
    assert [one.exit_code for one in report.not_judged] == [2]


@any_failure
def test_a_record_that_cannot_be_kept_loses_no_nights_verdict(home, error, code, told):
    keeping = replace(ends(), keep=failing(error))
    report = nights.run([World(home).case()], keeping, Recorder())
    assert [one.outcome for one in report.nights] == ["promoted"]
    assert [(one.variant, one.exit_code) for one in report.not_judged] == [("the record", code)]
    assert told in report.not_judged[0].what


@any_failure
@pytest.mark.parametrize("where", ["heads", "Remote"])
def test_a_fork_that_cannot_be_judged_is_unknown_and_the_others_are_judged(
    repository, monkeypatch, where, error, code, told
):
    real, pin = getattr(git, where), repository.git("rev-parse", "HEAD")
    good = Fork("backend-dl", url=repository.url, branch="master", commit=pin, date=START)
    everything = Pins(
        policy=Policy("tiny", 14, 50, Release([])),
        forks={"odd": replace(good, url="https://odd.invalid"), "good": good},
        bases={},
        variants={},
    )

    def strange(first, *words):
        if "odd" in {first, getattr(first, "fork", "")}:
            raise error
        return real(first, *words)

    monkeypatch.setattr(git, where, strange)
    report = freshness.look(everything, ["odd", "good"], NOWHERE, Recorder())
    assert [one.verdict for one in report.forks] == ["unknown", "fresh"]
    assert told in report.forks[0].failure.what
    assert report.exit_code == 6, f"{code} is of one fork: the look as a whole has no verdict"


@any_failure
def test_a_base_source_or_image_that_cannot_be_judged_is_unknown(error, code, told):
    asked = PartReport("base", "debian:trixie", (), None, "unknown")
    found = freshness_parts._asked(asked, failing(error))
    assert (found.verdict, told in found.failure.what) == ("unknown", True), code


@any_failure
def test_a_fork_that_cannot_be_moved_stays_and_the_others_move(
    home, repository, monkeypatch, error, code, told
):
    file, head = home / "pins.toml", repository.git("rev-parse", "HEAD")
    text = file.read_text()
    start, end = text.index("[forks.tiny]"), text.index("[bases.")
    file.write_text(f"{text}\n{text[start:end].replace('forks.tiny', 'forks.other')}")
    real = bump_all.bump
    monkeypatch.setattr(
        bump_all,
        "bump",
        lambda path, request, *more: (
            failing(error)() if request.fork == "tiny" else real(path, request, *more)
        ),
    )
    monkeypatch.setattr(bump_all, "names", lambda _: ["tiny", "other"])
    report = bump_all.bump_all(file, bump.Request("all"), None, Recorder())
    assert [one.new.commit for one in report.moves] == [head]
    assert [(one.name, one.exit_code) for one in report.not_moved] == [("tiny", code)]
    assert told in report.not_moved[0].what


@any_failure
def test_a_commit_of_a_bisect_that_cannot_be_judged_is_skipped(
    home, repository, tmp_path, error, code, told
):
    """But for what is no commit's doing: a full disk, a registry, an engine end the search."""
    remote = git.Remote("tiny", repository.url)
    case = Case(pins.load(home / "pins.toml"), remote, "tiny", "build", [], tmp_path)
    broken = Stages(failing(error), stages().smoke, lambda _: None)
    commit = repository.git("rev-parse", "HEAD")
    if code == 3:
        found = judge(case, commit, broken, Recorder())
        assert (found.verdict, told in found.reason) == ("skip", True)
        return
    with pytest.raises(type(error)):
        judge(case, commit, broken, Recorder())


def test_a_bug_is_named_with_the_line_that_it_comes_from():
    with pytest.raises(ZeroDivisionError) as caught:
        stages(build=lambda *_: a_receipt("c" * 40, size_bytes=1 // 0)).build(None, None)
    told: BuilderError = failure(caught.value)
    assert told.exit_code == 3
    assert "test_boundary.py:" in told.why
    assert "report" in told.hint
