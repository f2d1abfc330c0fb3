"""One request's life in a runner: prompts in, jobs, steps, text out. Knows nothing of sockets or of how an engine works."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field

import msgspec

from src.engines.base import Engine, Grammar, Job, Step
from src.errors import EngineError, InvalidValue, QueueTimeout, UnsupportedField
from src.protocol import ChatPrompt, Delta, Finished, Generate, GenerateEvent, Quarantined, Started
from src.runner.choice import Choice
from src.runner.engine_loop import EngineLoop, Mailbox
from src.runner.grammars import Grammars, functions_of
from src.runner.prompts import Prompts
from src.runner.quarantine import Quarantine, Suspicion
from src.sampling import nth_seed
from src.text.dialect import Dialect
from src.text.grammar import Limits
from src.text.output.channels import PlainText
from src.text.template import ChatTemplate
from src.text.tokenizer.base import Tokenizer


@dataclass
class _Answer:
    """A choice and its job."""

    prompt: list[int]
    choice: Choice
    first: bool  # of its prompt's choices
    grammar: Grammar | None
    job_id: int | None = None  # None: it needs none
    cached_tokens: int = 0


@dataclass
class _Clock:
    """When what happened, in monotonic seconds."""

    started: float | None = None
    first_token: float | None = None
    ended: float = field(default_factory=time.monotonic)


class Generator:
    """Turns requests into jobs and steps into events, for one loaded model."""

    def __init__(
        self,
        loop: EngineLoop,
        engine: Engine,
        tokenizer: Tokenizer,
        template: ChatTemplate | None,
        *,
        tool_template: ChatTemplate | None = None,
        tool_format: str | None = None,
        grammar_limits: Limits | None = None,
        max_prompt_tokens: int = 0,
        queue_timeout: float = 0,
        strict: bool = False,
    ) -> None:
        """`engine` is the loop's, for its constants. `queue_timeout`: seconds until a request is begun. 0: unlimited. `strict`: refuse
        hints that have no effect on this model.

        Raises ModelLoadFailed for a `tool_format` that is not known.
        """
        self._loop = loop
        self._tokenizer = tokenizer
        self._dialect = Dialect(template, tokenizer, tool_format, tool_template) if template else None
        self.prompts = Prompts(tokenizer, self._dialect, engine.context_length, engine.vocab_size, max_prompt_tokens, strict)
        self._generates = "generation" in engine.features
        self._context_length, self._vocab_size = engine.context_length, engine.vocab_size
        self._queue_timeout = queue_timeout
        self._quarantine = Quarantine()
        self._grammars = Grammars(tokenizer, self._dialect, grammar_limits)

    def close(self) -> None:
        """No request may be running."""
        self._grammars.close()
        self.prompts.close()

    async def generate(self, request: Generate) -> AsyncGenerator[GenerateEvent, None]:
        """The events of one request. Closing the iterator cancels its jobs. Raises ServiceError."""
        if not self._generates:
            raise UnsupportedField("This model was made for embeddings and writes no text: ask /v1/embeddings.", "model")
        received = time.monotonic()
        with contextlib.closing(await self._quarantine.enter(request.crashes)) as suspicion:
            if suspicion.open:
                yield Quarantined(open=True)  # sent before anything is computed
            answers = await self._answers(request)
            mailbox = Mailbox()
            try:
                for answer in answers:
                    self._begin(answer, request, mailbox)
                async with contextlib.aclosing(self._follow(request, answers, mailbox, suspicion, received)) as events:
                    async for event in events:
                        yield event
            finally:
                for answer in answers:
                    if answer.job_id is not None:
                        self._loop.cancel(answer.job_id)

    async def _answers(self, request: Generate) -> list[_Answer]:
        """One for each choice. Raises ServiceError where the request cannot be computed."""
        self._check_tokens(request)
        prompts = await self.prompts.encoded(request.prompts, request.key)
        grammars = await self._grammars.of(request, prompts)
        return [
            _Answer(
                prompt,
                self._choice(index * request.n + choice, request, prompt),
                first=choice == 0,
                grammar=grammars[index * request.n + choice],
            )
            for index, prompt in enumerate(prompts)
            for choice in range(request.n)
        ]

    async def _follow(
        self, request: Generate, answers: list[_Answer], mailbox: Mailbox, suspicion: Suspicion, received: float
    ) -> AsyncGenerator[GenerateEvent, None]:
        clock = _Clock()
        prompt_tokens = sum(len(answer.prompt) for answer in answers if answer.first)
        waiting = {answer.job_id: answer for answer in answers if answer.job_id is not None}

        def start(cached_tokens: int) -> Iterator[GenerateEvent]:
            clock.started = time.monotonic() if mailbox.admitted_at is None else mailbox.admitted_at
            yield Started(
                prompt_tokens=prompt_tokens,
                cached_tokens=cached_tokens,
                queue_seconds=clock.started - received,
                ignored=[path for prompt in request.prompts for path in self.prompts.ignored(prompt)],
            )
            for answer in answers:
                if request.echo and not request.resume:
                    yield Delta(index=answer.choice.index, text=self._text_of(answer.prompt))
                if answer.job_id is None:
                    yield answer.choice.ended

        if not waiting:
            for event in start(0):
                yield event
        drawn = sum(answer.choice.completion_tokens for answer in answers)  # those known before
        while waiting:
            moved: dict[int, _Answer] = {}
            steps = await (mailbox.take() if clock.started else self._first_steps(request, mailbox, received))
            for step in steps:
                if step.error:
                    raise step.error
                answer = waiting.get(step.job_id)
                if answer is None or answer.choice.finish:
                    continue  # a stop string came: what was drawn before its job was cancelled is of no use
                if step.cached_tokens is not None:
                    answer.cached_tokens = step.cached_tokens
                if clock.started is None:
                    for event in start(answer.cached_tokens):
                        yield event
                if step.token is not None and clock.first_token is None:
                    clock.first_token = time.monotonic()
                answer.choice.push(step)
                moved[step.job_id] = answer
            if suspicion.count(sum(answer.choice.completion_tokens for answer in answers) - drawn):
                yield Quarantined(open=False)
            drawn = sum(answer.choice.completion_tokens for answer in answers)
            for job_id, answer in moved.items():
                if delta := answer.choice.take():
                    yield delta
                if answer.choice.finish:
                    del waiting[job_id]
                    self._loop.cancel(job_id, answered=True)
                    yield answer.choice.ended
        clock.ended = time.monotonic()
        yield _finished(answers, prompt_tokens, clock)

    async def _first_steps(self, request: Generate, mailbox: Mailbox, received: float) -> list[Step]:
        """Raises QueueTimeout, but not for an answer that another runner has begun."""
        if not self._queue_timeout or request.resume or request.crashes:
            return await mailbox.take()
        try:
            return await asyncio.wait_for(mailbox.take(), max(0.0, received + self._queue_timeout - time.monotonic()))
        except asyncio.TimeoutError:
            text = f"The request has waited for its place as long as QUEUE_TIMEOUT allows, {self._queue_timeout:g} s. Try again later."
            raise QueueTimeout(text) from None

    def _begin(self, answer: _Answer, request: Generate, mailbox: Mailbox) -> None:
        """Submit the choice's job, unless it is through: then only its end was not told before it was resumed."""
        choice, prompt = answer.choice, answer.prompt
        known = request.resume[choice.index] if request.resume else []
        choice.replay(known)
        room = self._context_length - len(prompt)
        most = min(request.max_tokens or room, room)
        if choice.finish is None and len(known) >= most:
            choice.finish = "length"
        if choice.finish:
            return
        sampling = msgspec.structs.replace(request.sampling, seed=nth_seed(request.sampling.seed, choice.index))
        answer.job_id = self._loop.submit(
            lambda id: Job(
                id=id,
                tokens=prompt + known,
                prompt_tokens=len(prompt),
                max_tokens=most - len(known),
                sampling=sampling,
                grammar=answer.grammar,
                adapter=request.adapter,
                scope=request.adapter,
                key=request.key,
            ),
            mailbox,
        )

    def _choice(self, index: int, request: Generate, prompt: list[int]) -> Choice:
        asked = request.prompts[index // request.n]
        if self._dialect is None or not isinstance(asked, ChatPrompt):
            return Choice(index, request, self._tokenizer, PlainText())
        functions = functions_of(asked.tools)
        return Choice(index, request, self._tokenizer, self._dialect.channels(prompt, functions), self._dialect.shown(functions))

    def _text_of(self, tokens: list[int]) -> str:
        return b"".join(self._tokenizer.bytes_of(token) for token in tokens).decode(errors="replace")

    def _check_tokens(self, request: Generate) -> None:
        size = min(self._vocab_size, self._tokenizer.vocab_size)
        for param, tokens in (("logit_bias", request.sampling.logit_bias), ("stop_token_ids", request.sampling.stop_tokens)):
            if not all(0 <= token < size for token in tokens):
                raise InvalidValue(f"{param} has a token id outside the model's vocabulary of {size}.", param)
        if not all(0 <= token < self._vocab_size for tokens in request.resume for token in tokens):
            raise EngineError("This answer was begun by another model, which is no longer loaded. Send the request again.")


def _finished(answers: list[_Answer], prompt_tokens: int, clock: _Clock) -> Finished:
    assert clock.started
    first_token = clock.first_token or clock.ended
    return Finished(
        prompt_tokens=prompt_tokens,
        completion_tokens=sum(answer.choice.completion_tokens for answer in answers),
        cached_tokens=sum(answer.cached_tokens for answer in answers if answer.first),
        reasoning_tokens=sum(answer.choice.reasoning_tokens for answer in answers),
        prefill_seconds=first_token - clock.started,
        decode_seconds=clock.ended - first_token,
    )
