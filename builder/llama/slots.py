"""The slots of a profile as memory sees them: with what its flags say of caches and batches.

Flags are llama.cpp's, read at ggml-org 0c1e57098 (common/arg.cpp); what becomes of them is in
src/llama-context.cpp. Pure.
"""

from builder.llama.gguf.memory import UBATCH, Slots
from builder.model.pins import Logits, Profile

_BATCH = 2048
"""llama-server's default for --batch-size."""


def launch_slots(profile: Profile, tokens: int, logits: Logits) -> Slots:
    """Slots of so many tokens, as this profile launches them on a server that so reserves logits.

    A server that drafts takes logits of several tokens of a slot: they are counted for all.
    """
    # server_args: an embedder's texts are computed in one batch
    texts = profile.slot_tokens if profile.embeddings else 0
    batch = _number(profile, ("-b", "--batch-size")) or texts or _BATCH
    ubatch = _number(profile, ("-ub", "--ubatch-size")) or texts or UBATCH
    few = logits == "slots" and not profile.embeddings and profile.draft is None
    return Slots(
        profile.parallel,
        tokens,
        ubatch=min(batch, ubatch),
        swa_full="--swa-full" in profile.flags,
        unified=bool(profile.kv_unified),
        outputs=profile.parallel if few else None,
    )


def _number(profile: Profile, flags: tuple[str, ...]) -> int:
    """A flag's value, the last one said; 0 where none is."""
    pairs = zip(profile.flags, profile.flags[1:], strict=False)
    said = [value for flag, value in pairs if flag in flags and value.isdecimal()]
    return int(said[-1]) if said else 0
