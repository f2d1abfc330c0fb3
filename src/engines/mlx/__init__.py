"""MLX through mlx-lm's batch generator: safetensors on Apple's GPUs, and on the CPU. Imports the library only when a model is
loaded."""

from src.engines.base import Engine, EngineOptions
from src.errors import ModelLoadFailed


class MLXOptions(EngineOptions, frozen=True, kw_only=True):
    max_sequences: int
    memory_fraction: float = 0.8  # of the memory that MLX may use
    kv_type: str = "auto"  # how the KV cache is stored: auto, f16


def load(options: MLXOptions) -> Engine:
    """Load the folder at options.model_path. Raises ModelLoadFailed. MLX's arrays belong to the calling thread alone."""
    try:
        from src.engines.mlx.engine import MLXEngine
    except ImportError as error:  # MLX for Metal asks for the GPU when it is imported
        raise ModelLoadFailed(f"MLX cannot be used here: {error}") from error

    return MLXEngine(options)
