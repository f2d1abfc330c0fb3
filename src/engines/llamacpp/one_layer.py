"""A GGUF with one layer and random weights, whose attention is of a model's shape.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import math
import random
import struct
from typing import NamedTuple

CONTEXT_LENGTH = 1024
VOCABULARY = 64
_WIDTH = 64  # of what is not attention: as little as llama.cpp takes
_ALIGNMENT = 32
_UINT32, _FLOAT32, _STRING = 4, 6, 8  # types of metadata
_F32 = 0  # a ggml type


class AttentionShape(NamedTuple):
    heads: int
    kv_heads: int
    key_length: int  # numbers in one head's key
    value_length: int


def one_layer_gguf(shape: AttentionShape) -> bytes:
    metadata: dict[str, int | float | str] = {
        "general.architecture": "llama",
        "llama.context_length": CONTEXT_LENGTH,
        "llama.embedding_length": _WIDTH,
        "llama.block_count": 1,
        "llama.feed_forward_length": _WIDTH,
        "llama.attention.head_count": shape.heads,
        "llama.attention.head_count_kv": shape.kv_heads,
        "llama.attention.key_length": shape.key_length,
        "llama.attention.value_length": shape.value_length,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": shape.key_length,
        "llama.vocab_size": VOCABULARY,
        "tokenizer.ggml.model": "no_vocab",
    }
    tensors = {
        "token_embd.weight": (_WIDTH, VOCABULARY),
        "output_norm.weight": (_WIDTH,),
        "blk.0.attn_norm.weight": (_WIDTH,),
        "blk.0.attn_q.weight": (_WIDTH, shape.heads * shape.key_length),
        "blk.0.attn_k.weight": (_WIDTH, shape.kv_heads * shape.key_length),
        "blk.0.attn_v.weight": (_WIDTH, shape.kv_heads * shape.value_length),
        "blk.0.attn_output.weight": (shape.heads * shape.value_length, _WIDTH),
        "blk.0.ffn_norm.weight": (_WIDTH,),
        "blk.0.ffn_gate.weight": (_WIDTH, _WIDTH),
        "blk.0.ffn_up.weight": (_WIDTH, _WIDTH),
        "blk.0.ffn_down.weight": (_WIDTH, _WIDTH),
    }
    numbers = random.Random(0)
    weights = struct.pack(f"<{_WIDTH}f", *(numbers.uniform(-0.1, 0.1) for _ in range(_WIDTH)))  # the same in every row
    infos, data = b"", b""
    for name, dimensions in tensors.items():
        infos += _string(name) + struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, _F32, len(data))
        data += _padded(weights * (math.prod(dimensions) // _WIDTH))
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata))
    return _padded(head + b"".join(_entry(key, value) for key, value in metadata.items()) + infos) + data


def _entry(key: str, value: float | str) -> bytes:
    match value:
        case str():
            return _string(key) + struct.pack("<I", _STRING) + _string(value)
        case int():
            return _string(key) + struct.pack("<II", _UINT32, value)
        case _:
            return _string(key) + struct.pack("<If", _FLOAT32, value)


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNMENT)
