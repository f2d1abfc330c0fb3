"""No model: replays the prompt, a token a step. For tests, and for measuring everything that is not an engine."""

import math
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Generator, Mapping

from src.engines.base import Engine, EngineOptions, EngineStats, Job, Logprobs, Step
from src.engines.finite import check_row
from src.engines.job_queue import JobQueue
from src.errors import EngineError

END_TOKEN = 256  # the byte tokenizer's end token
SURE = 50.0  # the due token's logit


class EchoOptions(EngineOptions, frozen=True, kw_only=True):
    max_sequences: int
    step_delay: float = 0.0  # seconds a step takes
    fault: str = ""  # crash, kill, stall or nan, and the text on which


class EchoEngine(Engine):
    """Answers with the prompt's tokens, then the end token; with ignore_eos, with the prompt over and over.

    Where a grammar does not allow the token that is due, it draws the end token or else the first that is allowed. Biases
    and logprobs are those of a model that is sure: the due token's logit is 50, all others' are 0.
    """

    features = frozenset({"generation", "embeddings"})
    device = "cpu"
    vocab_size = 2**31 - 1  # it can replay any token
    embedding_length = 64

    def __init__(self, options: EchoOptions) -> None:
        self.context_length = options.context_length
        self._slots = options.max_sequences
        self._delay = options.step_delay
        self._fault, _, text = options.fault.partition(" ")
        self._fault_tokens = list(text.encode())
        self._queue = JobQueue(self._slots)
        self._running: dict[int, tuple[Job, int]] = {}  # id: the job and how many tokens it has drawn
        self._generated = self._prefix_asked = 0

    def add(self, job: Job) -> None:
        self._assert_fits(job)
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
        numbers = SURE
        if self._fault and job.tokens[at : at + len(self._fault_tokens)] == self._fault_tokens and at < job.prompt_tokens:
            numbers = self._fail()
        sampling = job.sampling
        ended = at >= max(job.prompt_tokens, sampling.min_tokens) and not sampling.ignore_eos
        due = END_TOKEN if ended else job.tokens[at % job.prompt_tokens]
        token = _likeliest(due, sampling.logit_bias)
        try:
            check_row(numbers)
            if job.grammar:
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
            broken = self._fault == "nan" and bytes(self._fault_tokens) in bytes(token % 256 for token in tokens)
            yield [math.nan if broken else float(counts[place]) for place in range(self.embedding_length)]

    def _fail(self) -> float:
        """As native code does. Returns a logit that is no number."""
        if self._fault == "nan":
            return math.nan
        if self._fault != "stall":
            os.kill(os.getpid(), signal.SIGSEGV if self._fault == "crash" else signal.SIGKILL)
        threading.Event().wait()  # for ever, or until the signal is delivered
        raise AssertionError

    def stats(self) -> EngineStats:
        return EngineStats(
            running=len(self._running),
            **self._queue.stats(),
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


def load(options: EchoOptions) -> Engine:
    return EchoEngine(options)
