"""What is shown to a registry: the login where it belongs, and a token anew when it has expired."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from builder.common.errors import RemoteUnavailableError, UsageError
from builder.registry import login as registry_login
from builder.registry.client import RegistryClient
from tests.support import places, registry_api
from tests.support.places import Asked, Reply
from tests.support.registry_api import Registry


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """A registry that wants tokens, and nobody's login."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with registry_api.serve() as found:
        found.token = "first"  # noqa: S105 -- not a password
        yield found


@pytest.fixture
def logged_in(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the token server is shown."""
    monkeypatch.setenv(registry_login.HOST, registry.host)
    monkeypatch.setenv(registry_login.USER, "me")
    monkeypatch.setenv(registry_login.PASSWORD, "secret")
    return f"Basic {base64.b64encode(b'me:secret').decode()}"


def test_a_token_is_had_for_the_login(registry, logged_in):
    pushed = registry.push("me/llama:tiny", {})
    with RegistryClient(registry.name("me/llama")) as client:
        assert client.digest("tiny") == pushed
    assert registry.logins == [logged_in]


def test_without_a_login_a_token_is_had_as_anybody_has_it(registry):
    pushed = registry.push("me/llama:tiny", {})
    with RegistryClient(registry.name("me/llama")) as client:
        assert client.digest("tiny") == pushed
    assert registry.logins == [None]


@pytest.mark.usefixtures("logged_in")
def test_a_token_that_has_expired_is_had_anew(registry):
    pushed = registry.push("me/llama:tiny", {})
    with RegistryClient(registry.name("me/llama")) as client:
        client.digest("tiny")
        registry.token = "second"  # noqa: S105 -- not a password
        assert client.digest("tiny") == pushed


@pytest.mark.usefixtures("logged_in")
def test_a_refusal_shows_no_login(registry):
    registry.refusal = (403, {})
    with (
        RegistryClient(registry.name("me/llama")) as client,
        pytest.raises(RemoteUnavailableError, match="HTTP 403") as caught,
    ):
        client.digest("tiny")
    assert "secret" not in f"{caught.value.what}{caught.value.why}{caught.value.hint}"


def test_a_store_that_does_not_answer_is_named(registry, tmp_path):
    (tmp_path / "config.json").write_text('{"credsStore": "there-is-none"}', encoding="utf-8")
    with pytest.raises(UsageError, match="credential store"):
        RegistryClient(registry.name("me/llama"))


def test_half_a_login_in_the_environment_is_none(monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv(registry_login.HOST, "ghcr.io")
    monkeypatch.setenv(registry_login.USER, "me")
    assert registry_login.login("ghcr.io") is None


def test_a_login_has_no_words(monkeypatch):
    monkeypatch.setenv(registry_login.HOST, "ghcr.io")
    monkeypatch.setenv(registry_login.USER, "me")
    monkeypatch.setenv(registry_login.PASSWORD, "secret")
    assert "secret" not in repr(registry_login.login("ghcr.io"))


@pytest.mark.parametrize("count", [0, 999, 1000, 1001, 2500])
@pytest.mark.parametrize("pages", [True, False], ids=["page by page", "all at once"])
def test_a_list_of_tags_whose_pages_name_no_next_one_is_read_to_its_end(count, pages):
    tags = [f"t{number:05}" for number in range(count)]

    def answer(one: Asked) -> Reply:
        last = parse_qs(urlsplit(one.path).query).get("last", [""])[0]
        page = [tag for tag in tags if tag > last][:1000] if pages else tags
        return Reply(200, {}, json.dumps({"tags": page}).encode())

    with places.serve() as place:
        place.answer = answer
        with RegistryClient(f"127.0.0.1:{place.port}/me/llama") as client:
            assert client.tags() == tags
        assert len(place.asked) <= count // 1000 + 1


def test_a_list_that_is_gone_after_its_first_page_is_not_a_short_one():
    page = Reply(200, {}, json.dumps({"tags": [f"t{number}" for number in range(1000)]}).encode())
    with places.serve() as place:
        place.answer = lambda one: Reply(404) if "last=" in one.path else page
        with (
            RegistryClient(f"127.0.0.1:{place.port}/me/llama") as client,
            pytest.raises(RemoteUnavailableError, match="is missing"),
        ):
            client.tags()
