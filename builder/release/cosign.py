"""The cosign program: signs an image and what is attested of it, and says who did.

Debian 13 has version 2, which keeps signatures under tags of its own (`sha256-<hex>.sig`). From 3
on they are Sigstore bundles among the image's referrers; 3 verifies both, 2 only its own.
With a key file nobody is asked but the registry: no transparency log, no time stamps. Without one
cosign signs keyless, with the identity that GitHub Actions gives a job (`id-token: write`).
"""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.common import outside_json
from builder.common.errors import EngineError, RemoteUnavailableError, UsageError
from builder.registry import login as registry_login
from builder.registry import registry

PASSWORD = "COSIGN_PASSWORD"  # noqa: S105 -- the variable's name
GITHUB = "https://token.actions.githubusercontent.com"
"""Who vouches for the identity of a job in GitHub Actions."""

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"

_TIMEOUT_S = 180
_HINT = "`apt-get install cosign`, or https://docs.sigstore.dev/cosign/system_config/installation/"
_TOKEN = "ACTIONS_ID_TOKEN_REQUEST_URL"  # noqa: S105 -- the variable's name
# No service to ask: neither for signing nor for verifying.
_SIGNING: Mapping[str, Any] = {
    "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
    "rekorTlogConfig": {},
    "tsaConfig": {},
}
_TRUSTED = {"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"}


@dataclass(frozen=True, slots=True)
class Key:
    """A key file: the private one to sign, the public one to verify."""

    path: Path


@dataclass(frozen=True, slots=True)
class Keyless:
    """An identity instead of a key: to verify, the workflow's URL, and who vouches for it."""

    identity: str = ""
    issuer: str = GITHUB


Signer = Key | Keyless


@dataclass(frozen=True, slots=True)
class Cosign:
    """The program. `bundles`: from version 3 on."""

    program: str
    bundles: bool


def find() -> Cosign | None:
    """The cosign on the path, or None."""
    program = shutil.which("cosign")
    if program is None:
        return None
    # Debian's calls itself "devel", so it is known by what it can do.
    told = subprocess.run(
        [program, "sign", "--help"], capture_output=True, text=True, check=False, timeout=60
    )
    return Cosign(program, "--signing-config" in told.stdout)


def require(signer: Signer) -> Cosign:
    """The cosign to sign with, where the signer can be had.

    Raises EngineError without cosign, UsageError without the key, its password or an identity.
    """
    found = find()
    if found is None:
        raise EngineError("cosign is not installed", hint=_HINT)
    if isinstance(signer, Keyless):
        if not os.environ.get(_TOKEN):
            raise UsageError(
                "nobody gives an identity to sign with",
                why=f"{_TOKEN} is not set",
                hint="in GitHub Actions `permissions: id-token: write`; elsewhere --key FILE",
            )
    elif not signer.path.is_file():
        raise UsageError(f"--key {signer.path}: no such file")
    elif PASSWORD not in os.environ:
        raise UsageError(
            f"--key {signer.path}: its password is not known",
            hint=f"set {PASSWORD} in the environment, to nothing if it has none",
        )
    return found


def sign(cosign: Cosign, reference: str, signer: Signer) -> None:
    """Sign `repository@digest`. Raises RemoteUnavailableError when cosign fails."""
    with _place(reference) as place:
        _run(cosign, ["sign", *_signing(cosign, signer, place), reference], place)


def attest(
    cosign: Cosign, reference: str, predicate: Mapping[str, Any], kind: str, signer: Signer
) -> None:
    """Sign a statement about `repository@digest`; `kind` is the predicate's type, a URI."""
    with _place(reference) as place:
        file = place / "predicate.json"
        file.write_text(json.dumps(predicate), encoding="utf-8")
        words = ["attest", *_signing(cosign, signer, place), f"--predicate={file}"]
        _run(cosign, [*words, f"--type={kind}", reference], place)


