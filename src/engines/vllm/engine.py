"""Continuous batching by vLLM's own engine core: which jobs it gets, and what became of them. Knows nothing of text."""

from pathlib import Path
from typing import Any

from src.engines.base import Engine, EngineStats, Job, Logprobs, Step
from src.engines.job_queue import JobQueue
from src.engines.vllm import VLLMOptions
from src.engines.vllm.core import Core
from src.engines.vllm.parameters import Parameters
from src.engines.vllm.reports import Reports
from src.errors import EngineError
from src.hf_folder import end_tokens

AHEAD = 2  # jobs the core has beside those that fit: else a place stays empty for a step or two


class _Running:
    """A job the core has, and how far it is."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.drawn = 0
        self.reported = False  # whether a step has carried its cached tokens


class VLLMEngine(Engine):
    """The core computes in processes of its own, one step after the other; `step` waits for what it has drawn since.

    The core tells nothing of a prompt that is being computed: the first step of a job carries its first token.
    """

    def __init__(self, core: Core, options: VLLMOptions) -> None:
        self._core = core
        self.features = frozenset({"generation"})
        self.context_length, self.vocab_size, self.device = core.context_length, core.vocab_size, core.device
        self.resumes = core.config.speculative_config is None
        self._reports = Reports()
        self._parameters = Parameters(end_tokens(Path(options.model_path)), self._reports.path if self.resumes else None)
        self._queue = JobQueue(core.slots)
        self._running: dict[int, _Running] = {}
        self._prefix_hit = self._prefix_asked = self._generated = 0

    def add(self, job: Job) -> None:
        self._assert_fits(job)
        self._core.check_adapter(job.adapter)
        self._queue.add(job)

    def cancel(self, job_id: int) -> None:
        self._queue.cancel(job_id)
        if self._running.pop(job_id, None):
            self._core.abort(job_id)

    def step(self) -> list[Step]:
        steps = self._admit()
        while self._running and not steps and (outputs := self._core.wait()) is not None:
            steps = self._failed()
            for output in outputs:
                steps += self._advance(output)
        return steps

    def wake(self) -> None:
        """So that a new job is in the core's next step and not in the one after that."""
        self._core.wake()

    def stats(self) -> EngineStats:
        ahead = max(0, len(self._running) - self._core.slots)
        queue = self._queue.stats()
        queue["waiting"] += ahead
        return EngineStats(
            running=len(self._running) - ahead,
            **queue,
            slots=self._core.slots,
            kv_used=sum(len(running.job.tokens) + running.drawn for running in self._running.values()),
            kv_total=self._core.kv_tokens,
            prefix_hit=self._prefix_hit,
            prefix_asked=self._prefix_asked,
            generated=self._generated,
            compute_seconds=self._core.compute_seconds,
        )

    def close(self) -> None:
        self._running.clear()
        self._core.close()
        self._reports.close()

    def _failed(self) -> list[Step]:
        """Steps of the jobs for which there was nothing to draw; what was drawn all the same is not looked at."""
        steps = []
        for id, error in self._reports.read().items():
            if running := self._running.get(id):
                steps.append(Step(job_id=id, cached_tokens=None if running.reported else 0, error=error))
                self.cancel(id)
        return steps

    def _admit(self) -> list[Step]:
        """Hand jobs to the core in their turn. The steps of those that it refuses."""
        refused = []
        places = self._core.slots + AHEAD
        while len(self._running) < places and (job := self._queue.take(running.job for running in self._running.values())):
            try:
                params = self._parameters.of(job, self.context_length - len(job.tokens))
                self._core.add(job.id, job.tokens, params, job.adapter, job.scope)
            except EngineError as error:
                refused.append(Step(job_id=job.id, error=error))
            else:
                self._running[job.id] = _Running(job)
                self._prefix_asked += job.prompt_tokens
        return refused

    def _advance(self, output: Any) -> list[Step]:
        """A step for each of the tokens, one but for speculative decoding."""
        running = self._running.get(int(output.request_id))
        if running is None:
            return []  # cancelled while the core was at it
        job, completion = running.job, output.outputs[0]
        finish = completion.finish_reason
        steps: list[Step] = []
        for index, token in enumerate(completion.token_ids):
            try:
                if job.grammar:
                    job.grammar.accept(token)
            except EngineError as error:
                self.cancel(job.id)
                return [*steps, self._step(running, output, error=error)]
            running.drawn += 1
            self._generated += 1
            logprobs = None if job.sampling.logprobs is None else _logprobs(completion.logprobs[index], token, job.sampling.logprobs)
            last = index == len(completion.token_ids) - 1
            steps.append(self._step(running, output, token=token, logprobs=logprobs, finish=finish if last else None))
        if finish:
            self._running.pop(job.id)
            if finish not in ("stop", "length") or not steps:
                ended = EngineError(f"vLLM ended this request ({finish}).")
                return [*steps[:-1], self._step(running, output, error=ended)]
        return steps

    def _step(self, running: _Running, output: Any, **fields: Any) -> Step:
        """The first one carries what was cached."""
        cached = None
        if not running.reported:
            running.reported = True
            cached = min(output.num_cached_tokens or 0, running.job.prompt_tokens)
            self._prefix_hit += cached
        return Step(job_id=running.job.id, cached_tokens=cached, **fields)


def _logprobs(entries: dict[int, Any], token: int, count: int) -> Logprobs:
    top = sorted(((entry.rank, id, entry.logprob) for id, entry in entries.items() if entry.rank <= count))[:count]
    return Logprobs(entries[token].logprob, [(id, logprob) for _, id, logprob in top])
