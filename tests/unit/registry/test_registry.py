"""A registry's tags, digests and labels: asked for with and without a token, refused, missing."""

from collections.abc import Iterator

import pytest

from builder.common.errors import RefNotFoundError, RemoteUnavailableError
from builder.registry import registry
from builder.registry.registry import Image
from tests.support import registry_api
from tests.support.registry_api import Registry

LABELS = {"org.opencontainers.image.revision": "a" * 40}


@pytest.fixture
def served() -> Iterator[Registry]:
    with registry_api.serve() as made:
        yield made


@pytest.mark.parametrize(
    ("reference", "image"),
    [
        ("debian:trixie", Image("docker.io", "library/debian", "trixie")),
        ("me/llama", Image("docker.io", "me/llama", "latest")),
        ("docker.io/nvidia/cuda:12@sha256:00", Image("docker.io", "nvidia/cuda", "12")),
        ("ghcr.io/me/deep/llama:x", Image("ghcr.io", "me/deep/llama", "x")),
        ("localhost/a:b", Image("localhost", "a", "b")),
        ("10.0.0.1:5000/a", Image("10.0.0.1:5000", "a", "latest")),
    ],
)
def test_a_short_name_means_what_it_means_to_docker(reference, image):
    assert registry.image(reference) == image


@pytest.mark.parametrize("index", [False, True])
def test_a_tags_digest_is_asked_for_without_its_content(served, index):
    digest = served.push("me/llama:x", LABELS, index=index)
    assert registry.digest(registry.image(served.name("me/llama:x"))) == digest
    assert served.asked == [("HEAD", "/v2/me/llama/manifests/x")]


def test_a_registry_that_names_no_digest_is_asked_for_the_bytes(served):
    served.named = False
    digest = served.push("me/llama:x", LABELS)
    assert registry.digest(registry.image(served.name("me/llama:x"))) == digest


def test_a_token_is_fetched_where_the_registry_sends_one_for_it(served):
    served.token = "let-me-in"  # noqa: S105
    digest = served.push("me/llama:x", LABELS)
    assert registry.digest(registry.image(served.name("me/llama:x"))) == digest
    assert served.scopes == [{"service": ["test"], "scope": ["pull"]}]


def test_a_token_that_does_not_open_is_asked_for_once(served):
    served.token = "useless"  # noqa: S105
    served.refusal = (401, {"WWW-Authenticate": f'Bearer realm="http://{served.host}/token"'})
    with pytest.raises(RemoteUnavailableError) as caught:
        registry.digest(registry.image(served.name("me/llama:x")))
    assert (caught.value.why, len(served.scopes)) == ("HTTP 401", 1)


def test_a_registry_that_wants_a_password_is_unavailable(served):
    served.refusal = (401, {"WWW-Authenticate": 'Basic realm="x"'})
    with pytest.raises(RemoteUnavailableError, match="wants a login"):
        registry.digest(registry.image(served.name("me/llama:x")))


@pytest.mark.parametrize("index", [False, True])
def test_the_labels_are_those_of_the_x86_64_image(served, index):
    served.push("me/llama:x", LABELS, index=index)
    assert registry.labels(registry.image(served.name("me/llama:x"))) == LABELS


def test_an_image_without_labels_has_none(served):
    config = served.store(registry_api.CONFIG, {"config": {"Labels": None}})
    served.tags["me/a:x"] = served.store(registry_api.MANIFEST, {"config": {"digest": config}})
    assert registry.labels(registry.image(served.name("me/a:x"))) == {}


def test_an_index_without_our_platform_has_no_image(served):
    served.tags["me/a:x"] = served.store(registry_api.INDEX, {"manifests": []})
    with pytest.raises(RefNotFoundError, match="linux/amd64"):
        registry.labels(registry.image(served.name("me/a:x")))


def test_a_tag_that_is_not_there_is_not_found(served):
    with pytest.raises(RefNotFoundError, match="the registry has no x"):
        registry.digest(registry.image(served.name("me/llama:x")))


def test_a_digest_is_held_until_it_is_dropped(served):
    digest = served.push("me/llama:x", LABELS)
    image = registry.image(served.name("me/llama:x"))
    assert registry.holds(image, digest)
    served.drop(digest)
    assert not registry.holds(image, digest)


@pytest.mark.parametrize(
    ("refusal", "why"),
    [
        ((429, {"Retry-After": "3600"}), "HTTP 429, it asks to wait 3600 s"),
        ((500, {}), "HTTP 500"),
        ((403, {}), "HTTP 403"),
    ],
)
def test_a_refusal_is_unavailable_not_missing(served, refusal, why):
    served.refusal = refusal
    image = registry.image(served.name("me/llama:x"))
    for ask in (registry.digest, registry.labels, lambda it: registry.holds(it, "sha256:0")):
        with pytest.raises(RemoteUnavailableError) as caught:
            ask(image)
        assert caught.value.why == why


def test_a_registry_that_does_not_listen_is_unavailable():
    with pytest.raises(RemoteUnavailableError, match="does not answer"):
        registry.digest(registry.image("127.0.0.1:1/me/llama:x"))


@pytest.mark.parametrize("content", [[], {}, {"manifests": [{}]}, {"config": {"digest": 1}}])
def test_a_manifest_of_another_shape_is_said_so(served, content):
    served.tags["me/a:x"] = served.store(registry_api.MANIFEST, content)
    with pytest.raises((RemoteUnavailableError, RefNotFoundError)):
        registry.labels(registry.image(served.name("me/a:x")))


def test_a_configuration_of_other_bytes_is_refused(served):
    served.push("me/a:x", LABELS)
    config = next(d for d, (kind, _) in served.stored.items() if kind == registry_api.CONFIG)
    served.stored[config] = (registry_api.CONFIG, b'{"config": {"Labels": {}}}')
    with pytest.raises(RemoteUnavailableError, match="shape"):
        registry.labels(registry.image(served.name("me/a:x")))


def test_the_machines_netrc_is_not_sent(served, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    served.token = "let-me-in"  # noqa: S105
    served.push("me/a:x", LABELS)
    assert registry.labels(registry.image(served.name("me/a:x"))) == LABELS


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.2:5000", "http://127.0.0.2:5000"),
        ("127.255.255.254", "http://127.255.255.254"),
        ("[::1]:5000", "http://[::1]:5000"),
        ("localhost:5000", "http://localhost:5000"),
        ("128.0.0.1:5000", "https://128.0.0.1:5000"),
        ("10.0.0.1", "https://10.0.0.1"),
        ("[::2]:5000", "https://[::2]:5000"),
        ("127.0.0.1.example.org", "https://127.0.0.1.example.org"),
        ("localhost.example.org:80", "https://localhost.example.org:80"),
        ("ghcr.io", "https://ghcr.io"),
    ],
)
def test_by_http_as_the_engine_asks_registries_on_this_machine(host, address):
    assert registry.address(host) == address
    assert registry.image(f"{host}/me/img:x") == registry.Image(host, "me/img", "x")
