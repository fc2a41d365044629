"""A login goes to the registry that it is for, by its own scheme, and to nobody it sends to."""

import base64
import hashlib
import io
import json
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from builder.common.errors import BuilderError, RemoteUnavailableError, UsageError
from builder.pins import load as pins
from builder.registry import client as registry_client
from builder.registry import login as registry_login
from builder.registry import referrers, registry
from builder.registry.client import RegistryClient
from builder.verify import run as verify
from tests.support import places
from tests.support.docker_registry import PASSWORD, USER, DockerRegistry
from tests.support.places import Asked, Place, Reply
from tests.support.registry_proxy import in_front_of

LOGIN = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"
HOST, ELSEWHERE = places.NAMES
BLOB = "sha256:" + "a" * 64
BASIC = Reply(401, {"WWW-Authenticate": 'Basic realm="x"'})


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody's login; the names of `places` are on this machine."""
    places.resolve_here(monkeypatch)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "nobody"))
    for name in (registry_login.USER, registry_login.PASSWORD, registry_login.HOST):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    return places.certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def tls(certificate: tuple[ssl.SSLContext, Path], monkeypatch) -> ssl.SSLContext:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate[1]))
    return certificate[0]


@pytest.fixture
def secure(tls: ssl.SSLContext) -> Iterator[Place]:
    """A registry that is asked by https."""
    with places.serve(tls) as found:
        yield found


@pytest.fixture
def plain() -> Iterator[Place]:
    """Another server, by http."""
    with places.serve() as found:
        yield found


@pytest.fixture
def other(tls: ssl.SSLContext) -> Iterator[Place]:
    """Another server, by https."""
    with places.serve(tls) as found:
        yield found


@pytest.fixture
def log_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """As `docker login` keeps it without a credential helper."""

    def kept(host: str) -> None:
        shown = LOGIN.removeprefix("Basic ")
        (tmp_path / "config.json").write_text(json.dumps({"auths": {host: {"auth": shown}}}))
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))

    return kept


@pytest.fixture
def environments(monkeypatch: pytest.MonkeyPatch) -> None:
    """The login of the environment, which does not say whose it is."""
    monkeypatch.setenv(registry_login.USER, USER)
    monkeypatch.setenv(registry_login.PASSWORD, PASSWORD)


def at(place: Place, host: str = HOST) -> str:
    return f"{host}:{place.port}/me/llama"


# --- the environment's login is for one registry


@pytest.mark.usefixtures("environments")
class TestEnvironment:
    def test_a_strangers_image_is_verified_without_it(self, plain, tmp_path):
        plain.answer = lambda _: BASIC
        file = tmp_path / "pins.toml"
        file.write_text((Path(__file__).parents[3] / "pins.toml").read_text())
        with pytest.raises(RemoteUnavailableError, match="wants a login") as caught:
            verify.verify(f"{at(plain, '127.0.0.1')}:x", pins.load(file), _Silent())
        assert "BUILDER_REGISTRY=127.0.0.1" in caught.value.hint
        assert plain.shown == []

    def test_it_is_for_the_registry_that_the_third_variable_names(self, monkeypatch):
        monkeypatch.setenv(registry_login.HOST, "ghcr.io")
        assert registry_login.login("ghcr.io") == registry_login.Login(USER, PASSWORD)
        assert registry_login.login("ghcr.io.example.test") is None

    @pytest.mark.parametrize(
        ("named", "host"),
        [
            ("GHCR.io", "ghcr.io"),
            ("ghcr.io:443", "ghcr.io"),
            ("docker.io", "docker.io"),
            ("index.docker.io", "docker.io"),
            ("127.0.0.1:5000", "127.0.0.1:5000"),
        ],
    )
    def test_however_it_is_written(self, monkeypatch, named, host):
        monkeypatch.setenv(registry_login.HOST, named)
        assert registry_login.login(host) is not None

    @pytest.mark.parametrize("host", ["ghcr.io:5000", "127.0.0.1", "127.0.0.1:443"])
    def test_another_port_is_another_registry(self, monkeypatch, host):
        monkeypatch.setenv(registry_login.HOST, host)
        others = {"ghcr.io", "127.0.0.1:80", "127.0.0.1:5000", "127.0.0.1:443"} - {host}
        if host == "127.0.0.1":
            others.remove("127.0.0.1:80")
        assert [one for one in others if registry_login.login(one)] == []

    @pytest.mark.parametrize(
        "named", ["https://ghcr.io", "ghcr.io/me", "me:secret@ghcr.io", "ghcr.io:port", " "]
    )
    def test_what_is_not_the_name_of_a_registry_is_refused_unquoted(self, monkeypatch, named):
        monkeypatch.setenv(registry_login.HOST, named)
        with pytest.raises(UsageError, match="BUILDER_REGISTRY") as caught:
            registry_login.login("ghcr.io")
        assert "secret" not in f"{caught.value.what}{caught.value.why}{caught.value.hint}"

    def test_else_for_where_is_published_to(self):
        with registry_login.own_registry("ghcr.io/me/llama"):
            assert registry_login.login("ghcr.io")
            assert registry_login.login("quay.io") is None
        assert registry_login.login("ghcr.io") is None

    def test_the_third_variable_holds_against_that(self, monkeypatch):
        monkeypatch.setenv(registry_login.HOST, "quay.io")
        with registry_login.own_registry("ghcr.io/me/llama"):
            assert registry_login.login("ghcr.io") is None

    def test_what_is_named_first_holds(self):
        """As in a night that publishes --to one registry, by pins that name another."""
        with (
            registry_login.own_registry("ghcr.io/me/llama"),
            registry_login.own_registry("quay.io/me/llama"),
        ):
            assert registry_login.login("ghcr.io")
            assert registry_login.login("quay.io") is None

    def test_for_every_other_registry_it_is_dockers_store(self, log_in, monkeypatch):
        monkeypatch.setenv(registry_login.USER, "another")
        monkeypatch.setenv(registry_login.HOST, "ghcr.io")
        log_in("quay.io")
        assert registry_login.login("quay.io") == registry_login.Login(USER, PASSWORD)


