"""Settings of models and of the engines that run them."""

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from src import ROOT
from src.settings.group import Group, words

# Settings that vLLM has by the same names.
VLLM = (
    *("dtype", "quantization", "kv_cache_dtype", "gpu_memory_utilization", "enforce_eager"),
    *("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "distributed_executor_backend"),
)


class Models(Group):
    inference_engine: Literal["auto", "mlx", "vllm", "llama_cpp", "echo"] = Field(
        "auto", description="auto, mlx, vllm, llama_cpp, or echo (no model: repeats the prompt, for tests)"
    )
    device_type: Literal["auto", "mps", "cuda", "cpu"] = Field("auto", description="auto, mps, cuda or cpu")
    models_dir: str = Field(
        "models",
        min_length=1,
        description="folder that holds the models; or several, comma-separated: the first gets downloads, the others are only read",
    )
    unknown_models_use_default: bool = Field(
        False, description="answer requests for a model that is not here by the default model, in place of a 404"
    )
    default_model: str = Field("", description="model that is loaded at startup and answers requests that name no model; empty = the first")
    max_concurrent_models: int = Field(1, ge=1, le=64, description="number of models loaded at a time")
    engine_fallback: bool = Field(
        False, description="if the chosen engine fails to load a model, try another engine that supports its format"
    )
    memory_reserve: int = Field(512, ge=0, description="MiB of memory to leave free when a model is loaded")
    model_idle_seconds: float = Field(0, ge=0, description="seconds without a request after which a model is unloaded; 0 = never")
    runner_max_age: float = Field(0, ge=0, description="seconds after which a model's process is replaced by a new one; 0 = never")
    runner_max_rss_growth: int = Field(
        0, ge=0, description="MiB by which a model's process may grow before it is replaced by a new one; 0 = unlimited"
    )
    load_on_demand: bool = Field(True, description="load a model when a request names it")
    load_wait_seconds: float = Field(600, ge=0, description="seconds that a request waits for its model to load before it gets a 503")
    context_length: int = Field(
        0, ge=0, description="tokens in one sequence, prompt and completion together; 0 = the model's own limit, at most 4096"
    )
    max_parallel_sequences: int = Field(0, ge=0, le=256, description="sequences computed together; 0 = as many as fit, at most 20")
    kv_cache_type: Literal["auto", "f16", "q8_0"] = Field(
        "auto",
        description="storage type of the KV cache: auto (f16; q8_0 for the values where this CPU computes that faster), f16, "
        "or q8_0 (half the memory)",
    )
    step_time_target_ms: float = Field(
        0, ge=0, le=60_000, description="milliseconds that a step with a prompt in it may delay running streams; 0 = chosen by device"
    )
    threads: int = Field(0, ge=0, le=1024, description="CPU threads of the engine; 0 = one per physical core (of a Mac, performance core)")
    enable_caching: bool = Field(True, description="reuse the computed prefixes of earlier prompts")
    cache_size: int = Field(16, ge=0, description="finished sequences kept for prefix reuse")
    mlx_memory_fraction: float = Field(
        0.8,
        gt=0,
        le=1,
        description="share of memory that MLX may use: on Metal, of the recommended working set; on a CPU, of free memory",
    )
    dtype: Literal["auto", "float16", "bfloat16", "float32"] = Field("auto", description="vLLM: type of the weights in memory")
    quantization: str = Field("", description="vLLM: quantization method of the weights; empty = as the model's files say")
    kv_cache_dtype: str = Field("auto", min_length=1, description="vLLM: type of the KV cache, for example fp8")
    gpu_memory_utilization: float = Field(0.92, gt=0, le=1, description="vLLM: share of each GPU's memory to use")
    tensor_parallel_size: int = Field(1, ge=1, le=1024, description="vLLM: number of GPUs (on CPUs: processes) that share each layer")
    pipeline_parallel_size: int = Field(1, ge=1, le=1024, description="vLLM: number of pipeline stages that the layers are divided into")
    data_parallel_size: int = Field(
        1, ge=1, le=1024, description="vLLM: copies of the model that share the requests; each is parallelized as the other settings say"
    )
    distributed_executor_backend: Literal["auto", "mp", "ray"] = Field(
        "auto", description="vLLM: mp (this machine), ray (several machines), or auto (vLLM decides)"
    )
    enforce_eager: bool = Field(False, description="vLLM: skip compilation, which loads faster and computes slower")
    echo_step_ms: float = Field(0, ge=0, le=10_000, description="milliseconds that one step of the echo engine takes")
    echo_fault: str = Field(
        "",
        pattern=r"^((crash|kill|stall|nan) .+)?$",
        description="crash, kill, stall or nan, and a text that triggers it in the echo engine; for tests",
    )

    engine_stall_seconds: float = Field(
        120, ge=0, description="seconds that one engine step may take before the process counts as hung and is replaced; 0 = unlimited"
    )

    @field_validator("models_dir")
    @classmethod
    def _names_a_folder(cls, value: str) -> str:
        if not words(value):
            raise ValueError("the name of a folder")
        return value

    @property
    def models_path(self) -> Path:
        """The folder that models.toml lies in and that downloads go to: the only one that anything is written to."""
        return self.models_paths[0]

    @property
    def models_paths(self) -> tuple[Path, ...]:
        """That folder, then those that are only read."""
        folders = (ROOT / os.path.expanduser(folder) for folder in words(self.models_dir))  # ~ of .env, which no shell has read
        return tuple(dict.fromkeys(folders))

    @property
    def shown_models_dir(self) -> str:
        """For a sentence about where models are looked for."""
        return " or ".join(f"{folder}/" for folder in words(self.models_dir))

    @property
    def cached_prefixes(self) -> int:
        return self.cache_size if self.enable_caching else 0

    @property
    def vllm(self) -> dict[str, Any]:
        """What is set of vLLM's own settings."""
        return {name: value for name in VLLM if (value := getattr(self, name)) != type(self).model_fields[name].default}
