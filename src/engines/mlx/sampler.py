"""Drawing one token for each row of a batch of logits, every row by its own job's rules. Knows nothing of models or caches."""

from collections import deque
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from src.engines.base import Logprobs
from src.engines.finite import check_row, masks
from src.engines.mlx.grammar_mask import Mask
from src.errors import EngineError
from src.sampling import SamplingParams, mix_seed


class Row:
    """One job's logits processor. mlx-lm calls those of a batch in the order of its rows, then the batch's one sampler:
    so the sampler learns whose row is which. What bends a single job's logits (biases, masks, penalties) belongs here."""

    def __init__(
        self, sampler: "BatchSampler", params: SamplingParams, prompt_tokens: int, known: int | None = None, mask: Mask | None = None
    ) -> None:
        """`known`: tokens that the job came with, prompt and completion. None: only a prompt."""
        self.params = params
        self.greedy = params.greedy
        self.position = 0  # of the token to be drawn
        self.plain: mx.array | None = None  # log-probabilities (1, vocabulary) by the model alone, where the job wants them
        self.drawn_logprobs: deque[tuple[mx.array, mx.array, mx.array]] = deque()  # by token: its own, the likeliest tokens, theirs
        self.error: EngineError | None = None  # of the grammar: the job cannot go on
        self._largest: deque[tuple[mx.array, mx.array, list[str]]] = deque()  # by token: logits before and behind these masks
        self._sampler = sampler
        self._prompt_tokens = prompt_tokens
        self._known = prompt_tokens if known is None else known
        self._mask = mask
        self._ends = {*sampler.end_tokens, *params.stop_tokens}
        self._bias = mx.array(list(params.logit_bias)), mx.array(list(params.logit_bias.values()), mx.float32)

    def __call__(self, tokens: mx.array, logits: mx.array) -> mx.array:
        """`tokens` (n,) precede the one to be drawn from `logits` (1, vocabulary)."""
        self.position = tokens.shape[0]
        self._sampler.rows.append(self)
        logits = logits.astype(mx.float32)
        if self.params.logprobs is not None:
            self.plain = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        largest = mx.max(logits)
        logits = self._apply_biases(tokens, logits)
        applied = masks(self.params, self.position - self._prompt_tokens, grammar=self._mask is not None)
        self._largest.append((largest, mx.max(logits) if applied else largest, applied))
        mx.async_eval(*self._largest[-1][:2])
        return self._apply_penalties(tokens, logits)

    def check(self) -> None:
        """Whether the first of the tokens drawn that was not checked yet is one. Raises EngineError."""
        before, behind, applied = self._largest.popleft()
        check_row(before.item())
        check_row(behind.item(), applied)
        if self.error:
            raise self.error

    def logprobs(self) -> Logprobs | None:
        """Of the tokens drawn, those of the first that was not told yet."""
        if self.params.logprobs is None:
            return None
        drawn, tokens, logprobs = self.drawn_logprobs.popleft()
        top = zip(tokens.tolist(), logprobs.tolist(), strict=True)
        return Logprobs(drawn.item(), sorted(top, key=lambda entry: (-entry[1], entry[0])))

    def store_logprobs(self, drawn: mx.array) -> None:
        """Remember the logprobs of the token () just drawn; they are computed with it."""
        if self.plain is None:
            return
        plain, count = self.plain[0], self.params.logprobs or 0
        tokens = mx.argpartition(-plain, count)[:count]
        self.drawn_logprobs.append((mx.take(plain, drawn), tokens, plain[tokens]))
        mx.async_eval(*self.drawn_logprobs[-1])

    def _apply_biases(self, tokens: mx.array, logits: mx.array) -> mx.array:
        """Biases and masks."""
        allowed = self._allowed(tokens, logits) if self._mask else None
        if self.params.logit_bias:
            ids, biases = self._bias
            logits = logits.at[:, ids].add(biases)
        if self.params.ignore_eos and self._sampler.end_tokens:
            logits[:, mx.array(self._sampler.end_tokens)] = -mx.inf
        if self.position < self._prompt_tokens + self.params.min_tokens and self._ends:
            logits[:, mx.array(sorted(self._ends))] = -mx.inf
        if allowed is not None:
            bits = np.unpackbits(np.frombuffer(allowed, np.uint8), count=logits.shape[-1], bitorder="little")
            logits = mx.where(mx.array(bits) != 0, logits, -mx.inf)
        return logits

    def _allowed(self, tokens: mx.array, logits: mx.array) -> bytes | None:
        """The grammar's mask; None behind a token that ends the answer. It needs the last token, for which this thread waits;
        the model goes on with that token meanwhile, and while the mask is made."""
        assert self._mask
        if self.error:
            return None
        last = tokens[-1]
        mx.async_eval(last)  # before the model's work on it: what is evaluated later waits for all that
        mx.async_eval(logits)
        count = self.position - self._known
        try:
            if count and last.item() in self._ends:
                return None
            return self._mask.behind(count, lambda: int(last.item()))
        except EngineError as error:
            self.error = error
            return None

    def _apply_penalties(self, tokens: mx.array, logits: mx.array) -> mx.array:
        params = self.params
        if params.repetition_penalty != 1:
            known = logits[:, tokens]
            logits[:, tokens] = mx.where(known > 0, known / params.repetition_penalty, known * params.repetition_penalty)
        completion = tokens[self._prompt_tokens :]
        if completion.size and params.presence_penalty:
            logits[:, completion] = logits[:, completion] - params.presence_penalty
        if completion.size and params.frequency_penalty:
            logits = logits.at[:, completion].subtract(params.frequency_penalty)  # once for each time it occurs
        return logits


