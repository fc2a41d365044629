"""Write a large model of random weights, in f16: for speed and bytes, not for words.

    .venv/bin/python benchmarks/random_model.py big.gguf --layers 36

The shape is that of an 8B model (4,096 wide, 32 heads of 128, 8 KV heads): 0.39 GB a layer.
"""

import argparse

import gguf
import numpy as np

HEAD_DIM = 128


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("path")
    parser.add_argument("--layers", type=int, default=36)
    parser.add_argument("--heads", type=int, default=32, help="4 query heads share a KV head")
    asked = parser.parse_args()
    width, kv_width = asked.heads * HEAD_DIM, asked.heads // 4 * HEAD_DIM
    wide = 3 * width
    dice = np.random.default_rng(1)
    tokens = [chr(0x100 + byte) for byte in range(256)]

    writer = gguf.GGUFWriter(asked.path, arch="llama", use_temp_file=False)
    writer.add_vocab_size(len(tokens))
    writer.add_context_length(131072)
    writer.add_embedding_length(width)
    writer.add_block_count(asked.layers)
    writer.add_feed_forward_length(wide)
    writer.add_head_count(asked.heads)
    writer.add_head_count_kv(asked.heads // 4)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([int(gguf.TokenType.NORMAL)] * len(tokens))
    writer.add_token_merges([f"{tokens[0]} {tokens[1]}"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)

    def random(rows: int, columns: int) -> np.ndarray:
        return (dice.standard_normal((rows, columns), np.float32) / np.sqrt(columns)).astype("<f2")

    ones = np.ones(width, "<f4")
    writer.add_tensor("token_embd.weight", random(len(tokens), width))
    writer.add_tensor("output.weight", random(len(tokens), width))
    writer.add_tensor("output_norm.weight", ones)
    # One layer's weights serve all: the time to write them is what counts.
    layer = {
        "attn_q": random(width, width),
        "attn_k": random(kv_width, width),
        "attn_v": random(kv_width, width),
        "attn_output": random(width, width),
        "ffn_gate": random(wide, width),
        "ffn_up": random(wide, width),
        "ffn_down": random(width, wide),
        "attn_norm": ones,
        "ffn_norm": ones,
    }
    for number in range(asked.layers):
        for part, weights in layer.items():
            writer.add_tensor(f"blk.{number}.{part}.weight", weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file(progress=True)
    writer.close()


if __name__ == "__main__":
    main()
