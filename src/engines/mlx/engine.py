"""Continuous batching by mlx-lm's BatchGenerator: which jobs run, what of their prompts is known already. Knows nothing of text."""

import contextlib
import itertools
import time
from collections.abc import Generator
from typing import Any

import mlx.core as mx
from mlx_lm.generate import BatchGenerator, StopSequences

from src.engines.base import Engine, EngineStats, Feature, Job, Step
from src.engines.job_queue import JobQueue
from src.engines.mlx import MLXOptions
from src.engines.mlx.embedder import Embedder
from src.engines.mlx.grammar_mask import Mask
from src.engines.mlx.memory_errors import is_memory
from src.engines.mlx.model import LoadedModel
from src.engines.mlx.prefix_cache import Cache, Prefixes, cut, usable
from src.engines.mlx.sampler import BatchSampler, Row
from src.engines.prefill_budget import PrefillBudget
from src.engines.prefix import common_prefix
from src.errors import EngineDead, EngineError, InsufficientMemory

STEP_TARGET = {"cpu": 0.25, "mps": 0.1}  # seconds, where the setting leaves it open
BATCH_TOKENS = {"cpu": 512, "mps": 2048}  # most prompt tokens of one step
COPY_WORTH = 16  # tokens: to copy a running job's cache, or to wait for it, takes as long as computing a few
KEPT_SHARE = 0.5  # of the room for KV caches, for those of ended jobs


