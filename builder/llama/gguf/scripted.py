"""Two small language models that need no download, and say what a fixed script tells them to.

With thinking on they answer `<think>hm</think>`, an empty line and `OK`; with thinking off, `OK`.
A probe that asks for `OK` therefore has a negative control, and one that compares
log-probabilities sees the KV cache: attention is random, wide awake, and adds to every layer.

`scripted` has the shape that forks quantize. `scripted-swa` has one that they treat apart: a
sliding window (two caches of different lengths), heads of 256, and eight of them to a KV head.

The bytes are the same on every machine: weights are hash bytes taken as small integers, scaled by
powers of two so that f16 holds them exactly. No sum is rounded, so no BLAS, libm, or version of
numpy has a say in them.
"""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from builder.common.errors import BuilderError

if TYPE_CHECKING:
    import gguf
    import numpy as np
    from numpy.typing import NDArray

SHA256 = "99c6bdbdb1a4e309d9dc399345d5e5c472bbf5fe11334d1b532c18545df77787"
"""Of the whole file of `scripted`. It changes with the recipe, and with nothing else."""

SWA_SHA256 = "237f5c4bb46305d9378f46d808549fa9101fb2db1aaf1c456d28f2346be1315b"
"""The same of `scripted-swa`."""

REPLY = "OK"
"""What the models answer when they do not think."""

THOUGHT = "hm"
"""What they think first when thinking is on."""

LAYERS = 8
EMBEDDING = 256
FEED_FORWARD = 256
HEADS = 4
KV_HEADS = 2
HEAD_DIM = 128
CONTEXT = 131072
ROPE_BASE = 1_000_000.0

# Of six layers with this arch, llama.cpp makes the first five slide and the last one see all.
SWA_LAYERS = 6
SWA_HEADS = 8
SWA_KV_HEADS = 1
SWA_HEAD_DIM = 256
SWA_WINDOW = 512

IM_START, IM_END = "<|im_start|>", "<|im_end|>"
THINK, END_THINK = "<think>", "</think>"

# In byte-level BPE a newline is written Ċ. Two of them are one token, so that the end of
# "<think>\n\n</think>\n\n" (thinking is off) differs from that of "assistant\n" (it is on).
NEWLINE, NEWLINES = "Ċ", "ĊĊ"

SCRIPT = (
    (NEWLINE, THINK),
    (THINK, "h"),
    ("h", "m"),
    ("m", END_THINK),
    (END_THINK, NEWLINES),
    (NEWLINES, "O"),
    ("O", "K"),
    ("K", IM_END),
)
"""Which token follows which when the likeliest one is taken."""

