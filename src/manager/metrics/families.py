"""Every metric family, under the service's own names. Knows nobody who counts.

Labels are bounded: `model` is a name of the models folder, `route` one of the routes there are, `process` a place in the tree.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]  # they double the counters, and nothing here asks when one began
REGISTRY = CollectorRegistry()

# Seconds. From one step of a small model on a GPU to a request that waits for a large model to load on a CPU; 5 s is a target.
_GAPS = (0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2.5, 5, 10, 30)
_FIRST = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 15, 30, 60, 120, 300, 600)
_WHOLE = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 4, 5, 7.5, 10, 15, 20, 30, 60, 120, 240, 480, 960, 1920)
_LOADS = (0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 60, 120, 300, 600)
_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000)


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(name, text, labels, registry=REGISTRY)


def _gauge(name: str, text: str, *labels: str) -> Gauge:
    return Gauge(name, text, labels, registry=REGISTRY)


def _histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    return Histogram(name, text, labels, registry=REGISTRY, buckets=buckets)


# Requests, as gateway workers tell of them when they end
REQUESTS = _counter(
    "llm_requests", "HTTP requests; status of a stream that broke off: its error's, 499: its client left", "route", "model", "status"
)
GENERATIONS = _counter("llm_generations", "Choices by how they ended: stop, length, tool_calls, abort, error", "model", "finish_reason")
FIRST_TOKEN = _histogram("llm_time_to_first_token_seconds", "From the request to its first token", _FIRST, "model")
TOKEN_GAP = _histogram("llm_inter_token_latency_seconds", "Between a stream's tokens", _GAPS, "model")
QUEUE = _histogram("llm_queue_seconds", "From the request's arrival at the model to its place in the batch", _FIRST, "model")
PREFILL = _histogram("llm_prefill_seconds", "From the place in the batch to the first token", _FIRST, "model")
DECODE = _histogram("llm_decode_seconds", "From the first token to the last", _WHOLE, "model")
WHOLE = _histogram("llm_request_seconds", "From the request to the end of its answer", _WHOLE, "model")
PROMPT_LENGTH = _histogram("llm_request_prompt_tokens", "Prompt tokens of a request", _TOKENS, "model")
ANSWER_LENGTH = _histogram("llm_request_generation_tokens", "Completion tokens of a request", _TOKENS, "model")

# Tokens, as the runners count them, also those of answers that nobody waited for
PROMPT_TOKENS = _counter("llm_prompt_tokens", "Prompt tokens of sequences that got a place in the batch", "model")
CACHED_TOKENS = _counter("llm_prompt_tokens_cached", "Of these, those an earlier request had computed", "model")
GENERATED_TOKENS = _counter("llm_generation_tokens", "Completion tokens", "model")

# Runners at this moment
RUNNING = _gauge("llm_requests_running", "Requests that have a place in the batch", "model")
WAITING = _gauge("llm_requests_waiting", "Requests that wait for a place", "model")
SLOTS = _gauge("llm_slots", "Places in the batch", "model")
KV_USED = _gauge("llm_kv_cache_used_tokens", "Tokens of running sequences in the KV cache", "model")
KV_TOTAL = _gauge("llm_kv_cache_tokens", "Tokens the KV cache has room for", "model")
KV_RATIO = _gauge("llm_kv_cache_usage_ratio", "The share of the two, 0 to 1", "model")

# Models
LOADED = _gauge("llm_model_loaded", "1 for each model that can be asked", "model", "engine")
LOADS = _counter("llm_model_loads", "Loads by outcome: ready, failed", "model", "engine", "outcome")
LOAD_SECONDS = _histogram("llm_model_load_seconds", "From the start of a runner to its first answer", _LOADS, "model", "engine")
UNLOADS = _counter("llm_model_unloads", "Unloads by reason: asked, idle, room (evicted for another model), replaced", "model", "reason")
RESUMES = _counter("llm_resumes", "Requests that went on in another process when theirs had died", "model")
PREEMPTIONS = _counter("llm_preemptions", "Sequences that were set aside for another key's, and went on later", "model")
INVALID_OUTPUTS = _counter("llm_invalid_outputs", "Sequences and inputs for which the model computed NaN or infinite numbers", "model")
RESTARTS = _counter("llm_runner_restarts", "Runners that died and were started again", "model")

# Processes and machine
PROCESS_CPU = _counter("llm_process_cpu_seconds", "CPU time by place: master, gateway, manager, runner", "process", "model")
PROCESS_MEMORY = _gauge("llm_process_resident_memory_bytes", "Resident memory by place", "process", "model")
PROCESSES = _gauge("llm_processes", "Processes by place", "process", "model")
CORES = _gauge("llm_machine_cpu_cores", "Logical processors")
MEMORY_TOTAL = _gauge("llm_machine_memory_bytes", "Memory of the machine; with unified memory the GPU's too")
MEMORY_USED = _gauge("llm_machine_memory_used_bytes", "Of this, what no program can have without another giving it up")
GPU_TOTAL = _gauge("llm_gpu_memory_bytes", "Memory of an NVIDIA GPU", "gpu")
GPU_USED = _gauge("llm_gpu_memory_used_bytes", "Of this, what is in use", "gpu")
GPU_BUSY = _gauge("llm_gpu_utilization_ratio", "Share of the time in which an NVIDIA GPU was computing, 0 to 1", "gpu")
