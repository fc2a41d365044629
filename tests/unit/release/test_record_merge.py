"""Two copies of a record are made one: nothing that either has is lost, whoever comes first."""

from dataclasses import replace

import pytest

from builder.common.errors import UsageError
from builder.release import record
from builder.release.record import Event, Index, Night, NightStep, Release
from builder.release.record_merge import INDEX, merge
from tests.support import published

FIRST = "2026-11-20T00:00:00Z"


def a_release(name: str, *events: Event, digest: str = published.DIGEST) -> Release:
    made = published.a_release(published.a_receipt(), published.REPOSITORY, digest)
    return replace(made, name=name, published=FIRST, events=list(events))


def a_night(date: str, began: str = FIRST, outcome: str = "failed") -> Night:
    return Night(date, "tiny", "tiny", outcome, [NightStep("build", "failed", began, 1.0)])


def files(index: Index | None, *values: Release | Night) -> dict[str, bytes]:
    made = {
        f"releases/{one.name}.json"
        if isinstance(one, Release)
        else f"nights/{one.date}-{one.variant}.json": record.to_bytes(one)
        for one in values
    }
    return made if index is None else {**made, INDEX: record.to_bytes(index)}


def index_of(merged: dict[str, bytes]) -> Index:
    return record.parse(merged[INDEX], Index, INDEX, "index")


def release_of(merged: dict[str, bytes], name: str) -> Release:
    return record.parse(merged[f"releases/{name}.json"], Release, name, name)


def an_index(*releases: str, moving: dict[str, str] | None = None, **floating: str) -> Index:
    return Index(published.REPOSITORY, floating, moving or {}, list(releases))


def tagged(at: str) -> Event:
    return Event(at, "tagged")


def promoted(at: str, tag: str = "tiny") -> Event:
    return Event(at, "promoted", tag)


BASE = files(an_index("old", tiny="old"), a_release("old", tagged("1"), promoted("1")))


def test_releases_and_nights_of_both_are_there_newest_first():
    ours = BASE | files(an_index("a", "old", tiny="old"), a_release("a", tagged("2")))
    ours |= files(None, a_night("2026-11-20"))
    theirs = BASE | files(an_index("b", "old", tiny="old"), a_release("b", tagged("3")))
    theirs |= files(None, a_night("2026-11-21"))
    merged = merge(BASE, ours, theirs)
    assert merged.keys() == ours.keys() | theirs.keys()
    assert index_of(merged).releases == ["b", "a", "old"]


@pytest.mark.parametrize("base", [BASE, {}], ids=["known", "unknown"])
@pytest.mark.parametrize(("mine", "other", "won"), [("2", "3", "b"), ("3", "2", "a")])
def test_of_two_promotions_the_later_one_counts(base, mine, other, won):
    ours = BASE | files(an_index("a", "old", tiny="a"), a_release("a", promoted(mine)))
    theirs = BASE | files(an_index("b", "old", tiny="b"), a_release("b", promoted(other)))
    assert index_of(merge(base, ours, theirs)).floating == {"tiny": won}


def test_a_tag_that_one_of_them_moved_is_where_that_one_has_it():
    # A rollback: by its events the newer release has the older promotion.
    ours = BASE | files(an_index("a", "old", tiny="a"), a_release("a", promoted("2")))
    assert index_of(merge(BASE, ours, BASE)).floating == {"tiny": "a"}
    assert index_of(merge(BASE, BASE, ours)).floating == {"tiny": "a"}


def test_what_one_has_finished_to_move_is_not_being_moved():
    base = files(an_index("old", moving={"tiny": "old"}))
    ours = files(an_index("old", tiny="old"))
    assert index_of(merge(base, ours, base)).moving == {}
    assert index_of(merge(base, base, ours)).moving == {}


def test_a_release_that_was_deleted_stays_so():
    gone = a_release("old", tagged("1"), Event("5", "deleted"))
    ours = files(an_index(), gone)
    theirs = BASE | files(an_index("b", "old", tiny="old"), a_release("b", tagged("2")))
    merged = merge(BASE, ours, theirs)
    assert index_of(merged).releases == ["b"]
    assert record.deleted(release_of(merged, "old")) == "5"


