"""Sources from a package index, against a small real one on loopback."""

import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.common import paths
from builder.common.errors import RemoteUnavailableError
from builder.model.pins import Source
from builder.sources import sdist
from tests.support import misbehaving, simple_index

pytestmark = pytest.mark.usefixtures("private_cache")


def archive(name: str = "vendor/tree/CMakeLists.txt") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        text = b"project(tiny)\n"
        member = tarfile.TarInfo(f"tiny_package-1.0/{name}")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
    return buffer.getvalue()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A simple index whose only project is tiny-package 1.0."""
    simple_index.publish(tmp_path / "index", "tiny-package", {"tiny_package-1.0.tar.gz": archive()})
    with simple_index.served(tmp_path / "index") as address:
        monkeypatch.setenv("PIP_INDEX_URL", address)
        yield tmp_path / "index" / "simple" / "tiny-package"


@pytest.fixture
def source(index: Path) -> Source:
    digest = hashlib.sha256((index / "tiny_package-1.0.tar.gz").read_bytes()).hexdigest()
    return Source("tiny-package", "1.0", digest, "vendor/tree", "abcdef123")


def changed(source: Source, **values: str) -> Source:
    import dataclasses

    return dataclasses.replace(source, **values)


def test_the_tree_is_the_subfolder_of_the_archive(source, progress):
    assert (sdist.tree(source, progress) / "CMakeLists.txt").read_text() == "project(tiny)\n"


def test_a_tree_is_downloaded_once(source, index, progress):
    first = sdist.tree(source, progress)
    (index / "tiny_package-1.0.tar.gz").unlink()
    assert sdist.tree(source, progress) == first


def test_another_files_hash_is_refused_and_nothing_is_kept(source, progress):
    with pytest.raises(RemoteUnavailableError, match="is not the file that"):
        sdist.tree(changed(source, sha256="0" * 64), progress)
    assert not list((paths.cache() / "sdist").glob("*/"))


def test_a_version_that_the_index_lacks_is_said(source, progress):
    with pytest.raises(RemoteUnavailableError, match="no sdist of tiny-package"):
        sdist.tree(changed(source, version="2.0"), progress)


def test_a_project_that_the_index_lacks_is_said(source, progress):
    with pytest.raises(RemoteUnavailableError, match="no sdist of other"):
        sdist.tree(changed(source, package="other"), progress)


def test_an_index_that_does_not_answer_is_unavailable(source, progress, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    with pytest.raises(RemoteUnavailableError, match="package index does not answer"):
        sdist.tree(source, progress)


def test_a_subfolder_that_is_not_there_names_the_pin(source, progress):
    with pytest.raises(RemoteUnavailableError) as caught:
        sdist.tree(changed(source, subfolder="vendor/other"), progress)
    assert "`subfolder` in pins.toml" in caught.value.hint


def test_no_file_is_written_outside_of_the_archives_folder(source, index, progress):
    data = archive("../../../../escaped")
    (index / "tiny_package-1.0.tar.gz").write_bytes(data)
    evil = changed(source, sha256=hashlib.sha256(data).hexdigest())
    with pytest.raises(RemoteUnavailableError, match="cannot be unpacked") as caught:
        sdist.tree(evil, progress)
    assert "lies outside of it" in caught.value.why
    assert not [one for one in paths.cache().parent.rglob("*") if one.name == "escaped"]


ODD_PAGES = {
    "deep": '{"files": ' + "[" * 100_000,
    "no object": "[]",
    "no files": '{"name": "tiny-package", "meta": {"api-version": "1.0"}}',
    "files of another kind": '{"name": "x", "meta": {"api-version": "1.0"}, "files": [1, null]}',
    "fields of another kind": '{"name": 1, "meta": {"api-version": "1.0"}, "files": [{"url": 1}]}',
    "another version": '{"name": "x", "meta": {"api-version": "9.0"}, "files": []}',
    "no version": '{"name": "x", "meta": {"api-version": [["x"]]}, "files": []}',
    "a long number": '{"files": ' + "1" * 5000 + "}",
}


@pytest.mark.parametrize("page", ODD_PAGES.values(), ids=ODD_PAGES)
@pytest.mark.parametrize("kind", ["application/vnd.pypi.simple.v1+json", "text/html", "x", ""])
def test_a_page_of_another_shape_is_said_to_be(page, kind, source, progress, monkeypatch):
    def answer(handler, _body):
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        handler.end_headers()
        handler.wfile.write(page.encode())

    with misbehaving.serving({"/simple/tiny-package/": answer}) as url:
        monkeypatch.setenv("PIP_INDEX_URL", f"{url}/simple")
        with pytest.raises(RemoteUnavailableError, match="package index"):
            sdist.tree(source, progress)


def test_html_as_deep_as_it_may_be(source, progress, monkeypatch):
    page = "<div>" * 50_000 + '<a href="x">'
    with misbehaving.serving({"/simple/tiny-package/": misbehaving.saying(200, raw=page)}) as url:
        monkeypatch.setenv("PIP_INDEX_URL", f"{url}/simple")
        with pytest.raises(RemoteUnavailableError, match="package index"):
            sdist.tree(source, progress)
