"""Text to tokens and back, as this model has it. Knows no job and no engine."""

import asyncio
from collections.abc import AsyncGenerator

from src.errors import InvalidValue
from src.protocol import ChatPrompt, Detokenize, Detokenized, Tokenize, Tokenized
from src.runner.prompts import Prompts
from src.text.guard import SPLIT
from src.text.tokenizer import Tokenizer


class Texts:
    def __init__(self, tokenizer: Tokenizer, prompts: Prompts, context_length: int) -> None:
        self._tokenizer = tokenizer
        self._prompts = prompts
        self._context_length = context_length

    async def tokenize(self, request: Tokenize) -> AsyncGenerator[Tokenized, None]:
        yield await asyncio.to_thread(self._tokenize, request)

    async def detokenize(self, request: Detokenize) -> AsyncGenerator[Detokenized, None]:
        size = self._tokenizer.vocab_size
        if not all(0 <= token < size for token in request.tokens):
            raise InvalidValue(f"tokens has a token id outside the model's vocabulary of {size}.", "tokens")
        yield await asyncio.to_thread(self._detokenize, request)

    def _tokenize(self, request: Tokenize) -> Tokenized:
        """However long it is: who asks how many tokens a text has may well ask of one that is too long."""
        prompt = request.prompt
        text = self._prompts.render(prompt) if isinstance(prompt, ChatPrompt) else prompt.text
        tokens = self._tokenizer.encode(text, add_bos=request.add_bos)
        names = [self._tokenizer.name(token).decode(errors="replace") for token in tokens]
        return Tokenized(text=text.replace(SPLIT, ""), tokens=tokens, names=names, context_length=self._context_length)

    def _detokenize(self, request: Detokenize) -> Detokenized:
        return Detokenized(text=b"".join(self._tokenizer.name(token) for token in request.tokens).decode(errors="replace"))
