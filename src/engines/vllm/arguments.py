"""From the service's options to vLLM's own arguments. Starts nothing, but knows what vLLM would refuse."""

import math
import os
import sys
from pathlib import Path
from typing import Any

from vllm import EngineArgs
from vllm.platforms import current_platform

from src.engines.vllm import VLLMOptions
from src.engines.vllm.sampler import Sampler
from src.errors import ModelLoadFailed
from src.hf_folder import read_json

CPU_BLOCK = 32  # tokens of the KV cache that are found again together: vLLM's default of 128 would find a short prefix never
CPU_BATCH_TOKENS = 512  # of a step: a prompt of more is computed piece by piece, so that others get their tokens between
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # of LoRA adapters, that vLLM sets memory aside for


def engine_arguments(options: VLLMOptions) -> EngineArgs:
    """Raises ModelLoadFailed, naming what is wrong."""
    device = current_platform.device_type
    if options.device not in ("auto", device):
        raise ModelLoadFailed(f"DEVICE_TYPE={options.device}, but the vLLM that is installed computes on {device}. Use auto or {device}.")
    if options.kv_type == "q8_0":
        raise ModelLoadFailed("KV_CACHE_TYPE=q8_0 is llama.cpp's: with vLLM set kv_cache_dtype, to fp8 for example, and leave it at auto.")
    arguments: dict[str, Any] = {
        "model": options.model_path,
        "max_model_len": options.context_length,
        "max_num_seqs": options.max_sequences,
        "enable_prefix_caching": options.cached_prefixes > 0,
        "logits_processors": [Sampler],  # the class, not its name: so the core's process imports its module too
        "skip_tokenizer_init": True,
        "disable_log_stats": True,
        "max_logprobs": -1,  # as many as a job may ask for
    }
    if device == "cpu":
        arguments |= _on_cpu(options)
    if options.vllm.get("pipeline_parallel_size", 1) > 1:
        arguments["async_scheduling"] = False  # the runner of this sampler cannot do both
    if options.vllm.get("speculative_config"):
        # vLLM takes no logits processors beside it: it draws itself, and follows grammars itself, for which it needs the tokenizer.
        arguments |= {"logits_processors": None, "skip_tokenizer_init": False, "structured_outputs_config": {"backend": "guidance"}}
    if folders := adapters(options):
        ranks = [_rank(Path(folder)) for folder in folders.values()]
        # On a CPU a job without an adapter is computed with the last place's, if others in its step have one: that stays empty.
        arguments |= {"enable_lora": True, "max_loras": len(folders) + (device == "cpu"), "max_lora_rank": max(ranks)}
    wanted = EngineArgs(**{**arguments, **options.vllm, "trust_remote_code": False})
    model = wanted.create_model_config()
    if wanted.data_parallel_size > 1 and model.is_moe:
        raise ModelLoadFailed(
            f"data_parallel_size={wanted.data_parallel_size} (DATA_PARALLEL_SIZE): vLLM's copies of a mixture of experts compute each step "
            "together, which only its own server does. Use tensor_parallel_size, or several instances of this service."
        )
    if model.runner_type == "pooling":  # by vLLM's own knowledge of architectures
        wanted.logits_processors = None  # it draws nothing
        wanted.enable_prefix_caching = None  # vLLM knows which poolings need all of a text
        if device == "cpu":  # not piece by piece, for the same reason
            wanted.max_num_batched_tokens = max(wanted.max_num_batched_tokens or 0, wanted.max_model_len or 0)
    return wanted


def _on_cpu(options: VLLMOptions) -> dict[str, Any]:
    """A KV cache for as many sequences as were planned: by itself vLLM would take 92 % of the machine's memory."""
    settings, context, sequences = options.vllm, options.context_length, options.max_sequences
    assert sequences  # left open on GPUs only
    ranks = math.prod(settings.get(f"{kind}_parallel_size", 1) for kind in ("data", "pipeline", "tensor"))
    if settings.get("pipeline_parallel_size", 1) > 1 and settings.get("enforce_eager"):
        raise ModelLoadFailed(
            f"On a CPU vLLM fails in its first step with pipeline_parallel_size={settings['pipeline_parallel_size']} with enforce_eager "
            "(ENFORCE_EAGER): leave one of them out."
        )
    if settings.get("speculative_config"):
        raise ModelLoadFailed(
            "On a CPU vLLM mixes up the temperatures of requests that it draws for with speculative_config, and answers become noise: "
            "leave it out."
        )
    if ranks > 1 and settings.get("distributed_executor_backend") != "ray":
        _share_cores(ranks)
    block = settings.get("block_size", CPU_BLOCK)
    return {
        "max_model_len": context,
        "max_num_seqs": sequences,
        "block_size": block,
        "num_gpu_blocks_override": sequences * -(-context // block) + 1,  # vLLM keeps one for itself
        "kv_cache_memory_bytes": 2**20,  # any: the blocks decide, but without it vLLM asks for the 92 % first
        "max_num_batched_tokens": max(CPU_BATCH_TOKENS, sequences),
    }


def _share_cores(ranks: int) -> None:
    """vLLM gives each rank a NUMA node and refuses where there are not enough of them: then each gets its share of the cores."""
    nodes = len(list(Path("/sys/devices/system/node").glob("node[0-9]*")))
    if sys.platform != "linux" or nodes >= ranks or "VLLM_CPU_OMP_THREADS_BIND" in os.environ:
        return
    cores = sorted(os.sched_getaffinity(0))
    share = len(cores) // ranks
    groups = [cores[rank * share : (rank + 1) * share] for rank in range(ranks)]
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "|".join(",".join(map(str, group)) for group in groups) if share else "nobind"


def adapters(options: VLLMOptions) -> dict[str, str]:
    """The LoRA adapters' folders by what jobs call them; "" is that of jobs that name none. Raises ModelLoadFailed."""
    if len(options.lora) > 1:
        raise ModelLoadFailed(f"vLLM applies one LoRA adapter to a request, and lora in models.toml has {len(options.lora)}: leave one.")
    return {**({"": options.lora[0]} if options.lora else {}), **options.adapters}


def _rank(folder: Path) -> int:
    """The least of vLLM's that the adapter fits, by its own file."""
    rank = read_json(folder / "adapter_config.json").get("r")
    if not isinstance(rank, int) or rank < 1:
        raise ModelLoadFailed(f"{folder} is no LoRA adapter for vLLM: expected a folder with adapter_config.json and its weights.")
    if rank > RANKS[-1]:
        raise ModelLoadFailed(f"The LoRA adapter {folder} has the rank {rank}: vLLM takes up to {RANKS[-1]}.")
    return next(known for known in RANKS if rank <= known)
