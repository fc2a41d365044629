"""How long `builder fit` takes for a 20 GB file with a vocabulary of 250,000.

    .venv/bin/python benchmarks/fit.py

The file is sparse. The goal is 0.5 s; the baseline is `builder --help`, in the same run.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gguf
import numpy as np

ROUNDS = 9


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = _model(Path(folder) / "large.gguf")
        help_s, fit_s = [], []
        for _ in range(ROUNDS):
            help_s.append(_seconds("--help"))
            fit_s.append(_seconds("fit", "--model", str(model), "--vram", "24G"))
    baseline, found = statistics.median(help_s), statistics.median(fit_s)
    print(f"builder --help   {baseline:.2f} s")
    print(f"builder fit      {found:.2f} s, {found / baseline:.1f} × that; goal 0.50 s")


def _seconds(*words: str) -> float:
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "builder", *words], check=True, capture_output=True)
    return time.monotonic() - started


def _model(path: Path) -> Path:
    writer = gguf.GGUFWriter(path, arch="qwen3")
    writer.add_block_count(36)
    writer.add_context_length(131072)
    writer.add_embedding_length(4096)
    writer.add_head_count(32)
    writer.add_head_count_kv(8)
    writer.add_key_length(128)
    writer.add_value_length(128)
    writer.add_feed_forward_length(12288)
    writer.add_token_list([f"token {number}" for number in range(250_000)])
    writer.add_token_merges([f"{number} {number}" for number in range(250_000)])
    for layer in range(36):
        for part in ("attn_q", "attn_k", "attn_v", "ffn_up"):
            name = f"blk.{layer}.{part}.weight"
            writer.add_tensor_info(name, (32768, 4096), np.dtype("<f2"), 32768 * 4096)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    os.truncate(path, 20_000_000_000)
    return path


if __name__ == "__main__":
    main()
