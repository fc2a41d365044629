import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from builder.common.errors import UsageError
from builder.release import report
from builder.release.record import Event, Index, Night, Release
from builder.release.report import page, plots
from tests.conftest import builder
from tests.support import synthetic_record

CPU_ONLY, COMPUTES_ON_CPU = synthetic_record.VARIANTS
RELEASE = synthetic_record.release(CPU_ONLY, 1)
NIGHT = synthetic_record.night(CPU_ONLY, 1)


def shown(*releases: Release, nights: tuple[Night, ...] = ()) -> page.Page:
    """The page of these releases; the first is what the floating tag stands for."""
    names = [one.name for one in releases]
    index = Index(
        synthetic_record.REPOSITORY, {"nightly": names[0]} if names else {}, releases=names
    )
    return page.lay_out(index, releases, nights)


def badges(release: Release) -> list[str]:
    return [one.text for one in shown(release).releases[0].badges]


class Tags(HTMLParser):
    """The elements of a text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)
        self.found += [f"{tag}.{name}" for name, _ in attrs if name.startswith("on")]
        self.found += [value for name, value in attrs if name == "href" and value]


def test_an_empty_record_says_what_writes_it(tmp_path: Path):
    path, _ = report.write(tmp_path, tmp_path)
    assert "builder publish" in path.read_text()
    assert "builder nightly" in path.read_text()


def test_a_record_without_releases_shows_its_nights():
    found = page.lay_out(None, [], [NIGHT])
    assert [one.name for one in found.variants] == [CPU_ONLY.name]
    assert "The record is empty" not in report.to_html(found)


def test_a_kv_type_that_only_fell_back_is_not_proven_on_a_gpu():
    assert badges(RELEASE)[0] == "turbo4 not proven on a GPU"
    assert "the fork&#39;s fallback on a machine without a GPU" in report.to_html(shown(RELEASE))


def test_a_kv_type_that_a_cpu_computes_is_not_proven_on_a_gpu_either():
    found = badges(synthetic_record.release(COMPUTES_ON_CPU, 0))
    assert found[:2] == ["turbo4 proven on a CPU", "not proven on a GPU"]


def test_a_kv_type_that_a_gpu_held_names_the_gpu():
    proven = replace(synthetic_record.release(COMPUTES_ON_CPU, 0), gpu="NVIDIA RTX 3090")
    assert badges(proven) == [
        "turbo4 proven on NVIDIA RTX 3090",
        "contract proven",
        "audit proven",
    ]


def test_a_gpu_on_which_the_type_was_not_proven_proves_nothing():
    assert badges(replace(RELEASE, gpu="NVIDIA RTX 3090"))[0] == "turbo4 not proven on a GPU"


def test_a_release_that_was_never_smoked_is_not_proven():
    assert badges(replace(RELEASE, smoke={}, proven=[])) == [
        "KV type not proven on a GPU",
        "contract not proven",
        "audit not proven",
    ]


def test_a_type_that_is_not_in_effect_is_bad():
    smoke = synthetic_record.smoke(CPU_ONLY)
    smoke["kv"]["status"] = "fail"
    badge = shown(replace(RELEASE, smoke=smoke)).releases[0].badges[0]
    assert (badge.text, badge.tone) == ("turbo4 is not in effect", "bad")


def test_a_deleted_release_has_no_line_to_pull_it():
    kept, gone = RELEASE, synthetic_record.release(CPU_ONLY, 2)
    gone = replace(gone, events=[*gone.events, Event("2026-12-01T00:00:00Z", "deleted")])
    text = report.to_html(shown(kept, gone))
    assert f"docker pull {kept.repository}@{kept.digest}" in text
    assert f"docker pull {gone.repository}@{gone.digest}" not in text
    assert "deleted 2026-12-01T00:00:00Z" in text


def test_a_release_that_was_tagged_again_is_not_deleted():
    again = [Event("2026-12-01T00:00:00Z", "deleted"), Event("2026-12-02T00:00:00Z", "tagged")]
    back = shown(replace(RELEASE, events=[*RELEASE.events, *again])).releases[0]
    assert back.deleted is None


def test_freshness_is_what_the_newest_night_that_looked_saw():
    behind = replace(NIGHT, date="2026-10-24", commits_behind=7, days_behind=2.25)
    blind = replace(NIGHT, date="2026-10-25", commits_behind=None, outcome="failed")
    current = shown(RELEASE, nights=(NIGHT, behind, blind)).current[0]
    assert current.freshness == "7 commits, 2.2 days behind, as of 2026-10-24"
    assert current.last_night == page.Badge("2026-10-25: failed", "bad")


def test_freshness_is_unknown_where_no_night_has_looked():
    assert shown(RELEASE).current[0].freshness == "not known: no night has looked"


def test_tags_of_one_release_are_shown_together():
    index = Index("r", {"nightly": RELEASE.name, "latest": RELEASE.name}, releases=[RELEASE.name])
    current = page.lay_out(index, [RELEASE], []).current
    assert [one.view.tags for one in current] == [["latest", "nightly"]]


def test_a_night_without_the_figure_lies_on_the_axis():
    unknown = replace(NIGHT, date="2026-10-24", size_bytes=None)
    size = shown(nights=(NIGHT, unknown)).variants[0].plots[0]
    assert [one.known for one in size.marks] == [True, False]
    assert size.marks[1].y == size.floor
    assert size.marks[1].words == "2026-10-24: no figure"
    assert len(size.line.split()) == 1


def test_a_plot_begins_at_zero_and_a_day_is_a_day_wide():
    days = ("2026-10-23", "2026-10-24", "2026-10-27")
    nights = tuple(
        replace(NIGHT, date=date, commits_behind=n)
        for date, n in zip(days, (0, 5, 10), strict=True)
    )
    behind = shown(nights=nights).variants[0].plots[3]
    assert (behind.most, behind.latest) == ("10", "10 commits")
    assert [one.y for one in behind.marks] == [100, 55, 10]
    assert [one.x for one in behind.marks] == [34, 103.5, 312]


def test_the_strip_has_a_column_a_week_and_a_row_a_day():
    monday, sunday, next_monday = "2026-10-19", "2026-10-25", "2026-10-26"
    nights = tuple(replace(NIGHT, date=date) for date in (monday, sunday, next_monday))
    strip = shown(nights=nights).variants[0].strip
    places = [(one.x / plots.CELL, one.y / plots.CELL) for one in strip.marks]
    assert places == [(0, 0), (0, 6), (1, 0)]
    assert strip.width == 2 * plots.CELL


def test_a_year_of_nights_is_shown_and_no_more():
    old, first, last = "2025-10-22", "2025-10-23", "2026-10-23"
    nights = tuple(replace(NIGHT, date=date) for date in (old, first, last))
    marks = shown(nights=nights).variants[0].strip.marks
    assert [one.words[:10] for one in marks] == [first, last]


def test_failed_nights_tell_the_step_and_its_words():
    failed = synthetic_record.night(CPU_ONLY, CPU_ONLY.failed[0])
    text = report.to_html(shown(nights=(failed,)))
    assert f"<pre>{synthetic_record.LOG}</pre>" in text
    assert "<b>build</b>" in text


def test_a_failed_night_links_to_its_job_and_shows_what_a_bisect_found():
    failed = synthetic_record.night(CPU_ONLY, CPU_ONLY.failed[0])
    failed = replace(failed, page="https://git.example/jobs/7", bisect="30a085793 is the first")
    text = report.to_html(shown(nights=(failed,)))
    assert '<a href="https://git.example/jobs/7">' in text
    assert "<pre>30a085793 is the first</pre>" in text


def test_what_strangers_wrote_is_text_and_never_an_element(tmp_path: Path):
    synthetic_record.write_hostile(tmp_path)
    found = Tags(report.write(tmp_path, tmp_path)[0].read_text()).found
    assert not {"script", "img", "img.onerror"} & set(found)
    assert not [one for one in found if one.startswith("javascript:")]
    assert found.count("title") == 1 + len(re.findall("class=.night|<g ", _html(tmp_path)))


def _html(folder: Path) -> str:
    return (folder / report.FILE_NAME).read_text()


def test_the_same_record_gives_the_same_bytes(tmp_path: Path):
    synthetic_record.write(tmp_path)
    first, second = tmp_path / "first", tmp_path / "second"
    report.write(tmp_path, first)
    report.write(tmp_path, second)
    assert _html(first) == _html(second)


def test_a_report_that_builder_did_not_write_is_named():
    with pytest.raises(UsageError, match=f"releases/{RELEASE.name}.json"):
        shown(replace(RELEASE, audit={"findings": [{"probe": 1}]}))


def test_a_night_without_a_date_is_named():
    with pytest.raises(UsageError, match="a date is no YYYY-MM-DD"):
        shown(nights=(replace(NIGHT, date="yesterday"),))


@pytest.mark.parametrize(
    ("seconds", "text"), [(9, "0:09"), (212.4, "3:32"), (600, "10:00"), (4000, "1:06:40")]
)
def test_minutes(seconds: float, text: str):
    assert page.minutes(seconds) == text


def test_the_command_writes_where_it_is_told(tmp_path: Path):
    record, out = tmp_path / "record", tmp_path / "site"
    record.mkdir()
    synthetic_record.write(record)
    result = builder("report", "--record", record, "--out", out, "--note", "a <b>line</b>")
    assert result.returncode == 0, result.stderr
    assert result.stdout == (
        f"{out / 'index.html'}: 2 current of 6 releases, 2 variants with nights\n"
    )
    assert "a &lt;b&gt;line&lt;/b&gt;" in _html(out)


def test_the_command_refuses_a_folder_that_is_not_there(tmp_path: Path):
    assert builder("report", "--record", tmp_path / "recrod").returncode == 2


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"):
        report.write(tmp_path, tmp_path / "file" / "site")
