"""Continuous batching over llama_decode: one batch a step, made of every running job. Knows nothing of text."""

import time
from collections.abc import Generator

import llama_cpp.llama_cpp as ll

from src.engines.base import Engine, EngineStats, Feature, Job, Step
from src.engines.job_queue import JobQueue
from src.engines.llamacpp import LlamaCppOptions
from src.engines.llamacpp.embedder import BATCH_TOKENS as EMBEDDING_BATCH_TOKENS
from src.engines.llamacpp.embedder import Embedder
from src.engines.llamacpp.model import BATCH_TOKENS, LoadedModel
from src.engines.llamacpp.slots import Slot, Slots
from src.engines.prefill_budget import PrefillBudget, share_room
from src.engines.step_share import SHORT, Running, StepShare
from src.errors import EngineError, InvalidOutput

STEP_TARGET = {"cpu": 0.25, "cuda": 0.05, "mps": 0.1}  # seconds, where the setting leaves it open


class LlamaCppEngine(Engine):
    def __init__(self, options: LlamaCppOptions) -> None:
        self._model = LoadedModel(options)
        self.features = frozenset[Feature]({"generation", "embeddings"} if self._model.generates else {"embeddings"})
        self.context_length, self.vocab_size = self._model.context_length, self._model.n_vocab
        self.device = self._model.device
        self.embedding_length = self._model.embedding_length
        self.kv_cache = self._model.kv_cache
        self._slots = Slots(self._model, options.cached_prefixes)
        target = options.step_time_target or STEP_TARGET[self.device]
        self._budget = PrefillBudget(target, BATCH_TOKENS)
        self._embedding_budget = PrefillBudget(target, EMBEDDING_BATCH_TOKENS)
        self._embedder: Embedder | None = None  # until somebody asks
        self._queue = JobQueue(len(self._slots.all))
        self._step_share = StepShare()
        self._batch = ll.llama_batch_init(BATCH_TOKENS, 0, 1)
        self._prefix_hit = self._prefix_asked = self._generated = 0
        self._compute_seconds = self._position = 0.0
        self._warm_up()

    def add(self, job: Job) -> None:
        self._assert_fits(job)  # llama.cpp would abort
        self._queue.add(job)

    def cancel(self, job_id: int) -> None:
        self._queue.cancel(job_id)
        for slot in self._slots.running():
            if slot.job and slot.job.id == job_id:
                self._slots.release(slot)

    def step(self) -> list[Step]:
        began = time.perf_counter()
        self._admit()
        self._slots.close_gap()
        batched = self._fill_batch()
        if not batched:
            return []
        filled = time.perf_counter()
        self._model.compute(self._model.context, self._batch)
        computed = time.perf_counter()
        steps = [self._advance(slot, output) for slot, output in batched]
        self._slots.clean([slot for (slot, _), step in zip(batched, steps, strict=True) if isinstance(step.error, InvalidOutput)])
        seconds = time.perf_counter() - began
        prefilled = self._batch.n_tokens - self._decoding
        self._budget.observe(self._decoding, prefilled, seconds, self._position)
        if not prefilled:
            self._step_share.observe(self._decoding, self._drawing, seconds)
        self._embedding_budget.observe(self._decoding, 0, seconds)  # a piece of such work comes between two steps
        self._compute_seconds += computed - filled
        return steps

    def embed(self, inputs: list[list[int]]) -> Generator[list[float] | None, None, None]:
        if self._embedder is None:
            self._embedder = Embedder(self._model, self._embedding_budget)
        yield from self._embedder.embed(inputs, lambda: len(self._slots.running()), lambda: SHORT if self._queue.was_asked() else None)

    def stats(self) -> EngineStats:
        running = self._slots.running()
        return EngineStats(
            running=len(running),
            **self._queue.stats(),
            slots=self._model.slots,
            kv_used=sum(len(slot.cells) for slot in running),
            kv_total=self._model.slots * self.context_length,
            prefix_hit=self._prefix_hit,
            prefix_asked=self._prefix_asked,
            generated=self._generated,
            compute_seconds=self._compute_seconds,
            prefix_copies=self._slots.copies,
            moves=self._slots.moves,
        )

    def close(self) -> None:
        for slot in self._slots.running():
            self._slots.release(slot)
        if self._embedder:
            self._embedder.close()
        ll.llama_batch_free(self._batch)
        self._model.close()

    def _admit(self) -> None:
        """Give free slots to waiting jobs in their turn; one that can soon copy its prefix lets others pass."""
        while len(self._queue) and self._slots.free():
            running = (slot.job for slot in self._slots.running() if slot.job)
            job = self._queue.take(running, lambda job: not self._slots.worth_waiting(job))
            if job is None:
                return
            slot = self._slots.take(job)
            self._prefix_asked += job.prompt_tokens
            self._prefix_hit += slot.cached_tokens or 0

    def _fill_batch(self) -> list[tuple[Slot, int]]:
        """Put the next tokens of the jobs whose turn it is into the batch: one of each that decodes, then prompts in what room is left.

        Returns the slots in the batch with the index of their last token there.
        """
        running = self._slots.running()
        seconds = None
        self._drawing = sum(slot.drawn > 0 for slot in running)
        jobs = [slot.job for slot in running if slot.job]
        if self._queue.is_uneven(jobs):
            chosen, seconds = self._step_share.choose([Running(job.key, slot.drawn > 0) for job, slot in zip(jobs, running, strict=True)])
            running = [running[index] for index in chosen]
        prompts = sorted((slot for slot in running if len(slot.todo) > 1), key=lambda slot: slot.admitted_at)
        self._decoding = len(running) - len(prompts)
        counts: dict[int, int] = {}
        if prompts:
            room = self._budget.tokens(self._decoding, max(len(slot.cells) for slot in prompts), seconds)
            shares = share_room(room, [len(slot.todo) for slot in prompts])
            counts = {slot.seq_id: share for slot, share in zip(prompts, shares, strict=True)}
            self._position = sum(counts[slot.seq_id] * (len(slot.cells) + counts[slot.seq_id] / 2) for slot in prompts) / sum(shares)
        self._batch.n_tokens = 0
        return [(slot, self._put(slot, counts.get(slot.seq_id, 1))) for slot in running]

    def _put(self, slot: Slot, count: int) -> int:
        batch, index = self._batch, int(self._batch.n_tokens)
        for _ in range(count):
            token = slot.todo.popleft()
            batch.token[index] = token
            batch.pos[index] = len(slot.cells)
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = slot.seq_id
            batch.logits[index] = False
            slot.cells.append(token)
            index += 1
        batch.logits[index - 1] = not slot.todo  # logits are wanted once all that precedes the next token is there
        batch.n_tokens = index
        return index - 1

    def _advance(self, slot: Slot, output: int) -> Step:
        """Draw the slot's next token, if its prompt is through."""
        job, sampler = slot.job, slot.sampler
        assert job is not None and sampler is not None
        cached, slot.cached_tokens = slot.cached_tokens, None
        if slot.todo:
            return Step(job_id=job.id, cached_tokens=cached)
        try:
            token, logprobs = sampler.sample(output, len(slot.cells))
        except EngineError as error:  # of this job alone
            self._slots.release(slot)
            return Step(job_id=job.id, cached_tokens=cached, error=error)
        slot.drawn += 1
        self._generated += 1
        finish = None
        if token in self._model.end_tokens or token in job.sampling.stop_tokens:
            finish = "stop"
        elif slot.drawn == job.max_tokens or len(slot.cells) + 1 >= self.context_length:
            finish = "length"
        if finish:
            self._slots.release(slot)
        else:
            slot.todo.append(token)
        return Step(job_id=job.id, token=token, cached_tokens=cached, logprobs=logprobs, finish=finish)

    def _warm_up(self) -> None:
        """Compute as requests will, so that the first one waits neither for weights to come from disk nor for a GPU's kernels.

        On a CPU one token does: there is nothing to compile. A Mac's GPU has other kernels for prompts, and compiles each at its first use.
        """
        token = self._model.end_tokens[0] if self._model.end_tokens else 0
        first, *others = self._slots.all
        prompt = min(BATCH_TOKENS, self.context_length - 1) if self.device == "mps" else 1
        self._compute_warm_up({first: prompt}, token)
        if self.device == "mps" and self._model.generates:
            self._compute_warm_up(dict.fromkeys([first, *others][:BATCH_TOKENS], 1), token)
        ll.llama_memory_clear(self._model.memory, True)
        for slot in self._slots.all:
            slot.cells.clear()

    def _compute_warm_up(self, counts: dict[Slot, int], token: int) -> None:
        """So many tokens in each of these slots."""
        self._batch.n_tokens = 0
        for slot, count in counts.items():
            slot.todo.extend([token] * count)
            self._put(slot, count)
        self._model.compute(self._model.context, self._batch)
