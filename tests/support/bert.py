"""A BERT of two layers with weights by chance, as a GGUF: a model that can do nothing but embed. Knows no engine."""

from pathlib import Path

import gguf
import numpy as np

WIDTH, HEADS, INNER, LAYERS, CONTEXT = 32, 2, 64, 2, 512
LETTERS = "abcdefghijklmnopqrstuvwxyz"
# As llama.cpp writes WordPiece: a word's beginning is marked, not its rest.
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"▁{letter}" for letter in LETTERS), *LETTERS, "▁hello", "▁world", "▁the"]
CONTROL, UNKNOWN, NORMAL = gguf.TokenType.CONTROL, gguf.TokenType.UNKNOWN, gguf.TokenType.NORMAL


def write_bert(path: Path, pooling: gguf.PoolingType = gguf.PoolingType.MEAN, seed: int = 0) -> None:
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(pooling)
    _add_vocabulary(writer)
    draw = np.random.default_rng(seed)
    for name, shape in _tensors().items():
        values = draw.normal(0, 0.3, shape).astype(np.float32)
        writer.add_tensor(name, values + 1 if "norm.weight" in name else values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_vocabulary(writer: gguf.GGUFWriter) -> None:
    kinds = [CONTROL if text in ("[PAD]", "[CLS]", "[SEP]", "[MASK]") else UNKNOWN if text == "[UNK]" else NORMAL for text in VOCABULARY]
    writer.add_tokenizer_model("bert")
    writer.add_token_list(VOCABULARY)
    writer.add_token_types(kinds)
    writer.add_token_type_count(2)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_sep_token_id(3)
    writer.add_eos_token_id(3)
    writer.add_mask_token_id(4)


def _tensors() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (len(VOCABULARY), WIDTH),
        "position_embd.weight": (CONTEXT, WIDTH),
        "token_types.weight": (2, WIDTH),
        **_pair("token_embd_norm", WIDTH),
    }
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            shapes |= _pair(block + name, WIDTH, WIDTH)
        shapes |= _pair(block + "attn_output_norm", WIDTH) | _pair(block + "layer_output_norm", WIDTH)
        shapes |= _pair(block + "ffn_up", INNER, WIDTH) | _pair(block + "ffn_down", WIDTH, INNER)
    return shapes


def _pair(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
