"""What is shown to a registry: the login where it belongs, and a token anew when it has expired."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder import registry_login
from builder.errors import RemoteUnavailableError, UsageError
from builder.registry_client import RegistryClient
from tests import registry_api
from tests.registry_api import Registry


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
