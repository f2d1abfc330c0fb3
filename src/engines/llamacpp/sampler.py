"""Drawing one job's tokens by llama.cpp's samplers. Knows nothing of slots or batches."""

import math
from collections.abc import Sequence
from typing import Any

import llama_cpp.llama_cpp as ll

from src.engines.llamacpp.model import LoadedModel
from src.sampling import SamplingParams, mix_seed


class Sampler:
    """A sampler chain: penalties, top-k, temperature, top-p, min-p (vLLM's and OpenAI's order), then the draw.

    The draw itself is stateless: its generator is made anew for each token from the seed and the token's position,
    so a job replayed elsewhere goes on with the same tokens.
    """

    def __init__(self, model: LoadedModel, params: SamplingParams, prompt: Sequence[int], completion: Sequence[int]) -> None:
        """`completion` is what was drawn already, when a job is resumed."""
        self._context = model.context
        self._candidates = model.candidates
        self._few = _few_enough(model, params)
        self._seed = params.seed
        self._greedy = params.temperature == 0
        settings = ll.llama_sampler_chain_default_params()
        settings.no_perf = True
        self._chain = ll.llama_sampler_chain_init(settings)
        if params.ignore_eos:
            self._forbid(model.end_tokens, model.n_vocab)
        self._add_penalties(model, params, prompt, completion)
        if self._greedy:
            ll.llama_sampler_chain_add(self._chain, ll.llama_sampler_init_greedy())
        else:
            self._add_filters(params)
        self._fixed = ll.llama_sampler_chain_n(self._chain)

    def _forbid(self, tokens: Sequence[int], n_vocab: int) -> None:
        biases = (ll.llama_logit_bias * len(tokens))(*(ll.llama_logit_bias(token, -math.inf) for token in tokens))
        ll.llama_sampler_chain_add(self._chain, ll.llama_sampler_init_logit_bias(n_vocab, len(tokens), biases))

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

    def draw(self, output: int, position: int) -> int:
        """The token at `position` of its sequence, from the batch's output number `output`."""
        if self._greedy:
            return self._select(output)
        ll.llama_sampler_chain_add(self._chain, ll.llama_sampler_init_dist(mix_seed(self._seed, position)))
        token = self._select(output)
        ll.llama_sampler_free(ll.llama_sampler_chain_remove(self._chain, self._fixed))
        return token

    def _select(self, output: int) -> int:
        if not self._few:
            return int(ll.llama_sampler_sample(self._chain, self._context, output))
        row = self._candidates.row(self._context, output)
        if self._few == 1:
            return int(row.argmax())
        return self._candidates.draw(self._chain, row, self._candidates.pick(row, self._few))

    def close(self) -> None:
        ll.llama_sampler_free(self._chain)


def _few_enough(model: LoadedModel, params: SamplingParams) -> int:
    """How many of the greatest logits hold all that the chain can select from. 0: it has to see every one."""
    if params.repetition_penalty != 1 or params.presence_penalty or params.frequency_penalty:
        return 0  # these change which logits are the greatest
    count = 1 if params.temperature == 0 else params.top_k
    if count < 1:
        return 0
    if params.ignore_eos:
        count += len(model.end_tokens)
    return count if count <= model.candidates.most // 2 else 0
