"""MLX through mlx-lm's batch generator: safetensors on Apple's GPUs, and on the CPU. Knows nothing of text: the runner tokenises."""

from src.engines.base import Engine, EngineOptions


def load(options: EngineOptions) -> Engine:
    """Load the folder at options.model_path. Raises ModelLoadFailed. MLX's arrays belong to the calling thread alone."""
    from src.engines.mlx.engine import MLXEngine

    return MLXEngine(options)
