"""What is handed in for a model by mistake, told by how the file begins."""

import re
from dataclasses import dataclass

START = 512
"""So many bytes of the beginning tell."""

_AGAIN = "download the .gguf file again"
_CONVERT = "convert_hf_to_gguf.py of llama.cpp makes a GGUF of the model's folder"


@dataclass(frozen=True, slots=True)
class OtherFile:
    """What a file is that is no GGUF, and what its user can do."""

    what: str
    hint: str


_OTHER_ORDER = re.compile(rb"GGUF\x00\x00\x00[\x01-\x09]|FUGG")
"""A version that is a small number only with its bytes the other way round."""

_BEGINNINGS = (
    (
        rb"version https://git-lfs",
        OtherFile("it is a Git LFS pointer, which stands for the model's file", "git lfs pull"),
    ),
    (
        rb"(?i)\s*<(!doctype|html|head|\?xml)",
        OtherFile(
            "it is a web page (HTML): the download got a page in place of the file",
            f"read what the page says; log in if it asks for that, and {_AGAIN}",
        ),
    ),
    (
        rb"\s*[{\[]",
        OtherFile("it is JSON: a server's message or a configuration, and no model", _AGAIN),
    ),
    (rb"PK\x03\x04|\x80[\x02-\x05]", OtherFile("it is a PyTorch file", _CONVERT)),
    (rb".{6}\x00\x00\{\"", OtherFile("it is a safetensors file", _CONVERT)),
    (
        rb"lmgg|tjgg|fmgg|algg",
        OtherFile("its format is from before GGUF (2023)", "download the model as GGUF"),
    ),
    (
        rb"\x00{512}",
        OtherFile("it begins with zeros: a download that has not written its beginning", _AGAIN),
    ),
)


def known(start: bytes) -> OtherFile | None:
    """What a file is whose first START bytes these are; None for a GGUF, and for what is unknown.

    A GGUF with big-endian numbers counts as another file: llama.cpp reads its machine's own order.
    """
    if _OTHER_ORDER.match(start):
        return OtherFile(
            "it is a big-endian GGUF: it was made for another kind of machine",
            "gguf-convert-endian of PyPI's package gguf turns it round",
        )
    if start.startswith(b"GGUF"):
        return None
    fitting = (file for begin, file in _BEGINNINGS if re.match(begin, start, re.DOTALL))
    return next(fitting, None)