# --- by the registry's own scheme


class TestScheme:
    def test_behind_a_proxy_that_does_not_say_https_no_login_goes_in_plain_text(
        self, docker_registry_with_login: DockerRegistry, tls, log_in
    ):
        """A real registry then names `http://` for uploads."""
        with in_front_of(docker_registry_with_login, tls) as proxy:
            host = f"{HOST}:{proxy.host.partition(':')[2]}"
            log_in(host)
            with (
                RegistryClient(f"{host}/me/llama") as client,
                pytest.raises(RemoteUnavailableError, match="plain http") as caught,
            ):
                client.upload(BLOB, b"x")
        assert "X-Forwarded-Proto" in caught.value.hint
        assert proxy.count("^PUT") == 0

    @pytest.mark.parametrize(
        "reply",
        [
            lambda port: Reply(202, {"Location": f"http://{HOST}:{port}/v2/me/llama/up"}),
            lambda port: Reply(307, {"Location": f"http://{HOST}:{port}/v2/me/llama/up"}),
        ],
        ids=["upload", "redirect"],
    )
    def test_an_upload_to_plain_http_is_refused(self, secure, plain, log_in, reply):
        log_in(f"{HOST}:{secure.port}")
        secure.answer = lambda one: reply(plain.port) if one.authorization else BASIC
        with (
            RegistryClient(at(secure)) as client,
            pytest.raises(RemoteUnavailableError, match="plain http"),
        ):
            client.upload(BLOB, b"x")
        assert plain.asked == []

    @pytest.mark.parametrize(
        "named", ["http://{host}:{port}/v2/me/llama/tags/list?n=1", "//{host}:{port}/more"]
    )
    def test_a_list_of_tags_goes_on_at_no_other_place(self, secure, plain, log_in, named):
        log_in(f"{HOST}:{secure.port}")
        link = f"<{named.format(host=HOST, port=plain.port)}>; rel=next"
        page = Reply(200, {"Link": link}, b'{"tags": ["a"]}')
        secure.answer = lambda one: page if one.authorization else BASIC
        with RegistryClient(at(secure)) as client, pytest.raises(RemoteUnavailableError):
            client.tags()
        assert plain.asked == []

    def test_a_token_is_not_had_by_plain_http(self, secure, plain, log_in):
        log_in(f"{HOST}:{secure.port}")
        realm = f'Bearer realm="http://{HOST}:{plain.port}/token",service="x"'
        secure.answer = lambda _: Reply(401, {"WWW-Authenticate": realm})
        with (
            RegistryClient(at(secure)) as client,
            pytest.raises(RemoteUnavailableError, match="plain http"),
        ):
            client.tags()
        assert plain.asked == []

    def test_nor_by_a_token_server_that_redirects_there(self, secure, other, plain, log_in):
        log_in(f"{HOST}:{secure.port}")
        realm = f'Bearer realm="https://{ELSEWHERE}:{other.port}/token"'
        secure.answer = lambda _: Reply(401, {"WWW-Authenticate": realm})
        to = f"http://{ELSEWHERE}:{plain.port}/token"
        other.answer = lambda _: Reply(302, {"Location": to})
        with RegistryClient(at(secure)) as client, pytest.raises(RemoteUnavailableError):
            client.tags()
        assert plain.asked == []

    def test_a_registry_by_http_has_its_token_server_here_too(self, plain, log_in):
        log_in(f"127.0.0.1:{plain.port}")
        realm = f'Bearer realm="http://{HOST}:{plain.port}/token"'
        plain.answer = lambda _: Reply(401, {"WWW-Authenticate": realm})
        with (
            RegistryClient(at(plain, "127.0.0.1")) as client,
            pytest.raises(RemoteUnavailableError, match="plain http"),
        ):
            client.tags()
        assert plain.shown == []

    def test_a_token_server_of_another_host_gets_the_login(self, secure, other, log_in):
        """As Docker Hub's: registry-1.docker.io names auth.docker.io."""
        log_in(f"{HOST}:{secure.port}")
        realm = f'Bearer realm="https://{ELSEWHERE}:{other.port}/token",service="x"'
        wanted = Reply(401, {"WWW-Authenticate": realm})
        tags = Reply(200, {}, b'{"tags": ["a"]}')
        secure.answer = lambda one: tags if one.authorization == "Bearer t" else wanted
        other.answer = lambda _: Reply(200, {}, b'{"token": "t"}')
        with RegistryClient(at(secure)) as client:
            assert client.tags() == ["a"]
        assert other.shown == [LOGIN]
        assert secure.shown == ["Bearer t"]

    @pytest.mark.parametrize(("named", "port"), [("{host}:443", ""), ("{host}", ":443")])
    def test_https_and_its_own_port_are_one_place(self, named, port, log_in):
        """No port 443 here: what is shown is asked for, not sent."""
        log_in(f"ghcr.io{port}")
        with RegistryClient(f"ghcr.io{port}/me/llama") as client:
            client._authorization = "Bearer t"
            place = f"https://{named.format(host='ghcr.io')}/v2/me/llama/blobs/uploads/1"
            assert client._shown(place) == {"Authorization": "Bearer t"}
            assert client._shown(place.replace("ghcr.io", "ghcr.io.example.test")) == {}


