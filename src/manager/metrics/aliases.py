"""The same figures under vLLM's names, where the meaning is the same, so that dashboards made for vLLM work. Counts nothing.

Names: vllm/v1/metrics/loggers.py. Its label `engine` numbers the engine's copies; here each model has one.
"""

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

from src.manager.metrics import families as own

_SAME = {
    "vllm:num_requests_running": own.RUNNING,
    "vllm:num_requests_waiting": own.WAITING,
    "vllm:kv_cache_usage_perc": own.KV_RATIO,
    "vllm:prompt_tokens": own.PROMPT_TOKENS,
    "vllm:prompt_tokens_cached": own.CACHED_TOKENS,
    "vllm:generation_tokens": own.GENERATED_TOKENS,
    "vllm:prefix_cache_queries": own.PROMPT_TOKENS,
    "vllm:prefix_cache_hits": own.CACHED_TOKENS,
    "vllm:request_success": own.GENERATIONS,
    "vllm:time_to_first_token_seconds": own.FIRST_TOKEN,
    "vllm:inter_token_latency_seconds": own.TOKEN_GAP,
    "vllm:request_queue_time_seconds": own.QUEUE,
    "vllm:request_prefill_time_seconds": own.PREFILL,
    "vllm:request_decode_time_seconds": own.DECODE,
    "vllm:e2e_request_latency_seconds": own.WHOLE,
    "vllm:request_prompt_tokens": own.PROMPT_LENGTH,
    "vllm:request_generation_tokens": own.ANSWER_LENGTH,
}
_LABELS = {"model": "model_name", "finish_reason": "finished_reason"}


class VLLMNames(Collector):
    def collect(self) -> Iterator[Metric]:
        for name, family in _SAME.items():
            yield from _renamed(name, family)


def _renamed(name: str, family: MetricWrapperBase) -> Iterator[Metric]:
    for metric in family.collect():
        alias = Metric(name, metric.documentation, metric.type)
        for sample in metric.samples:
            labels = {_LABELS.get(label, label): value for label, value in sample.labels.items()}
            alias.add_sample(name + sample.name.removeprefix(metric.name), {**labels, "engine": "0"}, sample.value)
        yield alias
