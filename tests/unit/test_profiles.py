"""Profiles as commands of a container, and what an image's --help says against them."""

import pytest

from builder import profiles
from builder.errors import UsageError
from builder.model import Kv, Pins, Profile, Variant

F16 = Kv("f16", "f16")
PROFILE = Profile("local", parallel=2, slot_tokens=1024, thinking=False)
VARIANT = Variant("f", "b", "x86-64-v2", smoke_kv="turbo4")

HELP = """\
-ctk,  --cache-type-k TYPE              KV cache data type for K
                                        allowed values: f32, f16, q8_0
                                        (default: f16)
-ctv,  --cache-type-v TYPE              KV cache data type for V
                                        allowed values: f32, f16, q4_0
                                        (default: f16)
--reasoning [on|off|auto]               Use reasoning
--n-cpu-moe N                           keep experts on the CPU
"""


def refusal(profile: Profile, kv: Kv = F16) -> UsageError:
    with pytest.raises(UsageError) as caught:
        profiles.require_known("x", profile, kv, HELP, "some:image")
    return caught.value


def test_types_come_from_the_profile_then_from_what_it_is_for_then_from_the_variant():
    named = Profile("a", 1, 512, kv=Kv("q8_0", "q4_0"))
    assert profiles.kv_of(named, VARIANT) == Kv("q8_0", "q4_0")
    assert profiles.kv_of(Profile("a", 1, 512, embeddings=True), VARIANT) == Kv("f16", "f16")
    assert profiles.kv_of(PROFILE, VARIANT) == Kv("turbo4", "turbo4")
    with pytest.raises(UsageError, match="no KV type to ask for"):
        profiles.kv_of(PROFILE, None)


def test_a_command_has_the_model_first_and_keys_only_as_a_file():
    command = profiles.command(PROFILE, Kv("f16", "f16"), frozenset(), key=True)
    assert command[:2] == ["-m", "/models/model.gguf"]
    assert command[-2:] == ["--api-key-file", profiles.KEY]
    assert "--api-key-file" not in profiles.command(PROFILE, Kv("f16", "f16"), frozenset())


def test_a_flag_of_another_commit_is_named_with_its_place_and_the_nearest_one():
    error = refusal(Profile("a", 1, 512, flags=["--n-cpu-moes", "4"]))
    assert error.what == "some:image cannot serve profile x as it is written"
    assert error.why == (
        "profiles.x.flags: --n-cpu-moes is no flag of this commit; did you mean '--n-cpu-moe'?"
    )
    assert "image of a commit that has it" in error.hint


def test_a_type_of_another_commit_is_named_for_its_half():
    assert refusal(PROFILE, Kv("q8_0", "q8_0")).why == (
        "profiles.x.kv: V as q8_0: this commit offers f32, f16, q4_0"
    )


def test_a_text_that_is_no_help_refuses_nothing():
    profiles.require_known("x", PROFILE, Kv("q8_0", "q8_0"), "no such file", "some:image")


def test_the_shipped_profiles_are_a_tier_each_and_one_beside(real_pins: Pins):
    held = {name: one.alias for name, one in real_pins.profiles.items() if one.gpu == "holds"}
    assert held == {"haiku": "local-haiku", "sonnet": "local-sonnet", "coder": "local-coder"}
    assert real_pins.profiles["embed"].embeddings