# --- and to nobody it sends to


class TestElsewhere:
    @pytest.fixture(autouse=True)
    def _logged_in(self, secure: Place, log_in: Callable[[str], None]) -> None:
        log_in(f"{HOST}:{secure.port}")

    @pytest.fixture
    def asks(self, other: Place) -> Place:
        """A host for blobs that asks for a login, and has a token server too."""
        realm = f'Bearer realm="https://{ELSEWHERE}:{other.port}/token"'
        other.answer = lambda _: Reply(401, {"WWW-Authenticate": realm})
        return other

    def test_a_redirect_gives_nobody_the_login(self, secure, asks):
        to = f"https://{ELSEWHERE}:{asks.port}/bucket/x"
        secure.answer = lambda one: Reply(307, {"Location": to}) if one.authorization else BASIC
        with (
            RegistryClient(at(secure)) as client,
            pytest.raises(RemoteUnavailableError, match="wants a login"),
        ):
            client.blob(BLOB)
        assert asks.shown == []
        assert {one.path for one in asks.asked} == {"/bucket/x"}

    def test_nor_does_one_back_to_the_registry(self, secure, asks):
        """The registry's own challenge, but of an address that somebody else chose."""
        back = f"https://{HOST}:{secure.port}/v2/me/llama/blobs/{BLOB}?again"
        asks.answer = lambda _: Reply(302, {"Location": back})

        def answer(one: Asked) -> Reply:
            to = f"https://{ELSEWHERE}:{asks.port}/x"
            return BASIC if "again" in one.path else Reply(302, {"Location": to})

        secure.answer = answer
        with RegistryClient(at(secure)) as client, pytest.raises(RemoteUnavailableError):
            client.blob(BLOB)
        assert secure.shown == []

    def test_nor_does_an_upload_to_another_host(self, secure, asks):
        to = f"https://{ELSEWHERE}:{asks.port}/upload"
        secure.answer = lambda one: Reply(202, {"Location": to}) if one.authorization else BASIC
        with (
            RegistryClient(at(secure)) as client,
            pytest.raises(RemoteUnavailableError, match="wants a login"),
        ):
            client.upload(BLOB, b"x")
        assert asks.shown == []
        assert {one.path.partition("?")[0] for one in asks.asked} == {"/upload"}

    @pytest.mark.parametrize("method", ["PUT", "DELETE"])
    def test_nor_does_a_redirected_change(self, secure, asks, method):
        to = f"https://{ELSEWHERE}:{asks.port}/x"
        secure.answer = lambda one: Reply(307, {"Location": to}) if one.authorization else BASIC
        made = registry_client.of(registry_client.MANIFEST, {})
        with RegistryClient(at(secure)) as client, pytest.raises(RemoteUnavailableError):
            client.put(made) if method == "PUT" else client.delete(made.digest)
        assert asks.shown == []

    def test_nor_does_the_source_of_an_image(self, secure, asks, tmp_path):
        to = f"https://{ELSEWHERE}:{asks.port}/source"

        def answer(one: Asked) -> Reply:
            if not one.authorization:
                return BASIC
            return Reply() if one.method == "HEAD" else Reply(302, {"Location": to})

        secure.answer = answer
        asks.answer = lambda _: Reply(200, {}, b"another")
        with RegistryClient(at(secure)) as client, pytest.raises(BuilderError):
            referrers.fetch(client, "a" * 64, tmp_path / "out")
        assert asks.shown == []

    def test_a_netrc_has_no_say(self, secure, asks, tmp_path, monkeypatch):
        """requests would look there for every host that it is redirected to."""
        netrc = tmp_path / "netrc"
        netrc.write_text(f"machine {ELSEWHERE} login me password of-the-netrc\n")
        monkeypatch.setenv("NETRC", str(netrc))
        to = f"https://{ELSEWHERE}:{asks.port}/x"
        secure.answer = lambda _: Reply(302, {"Location": to})
        with RegistryClient(at(secure)) as client, pytest.raises(RemoteUnavailableError):
            client.tags()
        assert asks.shown == []

    def test_a_cookie_is_not_kept(self, secure):
        seen: list[Asked] = []
        reply = Reply(200, {"Set-Cookie": "session=secret"}, b'{"tags": ["a"]}')
        secure.answer = lambda one: seen.append(one) or reply
        with RegistryClient(at(secure)) as client:
            client.tags()
            assert len(client._session.cookies) == 0


