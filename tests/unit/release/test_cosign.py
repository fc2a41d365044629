"""What cosign is told, by a program that writes it down; and that a real one takes a login."""

import json
import os
import shlex
from pathlib import Path

import pytest

from builder.common.errors import EngineError, RemoteUnavailableError, UsageError
from builder.registry import login as registry_login
from builder.registry.client import RegistryClient
from builder.release import cosign
from builder.release.cosign import Cosign, Key, Keyless
from tests.support import cosign_program, published
from tests.support.docker_registry import PASSWORD, USER, DockerRegistry

REFERENCE = "ghcr.io/me/llama@sha256:" + "a" * 64
WORKFLOW = "https://github.com/me/llama/.github/workflows/release.yml@refs/heads/main"


@pytest.fixture
def told(tmp_path: Path) -> Path:
    return tmp_path / "told"


@pytest.fixture
def program(tmp_path: Path, told: Path) -> Path:
    """A cosign that keeps its arguments and Docker's configuration, and succeeds."""
    path = tmp_path / "bin" / "cosign"
    path.parent.mkdir()
    keep = shlex.quote(str(told))
    path.write_text(
        f'#!/bin/sh\n[ "$2" = --help ] && {{ echo --signing-config; exit 0; }}\n'
        f'printf "%s\\n" "$@" >{keep}\ncp "$DOCKER_CONFIG/config.json" {keep}.json 2>/dev/null\n'
        f'stat -c %a "$DOCKER_CONFIG" "$DOCKER_CONFIG/config.json" >{keep}.modes\nexit 0\n'
    )
    path.chmod(0o755)
    return path


@pytest.fixture(params=[True, False], ids=["cosign 3", "cosign 2"])
def either(request: pytest.FixtureRequest, program: Path) -> Cosign:
    return Cosign(str(program), bundles=request.param)


def words(told: Path) -> list[str]:
    """What it was told, without the folder of its files."""
    return [
        f"{word.partition('=')[0]}=…" if "turboquant-builder-" in word else word
        for word in told.read_text().splitlines()
    ]


def test_keyless_signing_asks_for_nothing_but_the_image(either, told):
    cosign.sign(either, REFERENCE, Keyless())
    assert words(told) == ["sign", "--yes", REFERENCE]


def test_a_keyless_signature_is_held_against_a_workflow(either, told):
    assert cosign.verify(either, REFERENCE, Keyless(WORKFLOW)) is None
    assert words(told) == [
        "verify",
        f"--certificate-identity={WORKFLOW}",
        "--certificate-oidc-issuer=https://token.actions.githubusercontent.com",
        REFERENCE,
    ]


def test_with_a_key_no_log_and_no_clock_is_asked(either, told):
    cosign.sign(either, REFERENCE, Key(Path("cosign.key")))
    offline = (
        ["--signing-config=…", "--trusted-root=…"] if either.bundles else ["--tlog-upload=false"]
    )
    assert words(told) == ["sign", "--yes", "--key=cosign.key", *offline, REFERENCE]


def test_a_statement_is_signed_under_its_predicates_own_name(either, told):
    cosign.attest(either, REFERENCE, {}, "https://slsa.dev/provenance/v1", Keyless())
    assert words(told) == [
        "attest",
        "--yes",
        "--predicate=…",
        "--type=https://slsa.dev/provenance/v1",
        REFERENCE,
    ]


def test_a_login_of_the_environment_is_on_no_command_line(either, told, monkeypatch):
    monkeypatch.setenv(registry_login.HOST, "ghcr.io")
    monkeypatch.setenv(registry_login.USER, USER)
    monkeypatch.setenv(registry_login.PASSWORD, PASSWORD)
    cosign.sign(either, REFERENCE, Keyless())
    assert PASSWORD not in told.read_text()
    assert list(json.loads(told.with_suffix(".json").read_text())["auths"]) == ["ghcr.io"]


def test_a_login_for_another_registry_is_not_in_its_store(either, told, monkeypatch):
    monkeypatch.setenv(registry_login.HOST, "quay.io")
    monkeypatch.setenv(registry_login.USER, USER)
    monkeypatch.setenv(registry_login.PASSWORD, PASSWORD)
    cosign.sign(either, REFERENCE, Keyless())
    kept = told.with_suffix(".json")
    assert not kept.exists() or PASSWORD not in kept.read_text()