def test_events_of_both_come_in_the_order_of_their_times():
    ours = files(an_index("old"), a_release("old", tagged("1"), promoted("4", "latest")))
    theirs = files(an_index("old"), a_release("old", tagged("1"), promoted("2"), promoted("9")))
    merged = release_of(merge(BASE, ours, theirs), "old")
    assert [event.at for event in merged.events] == ["1", "2", "4", "9"]


@pytest.mark.parametrize("mine", [True, False])
def test_of_two_images_of_one_name_the_one_that_got_it_is_the_release(mine):
    lost = Event("2", "lost", "same")
    won = a_release("same", tagged("1"), digest="sha256:" + "1" * 64)
    left = a_release("same", lost, digest="sha256:" + "2" * 64)
    pair = [files(an_index("same"), won), files(None, left)]
    ours, theirs = pair if mine else reversed(pair)
    merged = release_of(merge({}, ours, theirs), "same")
    assert (merged.digest, lost in merged.events) == (won.digest, True)


def test_of_two_runs_of_one_night_the_later_one_is_the_night():
    first, second = a_night("2026-11-21", "1"), a_night("2026-11-21", "2", "promoted")
    for ours, theirs in ((first, second), (second, first)):
        merged = merge({}, files(None, ours), files(None, theirs))
        assert merged == files(None, second)


def test_what_was_taken_away_there_goes_unless_it_was_changed_here():
    theirs = files(an_index())
    assert merge(BASE, BASE, theirs) == theirs
    changed = BASE | files(None, a_release("old", tagged("7")))
    assert "releases/old.json" in merge(BASE, changed, theirs)


def test_what_is_missing_here_comes_back():
    assert merge(BASE, {}, BASE) == BASE


def test_files_that_are_none_of_builders_are_merged_by_who_changed_them():
    base = {"README.md": b"1", "x": b"1", "gone": b"1"}
    ours = {"README.md": b"2", "x": b"2", "gone": b"1", "mine": b""}
    theirs = {"README.md": b"1", "x": b"3"}
    assert merge(base, ours, theirs) == {"README.md": b"2", "x": b"3", "mine": b""}


MARKED = b"""{
<<<<<<< HEAD
  "repository": "r", "floating": {"tiny": "b"}, "releases": ["b"]
=======
  "repository": "r", "floating": {"other": "a"}, "releases": ["a"]
>>>>>>> 1234567 (What a run left)
}
"""


@pytest.mark.parametrize("where", ["here", "there", "both"])
def test_conflict_markers_that_an_older_builder_committed_are_mended(where):
    ours = {INDEX: MARKED} if where != "there" else {}
    theirs = {INDEX: MARKED} if where != "here" else {}
    found = index_of(merge({}, ours, theirs))
    assert (found.floating, sorted(found.releases)) == ({"tiny": "b", "other": "a"}, ["a", "b"])


def test_a_copy_that_nobody_can_read_loses_not_the_other():
    broken = BASE | {INDEX: b"{", "releases/old.json": b""}
    assert merge({}, broken, BASE) == BASE
    assert merge({}, BASE, broken) == BASE
    assert merge(broken, broken, broken) == broken


def test_records_of_two_repositories_are_not_made_one():
    with pytest.raises(UsageError, match="the branch has one of elsewhere"):
        merge({}, files(an_index()), files(Index("elsewhere")))


def test_merging_again_changes_nothing():
    ours = BASE | files(an_index("a", "old", tiny="a"), a_release("a", promoted("3")))
    theirs = BASE | files(an_index("b", "old", tiny="b"), a_release("b", promoted("2")))
    once = merge(BASE, ours, theirs)
    assert merge(BASE, once, theirs) == once
    assert merge({}, once, theirs) == once
    assert merge(theirs, once, theirs) == once
