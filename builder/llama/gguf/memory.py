"""What a model and its contexts take of memory, from the model's header.

Formulas are llama.cpp's, read at ggml-org 0c1e57098 and held against the buffer sizes that its
server reports (tests/engine/test_fit.py). Sizes are bytes, contexts tokens.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from builder.llama.gguf.file import Contents, Header, Tensor
from builder.llama.gguf.kv_held import NO_RULES, hold
from builder.llama.gguf.shape import MOST, MOST_LAYERS, KvShape, shape
from builder.model.pins import Kv, KvRules, KvType

UBATCH = 512
"""llama-server's default for --ubatch-size: tokens that are computed at once."""

_PAD = 256
"""Contexts are rounded up to so many tokens: llama-context.cpp, llama-kv-cache-iswa.cpp."""

_INPUT = {"token_embd.weight", "per_layer_token_embd.weight"}
"""Looked up on the CPU, whatever -ngl says: `dev_input` of llama-model.cpp."""

_EXPERTS = re.compile(r"\.ffn_(up|down|gate|gate_up)_(ch|)exps")
"""What -cmoe and -ncmoe leave to the CPU: `LLM_FFN_EXPS_REGEX` of common/common.h."""

_BLOCK = re.compile(r"blk\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class Weights:
    """Where weights go with every layer on the card (-ngl 999).

    `tied` is an output matrix that is the input's, and so in both places. `experts` are, layer by
    layer, those of the card that -ncmoe could leave to the CPU; empty for a dense model. `draft`
    are layers behind the model's own that are loaded only when asked for, and in neither place.
    """

    card: int
    host: int
    tied: int = 0
    experts: tuple[int, ...] = ()
    draft: int = 0

    @property
    def without_card(self) -> int:
        """What a machine without a card holds."""
        return self.card + self.host - self.tied


@dataclass(frozen=True, slots=True)
class Model:
    """A model as memory sees it.

    `native` is the context that it was trained for, 0 when the header does not tell. `vocabulary`,
    `width` and `feed` (values of a token between the two halves of a feed-forward layer, over the
    experts in use) size the compute buffer.
    """

    weights: Weights
    shape: KvShape
    native: int
    vocabulary: int
    width: int
    feed: int


@dataclass(frozen=True, slots=True)
class Slots:
    """So many slots of so many tokens each, rounded up as llama.cpp does.

    `ubatch` tokens are computed at once. `swa_full`: windows have as many cells as the whole
    context. `unified`: one cache for all slots. `outputs` is for how many tokens of a micro-batch
    logits are reserved, None for all.
    """

    count: int
    tokens: int
    ubatch: int = UBATCH
    swa_full: bool = False
    unified: bool = False
    outputs: int | None = None

    @property
    def caches(self) -> int:
        """How many caches there are: one for each slot, or one for all."""
        return 1 if self.unified else self.count

    @property
    def cells(self) -> int:
        """Cells of one cache."""
        return padded(self.tokens * self.count if self.unified else self.tokens)

    def window_cells(self, window: int) -> int:
        """Cells of one cache of layers that look back so far: llama-kv-cache-iswa.cpp."""
        looked = window * (self.count if self.unified else 1)
        return self.cells if self.swa_full else min(self.cells, padded(looked + self.ubatch))


def model(contents: Contents) -> Model:
    """The model that a GGUF's header describes."""
    keys, architecture = contents.keys, str(contents.keys.get("general.architecture"))
    own = _number(keys, f"{architecture}.block_count")
    own = min(own - _number(keys, f"{architecture}.nextn_predict_layers"), MOST_LAYERS)
    draft = [each for each in contents.tensors if own <= _layer(each) and own > 0]
    used = [each for each in contents.tensors if own > _layer(each) or own <= 0]
    named = {each.name: each for each in used}
    embedding = named.get("token_embd.weight")
    has_output = "output.weight" in named or "bert" in architecture
    tied = embedding.size_bytes if embedding and not has_output else 0
    host = sum(each.size_bytes for each in used if each.name in _INPUT)
    return Model(
        weights=Weights(
            card=sum(each.size_bytes for each in used) - host + tied,
            host=host,
            tied=tied,
            experts=_experts(used, own),
            draft=sum(each.size_bytes for each in draft),
        ),
        shape=shape(keys),
        native=_number(keys, f"{architecture}.context_length"),
        vocabulary=embedding.sizes[-1] if embedding and embedding.sizes else 0,
        width=_number(keys, f"{architecture}.embedding_length"),
        feed=_feed(keys, architecture),
    )


@dataclass(frozen=True, slots=True)
class KvNeed:
    """Bytes of keys and values: of layers that see everything, and of those that look back."""

    full: int
    window: int

    @property
    def total(self) -> int:
        """Both caches."""
        return self.full + self.window


def kv_need(
    shape: KvShape,
    kv: Kv,
    types: Mapping[str, KvType],
    slots: Slots,
    rules: KvRules = NO_RULES,
) -> KvNeed | None:
    """Keys and values of every slot, as a fork of these types and rules holds them.

    None where a type's bytes are not known, or where heads cannot be of it.
    """
    full = window = 0
    for layer in shape.layers:
        cells = [half.cell_bytes(types) for half in hold(shape, layer, kv, rules)]
        if None in cells:
            return None
        cell = sum(filter(None, cells)) * slots.caches
        if layer.window:
            window += cell * slots.window_cells(layer.window)
        else:
            full += cell * slots.cells
    return KvNeed(full, window)


def state_bytes(shape: KvShape, slots: Slots) -> int:
    """What a hybrid's recurrent layers keep: it does not grow with the context."""
    return shape.state_values * 4 * slots.count


def compute_bytes(model: Model, slots: Slots) -> int:
    """The compute buffer, estimated: with flash attention, f16 masks and f32 activations.

    On ten small shapes it was between 0.9 and 1.2 of what a CPU server reserved for activations,
    but for lightning attention (0.7); no card was at hand.
    """
    tokens = min(slots.ubatch, slots.count * slots.tokens)
    outputs = tokens if slots.outputs is None else min(tokens, slots.outputs)
    windows = {layer.window for layer in model.shape.layers}
    cells = sum(slots.window_cells(each) if each else slots.cells for each in windows)
    layer = cells * tokens * 2 + tokens * 4 * (2 * model.feed + 8 * model.width)
    return max(layer, 4 * (outputs * model.vocabulary + tokens * model.width))


def padded(tokens: int) -> int:
    """The cells of a cache for so many tokens."""
    return -(-tokens // _PAD) * _PAD


def _layer(tensor: Tensor) -> int:
    found = _BLOCK.match(tensor.name)
    return int(found[1]) if found else -1


def _experts(tensors: list[Tensor], layers: int) -> tuple[int, ...]:
    each = [0] * max(layers, 0)
    for tensor in tensors:
        if _EXPERTS.search(tensor.name) and 0 <= _layer(tensor) < layers:
            each[_layer(tensor)] += tensor.size_bytes
    return tuple(each) if any(each) else ()


def _feed(keys: Header, architecture: str) -> int:
    dense = _number(keys, f"{architecture}.feed_forward_length")
    expert = _number(keys, f"{architecture}.expert_feed_forward_length")
    used = _number(keys, f"{architecture}.expert_used_count")
    shared = _number(keys, f"{architecture}.expert_shared_feed_forward_length")
    if not expert and _number(keys, f"{architecture}.expert_count"):
        # some mixtures give the size of an expert as that of the whole half
        expert = dense
    if not expert:
        return dense
    leading = _number(keys, f"{architecture}.leading_dense_block_count")
    return max(used * expert + shared, dense if leading else 0)


def _number(keys: Header, key: str) -> int:
    value = keys.get(key)
    several = value if isinstance(value, list) else [value]
    return max((each for each in several if isinstance(each, int) and 0 <= each <= MOST), default=0)
