"""Settings of models and of the engines that run them."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from src.settings.group import ROOT, Group

# Settings that vLLM has by the same names.
VLLM = (
    *("dtype", "quantization", "kv_cache_dtype", "gpu_memory_utilization", "enforce_eager"),
    *("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "distributed_executor_backend"),
)


class Models(Group):
    inference_engine: Literal["auto", "mlx", "vllm", "llama_cpp", "echo"] = Field(
        "auto", description="auto, mlx, vllm, llama_cpp, or echo (no model: replays the prompt, for tests)"
    )
    device_type: Literal["auto", "mps", "cuda", "cpu"] = Field("auto", description="auto, mps, cuda or cpu")
    models_dir: str = Field("models", min_length=1, description="folder the models lie in")
    default_model: str = Field("", description="model loaded at the start and used where a request names none; empty: the first")
    max_concurrent_models: int = Field(1, ge=1, le=64, description="models loaded at a time")
    engine_fallback: bool = Field(False, description="where the chosen engine fails to load a model, load it with another that can")
    memory_reserve: int = Field(512, ge=0, description="MiB that are left free when a model is loaded")
    model_idle_seconds: float = Field(0, ge=0, description="unload a model that was not asked for so long; 0: never")
    runner_max_age: float = Field(0, ge=0, description="seconds after which a model's process is replaced by a fresh one; 0: never")
    runner_max_rss_growth: int = Field(
        0, ge=0, description="MiB that a model's process may grow by before it is replaced by a fresh one; 0: any"
    )
    load_on_demand: bool = Field(True, description="load a model when a request names it")
    load_wait_seconds: float = Field(600, ge=0, description="time a request waits for its model to load before it gets a 503")
    context_length: int = Field(0, ge=0, description="tokens of one sequence, prompt and completion; 0: the model's own, at most 4096")
    max_parallel_sequences: int = Field(0, ge=0, le=256, description="sequences computed together; 0: as many as fit, at most 20")
    kv_cache_type: Literal["auto", "f16", "q8_0"] = Field(
        "auto", description="how the KV cache is stored: auto (f16, but on x86 CPUs its values as q8_0), f16, or q8_0 (half the memory)"
    )
    step_time_target_ms: float = Field(
        0, ge=0, le=60_000, description="milliseconds a step with a prompt in it may keep running streams waiting; 0: by the device"
    )
    threads: int = Field(0, ge=0, le=1024, description="CPU threads of the engine; 0: one per physical core")
    enable_caching: bool = Field(True, description="reuse the computed prefix of an earlier prompt")
    cache_size: int = Field(16, ge=0, description="finished sequences kept for such reuse")
    mlx_memory_fraction: float = Field(
        0.8,
        gt=0,
        le=1,
        description="share of the memory that MLX may use: on Metal of the recommended working set, on a CPU of what is free",
    )
    dtype: Literal["auto", "float16", "bfloat16", "float32"] = Field("auto", description="vLLM: type of the weights in memory")
    quantization: str = Field("", description="vLLM: how the weights are quantised; empty: as the model's files say")
    kv_cache_dtype: str = Field("auto", min_length=1, description="vLLM: type of the KV cache, as fp8")
    gpu_memory_utilization: float = Field(0.92, gt=0, le=1, description="vLLM: share of each GPU's memory that it takes")
    tensor_parallel_size: int = Field(1, ge=1, le=1024, description="vLLM: GPUs (on CPUs: processes) that share each layer")
    pipeline_parallel_size: int = Field(1, ge=1, le=1024, description="vLLM: groups of these that share the layers out among them")
    data_parallel_size: int = Field(
        1, ge=1, le=1024, description="vLLM: copies of the model that share the requests, each as the other settings say"
    )
    distributed_executor_backend: Literal["auto", "mp", "ray"] = Field(
        "auto", description="vLLM: what runs these: mp on this machine, ray on several; auto: vLLM's choice"
    )
    enforce_eager: bool = Field(False, description="vLLM: compile nothing: loads faster, computes slower")
    echo_step_ms: float = Field(0, ge=0, le=10_000, description="milliseconds one step of the echo engine takes")
    echo_fault: str = Field(
        "",
        pattern=r"^((crash|kill|stall) .+)?$",
        description="crash, kill or stall, and a text: what the echo engine does on it; for tests",
    )

    engine_stall_seconds: float = Field(
        120, ge=0, description="seconds one step of an engine may take before its process is taken for hung and replaced; 0: any"
    )

    @property
    def models_path(self) -> Path:
        return ROOT / self.models_dir

    @property
    def cached_prefixes(self) -> int:
        return self.cache_size if self.enable_caching else 0

    @property
    def vllm(self) -> dict[str, Any]:
        """What is set of vLLM's own settings."""
        return {name: value for name in VLLM if (value := getattr(self, name)) != type(self).model_fields[name].default}
