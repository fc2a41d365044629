"""A registry that fails: what was named before stays named, and the next run finishes.

Real registries, behind a proxy where a fault has to be made; tiny images, stand-in verdicts.
"""

import base64
import email.utils
import json
import logging
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.common.errors import BuilderError, RemoteUnavailableError, UsageError
from builder.registry import login as registry_login
from builder.release import prune as retention
from tests.support import docker_registry, releasing
from tests.support.docker_registry import PASSWORD, USER, DockerRegistry
from tests.support.registry_proxy import Fault
from tests.support.releasing import FLOATING, REPOSITORY, News, Publisher, resolved

pytestmark = pytest.mark.engine

LAYER_PUT = "PUT .*/blobs/uploads/"
TAG_PUT = "PUT .*/manifests/tiny"


def fails(who: Publisher, receipt, *, match: str) -> None:
    with pytest.raises(RemoteUnavailableError, match=match) as caught:
        who.publish(receipt)
    assert caught.value.exit_code == 6


def everywhere(registry: DockerRegistry, digest: str) -> bool:
    return [resolved(registry, tag) for tag in FLOATING] == [digest] * 3


def test_a_registry_that_is_down_and_comes_back(publisher, tiny_images, registry):
    old = publisher.publish(tiny_images.image(b"old"))
    receipt = tiny_images.image(b"new")
    registry.stop()
    fails(publisher, receipt, match="does not answer")
    registry.start()
    assert everywhere(registry, old.digest)
    assert everywhere(registry, publisher.publish(receipt).digest)


@pytest.mark.parametrize(
    ("where", "fault"),
    [
        (LAYER_PUT, {"cut": 100_000}),
        (LAYER_PUT, {"status": 503}),
        (LAYER_PUT, {"status": 429, "headers": {"Retry-After": "0"}}),
        ("POST .*/blobs/uploads/", {"status": 500}),
        (TAG_PUT, {"status": 429, "headers": {"Retry-After": "0"}}),
        (TAG_PUT, {"status": 502}),
        (TAG_PUT, {"cut": 0}),
        ("GET .*/manifests/tiny", {"cut": 10}),
    ],
    ids=[
        "layer cut",
        "503 for a layer",
        "429 for a layer",
        "500 for an upload",
        "429 for a tag",
        "502 for a tag",
        "tag cut",
        "answer cut",
    ],
)
def test_what_passes_by_is_waited_out(publisher, tiny_images, registry, proxy, where, fault):
    who = publisher.at(proxy.host)
    who.publish(tiny_images.image(b"old"))
    fault = Fault(where, times=1, **fault)
    proxy.faults = [fault]
    assert everywhere(registry, who.publish(tiny_images.image(os.urandom(600_000))).digest)
    assert fault.times == 0


def test_a_layer_that_breaks_off_is_read_back_anew(publisher, tiny_images, registry, proxy):
    fault = Fault("GET .*/blobs/", times=1, cut=1000)
    proxy.faults = [fault]
    release = publisher.at(proxy.host).publish(tiny_images.image(os.urandom(600_000)))
    assert everywhere(registry, release.digest)
    assert fault.times == 0


@pytest.mark.parametrize(
    ("where", "fault", "told"),
    [
        (LAYER_PUT, {"cut": 100_000}, "does not answer"),
        (LAYER_PUT, {"status": 403}, "HTTP 403"),
        ("PUT .*/manifests/", {"status": 500}, "HTTP 500"),
        (TAG_PUT, {"status": 403}, "HTTP 403"),
        (TAG_PUT, {"status": 429, "headers": {"Retry-After": "3600"}}, "HTTP 429"),
    ],
    ids=["cut", "403 for a layer", "500", "403 for a tag", "429 for an hour"],
)
def test_what_does_not_pass_by_leaves_the_tags(
    publisher, tiny_images, registry, proxy, where, fault, told
):
    who = publisher.at(proxy.host)
    old = who.publish(tiny_images.image(b"old"))
    receipt = tiny_images.image(os.urandom(600_000))
    proxy.faults = [Fault(where, times=100, **fault)]
    fails(who, receipt, match=told)
    assert everywhere(registry, old.digest)
    proxy.faults = []
    assert everywhere(registry, who.publish(receipt).digest)


def test_an_hour_is_not_waited_for(publisher, tiny_images, proxy):
    proxy.faults = [Fault("PUT", times=100, status=429, headers={"Retry-After": "3600"})]
    with pytest.raises(RemoteUnavailableError) as caught:
        publisher.at(proxy.host).publish(tiny_images.image(b"one"))
    assert "3600 s" in caught.value.why
    assert proxy.count("^PUT") == 1


def test_a_layer_that_comes_back_broken_gets_no_name(publisher, tiny_images, registry, proxy):
    proxy.faults = [Fault("GET .*/blobs/", times=100, cut=100)]
    fails(publisher.at(proxy.host), tiny_images.image(os.urandom(600_000)), match="does not answer")
    assert registry.tags(REPOSITORY) == []


# --- a disk that is full


@pytest.fixture
def small_disk(registry_program: Path, tmp_path: Path) -> Iterator[DockerRegistry]:
    """A registry on a file system of one megabyte."""
    storage = tmp_path / "small" / "storage"
    storage.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", storage], check=True)
    try:
        with docker_registry.serve(registry_program, storage.parent) as registry:
            yield registry
    finally:
        subprocess.run(["umount", "--lazy", storage], check=True)


def test_a_disk_that_is_full_at_the_registry(publisher, tiny_images, small_disk):
    who = publisher.at(small_disk.host)
    old = who.publish(tiny_images.image(b"old"))
    receipt = tiny_images.image(os.urandom(2_000_000))
    fails(who, receipt, match="HTTP 500")
    assert everywhere(small_disk, old.digest)
    resize = ["mount", "-o", "remount,size=16m", small_disk.storage]
    subprocess.run(resize, check=True)
    assert everywhere(small_disk, who.publish(receipt).digest)