# Treating the `reasoning_content` of earlier turns is what makes llama.cpp see a thinking template;
# without it the thoughts would arrive inside `content`. It has to write them as the model does: a
# newline after <think> here, and spiritbuun 1c4788192 no longer knows the model's own.
CHAT_TEMPLATE = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.role == 'assistant' and message.reasoning_content %}
        {{- '<think>' + message.reasoning_content + '</think>\\n\\n' }}
    {%- endif %}
    {{- (message.content or '') + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""

# Weights are odd integers in ±255 times two to one of these. Rows of EMBEDDING such values give
# queries and keys a spread near 1.2: softmax prefers some cells to others, so rounding in the cache
# shows in what the layers add.
PROJECTION_EXPONENT = -11
RESIDUAL_EXPONENT = -12
OUTPUT_EXPONENT = -10

BLOCK = 16
SCRIPT_DIMS = BLOCK * len(SCRIPT)
"""The first dimensions are the script's, a block for each token that has a follower. No layer
writes there, so the last token's embedding reaches the output as it was, and the script holds
whatever attention does to the rest."""

SCRIPT_INPUT = 4
SCRIPT_UNITS = 512
"""What a token's embedding has in its block, and its follower's output row in the same, the latter
in output units: together a logit of 32 before the norm, against some 5 of the random part."""

# gemma3 multiplies embeddings by the square root of their length, 16, so they are stored smaller.
SWA_EMBEDDING_EXPONENT = -4

# It normalizes queries and keys, then what a layer adds. With these weights attention's scores
# have a spread of 1.5, and the layers together add about as much as the token brought.
SWA_QUERY_NORM = 1.5
SWA_POST_NORM = 0.5


@dataclass(frozen=True, slots=True)
class _Vocabulary:
    """Tokens with their kinds (GGUF's numbers), in order of their ids."""

    tokens: list[str]
    kinds: list[int]

    def id(self, token: str) -> int:
        """The token's id."""
        return self.tokens.index(token)


@dataclass(frozen=True, slots=True)
class _Shape:
    """What differs between the models. `window`: cells that a sliding layer sees; None: no such."""

    name: str
    arch: str
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    window: int | None = None


def scripted_model(cache_dir: Path, name: str = "scripted") -> Path:
    """The path under `cache_dir` of a model of MODELS, written first if it is not there whole.

    Takes some 0.3 s to write 10 to 17 MB, and 0.02 s to check them. Two processes may do it at
    once: each writes a file of its own and renames it.

    Raises BuilderError when the installed gguf package writes other bytes than the ones known.
    """
    sha256, write = MODELS[name]
    path = cache_dir / f"{name}-{sha256[:16]}.gguf"
    if path.is_file() and file_sha256(path) == sha256:
        return path
    cache_dir.mkdir(parents=True, exist_ok=True)
    with _partial_file(cache_dir) as partial:
        write(partial)
        written = file_sha256(partial)
        if written != sha256:
            raise BuilderError(
                f"the model {name} came out with other bytes than expected",
                why=f"sha256 {written}, expected {sha256}",
                hint="another version of the gguf package may write another header: "
                "`pip install gguf==0.19.0`",
            )
        # mkstemp's 0600 would keep it from a container's user.
        partial.chmod(0o644)
        partial.replace(path)
    return path


def file_sha256(path: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _partial_file(folder: Path) -> Iterator[Path]:
    """A new empty file in `folder`, gone at the end unless it was renamed."""
    handle, name = tempfile.mkstemp(prefix="scripted-", suffix=".partial", dir=folder)
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def write_model(path: Path) -> None:
    """Write the GGUF of `scripted` to `path`, over whatever is there."""
    _write(path, _Shape("scripted", "llama", LAYERS, HEADS, KV_HEADS, HEAD_DIM))


def write_swa_model(path: Path) -> None:
    """Write the GGUF of `scripted-swa` to `path`, over whatever is there."""
    _write(
        path,
        _Shape(
            name="scripted-swa",
            arch="gemma3",
            layers=SWA_LAYERS,
            heads=SWA_HEADS,
            kv_heads=SWA_KV_HEADS,
            head_dim=SWA_HEAD_DIM,
            window=SWA_WINDOW,
        ),
    )


MODELS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "scripted": (SHA256, write_model),
    "scripted-swa": (SWA_SHA256, write_swa_model),
}
"""Each model's SHA-256 and what writes it."""


def _write(path: Path, shape: _Shape) -> None:
    import gguf

    words = _vocabulary()
    writer = gguf.GGUFWriter(path, arch=shape.arch)
    _add_shape(writer, shape, words)
    _add_tokenizer(writer, words)
    for name, tensor in _tensors(shape, words):
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_shape(writer: "gguf.GGUFWriter", shape: _Shape, words: _Vocabulary) -> None:
    """Sizes, in the order in which the file has them."""
    import gguf

    writer.add_name(shape.name)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_vocab_size(len(words.tokens))
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(EMBEDDING)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_layer_norm_rms_eps(1e-5)
    if shape.window is not None:
        writer.add_sliding_window(shape.window)


def _add_tokenizer(writer: "gguf.GGUFWriter", words: _Vocabulary) -> None:
    """Byte-level BPE with one merge, and the chat template."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(words.tokens)
    writer.add_token_types(words.kinds)
    writer.add_token_merges([f"{NEWLINE} {NEWLINE}"])
    writer.add_bos_token_id(words.id(IM_START))
    writer.add_eos_token_id(words.id(IM_END))
    writer.add_pad_token_id(words.id(IM_END))
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _vocabulary() -> _Vocabulary:
    """Every byte, the double newline, and the four markers."""
    import gguf

    plain = [*_byte_letters(), NEWLINES]
    thinking = [THINK, END_THINK]
    markers = [IM_START, IM_END]
    return _Vocabulary(
        tokens=[*plain, *thinking, *markers],
        kinds=[
            *[int(gguf.TokenType.NORMAL)] * len(plain),
            # Text, not control: the server has to see them in what the model says.
            *[int(gguf.TokenType.USER_DEFINED)] * len(thinking),
            *[int(gguf.TokenType.CONTROL)] * len(markers),
        ],
    )


def _byte_letters() -> list[str]:
    """The letter that byte-level BPE writes for each byte, 0 to 255.

    Printable bytes stand for themselves, the others for letters from U+0100 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _tensors(
    shape: _Shape, words: _Vocabulary
) -> "Iterator[tuple[str, NDArray[np.float16 | np.float32]]]":
    """Every tensor with its name, rows by columns as numpy counts them."""
    norm = _constants(EMBEDDING, 1)
    slides = shape.window is not None
    yield (
        "token_embd.weight",
        _scaled(_embedding_rows(words), SWA_EMBEDDING_EXPONENT if slides else 0),
    )
    yield "output_norm.weight", norm
    yield "output.weight", _scaled(_output_rows(words), OUTPUT_EXPONENT)
    for layer in range(shape.layers):
        yield f"blk.{layer}.attn_norm.weight", norm
        yield f"blk.{layer}.ffn_norm.weight", norm
        if slides:
            yield from _gemma_norms(layer, shape)
        yield from _layer_weights(layer, shape)


def _layer_weights(layer: int, shape: _Shape) -> "Iterator[tuple[str, NDArray[np.float16]]]":
    """A layer's matrices; those that add to the residual stream have no rows for the script."""
    queries, cells = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    shapes = {
        "attn_q": (queries, EMBEDDING, PROJECTION_EXPONENT),
        "attn_k": (cells, EMBEDDING, PROJECTION_EXPONENT),
        "attn_v": (cells, EMBEDDING, PROJECTION_EXPONENT),
        "attn_output": (EMBEDDING, queries, RESIDUAL_EXPONENT),
        "ffn_gate": (FEED_FORWARD, EMBEDDING, PROJECTION_EXPONENT),
        "ffn_up": (FEED_FORWARD, EMBEDDING, PROJECTION_EXPONENT),
        "ffn_down": (EMBEDDING, FEED_FORWARD, RESIDUAL_EXPONENT),
    }
    for part, (rows, columns, exponent) in shapes.items():
        name = f"blk.{layer}.{part}"
        weights = _odd_integers(name, (rows, columns))
        if exponent == RESIDUAL_EXPONENT:
            weights[:SCRIPT_DIMS] = 0
        yield f"{name}.weight", _scaled(weights, exponent)


def _gemma_norms(layer: int, shape: _Shape) -> "Iterator[tuple[str, NDArray[np.float32]]]":
    """The norms that gemma3 has besides the usual two; those of the sums spare the script."""
    added = _constants(EMBEDDING, SWA_POST_NORM)
    added[:SCRIPT_DIMS] = 0
    yield f"blk.{layer}.attn_q_norm.weight", _constants(shape.head_dim, SWA_QUERY_NORM)
    yield f"blk.{layer}.attn_k_norm.weight", _constants(shape.head_dim, 1)
    yield f"blk.{layer}.post_attention_norm.weight", added
    yield f"blk.{layer}.post_ffw_norm.weight", added


def _constants(length: int, value: float) -> "NDArray[np.float32]":
    import numpy as np

    return np.full(length, value, dtype="<f4")


def _embedding_rows(words: _Vocabulary) -> "NDArray[np.int32]":
    """Random signs, and where a token is followed by the script, its own block before them."""
    rows = _signs("token_embd", (len(words.tokens), EMBEDDING))
    rows[:, :SCRIPT_DIMS] = 0
    for block, (before, _) in _script_blocks():
        rows[words.id(before), block] = SCRIPT_INPUT
    return rows


def _output_rows(words: _Vocabulary) -> "NDArray[np.int32]":
    """Random rows; each scripted follower's has its predecessor's block besides.

    Only printable ASCII has a random part, so that whatever the model says off the script is text:
    a lone byte of UTF-8 is held back by the server, with its log-probabilities.
    """
    rows = _odd_integers("output", (len(words.tokens), EMBEDDING))
    speakable = set(map(chr, range(0x21, 0x7F)))
    rows[[token not in speakable for token in words.tokens]] = 0
    for block, (_, after) in _script_blocks():
        rows[words.id(after), block] += SCRIPT_UNITS
    return rows


def _script_blocks() -> Iterator[tuple[slice, tuple[str, str]]]:
    """Each step of the script with the dimensions that are its own."""
    for step, pair in enumerate(SCRIPT):
        yield slice(BLOCK * step, BLOCK * (step + 1)), pair


def _odd_integers(name: str, shape: tuple[int, int]) -> "NDArray[np.int32]":
    """Odd integers in ±255, evenly spread, the same for the same name."""
    return 2 * _hash_bytes(name, shape) - 255


def _signs(name: str, shape: tuple[int, int]) -> "NDArray[np.int32]":
    """+1 or -1, the same for the same name."""
    return 2 * (_hash_bytes(name, shape) & 1) - 1


def _hash_bytes(name: str, shape: tuple[int, int]) -> "NDArray[np.int32]":
    """SHAKE-256 of the name, a byte an element."""
    import numpy as np

    stream = hashlib.shake_256(name.encode()).digest(shape[0] * shape[1])
    return np.frombuffer(stream, dtype=np.uint8).astype(np.int32).reshape(shape)


def _scaled(integers: "NDArray[np.int32]", exponent: int) -> "NDArray[np.float16]":
    """Integers below 2048 times 2 to the exponent, which f16 holds without rounding."""
    import numpy as np

    return (integers.astype(np.float32) * np.float32(2.0**exponent)).astype("<f2")
