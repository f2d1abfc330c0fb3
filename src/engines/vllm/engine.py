"""Continuous batching by vLLM's own engine core: which jobs it gets, and what became of them. Knows nothing of text."""

import select
import threading
import time
from pathlib import Path
from typing import Any

from vllm import LLMEngine
from vllm.exceptions import VLLMValidationError
from vllm.inputs.engine import tokens_input
from vllm.lora.request import LoRARequest
from vllm.v1.engine import EngineCoreOutputs
from vllm.v1.engine.exceptions import EngineDeadError

from src.engines.base import Engine, EngineOptions, EngineStats, Job, Logprobs, Step
from src.engines.folder import end_tokens
from src.engines.queue import JobQueue
from src.engines.vllm.arguments import adapters, engine_arguments
from src.engines.vllm.parameters import Parameters
from src.errors import EngineDead, EngineError, ModelLoadFailed

AHEAD = 2  # jobs the core has beside those that fit: else a place stays empty for a step or two
CLOSE_SECONDS = 1.0  # the core gets to end by itself; then it is killed


class _Running:
    """A job the core has, and how far it is."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.drawn = 0
        self.told = False  # whether a step has carried its cached tokens


class VLLMEngine(Engine):
    """The core computes in processes of its own, one step after the other; `step` waits for what it has drawn since.

    The core tells nothing of a prompt that is being computed: the first step of a job carries its first token.
    """

    def __init__(self, options: EngineOptions) -> None:
        folder = Path(options.model_path)
        self._llm = _start(options)
        self._adapters = {"": None, **_load_adapters(self._llm, options)}
        threading.Thread(target=_tell_of_death, args=(self._llm.engine_core,), name="vllm-death", daemon=True).start()
        config = self._llm.vllm_config
        self.context_length = config.model_config.max_model_len
        self.device = config.device_config.device_type
        self._vocab_size = config.model_config.get_vocab_size()
        self._slots = config.scheduler_config.max_num_seqs
        self._kv_total = (config.cache_config.num_gpu_blocks - 1) * config.cache_config.block_size
        self._parameters = Parameters(end_tokens(folder), drawn_here=config.speculative_config is None)
        self._queue = JobQueue()
        self._running: dict[int, _Running] = {}
        self._prefix_hit = self._prefix_asked = self._generated = 0
        self._compute_seconds = 0.0
        self._waiting = self._woken = False

    def add(self, job: Job) -> None:
        if not job.tokens or len(job.tokens) >= self.context_length:
            raise EngineError(f"A job of {len(job.tokens)} tokens does not fit a context of {self.context_length}.")
        if not all(0 <= token < self._vocab_size for token in job.tokens):
            raise EngineError("The prompt has a token that is not in the model's vocabulary.")
        if job.adapter not in self._adapters:
            raise EngineError(f"The model was loaded without the adapter {job.adapter!r}: load it anew.")
        self._queue.add(job)

    def cancel(self, job_id: int) -> None:
        self._queue.cancel(job_id)
        if self._running.pop(job_id, None):
            self._llm.abort_request([str(job_id)])

    def step(self) -> list[Step]:
        steps = self._admit()
        self._woken = False
        while self._running and not steps and not self._woken:
            for output in self._wait():
                steps += self._advance(output)
        return steps

    def wake(self) -> None:
        """So that a new job is in the core's next step and not in the one after that."""
        if self._waiting:
            self._woken = True
            self._llm.engine_core.outputs_queue.put_nowait(EngineCoreOutputs())

    def stats(self) -> EngineStats:
        ahead = max(0, len(self._running) - self._slots)
        return EngineStats(
            running=len(self._running) - ahead,
            waiting=len(self._queue) + ahead,
            longest_wait=self._queue.longest_wait(),
            admitted=self._queue.admitted,
            waited_seconds=self._queue.waited_seconds,
            slots=self._slots,
            kv_used=sum(len(running.job.tokens) + running.drawn for running in self._running.values()),
            kv_total=self._kv_total,
            prefix_hit=self._prefix_hit,
            prefix_asked=self._prefix_asked,
            generated=self._generated,
            compute_seconds=self._compute_seconds,
        )

    def close(self) -> None:
        self._running.clear()
        self._llm.engine_core.shutdown(timeout=CLOSE_SECONDS)

    def _admit(self) -> list[Step]:
        """Hand jobs to the core in their turn. The steps of those that it refuses."""
        refused = []
        while len(self._running) < self._slots + AHEAD and (job := self._queue.take(running.job for running in self._running.values())):
            try:
                params = self._parameters.of(job, self.context_length - len(job.tokens))
                self._llm.add_request(str(job.id), tokens_input(job.tokens), params, lora_request=self._adapters[job.adapter])
            except EngineError as error:
                refused.append(Step(job_id=job.id, error=error))
            except EngineDeadError as error:
                raise EngineDead(f"vLLM's engine core has died: {error}") from error
            except (ValueError, VLLMValidationError) as error:  # what vLLM checks of its parameters
                refused.append(Step(job_id=job.id, error=EngineError(f"vLLM refuses this request: {error}")))
            else:
                self._running[job.id] = _Running(job)
                self._prefix_asked += job.prompt_tokens
        return refused

    def _wait(self) -> list[Any]:
        """vLLM's outputs for the jobs that got further."""
        began = time.perf_counter()
        self._waiting = True
        try:
            outputs: list[Any] = self._llm.step()
        except EngineDeadError as error:
            raise EngineDead(f"vLLM's engine core has died: {error}") from error
        finally:
            self._waiting = False
        self._compute_seconds += time.perf_counter() - began
        return outputs

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
        """The first one tells what was cached."""
        cached = None
        if not running.told:
            running.told = True
            cached = min(output.num_cached_tokens or 0, running.job.prompt_tokens)
            self._prefix_hit += cached
        return Step(job_id=running.job.id, cached_tokens=cached, **fields)


