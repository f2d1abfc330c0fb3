"""From a job to vLLM's sampling parameters. Knows nothing of when it runs."""

from collections.abc import Sequence

from vllm import SamplingParams as VLLMParams
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

from src.engines.base import Job
from src.errors import EngineError
from src.sampling import mix_seed


class Parameters:
    """This service's sampler draws (sampler.py), and vLLM is told to take what is the likeliest after it.

    Without `reports` vLLM draws by itself. A job that is resumed then goes on with other tokens than it would have, its penalties count
    those drawn before as prompt, and with a grammar it cannot be resumed at all, since vLLM begins a grammar anew.
    """

    def __init__(self, end_tokens: Sequence[int], reports: str | None) -> None:
        """`reports`: where that sampler tells of jobs that fail there."""
        self._end_tokens = list(end_tokens)
        self._reports = reports

    def of(self, job: Job, room: int) -> VLLMParams:
        """`room`: tokens that the context has left. Raises EngineError, or what vLLM raises of what it refuses."""
        wanted = job.sampling
        resumed = len(job.tokens) - job.prompt_tokens
        max_tokens = min(job.max_tokens, room)
        params = VLLMParams(
            max_tokens=max_tokens,
            min_tokens=min(max(0, wanted.min_tokens - resumed), max_tokens),
            ignore_eos=wanted.ignore_eos,
            stop_token_ids=[*(() if wanted.ignore_eos else self._end_tokens), *wanted.stop_tokens],
            logit_bias=wanted.logit_bias or None,
            logprobs=wanted.logprobs,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
            temperature=0,
        )
        if self._reports:
            from src.engines.vllm.sampler import RowJob

            params.extra_args = RowJob.extra_args(job, self._reports)
        else:
            self._draw_by_itself(params, job)
        return params

    def _draw_by_itself(self, params: VLLMParams, job: Job) -> None:
        wanted = job.sampling
        if wanted.top_p > 0 and wanted.temperature > 0:
            params.temperature, params.top_p, params.top_k = wanted.temperature, wanted.top_p, wanted.top_k
            params.min_p = wanted.min_p
            params.seed = mix_seed(wanted.seed, len(job.tokens) - job.prompt_tokens)
        params.presence_penalty, params.frequency_penalty = wanted.presence_penalty, wanted.frequency_penalty
        params.repetition_penalty = wanted.repetition_penalty
        if job.grammar:
            if len(job.tokens) > job.prompt_tokens:
                raise EngineError("With speculative decoding vLLM cannot go on with an answer that follows a grammar.")
            params.structured_outputs = StructuredOutputsParams(grammar=job.grammar.source)
