"""vLLM's engine core: safetensors on CUDA, and on CPUs with AVX-512. Knows nothing of text: the runner tokenises."""

import os

from src.engines.base import Engine, EngineOptions

# Read by vLLM when it is imported, here and in the processes that it starts. What the operator has set wins.
ENVIRONMENT = {
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a fork would take our threads' locks along
    "VLLM_USE_V2_MODEL_RUNNER": "0",  # the other one takes no logits processors of this kind (sampler.py)
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "HF_HUB_OFFLINE": "1",  # a model is a folder here
}


def load(options: EngineOptions) -> Engine:
    """Load the folder at options.model_path. Raises ModelLoadFailed."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from src.engines.vllm import spawned
    from src.engines.vllm.core import Core
    from src.engines.vllm.embedder import VLLMEmbedder
    from src.engines.vllm.engine import VLLMEngine

    spawned.install()
    core = Core(options)
    return VLLMEmbedder(core) if core.embeds else VLLMEngine(core, options)