# --- clocks


def test_clocks_apart_are_told(publisher, tiny_images, proxy):
    proxy.date = email.utils.formatdate(time.time() - 7200, usegmt=True)
    news = []
    publisher.at(proxy.host).publish(tiny_images.image(b"one"), news.append)
    assert any("120 min ahead" in text for text in news)


def test_by_a_wrong_clock_nothing_is_deleted_for_its_age(publisher, tiny_images, proxy):
    who = publisher.at(proxy.host)
    who.publish(tiny_images.image(b"one"))
    who.publish(tiny_images.image(b"two"))
    proxy.date = email.utils.formatdate(time.time() - 400 * 86400, usegmt=True)
    with pytest.raises(UsageError, match="h apart"):
        retention.prune(retention.Request(keep_days=30), who.record, News())


# --- logins


@pytest.fixture
def private(
    publisher: Publisher, docker_registry_with_login: DockerRegistry
) -> Iterator[Publisher]:
    """Somebody before a registry that asks for a login, which nobody has given yet."""
    return publisher.at(docker_registry_with_login.host)


def log_in(folder: Path, host: str, password: str = PASSWORD) -> None:
    """As `docker login` keeps it without a credential helper."""
    shown = base64.b64encode(f"{USER}:{password}".encode()).decode()
    page = {"auths": {host: {"auth": shown}}}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(page), encoding="utf-8")


def test_without_a_login_the_next_command_is_docker_login(private, tiny_images):
    with pytest.raises(RemoteUnavailableError, match="wants a login") as caught:
        private.publish(tiny_images.image(b"one"))
    assert f"docker login {private.host}" in caught.value.hint


def test_a_wrong_login_is_refused_once(private, tiny_images, private_cache):
    log_in(private_cache, private.host, "wrong")
    fails(private, tiny_images.image(b"one"), match="HTTP 401")


def test_the_login_of_dockers_own_store_publishes(
    private, tiny_images, private_cache, docker_registry_with_login
):
    log_in(private_cache, private.host)
    release = private.publish(tiny_images.image(b"one"))
    assert everywhere(docker_registry_with_login, release.digest)


def test_a_credential_helper_is_asked(private, tiny_images, private_cache, tmp_path, monkeypatch):
    helper = tmp_path / "bin" / "docker-credential-kept"
    helper.parent.mkdir()
    answer = json.dumps({"Username": USER, "Secret": PASSWORD})
    helper.write_text(f"#!/bin/sh\ncat >/dev/null\necho '{answer}'\n", encoding="utf-8")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{helper.parent}:/usr/sbin:/usr/bin:/sbin:/bin")
    private_cache.mkdir(parents=True, exist_ok=True)
    page = json.dumps({"credHelpers": {private.host: "kept"}})
    (private_cache / "config.json").write_text(page, encoding="utf-8")
    assert private.publish(tiny_images.image(b"one")).digest


def test_the_environments_login_publishes_and_shows_nowhere(
    private, tiny_images, monkeypatch, caplog
):
    monkeypatch.setenv(registry_login.USER, USER)
    monkeypatch.setenv(registry_login.PASSWORD, PASSWORD)
    caplog.set_level(logging.DEBUG)
    news, secrets = [], [PASSWORD, base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()]
    release = private.publish(tiny_images.image(b"one"), news.append)
    written = [path.read_text("utf-8") for path in private.record.rglob("*.json")]
    kept = repr(registry_login.Login(USER, PASSWORD))
    told = "\n".join([*news, *written, caplog.text, repr(release), kept])
    assert not any(secret in told for secret in secrets)


def test_an_error_shows_no_login(private, tiny_images, monkeypatch):
    monkeypatch.setenv(registry_login.USER, USER)
    monkeypatch.setenv(registry_login.PASSWORD, "not-the-right-one")
    with pytest.raises(BuilderError) as caught:
        private.publish(tiny_images.image(b"one"))
    error = caught.value
    shown = base64.b64encode(f"{USER}:not-the-right-one".encode()).decode()
    told = f"{error.what}\n{error.why}\n{error.hint}"
    assert "not-the-right-one" not in told
    assert shown not in told


def test_a_login_that_expires_before_the_promotion(
    private, tiny_images, private_cache, docker_registry_with_login
):
    log_in(private_cache, private.host)
    old = private.publish(tiny_images.image(b"old"))
    receipt = tiny_images.image(b"new")
    asked: list[str] = []
    release = releasing.replace(private, stages=releasing.stages(log=asked)).publish(
        receipt, promote=False
    )
    log_in(private_cache, private.host, "expired")
    with pytest.raises(RemoteUnavailableError, match="HTTP 401"):
        private.promote(release.name)
    assert everywhere(docker_registry_with_login, old.digest)
    log_in(private_cache, private.host)
    private.promote(release.name)
    assert everywhere(docker_registry_with_login, release.digest)
    assert len(asked) == 4, "proven once, as built and as pulled back"


def test_a_login_that_expires_while_it_is_proven(
    private, tiny_images, private_cache, docker_registry_with_login
):
    log_in(private_cache, private.host)
    old = private.publish(tiny_images.image(b"old"))

    def expire(text: str) -> None:
        if text.startswith("attach"):
            docker_registry_with_login.change_password()

    with pytest.raises(RemoteUnavailableError, match="HTTP 401"):
        private.publish(tiny_images.image(b"new"), expire)
    docker_registry_with_login.change_password(back=True)
    assert everywhere(docker_registry_with_login, old.digest)
