"""A whole GGUF of a few kilobytes that llama.cpp loads and runs: one layer of zeros, a vocabulary of bytes. For tests that spoil it."""

from src.text.tokenizer.hf import BYTES
from tests.support.model_files import Signed, gguf_bytes

WIDTH = 32
TOKENS = [*BYTES, "<|im_start|>", "<|im_end|>"]
START, END = 256, 257
NORMAL, CONTROL = Signed(1), Signed(3)
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}<|im_start|>"
METADATA: dict[str, object] = {
    "general.architecture": "llama",
    "llama.block_count": 1,
    "llama.context_length": 256,
    "llama.embedding_length": WIDTH,
    "llama.feed_forward_length": 64,
    "llama.attention.head_count": 2,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "default",
    "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.ggml.token_type": [*[NORMAL] * 256, CONTROL, CONTROL],
    "tokenizer.ggml.merges": ["a b"],
    "tokenizer.ggml.bos_token_id": START,
    "tokenizer.ggml.eos_token_id": END,
    "tokenizer.ggml.add_bos_token": False,
    "tokenizer.chat_template": TEMPLATE,
}
TENSORS: dict[str, tuple[int, ...]] = {
    "token_embd.weight": (WIDTH, len(TOKENS)),
    "output_norm.weight": (WIDTH,),
    "blk.0.attn_norm.weight": (WIDTH,),
    **{f"blk.0.attn_{part}.weight": (WIDTH, WIDTH) for part in ("q", "k", "v", "output")},
    "blk.0.ffn_norm.weight": (WIDTH,),
    "blk.0.ffn_gate.weight": (WIDTH, 64),
    "blk.0.ffn_up.weight": (WIDTH, 64),
    "blk.0.ffn_down.weight": (64, WIDTH),
}


def tiny_gguf(metadata: dict[str, object] | None = None, tensors: dict[str, tuple[int, ...]] | None = None) -> bytes:
    """With some of its values and shapes changed; those that become None are left out."""
    return gguf_bytes(_changed(METADATA, metadata), _changed(TENSORS, tensors))


def _changed(whole: dict, changes: dict | None) -> dict:
    return {key: value for key, value in {**whole, **(changes or {})}.items() if value is not None}
