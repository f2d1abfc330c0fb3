"""vLLM's engine core: safetensors on CUDA, and on CPUs with AVX-512. Imports the library only when a model is loaded."""

import os
from collections.abc import Mapping
from typing import Any

import msgspec

from src.engines.base import Engine, EngineOptions, Footprint

# Measured on a CPU: torch in the runner and the engine core, then a worker for each rank.
PROCESS_BYTES, RANK_BYTES = int(1.2 * 2**30), int(0.8 * 2**30)

# Read by vLLM when it is imported, here and in the processes that it starts. What the operator has set wins.
ENVIRONMENT = {
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a fork would take our threads' locks along
    "VLLM_USE_V2_MODEL_RUNNER": "0",  # the other one takes no logits processors of this kind (sampler.py)
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "HF_HUB_OFFLINE": "1",  # a model is a folder here
}


class VLLMOptions(EngineOptions, frozen=True, kw_only=True):
    kv_type: str = "auto"  # vLLM has types of its own: `vllm` names them
    lora: tuple[str, ...] = ()  # the folder of the LoRA adapter that applies to jobs without one of their own; one at most
    adapters: dict[str, str] = msgspec.field(default_factory=dict)  # folders of further ones by name, which jobs name
    vllm: dict[str, Any] = msgspec.field(default_factory=dict)  # vLLM's settings by its own names


def footprint(fields: Mapping[str, Any]) -> Footprint:
    """By the sizes in `vllm`: a process for each rank of each copy."""
    tensor, pipeline, copies = (fields["vllm"].get(f"{kind}_parallel_size", 1) for kind in ("tensor", "pipeline", "data"))
    return Footprint(process_bytes=PROCESS_BYTES + tensor * pipeline * copies * RANK_BYTES, copies=copies)


def load(options: VLLMOptions) -> Engine:
    """Load the folder at options.model_path. Raises ModelLoadFailed."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from src.engines.vllm import parent_death
    from src.engines.vllm.core import Core
    from src.engines.vllm.embedder import VLLMEmbedder
    from src.engines.vllm.engine import VLLMEngine

    parent_death.install()
    core = Core(options)
    return VLLMEmbedder(core) if core.embeds else VLLMEngine(core, options)
