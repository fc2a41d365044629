"""The header of a GGUF, whole or bent, and what is handed in for one by mistake."""

import os
import random
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

from builder.common.errors import UsageError
from builder.llama.gguf import file as gguf_file
from builder.llama.gguf import fit
from builder.llama.gguf.fit import GIB, Request
from builder.model.pins import Pins
from tests.conftest import builder

TEXT, LIST, U32, I32 = 8, 9, 4, 5
EXTREMES = (0, 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1)


def text(content: str) -> bytes:
    return struct.pack("<Q", len(content)) + content.encode()


def one_key(value: bytes) -> bytes:
    """A header with one key `x` of this type and value, no tensor, and room behind."""
    return struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + text("x") + value + bytes(128)


def small(path: Path, *, layers: int = 4, width: int = 512) -> Path:
    """The header of a llama of so many layers."""
    writer = gguf.GGUFWriter(path, arch="llama")
    writer.add_block_count(layers)
    writer.add_context_length(4096)
    writer.add_embedding_length(512)
    writer.add_head_count(8)
    writer.add_head_count_kv([2] * 4)
    writer.add_token_list(["a", "b"])
    for name in ("token_embd.weight", "blk.0.attn_q.weight"):
        sizes = (100, width if name.startswith("token") else 512)
        writer.add_tensor_info(name, sizes, np.dtype(np.float16), int(np.prod(sizes)) * 2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    return path


def why(path: Path, content: bytes) -> str:
    """Why this content is refused, with what to do."""
    path.write_bytes(content)
    with pytest.raises(UsageError) as error:
        gguf_file.read(path)
    return f"{error.value.why} {error.value.hint}"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"<!doctype html>\n<html><head><title>Log in</title>", "it is a web page (HTML)"),
        (b"\n  <html><body>404</body></html>", "it is a web page (HTML)"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\n", "git lfs pull"),
        (b'{"error": "Repository not found"}', "it is JSON"),
        (b"PK\x03\x04" + bytes(60), "it is a PyTorch file"),
        (b'\x98\x0a\0\0\0\0\0\0{"__metadata__":{"format":"pt"}}', "it is a safetensors file"),
        (b"tjgg" + bytes(60), "from before GGUF"),
        (bytes(4096), "it begins with zeros"),
        (b"", "it is empty"),
        (b"GG", "it begins with b'GG', a GGUF with b'GGUF'"),
        (b"GGUF\x03", "it is cut short"),
        (b"GGUF\x03\0\0\0" + bytes(7), "it is cut short"),
        (b"GGUF" + struct.pack(">IQQ", 3, 1, 4), "big-endian"),
        (b"FUGG" + struct.pack(">IQQ", 3, 1, 4), "big-endian"),
        (struct.pack("<4sIQQ", b"GGUF", 4, 0, 0), "GGUF version 4; 2 and 3 are known here"),
        (struct.pack("<4sIQQ", b"GGUF", 1, 0, 0), "GGUF version 1; 2 and 3 are known here"),
    ],
)
def test_what_is_no_model_is_named_as_what_it_is(tmp_path: Path, content: bytes, named: str):
    assert named in why(tmp_path / "model.gguf", content)


@pytest.mark.parametrize("length", [2**26 + 1, 2**40, 2**63, 2**64 - 1])
@pytest.mark.parametrize(
    "value",
    [
        struct.pack("<I", TEXT),
        struct.pack("<II", LIST, TEXT),
        struct.pack("<II", LIST, I32),
    ],
    ids=["text", "list of texts", "list of numbers"],
)
def test_an_impossible_length_is_refused(tmp_path: Path, value: bytes, length: int):
    assert "length of" in why(tmp_path / "x.gguf", one_key(value + struct.pack("<Q", length)))


def test_a_text_in_a_list_that_is_longer_than_the_file_is_refused(tmp_path: Path):
    value = struct.pack("<IIQQ", LIST, TEXT, 2, 2**64 - 1)
    assert "cut short" in why(tmp_path / "x.gguf", one_key(value))


def test_a_list_of_lists_is_refused(tmp_path: Path):
    value = struct.pack("<IIQIQ", LIST, LIST, 1, I32, 1)
    assert "a value of type 9" in why(tmp_path / "x.gguf", one_key(value))


def test_a_key_that_is_given_twice_is_refused(tmp_path: Path):
    pair = text("x") + struct.pack("<II", U32, 1)
    content = struct.pack("<4sIQQ", b"GGUF", 3, 0, 2) + pair + pair
    assert "gives 'x' twice" in why(tmp_path / "x.gguf", content)


