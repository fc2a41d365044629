"""Profiles as arguments of llama-server."""

from builder.llama.flags import DRAFT, KEYS_FLAGS, known_flags, lacking, not_available, server_args
from builder.model.pins import Kv, Profile

PROFILE = Profile("local", parallel=3, slot_tokens=1000)

# From `llama-server --help` at spiritbuun 1c4788192.
HELP = """\
-fa,   --flash-attn [on|off|auto]       set Flash Attention use ('on', 'off', or 'auto')
                                        (env: LLAMA_ARG_FLASH_ATTN)
-ctk,  --cache-type-k TYPE              KV cache data type for K
                                        allowed values: f32, f16, turbo4
-fit,  --fit [on|off]                   whether to adjust unset arguments to fit in device memory
--jinja, --no-jinja                     whether to use jinja template engine for chat
-rea,  --reasoning [on|off|auto]        Use reasoning/thinking in the chat, see --reasoning-format
--chat-template-kwargs STRING           sets additional params for the json template parser
"""

ALL = known_flags(HELP)


def value(arguments: list[str], flag: str) -> str:
    return arguments[arguments.index(flag) + 1]


def test_the_context_is_that_of_all_slots():
    arguments = server_args(PROFILE, Kv("f16", "f16"), ALL)
    assert (value(arguments, "-c"), value(arguments, "-np")) == ("3000", "3")


def test_both_halves_of_the_cache_are_named():
    arguments = server_args(PROFILE, Kv("q8_0", "turbo4"), ALL)
    assert (value(arguments, "-ctk"), value(arguments, "-ctv")) == ("q8_0", "turbo4")


def test_thinking_is_said_in_both_ways():
    off = server_args(PROFILE, Kv("f16", "f16"), ALL)
    on = server_args(Profile("local", 3, 1000, thinking=True), Kv("f16", "f16"), ALL)
    assert value(off, "--reasoning") == "off"
    assert value(off, "--chat-template-kwargs") == '{"enable_thinking": false}'
    assert value(on, "--reasoning") == "on"
    assert value(on, "--chat-template-kwargs") == '{"enable_thinking": true}'


def test_every_spelling_of_a_flag_is_known():
    assert {"-fa", "--flash-attn", "--fit", "-fit", "--no-jinja", "--reasoning"} <= ALL


def test_what_a_description_mentions_is_no_flag_unless_it_begins_the_line():
    assert "env" not in ALL
    assert known_flags("error while loading shared libraries: --x") == frozenset()


def test_a_flag_that_the_commit_lacks_is_left_out_and_told():
    old = ALL - {"--reasoning", "--fit"}
    arguments = server_args(PROFILE, Kv("f16", "f16"), old)
    assert "--reasoning" not in arguments
    assert "--fit" not in arguments
    assert "off" not in arguments
    assert not_available(old) == ["--fit", "--reasoning"]


def test_without_a_help_text_everything_is_passed():
    assert server_args(PROFILE, Kv("f16", "f16"), frozenset()) == server_args(
        PROFILE, Kv("f16", "f16"), ALL
    )
    assert not_available(frozenset()) == []


def test_what_a_profile_leaves_out_is_left_to_the_server():
    arguments = server_args(PROFILE, Kv("f16", "f16"), frozenset())
    said = {flag for flags in KEYS_FLAGS.values() for flag in flags} & set(arguments)
    assert said == {
        *("--alias", "-c", "-np", "-ctk", "-ctv", "--reasoning", "--chat-template-kwargs")
    }


CHOSEN = Profile(
    "local",
    parallel=2,
    slot_tokens=1024,
    kv_unified=True,
    slot_prompt_similarity=0.5,
    cache_ram=-1,
    cache_idle_slots=False,
    draft="small.gguf",
    flags=["--top-k", "-1", "-ncmoe", "4"],
)


def test_keys_of_a_profile_become_flags_and_its_own_words_come_last():
    arguments = server_args(CHOSEN, Kv("f16", "f16"), frozenset())
    assert arguments[arguments.index("--kv-unified") :] == [
        *("--kv-unified", "--slot-prompt-similarity", "0.5", "--cache-ram", "-1"),
        *("--no-cache-idle-slots", "--model-draft", DRAFT, "--top-k", "-1", "-ncmoe", "4"),
    ]


def test_what_the_profile_asks_for_and_the_commit_lacks_is_told_by_its_key():
    assert lacking(CHOSEN, ALL | {"--kv-unified", "--top-k", "--model-draft"}) == [
        ("slot_prompt_similarity", "--slot-prompt-similarity"),
        ("cache_ram", "--cache-ram"),
        ("cache_idle_slots", "--no-cache-idle-slots"),
        ("flags", "-ncmoe"),
    ]


def test_a_commit_that_cannot_be_told_to_think_or_not_is_told():
    assert lacking(PROFILE, ALL) == []
    neither = ALL - {"--reasoning", "--chat-template-kwargs"}
    assert lacking(PROFILE, neither) == [("thinking", "--reasoning")]
    assert lacking(PROFILE, neither | {"--chat-template-kwargs"}) == []


def test_an_embedder_is_asked_for_texts_as_long_as_a_slot_and_for_no_thoughts():
    embedder = Profile("embed", parallel=2, slot_tokens=512, embeddings=True, gpu="none")
    arguments = server_args(embedder, Kv("f16", "f16"), frozenset())
    assert "--embeddings" in arguments
    assert (value(arguments, "-ub"), value(arguments, "-b")) == ("512", "512")
    assert value(arguments, "-ngl") == "0"
    assert not {"--reasoning", "--chat-template-kwargs", "--jinja"} & set(arguments)


def test_every_layer_of_a_deep_model_goes_to_the_gpu() -> None:
    # llama.cpp takes models of up to 512 layers; the output is one more.
    assert int(value(server_args(PROFILE, Kv("f16", "f16"), ALL), "-ngl")) > 512
