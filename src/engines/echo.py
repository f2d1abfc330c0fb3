"""No model: replays the prompt, a token a step. For tests, and for measuring everything that is not an engine."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Generator, Mapping

from src.engines.base import Engine, EngineOptions, EngineStats, Job, Logprobs, Step
from src.engines.queue import JobQueue
from src.errors import EngineError

END_TOKEN = 256  # the byte tokenizer's end token
SURE = 50.0  # the due token's logit


class EchoEngine(Engine):
    """Answers with the prompt's tokens, then the end token; with ignore_eos, with the prompt over and over.

    Where a grammar does not allow the token that is due, it draws the end token or else the first that is allowed. Biases
    and logprobs are those of a model that is sure: the due token's logit is 50, all others' are 0.
    """

    device = "cpu"
    embedding_length = 64

    def __init__(self, options: EngineOptions) -> None:
        self.context_length = options.context_length or 8192
        self._slots = options.max_sequences or 20
        self._delay = options.step_delay
        self._fault, _, text = options.fault.partition(" ")
        self._fault_tokens = list(text.encode())
        self._queue = JobQueue()
        self._running: dict[int, tuple[Job, int]] = {}  # id: the job and how many tokens it has drawn
        self._generated = self._prefix_asked = 0

    def add(self, job: Job) -> None:
        if not job.tokens or len(job.tokens) >= self.context_length:
            raise EngineError(f"A job of {len(job.tokens)} tokens does not fit a context of {self.context_length}.")
        self._queue.add(job)

    def cancel(self, job_id: int) -> None:
        self._queue.cancel(job_id)
        self._running.pop(job_id, None)

    def step(self) -> list[Step]:
        while len(self._running) < self._slots and (job := self._queue.take(job for job, _ in self._running.values())):
            self._running[job.id] = (job, 0)
            self._prefix_asked += job.prompt_tokens
        if self._running and self._delay:
            time.sleep(self._delay)
        return [self._advance(job, drawn) for job, drawn in list(self._running.values())]

    def _advance(self, job: Job, drawn: int) -> Step:
        # What a resumed job has drawn before counts on in the replay.
        at = len(job.tokens) - job.prompt_tokens + drawn
        if self._fault and job.tokens[at : at + len(self._fault_tokens)] == self._fault_tokens and at < job.prompt_tokens:
            self._fail()
        sampling = job.sampling
        ended = at >= max(job.prompt_tokens, sampling.min_tokens) and not sampling.ignore_eos
        due = END_TOKEN if ended else job.tokens[at % job.prompt_tokens]
        token = _likeliest(due, sampling.logit_bias)
        if job.grammar:
            try:
                token = _nearest(token, job.grammar.allowed())
                job.grammar.accept(token)
            except EngineError as error:
                del self._running[job.id]
                return Step(job_id=job.id, cached_tokens=None if drawn else 0, error=error)
        drawn += 1
        self._generated += 1
        may_end = at >= sampling.min_tokens
        finish = "stop" if token == END_TOKEN or (may_end and token in sampling.stop_tokens) else None
        if finish is None and (drawn == job.max_tokens or len(job.tokens) + drawn >= self.context_length):
            finish = "length"
        if finish:
            del self._running[job.id]
        else:
            self._running[job.id] = (job, drawn)
        logprobs = None if sampling.logprobs is None else _logprobs(due, token, sampling.logprobs)
        return Step(job_id=job.id, token=token, cached_tokens=0 if drawn == 1 else None, logprobs=logprobs, finish=finish)

    def embed(self, inputs: list[list[int]]) -> Generator[list[float] | None, None, None]:
        """Counts tokens: texts of the same letters are alike."""
        for tokens in inputs:
            time.sleep(self._delay)
            yield None
            counts = Counter(token % self.embedding_length for token in tokens)
            yield [float(counts[place]) for place in range(self.embedding_length)]

    def _fail(self) -> None:
        """As native code does."""
        if self._fault == "stall":
            threading.Event().wait()
        os.kill(os.getpid(), signal.SIGSEGV if self._fault == "crash" else signal.SIGKILL)

    def stats(self) -> EngineStats:
        return EngineStats(
            running=len(self._running),
            waiting=len(self._queue),
            longest_wait=self._queue.longest_wait(),
            admitted=self._queue.admitted,
            waited_seconds=self._queue.waited_seconds,
            slots=self._slots,
            kv_used=sum(len(job.tokens) + drawn for job, drawn in self._running.values()),
            kv_total=self._slots * self.context_length,
            prefix_asked=self._prefix_asked,
            generated=self._generated,
        )

    def close(self) -> None:
        self._running.clear()


def _likeliest(due: int, biases: Mapping[int, float]) -> int:
    logits = {due: SURE, next(token for token in range(END_TOKEN + 1) if token != due and token not in biases): 0.0}
    for token, bias in biases.items():
        logits[token] = logits.get(token, 0.0) + bias
    return max(logits, key=lambda token: logits[token])


def _logprobs(due: int, drawn: int, count: int) -> Logprobs:
    """By the softmax of the logits without biases; all but the due token have about -50."""
    others = [(token, -SURE) for token in range(END_TOKEN + 1) if token != due]
    return Logprobs(0.0 if drawn == due else -SURE, [(due, 0.0), *others][:count])


def _nearest(wanted: int, allowed: bytes) -> int:
    """The token wanted, else the end token, else the first one; the first of these that is allowed."""
    candidates: list[int] = [wanted, END_TOKEN, *range(END_TOKEN)]
    for token in candidates:
        if allowed[token // 8] >> token % 8 & 1:
            return token
    raise EngineError("The grammar allows no token at all.")


def load(options: EngineOptions) -> Engine:
    return EchoEngine(options)