def test_the_file_with_the_login_is_nobody_elses(either, told, monkeypatch):
    monkeypatch.setenv(registry_login.USER, USER)
    monkeypatch.setenv(registry_login.PASSWORD, PASSWORD)
    monkeypatch.setenv(registry_login.HOST, "ghcr.io")
    previous = os.umask(0)
    try:
        cosign.sign(either, REFERENCE, Keyless())
    finally:
        os.umask(previous)
    assert told.with_suffix(".modes").read_text().split() == ["700", "600"]


def test_without_cosign_nothing_can_be_signed(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError) as caught:
        cosign.require(Keyless())
    assert "apt-get install cosign" in caught.value.hint


@pytest.fixture
def installed(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")


@pytest.mark.usefixtures("installed")
class TestRequire:
    def test_a_key_without_its_password_is_asked_for_before_anything_is_done(
        self, tmp_path, monkeypatch
    ):
        monkeypatch.delenv("COSIGN_PASSWORD", raising=False)
        key = tmp_path / "cosign.key"
        key.touch()
        with pytest.raises(UsageError) as caught:
            cosign.require(Key(key))
        assert "set COSIGN_PASSWORD in the environment" in caught.value.hint

    def test_a_key_that_is_not_there(self, tmp_path):
        with pytest.raises(UsageError) as caught:
            cosign.require(Key(tmp_path / "cosign.key"))
        assert caught.value.what.endswith("no such file")

    def test_keyless_needs_a_job_that_may_have_an_identity(self, monkeypatch):
        monkeypatch.delenv("ACTIONS_ID_TOKEN_REQUEST_URL", raising=False)
        with pytest.raises(UsageError) as caught:
            cosign.require(Keyless())
        assert "id-token: write" in caught.value.hint

    def test_in_such_a_job_it_is_the_one_on_the_path(self, program, monkeypatch):
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", "https://example.org")
        assert cosign.require(Keyless()) == Cosign(str(program), bundles=True)


@pytest.mark.usefixtures("with_cosign")
class TestReal:
    @pytest.fixture
    def keys(self, cosign_folder: Path, tmp_path: Path) -> tuple[Path, Path]:
        return cosign_program.generate(cosign_folder, tmp_path / "keys")

    def test_it_signs_where_the_environment_has_the_login(
        self, docker_registry_with_login: DockerRegistry, keys, monkeypatch, tmp_path
    ):
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "nobody-logged-in"))
        monkeypatch.setenv(registry_login.HOST, docker_registry_with_login.host)
        monkeypatch.setenv(registry_login.USER, USER)
        monkeypatch.setenv(registry_login.PASSWORD, PASSWORD)
        with RegistryClient(f"{docker_registry_with_login.host}/me/llama") as repository:
            image = published.push(repository, {}, "x")
        program = cosign.find()
        assert program is not None
        reference = f"{repository.repository}@{image.digest}"
        cosign.sign(program, reference, Key(keys[0]))
        assert cosign.verify(program, reference, Key(keys[1])) is None

    def test_a_wrong_password_is_told_as_such(
        self, docker_registry_server: DockerRegistry, keys, monkeypatch
    ):
        with RegistryClient(f"{docker_registry_server.host}/me/llama") as repository:
            image = published.push(repository, {}, "x")
        program = cosign.find()
        assert program is not None
        monkeypatch.setenv("COSIGN_PASSWORD", "another")
        with pytest.raises(UsageError) as caught:
            cosign.sign(program, f"{repository.repository}@{image.digest}", Key(keys[0]))
        assert caught.value.what == "the password in COSIGN_PASSWORD is not the key's"

    def test_a_registry_that_is_gone_is_no_refusal(self, keys):
        program = cosign.find()
        assert program is not None
        with pytest.raises(RemoteUnavailableError):
            cosign.verify(program, "127.0.0.1:1/me/llama@sha256:" + "a" * 64, Key(keys[1]))

    def test_a_private_key_verifies_nothing(self, keys):
        with pytest.raises(UsageError) as caught:
            cosign.require_public(Key(keys[0]))
        assert caught.value.what.endswith("is no public key")
