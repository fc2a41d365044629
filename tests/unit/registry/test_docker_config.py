"""Docker's own settings: a broken file is named with its place, an identity token is exchanged."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from builder.common.errors import UsageError
from builder.engine import client as engine
from builder.registry import login as registry_login
from builder.registry.client import RegistryClient
from tests.conftest import builder
from tests.support import places
from tests.support.places import Asked, Place, Reply

SECRET = base64.b64encode(b"me:secret").decode()
ALONE = base64.b64encode(b"secret").decode()
BROKEN = {
    "cut": f'{{"auths": {{"ghcr.io": {{"auth": "{SECRET}"',
    "a comma": f'{{"auths": {{"ghcr.io": {{"auth": "{SECRET}"}},}}}}',
    "a list": "[]",
    "auths is a list": '{"auths": []}',
    "a login is a text": '{"auths": {"ghcr.io": "me:secret"}}',
    "not base64": '{"auths": {"ghcr.io": {"auth": "me:secret"}}}',
    "no password": f'{{"auths": {{"ghcr.io": {{"auth": "{ALONE}"}}}}}}',
    "bytes": '{"auths": {"ghcr.io": {"auth": "//79"}}}',
    "a number": '{"auths": {"ghcr.io": {"auth": 5}}}',
    "credsStore": '{"credsStore": 5}',
    "credHelpers": '{"credHelpers": {"ghcr.io": 5}}',
    "proxies": '{"proxies": {"default": "http://me:secret@proxy"}}',
    "a BOM": '\ufeff{"auths": {}}',
    "deep": "[" * 100_000,
}


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (registry_login.USER, registry_login.PASSWORD, registry_login.HOST):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path / "config.json"


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_named_and_not_quoted(file, text):
    file.write_text(text, encoding="utf-8")
    for reader in (lambda: registry_login.login("ghcr.io"), engine.connect):
        with pytest.raises(UsageError) as caught:
            reader()
        told = f"{caught.value.what} {caught.value.why} {caught.value.hint}"
        assert str(file) in caught.value.what
        assert "secret" not in told
        assert SECRET not in told


def test_its_place_is_told(file):
    file.write_text('{\n  "auths": {},\n}')
    with pytest.raises(UsageError) as caught:
        registry_login.login("ghcr.io")
    assert "line 3, column 1" in caught.value.why


def test_what_is_not_text_is_named(file):
    file.write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(UsageError, match="UTF-8"):
        registry_login.login("ghcr.io")


def test_a_command_ends_with_2(file, tmp_path):
    file.write_text("{")
    result = builder("verify", "127.0.0.1:1/me/img:x", cwd=tmp_path.parent)
    assert (result.returncode, "Traceback" in result.stderr) == (2, False)


@pytest.mark.parametrize(
    "text", ["{}", '{"auths": {}}', '{"auths": {"ghcr.io": {}}, "currentContext": "x"}']
)
def test_a_file_without_a_login_is_fine(file, text):
    file.write_text(text)
    assert registry_login.login("ghcr.io") is None


# --- an identity token, as `docker login` to Azure or by a browser keeps it


@pytest.fixture
def server() -> Iterator[Place]:
    with places.serve() as made:
        realm = f'Bearer realm="http://127.0.0.1:{made.port}/token",service="s",scope="x"'

        def answer(one: Asked) -> Reply:
            if one.path == "/token":
                return Reply(200, {}, b'{"access_token": "t"}')
            if one.authorization == "Bearer t":
                return Reply(200, {}, b'{"tags": ["a"]}')
            return Reply(401, {"WWW-Authenticate": realm})

        made.answer = answer
        yield made


def log_in(file: Path, place: Place) -> str:
    host = f"127.0.0.1:{place.port}"
    file.write_text(json.dumps({"auths": {host: {"auth": "MDA6", "identitytoken": "secret-id"}}}))
    return f"{host}/me/llama"


def test_it_is_exchanged_for_a_token(file, server):
    with RegistryClient(log_in(file, server)) as client:
        assert client.tags() == ["a"]
        assert client.login == {"identitytoken": "secret-id"}
    (asked,) = [one for one in server.asked if one.path == "/token"]
    assert (asked.method, asked.authorization) == ("POST", None)
    assert parse_qs(asked.body.decode())["refresh_token"] == ["secret-id"]


def test_it_goes_to_nobody_that_the_token_server_redirects_to(file, server):
    with places.serve() as elsewhere:
        own = server.answer
        to = Reply(307, {"Location": f"http://127.0.0.1:{elsewhere.port}/token"})
        server.answer = lambda one: to if one.path == "/token" else own(one)
        with RegistryClient(log_in(file, server)) as client, pytest.raises(Exception, match="307"):
            client.tags()
        assert elsewhere.asked == []


def test_it_does_not_show_in_a_repr(file, server):
    log_in(file, server)
    assert "secret" not in repr(registry_login.login(f"127.0.0.1:{server.port}"))
