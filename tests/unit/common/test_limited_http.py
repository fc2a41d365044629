"""Every answer ends: whatever a server sends, and however slowly."""

import time
from pathlib import Path

import pytest

from builder.common import http as web
from builder.common.errors import RemoteUnavailableError
from builder.model.pins import Source
from builder.registry import client as registry_client
from builder.registry import registry
from builder.registry.client import RegistryClient
from builder.release.record_source import RecordSource
from builder.sources import package_index
from tests.support import endless

SOON_S = 20.0
"""What a test may take, far above what it takes: without limits they never end."""


@pytest.fixture(autouse=True)
def short_limits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setattr(web, "_DEADLINE_S", 0.3)
    monkeypatch.setattr(web, "_TIMEOUT_S", (1.0, 0.3))
    monkeypatch.setattr(registry_client, "_READ_S", 0.3)
    monkeypatch.setattr(registry_client, "_PAUSES_S", (0.0, 0.0, 0.0))


@pytest.mark.parametrize("answer", [*endless.SLOW.values(), *endless.ENDLESS.values()])
@pytest.mark.parametrize("asked", ["manifest", "anonymous", "record"])
def test_an_answer_that_never_ends_is_given_up(answer, asked):
    started = time.monotonic()
    with endless.serving(answer) as host, pytest.raises(RemoteUnavailableError) as caught:
        ask(asked, host)
    assert "does not answer" in caught.value.what
    assert host in caught.value.what
    assert time.monotonic() - started < SOON_S


def ask(what: str, host: str) -> None:
    if what == "record":
        RecordSource(f"http://{host}/record").index()
    elif what == "anonymous":
        registry.digest(registry.image(f"{host}/me/llama:tiny"))
    else:
        with RegistryClient(f"{host}/me/llama") as client:
            client.manifest("tiny")


@pytest.mark.parametrize("answer", [endless.dripping_body, endless.dripping_chunk_size])
def test_a_slow_blob_is_given_up_by_its_pace(answer, monkeypatch):
    monkeypatch.setattr(RegistryClient, "has_blob", lambda *_: True)
    monkeypatch.setattr(registry_client, "_LONGEST_S", 1.0)
    with (
        endless.serving(answer) as host,
        RegistryClient(f"{host}/me/llama") as client,
        pytest.raises(RemoteUnavailableError, match="does not answer") as caught,
    ):
        client.read("sha256:" + "0" * 64, lambda content: content.read())
    assert "no end after" in caught.value.why


@pytest.mark.parametrize("answer", [endless.plain, endless.chunked])
def test_an_endless_blob_is_given_up_by_its_size(answer, monkeypatch):
    monkeypatch.setattr(RegistryClient, "has_blob", lambda *_: True)
    with (
        endless.serving(answer) as host,
        RegistryClient(f"{host}/me/llama") as client,
        pytest.raises(RemoteUnavailableError) as caught,
    ):
        client.read("sha256:" + "0" * 64, lambda content: content.read(), most=1_000_000)
    assert "no end after 1000000 bytes" in caught.value.why


def test_a_full_disk_is_not_taken_for_a_silent_registry(monkeypatch):
    monkeypatch.setattr(RegistryClient, "has_blob", lambda *_: True)

    def written(_content: object) -> None:
        raise OSError(28, "No space left on device", "/cache/source.part")

    with (
        endless.serving(endless.plain) as host,
        RegistryClient(f"{host}/me/llama") as client,
        pytest.raises(OSError, match="No space left"),
    ):
        client.read("sha256:" + "0" * 64, written)


@pytest.mark.parametrize("answer", [*endless.SLOW.values(), *endless.ENDLESS.values()])
def test_an_endless_page_of_the_package_index_is_given_up(answer, monkeypatch):
    monkeypatch.setattr(package_index, "_TIMEOUT_S", 0.3)
    with endless.serving(answer) as host:
        monkeypatch.setenv("PIP_INDEX_URL", f"http://{host}/simple")
        with pytest.raises(RemoteUnavailableError, match="package index does not answer"):
            package_index.listed("tiny-package")


@pytest.mark.parametrize("answer", [endless.plain, endless.chunked, endless.dripping_body])
@pytest.mark.parametrize("kind", ["sdist", "wheel"])
def test_nor_does_an_endless_file_fill_the_disk(answer, kind, tmp_path, monkeypatch, progress):
    monkeypatch.setattr(package_index, "_TIMEOUT_S", 0.3)
    monkeypatch.setattr(package_index, "_LARGEST", {"sdist": 3_000_000, "wheel": 3_000_000})
    with endless.serving(answer) as host:
        monkeypatch.setattr(package_index, "_find", lambda *_: f"http://{host}/a.tar.gz")
        pinned = Source("tiny-package", "1.0", "0" * 64, "", "abcdef123")
        with pytest.raises(RemoteUnavailableError, match="package index does not answer"):
            package_index.download(pinned, kind, tmp_path / "file", progress)
    assert (tmp_path / "file").stat().st_size <= 3_000_000
