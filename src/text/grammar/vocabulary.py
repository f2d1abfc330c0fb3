"""A model's vocabulary as llguidance takes it. Knows no grammar."""

from collections.abc import Callable, Sequence

import msgspec
from llguidance import LLTokenizer, TokenizerWrapper

from src.errors import EngineError
from src.text.tokenizer.base import Tokenizer

SPECIAL = b"\xff"  # what llguidance puts before the name of a token that no text is to match


class Vocabulary(msgspec.Struct, frozen=True):
    tokens: list[bytes]
    end_tokens: list[int]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "Vocabulary":
        """Raises EngineError for a model none of whose tokens ends an answer: a grammar could not end it either."""
        if not tokenizer.end_tokens:
            raise EngineError("This model has no token that ends an answer, so no answer can be held to a grammar.")
        return cls([_bytes_of(tokenizer, token) for token in range(tokenizer.vocab_size)], list(tokenizer.end_tokens))

    def prepare(self, encode: Callable[[str], list[int]]) -> LLTokenizer:
        """Takes 0.1 s for 49,152 tokens."""
        return LLTokenizer(TokenizerWrapper(_Wrapped(self, encode)), n_vocab=len(self.tokens), eos_token=self.end_tokens)


def _bytes_of(tokenizer: Tokenizer, token: int) -> bytes:
    if piece := tokenizer.bytes_of(token):
        return piece
    name = tokenizer.display_bytes(token)
    return SPECIAL + name if name else b""


class _Wrapped:
    """What llguidance asks of a tokenizer."""

    bos_token_id = None
    special_token_ids: Sequence[int] = ()

    def __init__(self, vocabulary: Vocabulary, encode: Callable[[str], list[int]]) -> None:
        self.eos_token_id = vocabulary.end_tokens[0]
        self.tokens = vocabulary.tokens
        self._encode = encode

    def __call__(self, text: str) -> list[int]:
        return self._encode(text)