class _Sequence:
    """A job and how far it is."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.drawn: list[int] = []
        self.todo = len(job.tokens)  # tokens to be computed before the next one can be drawn
        self.cached: int | None = None  # prompt tokens that were not computed anew
        self.reported = False  # whether a step has carried `cached`
        self.mask = Mask(job.grammar) if job.grammar else None
        self.row: Row  # made when it starts, and again where it has to start again

    @property
    def tokens(self) -> list[int]:
        """All that precedes the next token to be drawn."""
        return self.job.tokens + self.drawn

    @property
    def in_cache(self) -> list[int]:
        """The tokens whose keys and values the generator holds."""
        tokens = self.tokens
        return tokens[: len(tokens) - self.todo]

    def step(self, **fields: Any) -> Step:
        """The first one carries what was cached."""
        cached, self.reported = None if self.reported else self.cached, True
        return Step(job_id=self.job.id, cached_tokens=cached, **fields)


class MLXEngine(Engine):
    def __init__(self, options: MLXOptions) -> None:
        self._model = LoadedModel(options)
        self.features = frozenset[Feature]({"generation", "embeddings"} if self._model.embedding_length else {"generation"})
        self.context_length, self.vocab_size = self._model.context_length, self._model.vocab_size
        self.device = self._model.device
        self._most_running = self._model.slots
        self._reuses = options.cached_prefixes > 0
        self._prefixes = Prefixes(options.cached_prefixes, int(self._model.room * KEPT_SHARE))
        target = options.step_time_target or STEP_TARGET[self.device]
        self._budget = PrefillBudget(target, BATCH_TOKENS[self.device])
        self.embedding_length = self._model.embedding_length
        self._embedder = Embedder(self._model, PrefillBudget(target, BATCH_TOKENS[self.device]))
        self._queue = JobQueue(self._most_running)
        self._running: dict[int, _Sequence] = {}  # by the generator's ids, in the order of their admission
        self._prefix_hit = self._prefix_asked = self._prefix_copies = self._generated = 0
        self._compute_seconds = 0.0
        self._spoilt = False  # whether the batch's caches may hold garbage
        self._start_generator()

    def add(self, job: Job) -> None:
        self._assert_fits(job)
        self._queue.add(job)

    def cancel(self, job_id: int) -> None:
        self._queue.cancel(job_id)
        for uid in [uid for uid, sequence in self._running.items() if sequence.job.id == job_id]:
            sequence = self._running.pop(uid)
            removed = self._generator.remove([uid], return_prompt_caches=self._reuses)
            if removed:
                self._keep(sequence, removed[uid][0])

    def step(self) -> list[Step]:
        if self._spoilt:
            self._restart([*self._running.values()])
        self._admit()
        if not self._running:
            return []
        prefilling = [sequence for sequence in self._running.values() if sequence.todo]
        decoding, todo = len(self._running) - len(prefilling), sum(sequence.todo for sequence in prefilling)
        # Prompts are computed side by side, so many tokens of each: all rows of a batch are as long as its longest.
        prompts = min(sum(sequence.todo > 1 for sequence in prefilling), self._model.prompts_together)
        position = max((len(sequence.in_cache) for sequence in prefilling), default=0)
        self._generator.prefill_step_size = max(1, self._budget.tokens(decoding, position) // max(1, prompts))
        began = time.perf_counter()
        responses = self._compute()
        if responses is None:
            return [self._free_memory()]
        seconds = time.perf_counter() - began
        self._compute_seconds += seconds
        progress, drawn = responses
        steps = [self._progress(response) for response in progress]
        self._budget.observe(decoding, todo - sum(sequence.todo for sequence in prefilling), seconds, position)
        self._embedder.budget.observe(decoding, 0, seconds)  # a piece of such work comes between two steps
        return steps + [self._advance(response) for response in drawn]

    def _compute(self) -> tuple[list[Any], list[Any]] | None:
        """What became of prompts, and what was drawn. None where memory ran out."""
        try:
            prompts, drawn = self._generator.next()
        except (RuntimeError, MemoryError) as error:
            if is_memory(error):
                return None
            raise EngineDead(f"MLX failed: {error}") from error
        return prompts, drawn

    def embed(self, inputs: list[list[int]]) -> Generator[list[float] | None, None, None]:
        try:
            yield from self._embedder.embed(inputs, lambda: len(self._running), self._makes_room)
        except InsufficientMemory:
            self._spoilt = True
            raise

    def stats(self) -> EngineStats:
        return EngineStats(
            running=len(self._running),
            **self._queue.stats(),
            slots=self._model.slots,
            kv_used=sum(len(sequence.in_cache) for sequence in self._running.values()),
            kv_total=self._model.slots * self.context_length,
            prefix_hit=self._prefix_hit,
            prefix_asked=self._prefix_asked,
            generated=self._generated,
            compute_seconds=self._compute_seconds,
            prefix_copies=self._prefix_copies,
        )

    def close(self) -> None:
        self._generator.close()
        del self._generator, self._prefixes, self._embedder
        self._running.clear()
        self._model.close()

    def _start_generator(self) -> None:
        self._sampler = BatchSampler(self._model.end_tokens)
        self._generator = BatchGenerator(
            self._model.model,
            sampler=self._sampler,
            completion_batch_size=self._model.slots,
            prefill_batch_size=self._model.prompts_together,
            prefill_step_size=BATCH_TOKENS[self.device],
            stream=mx.default_stream(mx.default_device()),  # this thread's own: no other thread could use it
        )
        self._model.set_wired_limit()

    def _admit(self) -> None:
        """Start waiting jobs in their turn while there is room; one that can soon copy its prefix lets others pass."""
        while len(self._queue) and len(self._running) < self._most_running:
            running = [sequence.job for sequence in self._running.values()]
            # Smaller jobs do not pass one that has no room: it would wait for ever.
            in_turn = itertools.takewhile(self._fits, self._queue.in_turn(running))
            job = next((job for job in in_turn if not self._worth_waiting(job)), None)
            if job is None:
                return
            self._queue.admit(job)
            self._start(_Sequence(job))

    def _fits(self, job: Job) -> bool:
        """Whether the KV caches of the running jobs have room for one more, whatever lengths they may come to."""
        return not self._running or self._needed(job) + self._embedder.bytes <= self._model.room

    def _makes_room(self, size: int) -> bool:
        """Whether so many bytes are free beside what the running jobs may come to; kept prefixes make way."""
        needed = size + (self._needed() if self._running else 0)
        while len(self._prefixes) and needed + self._prefixes.bytes > self._model.room:
            self._prefixes.drop_oldest()
        return not self._running or needed <= self._model.room

    def _needed(self, *more: Job) -> int:
        """Bytes that KV caches may come to: all rows of a batch are as long as its longest."""
        jobs = [*more, *(sequence.job for sequence in self._running.values())]
        longest = max(len(job.tokens) + job.max_tokens for job in jobs)
        return len(jobs) * self._model.sequence_bytes(min(longest, self.context_length))

    def _worth_waiting(self, job: Job) -> bool:
        """Is a running prompt about to compute much of what this job needs, so that it can be copied in a moment?"""
        if not self._reuses:
            return False
        prompts = (sequence.tokens for sequence in self._in_scope(job).values() if sequence.todo > 1)
        coming = max((common_prefix(prompt, job.tokens) for prompt in prompts if len(prompt) < self._model.cuttable), default=0)
        if coming < COPY_WORTH:
            return False
        there = max(self._prefixes.find(job.tokens, job.scope), self._longest_running(job, job.tokens)[0])
        return coming - there >= COPY_WORTH

    def _start(self, sequence: _Sequence) -> None:
        tokens, job = sequence.tokens, sequence.job
        cache, known = self._find_prefix(job, tokens[:-1])  # the last token is always computed: the first draw needs its logits
        sequence.row = Row(self._sampler, job.sampling, job.prompt_tokens, len(job.tokens), sequence.mask)
        (uid,) = self._generator.insert(
            [tokens[known:]],
            max_tokens=[min(job.max_tokens - len(sequence.drawn), self.context_length - len(tokens))],
            caches=[cache],
            all_tokens=[tokens[:known]],
            logits_processors=[[sequence.row]],
            stop_sequences=[StopSequences([[token] for token in {*self._model.end_tokens, *job.sampling.stop_tokens}])],
        )
        self._running[uid] = sequence
        while len(self._prefixes) and self._needed() + self._prefixes.bytes > self._model.room:
            self._prefixes.drop_oldest()
        sequence.todo = len(tokens) - known
        if sequence.cached is None:
            sequence.cached = min(known, job.prompt_tokens)
            self._prefix_asked += job.prompt_tokens
            self._prefix_hit += sequence.cached

    def _find_prefix(self, job: Job, tokens: list[int]) -> tuple[Cache | None, int]:
        """A cache for as much of the tokens' beginning as can be had: from an ended job, or a copy from a running one."""
        if not self._reuses:
            return None, 0
        length, uid = self._longest_running(job, tokens)
        if length - self._prefixes.find(tokens, job.scope) >= COPY_WORTH:
            held = len(self._running[uid].in_cache)
            cache = self._generator.extract_cache([uid])[uid][0]
            if usable(cache, held, length):
                self._prefix_copies += 1
                return cut(cache, held, length), length
        return self._prefixes.take(tokens, job.scope)

    def _in_scope(self, job: Job) -> dict[int, _Sequence]:
        """The running sequences whose prefixes the job may use."""
        return {uid: sequence for uid, sequence in self._running.items() if sequence.job.scope == job.scope}

    def _longest_running(self, job: Job, tokens: list[int]) -> tuple[int, int]:
        """(tokens in common, id) of the running sequence whose cache begins with most of the job's tokens and can be cut there."""
        caches = ((sequence.in_cache, uid) for uid, sequence in self._in_scope(job).items())
        shared = ((common_prefix(held, tokens), uid) for held, uid in caches if len(held) < self._model.cuttable)
        return max(shared, default=(0, -1))

    def _progress(self, response: Any) -> Step:
        """A piece of a prompt was computed."""
        sequence = self._running[response.uid]
        computed, all_tokens = response.progress
        sequence.todo = all_tokens - computed
        return sequence.step()

    def _advance(self, response: Any) -> Step:
        """A token was drawn. The generator is one step ahead: its cache holds this token already."""
        sequence = self._running[response.uid]
        try:
            sequence.row.check()
        except EngineError as error:
            del self._running[response.uid]
            self._generator.remove([response.uid])
            return sequence.step(error=error)
        sequence.drawn.append(response.token)
        self._generated += 1
        if response.finish_reason:
            del self._running[response.uid]
            if self._reuses:
                self._keep(sequence, response.prompt_cache)
        return sequence.step(token=response.token, logprobs=sequence.row.logprobs(), finish=response.finish_reason)

    def _keep(self, sequence: _Sequence, cache: Cache) -> None:
        """Metal tells of a failure once, at whichever wait comes next: an error here may be that of the step under way. Where
        memory ran out no one need fail for it, but the batch starts again. Raises EngineDead for any other error."""
        if self._spoilt:
            return
        try:
            self._prefixes.keep(sequence.in_cache, cache, sequence.job.scope)
        except (RuntimeError, MemoryError) as error:
            if not is_memory(error):
                raise EngineDead(f"MLX failed: {error}") from error
            self._spoilt = True

    def _restart(self, sequences: list[_Sequence]) -> None:
        """Start these again, from their own tokens and with caches of their own, in place of all that run."""
        self._running.clear()
        self._prefixes.clear()
        with contextlib.suppress(RuntimeError):  # of the work that is given up, told at this wait
            mx.synchronize()
        with contextlib.suppress(RuntimeError):
            self._generator.close()
        self._start_generator()
        mx.clear_cache()
        self._spoilt = False
        for sequence in sequences:
            self._start(sequence)

    def _free_memory(self) -> Step:
        """Memory ran out, and no cache of the batch can be trusted. The youngest job fails for it; the others start
        again from their own tokens and go on as they would have, fewer at a time from now on."""
        *others, youngest = self._running.values()
        self._most_running = max(1, len(others))
        self._restart(others)
        error = InsufficientMemory(
            f"There was no memory for this request beside {len(others)} others. Ask for fewer max_tokens or send a shorter prompt; "
            "the operator can lower MAX_PARALLEL_SEQUENCES or CONTEXT_LENGTH, or use a smaller model."
        )
        return youngest.step(error=error)
