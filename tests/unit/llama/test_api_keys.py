"""Files of API keys: read as llama-server reads them, or refused."""

from pathlib import Path

import pytest

from builder.common.errors import UsageError
from builder.llama import api_keys


def file_of(folder: Path, content: bytes) -> Path:
    file = folder / "keys"
    file.write_bytes(content)
    return file


def getline(content: bytes) -> list[bytes]:
    """The keys that llama-server has of it: std::getline, as in common/arg.cpp."""
    lines = content.split(b"\n")
    return [line for line in lines if line and not line.startswith(b"#")]


@pytest.mark.parametrize(
    "content",
    [
        b"sesame\nanother\n",
        b"\n\nsesame",
        b"# keys of the team\n\nsesame\ndef",
        b"#\nwith = signs, and a space\n",
    ],
)
def test_keys_are_those_that_llama_server_has(content: bytes, tmp_path: Path) -> None:
    found = api_keys.read(file_of(tmp_path, content))
    assert [key.encode() for key in found] == getline(content)


SEPARATORS = ["\r", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]
"""What Python takes for the end of a line, and std::getline does not."""


@pytest.mark.parametrize("end", SEPARATORS)
@pytest.mark.parametrize("text", ["# a{}s3cret{}", "s3cret{}another{}", "# a\ns3cret{}\n"])
def test_what_another_reading_would_take_for_a_line_end_is_refused(
    text: str, end: str, tmp_path: Path
) -> None:
    file = file_of(tmp_path, text.replace("{}", end).encode())
    with pytest.raises(UsageError, match=r"line \d has ") as caught:
        api_keys.read(file)
    assert "s3cret" not in str(caught.value.what + caught.value.why + caught.value.hint)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "has no key"),
        (b"\n\n# only a remark\n", "has no key"),
        (b"sesame\r\n", "line 1 has carriage returns"),
        (b"\xef\xbb\xbf# a BOM\nsesame\n", "line 1 has the byte 0xef"),
        ("schl\u00fcssel".encode(), "line 1 has the byte 0xc3"),
        ("schl\u00fcssel".encode("latin-1"), "line 1 has the byte 0xfc"),
        ("sesame".encode("utf-16"), "line 1 has the byte 0xff"),
        (b"a\nb\x00c", "line 2 has the byte 0x00"),
        (b"a\x07b", "line 1 has the byte 0x07"),
        (b"a\tb", "line 1 has the byte 0x09"),
        (b" sesame", "line 1 has a space at an end"),
        (b"sesame \n", "line 1 has a space at an end"),
        (b"\n \n", "line 2 has a space at an end"),
        (b"k" * (2**20 + 1), "more than 1048576 bytes"),
    ],
)
def test_a_key_that_no_client_can_send_is_refused(
    content: bytes, what: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=what):
        api_keys.read(file_of(tmp_path, content))


@pytest.mark.parametrize("path", ["nowhere", ".", "/dev/zero"])
def test_what_is_no_file_is_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        api_keys.read(tmp_path / path)


SKIPS = """\
--api-key-file FNAME                    path to file containing API keys, one per line; lines
                                        starting with a hash are treated as comments (default: none)
"""
TAKES = "--api-key-file FNAME                    path to file containing API keys (default: none)\n"


def test_a_remark_is_refused_where_the_commit_takes_it_for_a_key(tmp_path: Path) -> None:
    remarked = file_of(tmp_path, b"# of the team\nsesame\n")
    with pytest.raises(UsageError, match="takes them for keys"):
        api_keys.require_readable(remarked, TAKES, "an:image")
    api_keys.require_readable(remarked, SKIPS, "an:image")
    api_keys.require_readable(remarked, "", "an:image")
    api_keys.require_readable(file_of(tmp_path, b"sesame\n"), TAKES, "an:image")
