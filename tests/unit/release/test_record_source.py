"""The record, read from a folder and from where it is published."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.common.errors import RemoteUnavailableError, UsageError
from builder.release.record import Release
from builder.release.record_source import RecordSource
from tests.support import published, simple_index

RELEASE = published.a_release(published.a_receipt(), published.REPOSITORY, published.DIGEST)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    # What serves the files has them below this name.
    return published.write_record(tmp_path / "simple", RELEASE)


@pytest.fixture(params=["folder", "address"])
def source(request: pytest.FixtureRequest, folder: Path) -> Iterator[RecordSource]:
    if request.param == "folder":
        yield RecordSource(str(folder))
        return
    with simple_index.served(folder.parent) as address:
        yield RecordSource(address)


def test_index_and_release_are_read(source):
    assert source.index().floating == {"tiny": RELEASE.name}
    found: Release = source.release(RELEASE.name)
    assert found == RELEASE


def test_what_is_no_record_is_said_to_be_none(source, folder):
    (folder / "index.json").unlink()
    with pytest.raises(UsageError) as caught:
        source.index()
    assert "index.json" in caught.value.what


def test_another_file_is_not_taken_for_a_release(source, folder):
    (folder / "releases" / f"{RELEASE.name}.json").write_text('{"schema": 1}')
    with pytest.raises(UsageError) as caught:
        source.release(RELEASE.name)
    assert caught.value.what.endswith("is not what builder wrote")


def test_an_address_that_does_not_answer_is_neither_yes_nor_no():
    with pytest.raises(RemoteUnavailableError):
        RecordSource("http://127.0.0.1:1/record").index()
