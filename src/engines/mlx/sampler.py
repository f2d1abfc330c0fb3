"""Drawing one token for each row of a batch of logits, every row by its own job's rules. Knows nothing of models or caches."""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from src.sampling import SamplingParams, mix_seed


class Row:
    """One job's logits processor. mlx-lm calls those of a batch in the order of its rows, then the batch's one sampler:
    so the sampler learns whose row is which. What bends a single job's logits (penalties, masks) belongs here."""

    def __init__(self, sampler: "BatchSampler", params: SamplingParams, prompt_tokens: int) -> None:
        self.params = params
        self.greedy = params.temperature == 0 or params.top_k == 1 or params.top_p == 0 or params.min_p >= 1
        self.position = 0  # of the token to be drawn
        self._sampler = sampler
        self._prompt_tokens = prompt_tokens

    def __call__(self, tokens: mx.array, logits: mx.array) -> mx.array:
        """`tokens` (n,) precede the one to be drawn from `logits` (1, vocabulary)."""
        self.position = tokens.shape[0]
        self._sampler.rows.append(self)
        logits = logits.astype(mx.float32)
        params = self.params
        if params.repetition_penalty != 1:
            known = logits[:, tokens]
            logits[:, tokens] = mx.where(known > 0, known / params.repetition_penalty, known * params.repetition_penalty)
        completion = tokens[self._prompt_tokens :]
        if completion.size and params.presence_penalty:
            logits[:, completion] = logits[:, completion] - params.presence_penalty
        if completion.size and params.frequency_penalty:
            logits = logits.at[:, completion].subtract(params.frequency_penalty)  # once for each time it occurs
        if params.ignore_eos and self._sampler.end_tokens:
            logits[:, mx.array(self._sampler.end_tokens)] = -mx.inf
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

    def draw(key: mx.array) -> Any:
        return mx.random.gumbel((size,), key=key)

    return mx.vmap(draw)(keys)


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
    for some, width in ((with_k, max((rows[index].params.top_k for index in with_k), default=0)), (with_p, vocabulary)):
        if some:
            indices = mx.array(some)
            bound = _nucleus(logits[indices], [rows[index].params for index in some], width)
            lowest[indices] = mx.maximum(lowest[indices], bound)
    return lowest


def _nucleus(logits: mx.array, params: list[SamplingParams], width: int) -> mx.array:
    """The lowest logit (n, 1) that passes top-k and then top-p, which looks at the `width` likeliest tokens alone."""
    likely = mx.topk(logits, width, axis=-1) if width < logits.shape[-1] else logits
    likely = mx.sort(likely, axis=-1)[:, ::-1]
    ranks = mx.arange(width)[None]
    within_k = ranks < mx.array([[one.top_k or width] for one in params])
    probabilities = mx.softmax(mx.where(within_k, likely, -mx.inf), axis=-1, precise=True)
    before = mx.cumsum(probabilities, axis=-1) - probabilities
    kept = within_k & (before < mx.array([[one.top_p] for one in params]))
    count = mx.maximum(kept.sum(axis=-1, keepdims=True), 1)
    return mx.take_along_axis(likely, count - 1, axis=-1)
