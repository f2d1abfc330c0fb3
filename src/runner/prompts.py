"""Prompts to tokens for one loaded model, or why not. Knows no job and no engine."""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from src.errors import FIELD, ContextLengthExceeded, FieldPath, InvalidValue, UnsupportedField
from src.protocol import ChatPrompt, TextPrompt, TokenPrompt
from src.runner.turns import Turns
from src.text.dialect import Dialect
from src.text.tokenizer.base import Tokenizer

THREADS = max(2, min(4, os.cpu_count() or 1))  # long prompts take their time, and the streams of others must not wait for them


class Prompts:
    """`encode`, `encode_input` and `render` may take seconds: not for asyncio's thread."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        dialect: Dialect | None,
        context_length: int,
        vocab_size: int,
        most: int = 0,
        strict: bool = False,
    ) -> None:
        """`dialect` is None where the model has no chat template. `vocab_size` is the engine's: the tokenizer of a broken model may
        know more tokens. `most`: tokens of a prompt; 0: unlimited. `strict`: refuse hints that have no effect on this model."""
        self._tokenizer = tokenizer
        self._dialect = dialect
        self._context_length = context_length
        self._vocab_size = min(vocab_size, tokenizer.vocab_size)
        self._most = most
        self._strict = strict
        self._turns = Turns(THREADS, "prompts")

    def close(self) -> None:
        """No request may be running."""
        self._turns.close()

    async def encoded(self, prompts: Sequence[ChatPrompt | TextPrompt | TokenPrompt], key: str) -> list[list[int]]:
        """One after another, each in the key's turn."""
        return [await self._turns.run(key, partial(self.encode, prompt)) for prompt in prompts]

    async def encoded_inputs(self, prompts: Sequence[TextPrompt | TokenPrompt], key: str) -> list[list[int]]:
        return [await self._turns.run(key, partial(self.encode_input, prompt)) for prompt in prompts]

    def encode(self, prompt: ChatPrompt | TextPrompt | TokenPrompt) -> list[int]:
        """The prompt's tokens, some and not too many."""
        param = "messages" if isinstance(prompt, ChatPrompt) else "prompt"
        tokens = self._tokens_of(prompt, param)
        if not tokens and isinstance(prompt, TextPrompt):  # begins a document, as in OpenAI's API: behind the end of another one
            tokens = list(self._tokenizer.end_tokens[:1])
        if not tokens:
            raise InvalidValue("The prompt is empty.", param)
        if len(tokens) >= self._context_length:
            raise self._too_long(len(tokens), param)
        self._refuse_beyond_most(len(tokens), param)
        return tokens

    def encode_input(self, prompt: TextPrompt | TokenPrompt) -> list[int]:
        """Tokens of a text that is to be embedded: they may fill the context."""
        tokens = self._tokens_of(prompt, "input")
        closing = self._tokenizer.embedding_end_token
        if closing is not None and isinstance(prompt, TextPrompt) and tokens[-1:] != [closing]:
            tokens = [*tokens, closing]
        if not tokens:
            raise InvalidValue("The input is empty.", "input")
        if len(tokens) > self._context_length:
            raise self._too_long(len(tokens), "input")
        self._refuse_beyond_most(len(tokens), "input")
        return tokens

    def render(self, prompt: ChatPrompt) -> str:
        """What the chat template makes of the messages. Special tokens in their own text come cut: see Guard."""
        if self._dialect is None:
            raise UnsupportedField("This model has no chat template; use /v1/completions.", param="messages")
        if self._strict and (unmet := self._unmet(prompt)):
            raise unmet[0]
        return self._dialect.prompt(
            prompt.messages,
            tools=[tool for tool in prompt.tools if tool["function"]["name"] not in prompt.deferred_tools],
            variables=prompt.variables,
            effort=prompt.reasoning_effort,
            generation_prompt=prompt.generation_prompt,
            continued=prompt.continued,
        )

    @property
    def template(self) -> str | None:
        """Jinja source."""
        return self._dialect.template if self._dialect else None

    def ignored(self, prompt: ChatPrompt | TextPrompt | TokenPrompt) -> list[FieldPath]:
        """Fields that ask of the model's reasoning what has no effect on it."""
        return [unmet.path for unmet in self._unmet(prompt)] if isinstance(prompt, ChatPrompt) else []

    def _unmet(self, prompt: ChatPrompt) -> list[UnsupportedField]:
        if self._dialect is None:
            return []
        return self._dialect.unmet(prompt.variables, prompt.reasoning_effort, has_tools=bool(prompt.tools))

    def _tokens_of(self, prompt: ChatPrompt | TextPrompt | TokenPrompt, param: str) -> list[int]:
        tokens = self._encode(prompt, param)
        if tokens and not 0 <= min(tokens) <= max(tokens) < self._vocab_size:
            raise InvalidValue(f"{param} has a token id outside the model's vocabulary of {self._vocab_size}.", param)
        return tokens

    def _encode(self, prompt: ChatPrompt | TextPrompt | TokenPrompt, param: str) -> list[int]:
        if isinstance(prompt, ChatPrompt):
            self._refuse_if_too_long("".join(_shown(prompt.messages)), param)
            text = self.render(prompt)
            self._refuse_if_too_long(text, param)
            return self._tokenizer.encode(text, add_bos=True)
        if isinstance(prompt, TextPrompt):
            self._refuse_if_too_long(prompt.text, param)
            if prompt.suffix is not None:
                return self._fill_in_the_middle(prompt.text, prompt.suffix)
            return self._tokenizer.encode(prompt.text, add_bos=True)
        return prompt.tokens

    def _fill_in_the_middle(self, prefix: str, suffix: str) -> list[int]:
        """Prefix, suffix, then what comes between, called PSM in Bavarian et al., "Efficient training of language models to fill in the
        middle", 2022."""
        if self._tokenizer.fim_tokens is None:
            raise UnsupportedField("suffix: this model does not support fill-in-the-middle: its vocabulary has no tokens for it.", "suffix")
        self._refuse_if_too_long(suffix, "suffix")
        before, after, between = self._tokenizer.fim_tokens
        bos = [] if self._tokenizer.bos_token is None else [self._tokenizer.bos_token]
        texts = (self._tokenizer.encode(text, add_bos=False) for text in (prefix, suffix))
        return [*bos, before, *next(texts), after, *next(texts), between]

    def _refuse_if_too_long(self, text: str, param: str) -> None:
        """By its size alone, before megabytes cost seconds of rendering and encoding."""
        if self._tokenizer.surely_exceeds(text, self._context_length):
            raise self._too_long(None, param)
        if self._most and self._tokenizer.surely_exceeds(text, self._most):
            self._refuse_beyond_most(self._most + 1, param)

    def _refuse_beyond_most(self, length: int, param: str) -> None:
        if self._most and length > self._most:
            message = f"{FIELD} is too long: MAX_PROMPT_TOKENS allows {self._most} tokens. Shorten it."
            raise ContextLengthExceeded(message, param, (length, self._most))

    def _too_long(self, length: int | None, param: str) -> ContextLengthExceeded:
        """`length`: None where it is only known to be more than the context. OpenAI's words: clients look for them, to shorten the
        conversation by themselves."""
        context = self._context_length
        what = "input has" if param == "input" else "messages resulted in" if param == "messages" else "prompt has"
        told = f"more than {context}" if length is None else str(length)
        room = "" if param == "input" or length != context else " The completion needs at least one more."
        most = context if param == "input" else context - 1
        return ContextLengthExceeded(
            f"This model's maximum context length is {context} tokens. However, your {what} {told} tokens.{room} "
            "Shorten it, or raise CONTEXT_LENGTH.",
            param,
            (length or context + 1, most),
        )


def _shown(messages: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The texts of a chat that stand in the prompt whatever the template: not the reasoning, which many leave out."""
    for message in messages:
        yield message["content"] or ""
        yield from (call["function"]["arguments"] for call in message.get("tool_calls", ()))
