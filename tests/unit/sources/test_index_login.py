"""The package index's login goes where pip shows it, and into no error; pip is held beside it."""

import base64
import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.common.errors import RemoteUnavailableError, UsageError
from builder.model.pins import Source
from builder.sources import package_index
from tests.support import places
from tests.support.places import Asked, Place, Reply

USER, PASSWORD = "me", "artifactory/token"
SHOWN = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"
LOGIN = "me:artifactory%2Ftoken@"
FILE = b"the file"
SDIST = "tiny_package-1.0.tar.gz"
PINNED = Source("tiny-package", "1.0", hashlib.sha256(FILE).hexdigest(), "x", "abcdef123")
ASKS = Reply(401, {"WWW-Authenticate": 'Basic realm="x"'})


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Place]:
    """An index that wants a login for its pages and files; its links are absolute."""
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("PIP_CERT", raising=False)
    with places.serve() as made:
        made.answer = lambda one: answer(one, f"http://127.0.0.1:{made.port}")
        monkeypatch.setenv("PIP_INDEX_URL", f"http://{LOGIN}127.0.0.1:{made.port}/simple")
        yield made


@pytest.fixture
def elsewhere() -> Iterator[Place]:
    """The same files on another port, for anybody."""
    with places.serve() as made:
        made.answer = lambda _: Reply(200, {}, FILE)
        yield made


def answer(one: Asked, files: str) -> Reply:
    if one.authorization != SHOWN:
        return ASKS
    if one.path.startswith("/files/"):
        return Reply(200, {}, FILE)
    page = f'<a href="{files}/files/{SDIST}">{SDIST}</a>'
    return Reply(200, {"Content-Type": "text/html"}, page.encode())


def download(tmp_path: Path, progress) -> bytes:
    package_index.download(PINNED, "sdist", tmp_path / "file", progress)
    return (tmp_path / "file").read_bytes()


@pytest.mark.usefixtures("index")
def test_absolute_links_of_the_same_host_have_the_indexs_login(tmp_path, progress):
    assert download(tmp_path, progress) == FILE


def test_as_pip_downloads_them(index, tmp_path):
    words = ["download", "--no-deps", "--no-build-isolation", "--no-cache-dir", "-d", str(tmp_path)]
    subprocess.run(
        [sys.executable, "-m", "pip", *words, "tiny-package==1.0"],
        capture_output=True,
        check=False,
    )
    files = [one for one in index.asked if one.path.startswith("/files/")]
    assert {one.authorization for one in files} == {SHOWN}


def test_links_to_another_place_have_not(index, elsewhere, tmp_path, progress):
    index.answer = lambda one: answer(one, f"http://127.0.0.1:{elsewhere.port}")
    assert download(tmp_path, progress) == FILE
    assert elsewhere.shown == []


def test_nor_has_a_place_that_the_index_redirects_to(index, elsewhere, tmp_path, progress):
    def redirected(one: Asked) -> Reply:
        if not one.path.startswith("/files/"):
            return answer(one, f"http://127.0.0.1:{index.port}")
        return Reply(302, {"Location": f"http://127.0.0.1:{elsewhere.port}{one.path}"})

    index.answer = redirected
    assert download(tmp_path, progress) == FILE
    assert elsewhere.shown == []


def test_a_link_may_have_a_login_of_its_own(index, elsewhere, tmp_path, progress):
    index.answer = lambda one: answer(one, f"http://a:b@127.0.0.1:{elsewhere.port}")
    assert download(tmp_path, progress) == FILE
    assert elsewhere.shown == [f"Basic {base64.b64encode(b'a:b').decode()}"]


def test_without_a_login_in_the_address_it_is_the_netrcs(index, tmp_path, progress, monkeypatch):
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{index.port}/simple")
    assert download(tmp_path, progress) == FILE


def test_a_token_alone_is_a_user_without_a_password(index, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", f"http://token@127.0.0.1:{index.port}/simple")
    with pytest.raises(RemoteUnavailableError):
        package_index.listed("tiny-package")
    assert index.shown == [f"Basic {base64.b64encode(b'token:').decode()}"]


@pytest.mark.parametrize("status", [401, 403, 500])
def test_a_refusal_shows_no_login(index, status):
    index.answer = lambda _: Reply(status)
    with pytest.raises(RemoteUnavailableError) as caught:
        package_index.listed("tiny-package")
    told = f"{caught.value.what}{caught.value.why}{caught.value.hint}"
    assert "artifactory" not in told
    assert f"127.0.0.1:{index.port}" in told


@pytest.mark.parametrize("address", [f"http://{LOGIN}[::1/simple", f"http://{LOGIN}x:port/simple"])
def test_an_address_that_is_none_is_not_quoted(monkeypatch, address):
    monkeypatch.setenv("PIP_INDEX_URL", address)
    with pytest.raises((UsageError, RemoteUnavailableError)) as caught:
        package_index.listed("tiny-package")
    assert "artifactory" not in f"{caught.value.what}{caught.value.why}{caught.value.hint}"