def pieces(file: IO[bytes]) -> bytes:
    reader, read = io.BufferedReader(file), b""  # type: ignore[type-var]
    while piece := reader.read(65536):
        read += piece
    return read


def test_a_blob_is_read_through_a_buffer_to_its_end(docker_registry_server: DockerRegistry):
    """As publish reads the layers back, and unpacks them."""
    content = bytes(range(256)) * 4096
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    with RegistryClient(f"{docker_registry_server.host}/me/llama") as client:
        client.upload(digest, content)
        assert client.read(digest, pieces) == content


@pytest.mark.parametrize("location", ["ftp://x/y", "https://[::1/x", "https:///x", ""])
def test_a_place_that_is_none_is_said_to_be_so(location, plain):
    plain.answer = lambda _: Reply(202, {"Location": location})
    with RegistryClient(at(plain, "127.0.0.1")) as client, pytest.raises(RemoteUnavailableError):
        client.upload(BLOB, b"x")


@pytest.mark.parametrize("location", ["ftp://x/y", "https://[::1/x", "https:///x", "\xff\xfe"])
def test_a_redirect_to_no_place_is_said_to_be_so(location, plain):
    plain.answer = lambda _: Reply(302, {"Location": location})
    wanted = registry.Image(f"127.0.0.1:{plain.port}", "me/llama", "x")
    with pytest.raises(RemoteUnavailableError):
        registry.digest(wanted)


class _Silent:
    def step(self, text: str) -> None: ...
    def detail(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
