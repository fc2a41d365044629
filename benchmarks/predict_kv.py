"""What the published block formats of forks' KV types do to the scripted model: `predicted`.

    python -m benchmarks.predict_kv [TURBO-QUANT-CUDA.CUH]

With spiritbuun's ggml/src/ggml-cuda/turbo-quant-cuda.cuh its two tcq types too, half a minute each.
"""

import os
import re
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from tests.support.kv_formats import GROUP, PUBLISHED, half, turned
from tests.support.kv_simulator import Array, Bend, Place, simulator

NORM_V = 1.04
"""d_tcq_norm_alpha_v; K's is 1."""

TRELLISES = {"turbo3_tcq": ("d_turbo3_tcq_codebook", 3), "turbo2_tcq": ("d_turbo2_tcq_codebook", 2)}
"""Each type's codebook, and the bits by which a value moves the state."""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = simulator(Path(folder))
    pairs = dict(PUBLISHED)
    if len(sys.argv) > 1:
        source = Path(sys.argv[1]).read_text(encoding="utf-8")
        for name, (codebook, bits) in TRELLISES.items():
            levels = _levels(source, codebook)
            pairs["spiritbuun", name] = (trellis(levels, bits), trellis(levels, bits, NORM_V))
    for (fork, name), (k, v) in pairs.items():
        found = model.numbers(k, v).distance
        print(f"{fork:11} {name:11} KL {found.kl:.2e}, top-1 {found.top1:.2f}")


def trellis(levels: Array, bits: int, norm: float = 1.0) -> Bend:
    """A tcq type: of all ways through the states, the one whose levels lie nearest (Viterbi).

    A state's level is a value; the next state is it, shifted right by `bits`, with new bits above.
    """
    steps = 1 << bits
    low = len(levels) // steps

    def rounded(values: Array, place: Place) -> Array:  # noqa: ARG001
        groups = values.reshape(-1, GROUP)
        norms = np.linalg.norm(groups, axis=1, keepdims=True)
        unit = np.ascontiguousarray((groups / norms).T)
        count = unit.shape[1]
        cost = np.zeros((steps, low, count), np.float32)
        back = np.zeros((GROUP, low, count), np.uint8)
        for at in range(GROUP):
            before = cost.reshape(low, steps, count)
            best = before[:, 0].copy()
            for step in range(1, steps):
                back[at][before[:, step] < best] = step
                np.minimum(best, before[:, step], out=best)
            cost = (unit[at] - levels.reshape(steps, low, 1)) ** 2 + best
        state, each = cost.reshape(-1, count).argmin(0), np.arange(count)
        kept = np.empty((count, GROUP), np.float32)
        for at in reversed(range(GROUP)):
            kept[:, at] = levels[state]
            state = (state % low << bits) | back[at, state % low, each]
        scale = norms / np.linalg.norm(kept, axis=1, keepdims=True) * np.float32(norm)
        return (kept * half(scale)).reshape(values.shape)

    return turned(rounded)


def _levels(source: str, name: str) -> Array:
    found = re.search(rf"{name}\[\d+\] = \{{(.*?)\}}", source, re.DOTALL)
    if found is None:
        sys.exit(f"no {name} in it")
    return np.array([float(value) for value in re.findall(r"-?\d*\.\d+", found[1])], np.float32)


if __name__ == "__main__":
    main()
