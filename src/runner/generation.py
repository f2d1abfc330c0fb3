"""One request's life in a runner: text in, job, steps, text out. Knows nothing of sockets or of how an engine works."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator

from src.engines.base import Job, Step
from src.errors import ContextLengthExceeded, InvalidValue, UnsupportedField
from src.protocol import ChatPrompt, Delta, Finished, Generate, Started, TextPrompt
from src.runner.loop import EngineLoop, Mailbox
from src.text.decode import StopMachine, Utf8Decoder
from src.text.template import ChatTemplate
from src.text.tokenizer import Tokenizer


class Generator:
    """Turns requests into jobs and steps into events, for one loaded model."""

    def __init__(self, loop: EngineLoop, tokenizer: Tokenizer, template: ChatTemplate | None, context_length: int) -> None:
        self._loop = loop
        self._tokenizer = tokenizer
        self._template = template
        self._context_length = context_length

    async def generate(self, request: Generate) -> AsyncGenerator[Started | Delta | Finished, None]:
        """The events of one request. Closing the iterator cancels the job. Raises ServiceError."""
        received = time.monotonic()
        # A long prompt takes its time, and the streams of others must not wait for it.
        prompt = await asyncio.to_thread(self._encode, request)
        room = self._room(prompt, "messages" if isinstance(request.prompt, ChatPrompt) else "prompt")
        max_tokens = min(request.max_tokens or room, room)
        job_id, mailbox = self._loop.submit(
            lambda id: Job(
                id=id, tokens=prompt, prompt_tokens=len(prompt), max_tokens=max_tokens, sampling=request.sampling, key=request.key
            )
        )
        try:
            async with contextlib.aclosing(self._follow(request, len(prompt), mailbox, received)) as events:
                async for event in events:
                    yield event
        finally:
            self._loop.cancel(job_id)

    def _encode(self, request: Generate) -> list[int]:
        prompt = request.prompt
        if isinstance(prompt, ChatPrompt):
            if self._template is None:
                raise UnsupportedField("This model has no chat template; use /v1/completions.", param="messages")
            for message in prompt.messages:
                self._refuse_if_too_long(message["content"] or "", "messages")
            return self._tokenizer.encode(self._template.render(prompt.messages), add_bos=True)
        if isinstance(prompt, TextPrompt):
            self._refuse_if_too_long(prompt.text, "prompt")
            return self._tokenizer.encode(prompt.text, add_bos=True)
        if not all(0 <= token < self._tokenizer.vocab_size for token in prompt.tokens):
            raise InvalidValue(f"prompt has a token id outside the model's vocabulary of {self._tokenizer.vocab_size}.", param="prompt")
        return prompt.tokens

    def _refuse_if_too_long(self, text: str, param: str) -> None:
        """By its size alone, before megabytes cost seconds of rendering and encoding."""
        if self._tokenizer.surely_exceeds(text, self._context_length):
            raise self._too_long(f"more than {self._context_length}", param)

    def _room(self, prompt: list[int], param: str) -> int:
        """Completion tokens that fit beside the prompt."""
        if not prompt:
            raise InvalidValue("The prompt is empty.", param)
        if len(prompt) >= self._context_length:
            raise self._too_long(str(len(prompt)), param)
        return self._context_length - len(prompt)

    def _too_long(self, length: str, param: str) -> ContextLengthExceeded:
        return ContextLengthExceeded(
            f"The prompt has {length} tokens, but this model's context is {self._context_length} tokens "
            "and the completion needs at least one. Shorten the prompt, or raise CONTEXT_LENGTH.",
            param,
        )

    async def _follow(
        self, request: Generate, prompt_tokens: int, mailbox: Mailbox, received: float
    ) -> AsyncGenerator[Started | Delta | Finished, None]:
        decoder, stops = Utf8Decoder(), StopMachine(request.stop)
        completion_tokens = cached_tokens = 0
        started = False
        while True:
            steps = await mailbox.take()
            text, finish = "", None
            for step in steps:
                if step.error:
                    raise step.error
                if not started:
                    started = True
                    cached_tokens = step.cached_tokens or 0
                    waited = time.monotonic() - received
                    yield Started(prompt_tokens=prompt_tokens, cached_tokens=cached_tokens, queue_seconds=waited)
                if step.token is not None:
                    completion_tokens += 1
                    text += stops.push(decoder.push(self._bytes_of(step)))
                finish = "stop" if stops.stopped else step.finish
                if finish:
                    break
            if finish:
                text += stops.push(decoder.flush()) + stops.flush()
            if text:
                yield Delta(text=text)
            if finish:
                yield Finished(reason=finish, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens, cached_tokens=cached_tokens)
                return

    def _bytes_of(self, step: Step) -> bytes:
        # The end token says that the answer ends; it is not part of it.
        return b"" if step.token is None or step.finish == "stop" else self._tokenizer.piece(step.token)
