"""How much of what was planned a device has room for, where the operator left it open. Knows no engine."""

LEAST_CONTEXT = 512  # tokens: an open context is made no shorter


def shrunk_context(context_length: int, sequences: int, token_bytes: int, free: int) -> int:
    """Tokens of each of so many sequences that fit into `free` bytes: halved until they do, or LEAST_CONTEXT is reached."""
    while context_length > LEAST_CONTEXT and sequences * context_length * token_bytes > free:
        context_length = max(LEAST_CONTEXT, context_length // 2)
    return context_length


def shrunk_sequences(sequences: int, context_length: int, token_bytes: int, free: int) -> int:
    """So many sequences of so many tokens fit into `free` bytes; 1 at least."""
    return max(1, min(sequences, free // max(1, context_length * token_bytes)))
