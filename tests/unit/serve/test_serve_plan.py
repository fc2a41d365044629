"""Who may reach a served profile, and with which key."""

from pathlib import Path

import pytest

from builder.common.errors import UsageError
from builder.serve import plan as serve_plan
from builder.serve.containers import Spec

SPEC = Spec("a", "i", "sha256:0", "/m", (1, 2), "127.0.0.1", 8080, "holds", (), {})


def key_file(folder: Path, text: str, mode: int = 0o600) -> Path:
    file = folder / "key"
    file.write_text(text, encoding="utf-8")
    file.chmod(mode)
    return file


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1"])
def test_loopback_needs_no_key(host: str):
    assert serve_plan._check_access(host, None) == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])  # noqa: S104
def test_every_other_address_does(host: str, tmp_path: Path):
    with pytest.raises(UsageError, match="there is no API key"):
        serve_plan._check_access(host, None)
    assert serve_plan._check_access(host, key_file(tmp_path, "k\n")) == []


def test_a_name_is_no_address():
    with pytest.raises(UsageError, match="'localhost' is no address"):
        serve_plan._check_access("localhost", None)


def test_a_file_that_others_read_is_warned_of(tmp_path: Path):
    (told,) = serve_plan._check_access("0.0.0.0", key_file(tmp_path, "k\n", 0o644))  # noqa: S104
    assert "may be read by other users" in told


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:8080"),  # noqa: S104
        ("192.0.2.1", "http://192.0.2.1:8080"),
        ("::1", "http://[::1]:8080"),
    ],
)
def test_its_address_is_the_one_that_this_machine_reaches_it_at(host: str, url: str):
    import dataclasses

    assert dataclasses.replace(SPEC, host=host).url == url
