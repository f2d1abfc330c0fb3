"""Text to tokens and back, as this model has it. Knows no job and no engine."""

from collections.abc import AsyncGenerator
from functools import partial

from src.errors import InvalidValue
from src.protocol import ChatPrompt, DescribeTokenizer, Detokenize, Detokenized, Tokenize, Tokenized, TokenizerInfo
from src.runner.prompts import Prompts
from src.runner.turns import Turns
from src.text.tokenizer.base import Tokenizer
from src.text.tokenizer.guard import SENTINEL_SPLIT

MOST_TOKENS = 2**20  # in one list, asked or answered: more than any context holds
MOST_BYTES = 8 * 2**20  # of a text: a token may stand for hundreds


class Tokenization:
    """In one thread of its own: texts may be of any length, and prompts that are to be answered do not wait for them."""

    def __init__(self, tokenizer: Tokenizer, prompts: Prompts, context_length: int) -> None:
        self._tokenizer = tokenizer
        self._prompts = prompts
        self._context_length = context_length
        self._turns = Turns(1, "tokenization")

    def close(self) -> None:
        """No request may be running."""
        self._turns.close()

    async def tokenize(self, request: Tokenize) -> AsyncGenerator[Tokenized, None]:
        yield await self._turns.run(request.key, partial(self._tokenize, request))

    async def detokenize(self, request: Detokenize) -> AsyncGenerator[Detokenized, None]:
        size = self._tokenizer.vocab_size
        if not all(0 <= token < size for token in request.tokens):
            raise InvalidValue(f"tokens has a token id outside the model's vocabulary of {size}.", "tokens")
        yield await self._turns.run(request.key, partial(self._detokenize, request))

    async def describe(self, request: DescribeTokenizer) -> AsyncGenerator[TokenizerInfo, None]:
        tokenizer = self._tokenizer
        yield TokenizerInfo(
            kind_of=type(tokenizer).__name__,
            bos_text=tokenizer.bos_text,
            eos_text=tokenizer.eos_text,
            chat_template=self._prompts.template,
            vocab_size=tokenizer.vocab_size,
            context_length=self._context_length,
        )

    def _tokenize(self, request: Tokenize) -> Tokenized:
        """However long it is: who asks how many tokens a text has may well ask of one that is too long."""
        prompt = request.prompt
        text = self._prompts.render(prompt) if isinstance(prompt, ChatPrompt) else prompt.text
        tokens = self._tokenizer.encode(text, add_bos=request.add_bos)
        if len(tokens) > MOST_TOKENS:
            raise InvalidValue(f"The text has {len(tokens)} tokens, but at most {MOST_TOKENS} are listed. Send it in parts.", "prompt")
        names = [self._tokenizer.display_bytes(token).decode(errors="replace") for token in tokens] if request.names else []
        ignored, shown = self._prompts.ignored(prompt), text.replace(SENTINEL_SPLIT, "")
        return Tokenized(text=shown, tokens=tokens, names=names, ignored=ignored, context_length=self._context_length)

    def _detokenize(self, request: Detokenize) -> Detokenized:
        text = bytearray()
        for token in request.tokens:
            text += self._tokenizer.display_bytes(token)
            if len(text) > MOST_BYTES:
                raise InvalidValue(f"The tokens are a text of more than {MOST_BYTES} bytes. Send them in parts.", "tokens")
        return Detokenized(text=text.decode(errors="replace"))