class BatchSampler:
    """Temperature, top-k, top-p and min-p (in vLLM's and OpenAI's order, after the penalties), then the draw, for all rows
    at once.

    The draw is stateless: its noise comes from a key made of the job's seed and the token's position, so a job that is
    replayed goes on with the same tokens, whatever runs beside it.
    """

    def __init__(self, end_tokens: Sequence[int]) -> None:
        self.end_tokens = list(end_tokens)
        self.rows: list[Row] = []

    def __call__(self, logprobs: mx.array) -> mx.array:
        """Token ids (n,) from log-probabilities (n, vocabulary)."""
        rows, self.rows = self.rows, []
        assert len(rows) == logprobs.shape[0]
        drawn = self._sample(rows, logprobs)
        for index, row in enumerate(rows):
            row.store_logprobs(drawn[index])
        return drawn

    def _sample(self, rows: list[Row], logprobs: mx.array) -> mx.array:
        likeliest = mx.argmax(logprobs, axis=-1)
        if all(row.greedy for row in rows):
            return likeliest
        temperatures = mx.array([[1.0 if row.greedy else row.params.temperature] for row in rows])
        logits = logprobs / temperatures
        logits = mx.where(logits < _thresholds(logits, rows), -mx.inf, logits)
        # The seed's upper half is zero, as in mx.random.key of a number of 32 bits.
        keys = mx.array([[0, mix_seed(row.params.seed, row.position)] for row in rows], dtype=mx.uint32)
        drawn = mx.argmax(logits + _gumbel(keys, logits.shape[-1]), axis=-1)
        return mx.where(mx.array([row.greedy for row in rows]), likeliest, drawn)


def _gumbel(keys: mx.array, size: int) -> mx.array:
    """Noise (n, size); the likeliest token after adding it is one drawn by probability (Gumbel's trick)."""

    def noise(key: mx.array) -> Any:
        return mx.random.gumbel((size,), key=key)

    return mx.vmap(noise)(keys)


def _thresholds(logits: mx.array, rows: list[Row]) -> mx.array:
    """The lowest logit (n, 1) each row may draw. Of logits that are the same, all pass or none."""
    lowest = mx.full((len(rows), 1), -mx.inf)
    largest = mx.max(logits, axis=-1, keepdims=True)
    if any(row.params.min_p > 0 for row in rows):
        lowest = largest + mx.log(mx.array([[row.params.min_p] for row in rows]))
    vocabulary = logits.shape[-1]
    drawing = [index for index, row in enumerate(rows) if not row.greedy]
    with_k = [index for index in drawing if 0 < rows[index].params.top_k < vocabulary]
    # To sort a whole vocabulary takes ten times what it takes to find the likeliest few: only where nothing else will do.
    with_p = [index for index in drawing if index not in with_k and rows[index].params.top_p < 1]
    for narrowed, width in ((with_k, max((rows[index].params.top_k for index in with_k), default=0)), (with_p, vocabulary)):
        if narrowed:
            indices = mx.array(narrowed)
            bound = _nucleus(logits[indices], [rows[index].params for index in narrowed], width)
            lowest[indices] = mx.maximum(lowest[indices], bound)
    return lowest


def _nucleus(logits: mx.array, params: list[SamplingParams], width: int) -> mx.array:
    """The lowest logit (n, 1) that passes top-k and then top-p, which looks at the `width` likeliest tokens alone."""
    likely = mx.topk(logits, width, axis=-1) if width < logits.shape[-1] else logits
    likely = mx.sort(likely, axis=-1)[:, ::-1]
    ranks = mx.arange(width)[None]
    within_k = ranks < mx.array([[sampling.top_k or width] for sampling in params])
    probabilities = mx.softmax(mx.where(within_k, likely, -mx.inf), axis=-1, precise=True)
    before = mx.cumsum(probabilities, axis=-1) - probabilities
    kept = within_k & (before < mx.array([[sampling.top_p] for sampling in params]))
    count = mx.maximum(kept.sum(axis=-1, keepdims=True), 1)
    return mx.take_along_axis(likely, count - 1, axis=-1)
