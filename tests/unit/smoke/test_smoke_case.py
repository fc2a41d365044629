"""What a smoke asks for: options, profile and variant taken together, the nearest word first."""

from dataclasses import replace

import pytest

from builder.common.errors import UsageError
from builder.model.pins import Kv, Pins, Profile
from builder.smoke.options import Options
from builder.smoke.run import _Case, _case, _key_in, _profile, _require_kv

Q4, Q8 = Kv("q4_0", "q4_0"), Kv("q8_0", "q8_0")


def case(pins: Pins, options: Options) -> _Case:
    return _case(
        "image",
        pins,
        options,
        variant="mainline-cpu",
        commit=None,
        without_gpu=lambda _profile: "no GPU",
    )


def profiled(pins: Pins, profile: Profile) -> Pins:
    return replace(pins, profiles={"mine": profile})


def test_the_kv_type_is_the_options_else_the_profiles_else_the_variants(real_pins: Pins) -> None:
    pins = profiled(real_pins, Profile("a", 2, 1024, kv=Q4))
    assert case(pins, Options(profile="mine", kv=Q8)).kv == Q8
    assert case(pins, Options(profile="mine")).kv == Q4
    smoke_kv = real_pins.variants["mainline-cpu"].smoke_kv
    assert case(pins, Options()).kv == Kv(smoke_kv, smoke_kv)


def test_without_a_variant_the_kv_type_has_to_be_named(real_pins: Pins) -> None:
    with pytest.raises(UsageError, match="no KV type to ask for"):
        _case(
            "image", real_pins, Options(), variant=None, commit=None, without_gpu=lambda _: "none"
        )


@pytest.mark.parametrize(
    ("profile", "why"),
    [
        (Profile("a", 2, 1024, embeddings=True), "serves embeddings"),
        (Profile("a", 2, 1024, draft="small.gguf"), "drafts with a second model"),
    ],
)
def test_a_profile_that_no_smoke_can_serve_is_refused(
    real_pins: Pins, profile: Profile, why: str
) -> None:
    with pytest.raises(UsageError, match=why):
        _profile(profiled(real_pins, profile), "mine")


def test_the_api_key_is_the_first_of_those_that_servers_are_started_with() -> None:
    assert _key_in({"LLAMA_API_KEY": "one,two"}) == "one"
    assert _key_in({}) is None


HELP = """-ctk,  --cache-type-k TYPE              KV cache data type for K
                                        allowed values: f16, q8_0, q4_0
                                        (default: f16)
-ctv,  --cache-type-v TYPE              KV cache data type for V
                                        allowed values: f16, q8_0, turbo4
                                        (default: f16)
"""


@pytest.mark.parametrize(
    ("kv", "type_", "lists"),
    [
        (Kv("turbo9", "turbo9"), "turbo9", "f16, q8_0, q4_0"),
        (Kv("turbo4", "turbo4"), "turbo4", "f16, q8_0, q4_0"),
        (Kv("q4_0", "q4_0"), "q4_0", "f16, q8_0, turbo4"),
    ],
)
def test_a_kv_type_that_the_server_does_not_list_is_a_usage_error(
    kv: Kv, type_: str, lists: str
) -> None:
    with pytest.raises(UsageError, match=f"the-image knows no KV type {type_}") as error:
        _require_kv(kv, HELP, "the-image")
    assert error.value.why == f"its --help lists {lists}"


def test_one_that_is_listed_or_a_help_that_lists_none_is_asked() -> None:
    _require_kv(Kv("q4_0", "turbo4"), HELP, "the-image")
    _require_kv(Kv("turbo9", "turbo9"), "usage: llama-server", "the-image")
