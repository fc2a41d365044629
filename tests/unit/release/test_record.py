"""A record that others may push to: names, links and what a kill left in it."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from builder.common.errors import UsageError
from builder.release import record, report
from builder.release.record import Index, Night
from builder.release.record_source import RecordSource
from tests.support import published

RELEASE = published.a_release(published.a_receipt(), published.REPOSITORY, published.DIGEST)
NIGHT = Night("2026-11-21", "mainline-cpu", "mainline", "failed", [], failed_step="build")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return published.write_record(tmp_path / "record", RELEASE)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    file = tmp_path / "home" / ".bashrc"
    file.write_text("mine")
    return file


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_link_under_a_nights_name_is_not_written_through(folder, victim):
    (folder / "nights").mkdir()
    (folder / "nights" / "2026-11-21-mainline-cpu.json").symlink_to(victim)
    with pytest.raises(OSError, match="none is followed there"):
        record.write_night(folder, NIGHT)
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("ending", [".builder-new", ".builder-old"])
def test_links_under_names_of_once_are_taken_away(ending, folder, victim):
    # What builder wrote through before: such a link made the user's .bashrc the night's JSON.
    (folder / "nights").mkdir()
    (folder / "nights" / f"2026-11-21-mainline-cpu.json{ending}").symlink_to(victim)
    written = record.write_night(folder, NIGHT)
    assert names(folder / "nights") == [written.name]
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("name", ["index.json", "releases"])
def test_a_release_is_not_written_through_a_link(name, folder, victim):
    shutil.rmtree(folder / "releases")
    (folder / "index.json").unlink()
    (folder / name).symlink_to(victim if name == "index.json" else victim.parent)
    with pytest.raises(OSError, match="none is followed there"):
        record.write_release(folder, RELEASE, Index(RELEASE.repository))
    assert (victim.read_text(), names(victim.parent)) == ("mine", [".bashrc"])


def test_the_page_is_not_written_through_a_link(tmp_path, victim):
    folder = tmp_path / "record"
    folder.mkdir()
    (folder / report.FILE_NAME).symlink_to(victim)
    with pytest.raises(UsageError, match="cannot be written"):
        report.write(folder, folder)
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("target", ["/etc/passwd", "/dev/zero", "/dev/stdin", "/nowhere"])
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("index.json", record.read_index),
        ("nights/2026-11-21-tiny.json", record.read_nights),
        (f"releases/{RELEASE.name}.json", lambda at: record.read_release(at, RELEASE.name)),
    ],
)
def test_no_link_is_read(name, read, target, folder):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(target)
    with pytest.raises(UsageError) as caught:
        read(folder)
    assert "none is followed there" in caught.value.why
    assert "root:" not in caught.value.why


@pytest.mark.parametrize("name", ["../../../escaped", "a/b", ".hidden", "", "x" * 129, "tag\n"])
def test_a_release_has_the_name_of_its_file_and_one_that_is_a_tag(name, folder):
    file = folder / "releases" / f"{RELEASE.name}.json"
    file.write_bytes(record.to_bytes(replace(RELEASE, name=name)))
    with pytest.raises(UsageError, match="is not what builder wrote"):
        record.read_release(folder, RELEASE.name)
    with pytest.raises(UsageError, match="is not what builder wrote"):
        RecordSource(str(folder)).release(RELEASE.name)
    with pytest.raises(UsageError, match="not a valid name of a release"):
        record.write_release(folder, replace(RELEASE, name=name), Index(RELEASE.repository))
    with pytest.raises(UsageError, match="not a valid name of a release"):
        record.read_release(folder, name)


@pytest.mark.parametrize(
    "index",
    [
        Index("r", releases=["../../../escaped"]),
        Index("r", floating={"tiny": "../../../escaped"}),
        Index("r", floating={"../tiny": RELEASE.name}),
        Index("r", moving={"tiny": "/etc/passwd"}),
    ],
)
def test_an_index_names_tags_only(index, folder):
    (folder / "index.json").write_bytes(record.to_bytes(index))
    with pytest.raises(UsageError, match=r"index\.json: is not what builder wrote") as caught:
        record.read_index(folder)
    assert "is not a valid tag" in caught.value.why


@pytest.mark.parametrize("change", [{"date": "../../x"}, {"variant": "a/../../../x"}, {"date": ""}])
def test_a_night_has_the_name_of_its_file(change, folder):
    (folder / "nights").mkdir()
    file = folder / "nights" / "2026-11-21-mainline-cpu.json"
    file.write_bytes(record.to_bytes(replace(NIGHT, **change)))
    with pytest.raises(UsageError):
        record.read_nights(folder)
    with pytest.raises(UsageError, match="not a valid name of a night"):
        record.write_night(folder, replace(NIGHT, **change))


def test_what_a_kill_left_goes_with_the_next_write(folder):
    left = ("index.json.builder-old", "index.json.builder-new", ".0123456789abcdef.tmp")
    for name in left:
        (folder / name).write_text("{}")
        (folder / "releases" / name).write_text("{}")
    record.write_release(folder, RELEASE, Index(RELEASE.repository))
    assert names(folder) == ["index.json", "releases"]
    assert names(folder / "releases") == [f"{RELEASE.name}.json"]


@pytest.mark.parametrize("what", ["write_night(at, night)", "write_release(at, one, index)"])
def test_a_full_disk_leaves_the_record_as_it_was_and_names_the_file(what, folder):
    before = {path: path.read_bytes() for path in folder.rglob("*.json")}
    code = f"""
from dataclasses import replace
from pathlib import Path
from builder.release.record import Index, write_night, write_release
from tests.unit.release.test_record import NIGHT, RELEASE
at, index = Path({str(folder)!r}), Index("r")
night = replace(NIGHT, bisect="x" * 9999)
one = replace(RELEASE, commit="x" * 9999)
{what}
"""
    small = ["bash", "-c", 'ulimit -f 4; exec "$@"', "-", sys.executable, "-c", code]
    made = subprocess.run(small, capture_output=True, text=True, check=False)
    last = made.stderr.strip().rpartition("\n")[2]
    assert last.startswith(f"OSError: [Errno 27] File too large: '{folder}/")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
