"""Drawing one job's tokens by llama.cpp's samplers. Knows nothing of slots or batches."""

from collections.abc import Sequence
from typing import Any

import llama_cpp.llama_cpp as ll
import numpy as np

from src.engines.base import Grammar, Job, Logprobs
from src.engines.finite import check_row, masks
from src.engines.llamacpp.candidates import Row
from src.engines.llamacpp.model import LoadedModel
from src.sampling import SamplingParams, mix_seed


class Sampler:
    """Biases and masks on the logits, then a sampler chain: penalties, top-k, temperature, top-p, min-p (vLLM's and OpenAI's
    order), and the draw.

    The draw itself is stateless: its generator is made anew for each token from the seed and the token's position,
    so a job replayed elsewhere goes on with the same tokens.
    """

    def __init__(self, model: LoadedModel, job: Job) -> None:
        params = job.sampling
        prompt, completion = job.tokens[: job.prompt_tokens], job.tokens[job.prompt_tokens :]
        self._grammar: Grammar | None = job.grammar
        self._params = params
        self._prompt_tokens = job.prompt_tokens
        self._logprobs = params.logprobs
        self._bias = np.array(list(params.logit_bias), np.intp), np.array(list(params.logit_bias.values()), np.float32)
        self._endless = np.array(model.end_tokens if params.ignore_eos else [], np.intp)
        self._early_ends = np.array([*model.end_tokens, *params.stop_tokens], np.intp)
        self._may_end_at = job.prompt_tokens + params.min_tokens
        self._context = model.context
        self._candidates = model.candidates
        self._candidate_count = _candidate_count(model, params)
        self._seed = params.seed
        self._greedy = params.greedy
        settings = ll.llama_sampler_chain_default_params()
        settings.no_perf = True
        self._chain = ll.llama_sampler_chain_init(settings)
        self._add_penalties(model, params, prompt, completion)
        if self._greedy:
            ll.llama_sampler_chain_add(self._chain, ll.llama_sampler_init_greedy())
        else:
            self._add_filters(params)
        self._fixed = ll.llama_sampler_chain_n(self._chain)

    def _add_penalties(self, model: LoadedModel, params: SamplingParams, prompt: Sequence[int], completion: Sequence[int]) -> None:
        """Repetition counts the prompt too, presence and frequency the completion alone, as in vLLM."""
        if params.repetition_penalty != 1:
            penalty = ll.llama_sampler_init_penalties(model.n_vocab, model.context_length, params.repetition_penalty, 0.0, 0.0)
            self._add_seen(penalty, [*prompt, *completion])
        if params.presence_penalty or params.frequency_penalty:
            penalty = ll.llama_sampler_init_penalties(
                model.n_vocab, model.context_length, 1.0, params.frequency_penalty, params.presence_penalty
            )
            self._add_seen(penalty, completion)

    def _add_seen(self, penalty: Any, tokens: Sequence[int]) -> None:
        for token in tokens:
            ll.llama_sampler_accept(penalty, token)
        ll.llama_sampler_chain_add(self._chain, penalty)

    def _add_filters(self, params: SamplingParams) -> None:
        if params.top_k > 0:  # before the temperature, which does not change the order: fewer candidates for the rest
            ll.llama_sampler_chain_add(self._chain, ll.llama_sampler_init_top_k(params.top_k))
        if params.temperature != 1:
            ll.llama_sampler_chain_add(self._chain, ll.llama_sampler_init_temp(params.temperature))
        if params.top_p < 1:
            ll.llama_sampler_chain_add(self._chain, ll.llama_sampler_init_top_p(params.top_p, 1))
        if params.min_p > 0:
            ll.llama_sampler_chain_add(self._chain, ll.llama_sampler_init_min_p(params.min_p, 1))

    def sample(self, output: int, position: int) -> tuple[int, Logprobs | None]:
        """The token at `position` of its sequence, from the batch's output number `output`. Raises EngineError of this job alone."""
        row = self._candidates.row(self._context, output)
        check_row(float(row.max()))
        plain = None if self._logprobs is None else row.copy()
        self._apply_biases(row, position)
        if applied := masks(self._params, position - self._prompt_tokens, grammar=self._grammar is not None):
            check_row(float(row.max()), applied)
        token = self._select(row, output, position)
        if self._grammar:
            self._grammar.accept(token)
        return token, None if plain is None else logprobs(plain, token, self._logprobs or 0)

    def _apply_biases(self, row: Row, position: int) -> None:
        """Biases and masks, in llama.cpp's own memory: the chain reads it from there."""
        tokens, biases = self._bias
        row[tokens] += biases
        row[self._endless] = -np.inf
        if position < self._may_end_at:
            row[self._early_ends] = -np.inf
        if self._grammar:
            allowed = np.unpackbits(np.frombuffer(self._grammar.allowed(), np.uint8), count=len(row), bitorder="little")
            row[allowed == 0] = -np.inf

    def _select(self, row: Row, output: int, position: int) -> int:
        if self._candidate_count == 1:
            return int(row.argmax())
        if self._greedy:
            return int(ll.llama_sampler_sample(self._chain, self._context, output))
        ll.llama_sampler_chain_add(self._chain, ll.llama_sampler_init_dist(mix_seed(self._seed, position)))
        if self._candidate_count:
            token = self._candidates.sample(self._chain, row, self._candidates.pick(row, self._candidate_count))
        else:
            token = int(ll.llama_sampler_sample(self._chain, self._context, output))
        ll.llama_sampler_free(ll.llama_sampler_chain_remove(self._chain, self._fixed))
        return token

    def close(self) -> None:
        ll.llama_sampler_free(self._chain)


def _candidate_count(model: LoadedModel, params: SamplingParams) -> int:
    """How many of the greatest logits hold all that the chain can select from. 0: it has to see every one."""
    if params.repetition_penalty != 1 or params.presence_penalty or params.frequency_penalty:
        return 0  # these change which logits are the greatest
    count = 1 if params.greedy else params.top_k
    if count < 1:
        return 0
    return count if count <= model.candidates.most else 0


def logprobs(row: Row, token: int, count: int) -> Logprobs:
    """Of the drawn token and of the `count` likeliest."""
    wide = row.astype(np.float64)
    total = np.logaddexp.reduce(wide)
    top = np.argpartition(-wide, count)[:count]
    top = top[np.lexsort((top, -wide[top]))]
    return Logprobs(float(wide[token] - total), [(int(id), float(wide[id] - total)) for id in top])
