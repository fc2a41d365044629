"""What a commit lacks of what pins.toml names is found in its tree, and told in a few words."""

import time
from dataclasses import replace

import pytest

from builder.build import render
from builder.common import tree_files
from builder.pins import parts

VARIANT = "spiritbuun-cuda12-sm86"
OPTIONS = {"GGML_NEW": True, "GGML_OLD": "x", "CMAKE_CXX_STANDARD": "17"}


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "ggml" / "cmake").mkdir(parents=True)
    (tmp_path / "codebooks").mkdir()
    (tmp_path / "CMakeLists.txt").write_text("project(x)\n")
    (tmp_path / "ggml" / "cmake" / "options.cmake").write_text('option(GGML_OLD "ggml: old" ON)\n')
    return tmp_path


@pytest.fixture
def fork(real_pins):
    return replace(real_pins.forks["spiritbuun"], options=OPTIONS)


def test_an_option_that_no_file_of_cmakes_has_is_lacking(real_pins, fork, tree):
    variant = replace(real_pins.variants[VARIANT], options={"GGML_OTHER": True})
    found = parts.lacking(fork, variant, tree)
    assert found == ("options.GGML_NEW", "options.GGML_OTHER")


def test_a_file_in_the_place_of_a_folder_is_not_the_folder(real_pins, fork, tree):
    (tree / "codebooks").rmdir()
    (tree / "codebooks").write_text("")
    found = parts.lacking(replace(fork, options={}), real_pins.variants[VARIANT], tree)
    assert found == ("codebooks",)


def test_the_dockerfile_without_a_part_is_the_one_had_the_pins_never_named_it(real_pins):
    words = parts.words("codebooks,kv_types.turbo2_tcq,kv_types.turbo3_tcq")
    text = render.render(parts.without(real_pins, VARIANT, words), VARIANT).text
    assert "codebooks" in render.render(real_pins, VARIANT).text
    assert "codebooks" not in text
    assert '.kv-types="turbo4,turbo3,turbo2"' in text


def test_an_option_is_left_out_of_the_fork_and_the_variant(real_pins, fork):
    variant = replace(real_pins.variants[VARIANT], options={"GGML_NEW": False, "GGML_X": True})
    pins = replace(
        real_pins,
        forks=real_pins.forks | {"spiritbuun": fork},
        variants=real_pins.variants | {VARIANT: variant},
    )
    text = render.render(parts.without(pins, VARIANT, ("options.GGML_NEW",)), VARIANT).text
    assert ("-DGGML_NEW" in text, "-DGGML_OLD" in text, "-DGGML_X" in text) == (False, True, True)


@pytest.mark.parametrize("label", ["", "kv_types.q9", "nonsense,,options.NONE"])
def test_words_that_the_pins_do_not_know_change_nothing(real_pins, label):
    made = parts.without(real_pins, VARIANT, parts.words(label))
    assert render.render(made, VARIANT) == render.render(real_pins, VARIANT)


@pytest.mark.parametrize(
    ("table", "types"),
    [
        ('    .type_name = "turbo4",\n', {"turbo4"}),
        ('[GGML_TYPE_TURBO4] = { .type_name = "turbo4", .blck_size = 128 },\n', {"turbo4"}),
        ('{ .blck_size = 32, .type_name="q8_0" }, { .type_name = "turbo4" }', {"q8_0", "turbo4"}),
        ('// .type_name = "turbo4",\n.type_name = "q8_0",', {"q8_0"}),
        ('.type_name = "q8_0", // was .type_name = "turbo4"\n', {"q8_0"}),
        ('/* gone:\n    .type_name = "turbo4",\n*/ .type_name = "q8_0"', {"q8_0"}),
        ('#if 0\n  .type_name = "turbo4",\n#endif\n  .type_name = "q8_0",', {"q8_0"}),
        ('#if 0\n  .type_name = "a",\n#else\n  .type_name = "q8_0",\n#endif', {"q8_0"}),
        # No comment begins in a string.
        ('puts("http://x /*"); .type_name = "turbo4", puts("*/")', {"turbo4"}),
    ],
)
def test_a_type_counts_where_it_is_compiled(table, types):
    assert parts.kv_types(table) == types


@pytest.mark.parametrize(
    ("text", "there"),
    [
        ("# option(GGML_NEW)\n", False),
        ("#[[ option(GGML_NEW) ]]\n", False),
        ("#[==[\n ]] option(GGML_NEW)\n]==]\n", False),
        ("#[[ gone ]] option(GGML_NEW)\n", True),
        ('message("#") \noption(GGML_NEW "new")\n', True),
    ],
)
def test_an_option_in_a_comment_is_none(real_pins, fork, tree, text, there):
    (tree / "CMakeLists.txt").write_text(text)
    variant = replace(real_pins.variants[VARIANT], options={})
    found = parts.lacking(replace(fork, options={"GGML_NEW": True}), variant, tree)
    assert ("options.GGML_NEW" not in found) is there


@pytest.mark.parametrize("begun", ["#if 0\n", "/* \n", '"\n', "#if 0\n#endif\n", "# \t" * 3])
def test_what_is_begun_a_hundred_thousand_times_and_never_ended_is_read_at_once(begun):
    text = begun * (tree_files.LARGEST_TEXT // len(begun))
    started = time.monotonic()
    assert parts.kv_types(text) == frozenset()
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("begun", ["#[[\n", "#[=[ ]]\n", '"\n', '\\"', "#[" + "=" * 50])
def test_nor_does_a_cmake_file_take_long(tmp_path, begun):
    (tmp_path / "a.cmake").write_text(begun * (tree_files.LARGEST_TEXT // len(begun)))
    started = time.monotonic()
    parts._words_of_cmake(tmp_path)
    assert time.monotonic() - started < 20


def test_a_cmake_file_that_is_too_large_to_be_one_is_not_read(tmp_path):
    (tmp_path / "a.cmake").write_bytes(bytes(tree_files.LARGEST_TEXT + 1))
    with pytest.raises(tree_files.TreeError, match=r"^a\.cmake has more than"):
        parts._words_of_cmake(tmp_path)


def test_nor_are_many_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "_MOST_OF_CMAKE", 10)
    for name in ("a.cmake", "b.cmake"):
        (tmp_path / name).write_bytes(bytes(6))
    with pytest.raises(tree_files.TreeError, match="more than 10 characters"):
        parts._words_of_cmake(tmp_path)
