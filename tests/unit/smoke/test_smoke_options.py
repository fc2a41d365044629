"""Words of the smoke's command line as values."""

import pytest

from builder.common.errors import UsageError
from builder.model.pins import Kv
from builder.smoke import options as smoke_options
from builder.smoke.options import parse_env, parse_kv, parse_require
from tests.conftest import builder


def test_one_type_is_for_both_halves():
    assert parse_kv("turbo4") == Kv("turbo4", "turbo4")


def test_two_types_are_k_and_v():
    assert parse_kv("q8_0:turbo4") == Kv("q8_0", "turbo4")


@pytest.mark.parametrize("text", ["", ":", "q8_0:", ":q8_0", "a:b:c"])
def test_anything_else_is_no_type(text):
    with pytest.raises(UsageError, match="is no type"):
        parse_kv(text)


def test_a_value_may_hold_an_equals_sign():
    assert parse_env(["A=1", "B=x=y", "C="]) == {"A": "1", "B": "x=y", "C": ""}


@pytest.mark.parametrize("word", ["A", "=1", ""])
def test_a_word_without_a_name_or_value_is_refused(word):
    with pytest.raises(UsageError, match="NAME=VALUE"):
        parse_env([word])


def test_what_a_smoke_can_prove_may_be_required():
    assert parse_require(["kv", "contract", "kv"]) == {"kv", "contract"}


def test_an_audit_is_not_proven_by_a_smoke():
    with pytest.raises(UsageError, match="proves no such thing"):
        parse_require(["audit"])


@pytest.mark.parametrize("words", [[], ["image", "--url", "http://127.0.0.1:1"]])
def test_one_target_is_wanted(words):
    result = builder("smoke", *words)
    assert result.returncode == 2
    assert "name one target" in result.stderr


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8080", "localhost:8080", "ftp://x", "http://", "http://h:port", "nonsense"]
)
def test_an_address_without_a_scheme_or_host_is_refused_at_once(url):
    result = builder("smoke", "--url", url)
    assert result.returncode == 2
    assert f"--url {url!r} is no address" in result.stderr
    assert "--url http://" in result.stderr


def test_no_report_shows_the_api_key():
    assert "sesame" not in repr(smoke_options.Options(api_key="sesame"))
