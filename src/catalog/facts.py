"""What a model's own files say of it, whatever their format. Knows neither files nor engines."""

import re

import msgspec

MOST_BYTES = 2**40  # of anything that is computed from a file's own numbers: more is a lie


class BrokenModel(Exception):
    """These files are no model, or not the whole of it. The message is the reason, without the model's name."""


class NotAModel(Exception):
    """A file of a model's format that is none: a LoRA adapter, a vision encoder."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes are of the model in memory. None and 0: the files do not say."""

    architecture: str | None = None
    parameters: int | None = None
    quantisation: str | None = None  # Q4_K_M, 4-bit, BF16, awq, ...
    context_length: int | None = None  # tokens of one sequence that it was trained for
    capabilities: tuple[str, ...] = ()  # of chat_template, tools, thinking, embeddings
    matryoshka: tuple[int, ...] | None = None  # lengths its embeddings may be cut to; (): any; None: they may not
    weight_bytes: int = 0
    kv_bytes_per_token: int = 0  # keys and values of all layers, 16 bits each
    state_bytes: int = 0  # of one sequence, whatever its length: recurrent layers
    vocabulary: int = 0  # tokens
    embedding_length: int = 0
    feed_forward_length: int = 0
    sampling: dict[str, float] = {}  # that its makers recommend, by a request's fields


def kv_bytes(layers: int, kv_heads: int | list[int], key_length: int, value_length: int) -> int:
    """Bytes one token takes in a 16-bit KV cache. `kv_heads`: of every layer, or a list with those of each. Raises BrokenModel."""
    heads = sum(kv_heads) if isinstance(kv_heads, list) else layers * kv_heads
    size = 2 * heads * (key_length + value_length)
    if size > MOST_BYTES:
        raise BrokenModel(f"by its own numbers one token would take {size:,} bytes of KV cache")
    return size


def capabilities(template: str | None, *, embeddings: bool, tool_template: str | None = None) -> tuple[str, ...]:
    """By what a chat template mentions: it is the only place where a model's files tell."""
    found = []
    if template:
        found.append("chat_template")
        if tool_template or re.search(r"\btools\b", template):
            found.append("tools")
        if re.search(r"<think>|enable_thinking|reasoning_content|<\|channel\|>", template):
            found.append("thinking")
    if embeddings:
        found.append("embeddings")
    return tuple(found)