@pytest.mark.parametrize("count", [2**32, 2**63, 2**64 - 1])
def test_more_keys_or_tensors_than_the_file_has_room_for_are_refused(tmp_path: Path, count: int):
    path = tmp_path / "x.gguf"
    for counts in ((count, 0), (0, count)):
        content = struct.pack("<4sIQQ", b"GGUF", 3, *counts) + bytes(4096)
        assert "twice" in why(path, content)


def one_tensor(sizes: tuple[int, ...], offset: int = 0) -> bytes:
    """A header of one f32 tensor."""
    start = struct.pack("<4sIQQ", b"GGUF", 3, 1, 0) + text("t")
    return start + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, 0, offset)


@pytest.mark.parametrize("sizes", [(2**63,), (2**40, 2**40), (2**64 - 1, 0), (1,) * 5])
def test_an_impossible_tensor_is_refused(tmp_path: Path, sizes: tuple[int, ...]):
    assert why(tmp_path / "x.gguf", one_tensor(sizes))


def test_a_tensor_of_too_many_bytes_for_its_values_is_refused(tmp_path: Path):
    path = small(tmp_path / "x.gguf")
    end = struct.pack("<Q", 100 * 512 * 2)
    assert "51200 values in" in why(path, path.read_bytes().replace(end, struct.pack("<Q", 2**40)))


def test_a_dimension_of_zero_is_valid(tmp_path: Path):
    tensors = gguf_file.read(small(tmp_path / "x.gguf", width=0)).tensors
    assert {each.name: each.size_bytes for each in tensors}["token_embd.weight"] <= 32


def test_a_tensor_of_no_values_tells_nothing_of_the_last_one(tmp_path: Path):
    path = tmp_path / "x.gguf"
    start = struct.pack("<4sIQQ", b"GGUF", 3, 2, 0)
    empty = text("empty") + struct.pack("<IQIQ", 1, 0, 0, 0)
    last = text("last") + struct.pack("<IQIQ", 1, 8, 0, 0)
    path.write_bytes(start + empty + last)
    assert [each.size_bytes for each in gguf_file.read(path).tensors] == [0, 32]


def test_a_pipe_is_no_model(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(UsageError) as error:
        gguf_file.read(tmp_path / "pipe.gguf")
    assert "no regular file" in error.value.why


@pytest.mark.parametrize("name", ["m-00000-of-00000.gguf", "m-00003-of-00002.gguf"])
def test_a_number_that_no_file_of_several_has_is_just_a_name(tmp_path: Path, name: str):
    assert gguf_file.read(small(tmp_path / name)).tensors


def test_of_many_missing_files_a_few_are_named(tmp_path: Path):
    with pytest.raises(UsageError) as error:
        gguf_file.read(small(tmp_path / "m-00001-of-00999.gguf"))
    assert error.value.why.endswith("m-00006-of-00999.gguf and 993 more")


@pytest.mark.parametrize("layers", [0, 513, 50_000_000])
def test_a_number_of_layers_that_llama_cpp_does_not_take_ends_in_exit_2(
    tmp_path: Path, layers: int
):
    result = builder("fit", "--model", small(tmp_path / "x.gguf", layers=layers))
    assert result.returncode == 2
    assert f"block_count is {layers}, and llama.cpp takes 1 to 512" in result.stderr


def test_two_thousand_bent_headers_are_weighed_or_refused(tmp_path: Path, real_pins: Pins):
    whole = small(tmp_path / "whole.gguf").read_bytes()
    path, chance, weighed = tmp_path / "bent.gguf", random.Random(13), 0  # noqa: S311
    for _ in range(2000):
        path.write_bytes(bent(whole, chance))
        try:
            fit.fit(Request(path, vram=24 * GIB), real_pins, "mainline-cpu")
            weighed += 1
        except UsageError:
            pass
    assert 100 < weighed < 1900


def test_smoke_says_what_a_model_is_before_it_starts_anything(tmp_path: Path):
    page = tmp_path / "page.gguf"
    page.write_bytes(b"<html><body>Log in</body></html>")
    result = builder("smoke", "--binary", "/bin/false", "--model", page)
    assert result.returncode == 2
    assert "it is a web page (HTML)" in result.stderr


def bent(content: bytes, chance: random.Random) -> bytes:
    """The same with a few bytes changed, numbers put in, cut, or some of it twice."""
    found = bytearray(content)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(found))
        match chance.randrange(4):
            case 0:
                found[at] = chance.randrange(256)
            case 1:
                size = chance.choice((4, 8))
                number = chance.choice(EXTREMES) % 2 ** (8 * size)
                found[at : at + size] = number.to_bytes(size, "little")
            case 2:
                del found[at:]
                found += bytes(8)
            case _:
                found[at:at] = found[at : at + chance.randrange(40)]
    return bytes(found)
