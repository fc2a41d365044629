"""Profiles as commands of a container, and what an image's --help says against them."""

from dataclasses import replace

import pytest

from builder.common.errors import UsageError
from builder.llama import profiles
from builder.model.pins import Kv, Pins, Profile, Variant

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
    command = profiles.command(PROFILE, F16, "", key=True)
    assert command[:2] == ["-m", "/models/model.gguf"]
    assert command[-2:] == ["--api-key-file", profiles.KEY]
    assert "--api-key-file" not in profiles.command(PROFILE, F16, "")


# The levels of spiritbuun 1c4788192 and TheTom 69d8e4be4, and of mainline 0c1e57098.
DEBUG_AT_4 = """\
-lv,   --verbosity, --log-verbosity N   Set the verbosity threshold. Messages with a higher
                                        verbosity will be ignored. Values:
                                         - 0: generic output
                                         - 1: error
                                         - 2: warning
                                         - 3: info
                                         - 4: debug
                                        (default: 3)
--log-prefix                            Enable prefix in log messages
"""
DEBUG_AT_5 = DEBUG_AT_4.replace("4: debug", "4: trace (more info)\n                 - 5: debug")
INFO_AT_1 = DEBUG_AT_4.replace("3: info", "3: debug").replace("1: error", "1: info")
# llama.cpp of 2025: 1 is debug, and nothing says so.
NO_NAMES = """\
-lv,   --verbosity, --log-verbosity N   Set the verbosity threshold. Messages with a higher
                                        verbosity will be ignored.
--other                                  - 7: info
"""


@pytest.mark.parametrize(
    ("help_text", "level"),
    [(DEBUG_AT_4, "3"), (DEBUG_AT_5, "3"), (INFO_AT_1, "1"), (NO_NAMES, None), ("", None)],
)
def test_a_server_logs_down_to_what_its_commit_calls_info(help_text: str, level: str | None):
    command = profiles.command(PROFILE, F16, help_text)
    found = command[command.index("-lv") + 1] if "-lv" in command else None
    assert found == level


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["-v"], "-v"),
        (["--top-k", "1", "--verbose"], "--verbose"),
        (["-lv", "4"], "-lv 4"),
        (["--verbosity", "4"], "--verbosity 4"),
        (["--log-prompts-dir", "/tmp"], "--log-prompts-dir"),
        (["-lv", "3"], None),
        (["--top-k", "5"], None),
    ],
)
def test_a_profile_that_has_prompts_logged_is_warned_of(flags: list[str], said: str | None):
    profile = replace(PROFILE, flags=flags)
    told = f"{said} in the profile's flags writes prompts and answers to the log"
    assert profiles.cautions(profile, DEBUG_AT_4, key=True) == ([told] if said else [])


def test_which_level_has_prompts_is_the_commits_own_matter():
    profile = replace(PROFILE, flags=["-lv", "4"])
    assert profiles.cautions(profile, DEBUG_AT_5, key=True) == []
    assert profiles.cautions(profile, NO_NAMES, key=True) != []


CORS = "--cors-origins ORIGINS                  comma-separated list of allowed origins for CORS\n"


def test_without_a_key_pages_of_other_origins_are_refused_where_the_commit_can():
    command = profiles.command(PROFILE, F16, CORS)
    assert command[2:4] == ["--cors-origins", "localhost"]
    assert "--cors-origins" not in profiles.command(PROFILE, F16, CORS, key=True)
    assert profiles.cautions(PROFILE, CORS, key=False) == []


def test_without_a_key_it_is_said_where_the_commit_cannot():
    assert "--cors-origins" not in profiles.command(PROFILE, F16, HELP)
    (caution,) = profiles.cautions(PROFILE, HELP, key=False)
    assert "every web page" in caution
    assert profiles.cautions(PROFILE, HELP, key=True) == []


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