def public_key(cosign: Cosign, key: Key, folder: Path) -> Key:
    """The public half of a private key, in a file of the folder."""
    with _place("") as place:
        told = _run(cosign, ["public-key", f"--key={key.path}"], place)
    file = folder / "cosign.pub"
    file.write_text(told, encoding="utf-8")
    return Key(file)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why cosign did not verify, in its own words."""

    why: str


def verify(cosign: Cosign, reference: str, signer: Signer) -> Refusal | None:
    """None: somebody with this key or identity signed `repository@digest`.

    Raises RemoteUnavailableError when the registry does not answer.
    """
    with _place(reference) as place:
        told = _ask(cosign, ["verify", *_verifying(cosign, signer, place), reference], place)
    return _refusal(told) if told.returncode else None


def attested(
    cosign: Cosign, reference: str, kind: str, signer: Signer
) -> list[dict[str, Any]] | Refusal:
    """The predicates of this type that the signer attested of `repository@digest`.

    Raises RemoteUnavailableError when the registry does not answer.
    """
    with _place(reference) as place:
        words = ["verify-attestation", *_verifying(cosign, signer, place), f"--type={kind}"]
        told = _ask(cosign, [*words, reference], place)
    if told.returncode:
        return _refusal(told)
    statements = [_statement(line) for line in told.stdout.splitlines() if line.strip()]
    return [
        one["predicate"]
        for one in statements
        if one.get("predicateType") == kind and isinstance(one.get("predicate"), dict)
    ]


def require_public(key: Key) -> None:
    """Raises UsageError when the file is no public key in PEM, such as a private one."""
    try:
        text = key.path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--key {key.path}: cannot be read", why=str(error)) from error
    if "-----BEGIN PUBLIC KEY-----" not in text:
        hint = "`cosign public-key --key cosign.key` prints the public half"
        raise UsageError(f"--key {key.path}: is no public key", hint=hint)


def _refusal(told: "subprocess.CompletedProcess[str]") -> Refusal:
    """What cosign did not find; whatever else it says, it could not look."""
    why = _reason(told)
    if why.startswith(("no matching", "no signatures", "none of the attestations")):
        return Refusal(why)
    raise RemoteUnavailableError("cosign could not look at the signatures", why=why)


def _statement(line: str) -> dict[str, Any]:
    """What was signed; {} for what is no statement."""
    try:
        payload = outside_json.read_object(line.encode()).get("payload")
        return outside_json.read_object(base64.b64decode(str(payload)))
    except ValueError:
        return {}


def _signing(cosign: Cosign, signer: Signer, place: Path) -> list[str]:
    if isinstance(signer, Keyless):
        return ["--yes"]
    words = ["--yes", f"--key={signer.path}"]
    return words + (_offline(place) if cosign.bundles else ["--tlog-upload=false"])


def _verifying(cosign: Cosign, signer: Signer, place: Path) -> list[str]:
    if isinstance(signer, Keyless):
        return [
            f"--certificate-identity={signer.identity}",
            f"--certificate-oidc-issuer={signer.issuer}",
        ]
    words = [f"--key={signer.path}", "--insecure-ignore-tlog=true"]
    return words + (_offline(place)[1:] if cosign.bundles else [])


def _offline(place: Path) -> list[str]:
    files = {"signing-config": _SIGNING, "trusted-root": _TRUSTED}
    for name, content in files.items():
        (place / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return [f"--{name}={place / f'{name}.json'}" for name in files]


@contextlib.contextmanager
def _place(reference: str) -> Iterator[Path]:
    """A folder for cosign's files, and for the environment's login, where it is for that registry.

    cosign reads Docker's own store by itself; a login must never be on its command line.
    """
    with tempfile.TemporaryDirectory(prefix="turboquant-builder-") as folder:
        place = Path(folder)
        if reference:
            host = registry.image(reference).host
            login = registry_login.from_environment(host)
            if login is not None:
                word = base64.b64encode(f"{login.user}:{login.password}".encode()).decode()
                config = place / "config.json"
                config.touch(mode=0o600)
                config.write_text(json.dumps({"auths": {host: {"auth": word}}}), encoding="utf-8")
        yield place


def _run(cosign: Cosign, words: list[str], place: Path) -> str:
    told = _ask(cosign, words, place)
    if not told.returncode:
        return told.stdout
    why = _reason(told)
    if "decrypt" in why:
        raise UsageError(f"the password in {PASSWORD} is not the key's", why=why)
    raise RemoteUnavailableError(f"cosign {words[0]} failed", why=why)


def _ask(cosign: Cosign, words: list[str], place: Path) -> "subprocess.CompletedProcess[str]":
    own = {"DOCKER_CONFIG": str(place)} if (place / "config.json").exists() else {}
    try:
        return subprocess.run(
            [cosign.program, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_TIMEOUT_S,
            env=os.environ | own,
        )
    except subprocess.TimeoutExpired as error:
        raise RemoteUnavailableError(f"cosign {words[0]} did not end in {_TIMEOUT_S} s") from error


def _reason(told: "subprocess.CompletedProcess[str]") -> str:
    """cosign's error, without its warnings and its repetition of itself."""
    lines = [line for line in told.stderr.splitlines() if line.startswith("Error: ")]
    return (lines[0] if lines else told.stderr.strip()[-300:]).removeprefix("Error: ")