def _start(options: EngineOptions) -> LLMEngine:
    name = Path(options.model_path).name
    try:
        return LLMEngine.from_engine_args(engine_arguments(options), enable_multiprocessing=True)
    except ModelLoadFailed:
        raise
    except Exception as error:  # whatever settings and files that it was not written for make it raise
        raise ModelLoadFailed(f"vLLM cannot load {name}: {_reason(error)}") from error


def _load_adapters(llm: LLMEngine, options: EngineOptions) -> dict[str, LoRARequest]:
    """All of them, now: else vLLM would find out what is wrong with one when the first job wants it."""
    loaded = {}
    for number, (name, folder) in enumerate(adapters(options).items(), 1):
        loaded[name] = LoRARequest(str(number), number, folder)
        try:
            llm.add_lora(loaded[name])
        except Exception as error:  # whatever its files make vLLM's core raise
            llm.engine_core.shutdown(timeout=CLOSE_SECONDS)
            model = Path(options.model_path).name
            raise ModelLoadFailed(f"vLLM cannot apply the LoRA adapter {folder} to {model}: {_reason(error)[:300]}") from error
    return loaded


def _tell_of_death(core: Any) -> None:
    """vLLM notes that its core's process is gone, but wakes nobody who waits for what it computes."""
    ends = select.poll()
    for descriptor in core.resources.engine_manager.sentinels():
        ends.register(descriptor, select.POLLIN)
    ends.poll()
    core.outputs_queue.put_nowait(EngineDeadError())


def _reason(error: Exception) -> str:
    """Pydantic's report of one wrong setting is many lines, of which the second says it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = lines[1] if len(lines) > 1 and "validation error" in lines[0] else (lines or [""])[0]
    return f"{type(error).__name__}: {told}"


def _logprobs(entries: dict[int, Any], token: int, count: int) -> Logprobs:
    top = sorted(((entry.rank, id, entry.logprob) for id, entry in entries.items() if entry.rank <= count))[:count]
    return Logprobs(entries[token].logprob, [(id, logprob) for _, id, logprob in top])
