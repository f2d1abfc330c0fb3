"""One request's life in a runner: prompts in, jobs, steps, text out. Knows nothing of sockets or of how an engine works."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field

import msgspec

from src.engines.base import Grammar, Job, Step
from src.errors import InvalidValue, QueueTimeout, UnsupportedField
from src.protocol import ChatPrompt, Delta, Ended, Finished, Generate, OnTrial, Started
from src.runner.choice import Choice
from src.runner.grammars import Grammars, functions_of
from src.runner.loop import EngineLoop, Mailbox
from src.runner.prompts import Prompts
from src.runner.turnstile import Trial, Turnstile
from src.sampling import nth_seed
from src.text.channels import PlainText
from src.text.dialect import Dialect
from src.text.grammar import Limits
from src.text.template import ChatTemplate
from src.text.tokenizer import Tokenizer

Event = OnTrial | Started | Delta | Ended | Finished


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
        tokenizer: Tokenizer,
        template: ChatTemplate | None,
        context_length: int,
        grammar_limits: Limits | None = None,
        tool_format: str | None = None,
        longest_prompt: int = 0,
        patience: float = 0,
        *,
        writes: bool = True,
    ) -> None:
        """`longest_prompt` in tokens, `patience` in seconds till a request is begun; 0: any. `writes`: whether the model does.
        Raises ModelLoadFailed for a `tool_format` that is not known."""
        self._writes = writes
        self._loop = loop
        self._tokenizer = tokenizer
        self._dialect = Dialect(template, tokenizer, tool_format) if template else None
        self.prompts = Prompts(tokenizer, self._dialect, context_length, longest_prompt)
        self._context_length = context_length
        self._patience = patience
        self._turnstile = Turnstile()
        self._grammars = Grammars(tokenizer, self._dialect, grammar_limits)

    def close(self) -> None:
        """No request may be running."""
        self._grammars.close()

    async def generate(self, request: Generate) -> AsyncGenerator[Event, None]:
        """The events of one request. Closing the iterator cancels its jobs. Raises ServiceError."""
        if not self._writes:
            raise UnsupportedField("This model was made for embeddings and writes no text: ask /v1/embeddings.", "model")
        received = time.monotonic()
        trial = await self._turnstile.enter(request.deaths)
        try:
            if trial.open:
                yield OnTrial(open=True)  # sent before anything is computed
            async with contextlib.aclosing(self._computed(request, trial, received)) as events:
                async for event in events:
                    yield event
        finally:
            trial.end()

    async def _computed(self, request: Generate, trial: Trial, received: float) -> AsyncGenerator[Event, None]:
        self._check_tokens(request)
        # A long prompt takes its time, and the streams of others must not wait for it.
        prompts = await asyncio.to_thread(lambda: [self.prompts.encode(prompt) for prompt in request.prompts])
        grammars = await self._grammars.of(request, prompts)
        answers = [
            _Answer(
                prompt,
                self._choice(index * request.n + choice, request, prompt),
                first=choice == 0,
                grammar=grammars[index * request.n + choice],
            )
            for index, prompt in enumerate(prompts)
            for choice in range(request.n)
        ]
        mailbox = Mailbox()
        try:
            for answer in answers:
                self._begin(answer, request, mailbox)
            async with contextlib.aclosing(self._follow(request, answers, mailbox, trial, received)) as events:
                async for event in events:
                    yield event
        finally:
            for answer in answers:
                if answer.job_id is not None:
                    self._loop.cancel(answer.job_id)

    async def _follow(
        self, request: Generate, answers: list[_Answer], mailbox: Mailbox, trial: Trial, received: float
    ) -> AsyncGenerator[Event, None]:
        clock = _Clock()
        prompt_tokens = sum(len(answer.prompt) for answer in answers if answer.first)
        waiting = {answer.job_id: answer for answer in answers if answer.job_id is not None}

        def start(cached_tokens: int) -> Iterator[Event]:
            clock.started = time.monotonic() if mailbox.admitted_at is None else mailbox.admitted_at
            yield Started(prompt_tokens=prompt_tokens, cached_tokens=cached_tokens, queue_seconds=clock.started - received)
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
            if trial.drew(sum(answer.choice.completion_tokens for answer in answers) - drawn):
                yield OnTrial(open=False)
            drawn = sum(answer.choice.completion_tokens for answer in answers)
            for job_id, answer in moved.items():
                if delta := answer.choice.take():
                    yield delta
                if answer.choice.finish:
                    del waiting[job_id]
                    self._loop.cancel(job_id)
                    yield answer.choice.ended
        clock.ended = time.monotonic()
        yield _finished(answers, prompt_tokens, clock)

    async def _first_steps(self, request: Generate, mailbox: Mailbox, received: float) -> list[Step]:
        """Raises QueueTimeout, but not for an answer that another runner has begun."""
        if not self._patience or request.resume or request.deaths:
            return await mailbox.take()
        try:
            return await asyncio.wait_for(mailbox.take(), max(0.0, received + self._patience - time.monotonic()))
        except asyncio.TimeoutError:
            text = f"The request has waited for its place as long as QUEUE_TIMEOUT allows, {self._patience:g} s. Try again later."
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
        return b"".join(self._tokenizer.piece(token) for token in tokens).decode(errors="replace")

    def _check_tokens(self, request: Generate) -> None:
        size = self._tokenizer.vocab_size
        for param, tokens in (("logit_bias", request.sampling.logit_bias), ("stop_token_ids", request.sampling.stop_tokens)):
            if not all(0 <= token < size for token in tokens):
                raise InvalidValue(f"{param} has a token id outside the model's vocabulary of {size}.", param)


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
