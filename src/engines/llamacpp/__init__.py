"""llama.cpp through its C API: GGUF models on CPU, Metal or CUDA. Knows nothing of text: the runner tokenises."""

from src.engines.base import Engine, EngineOptions


def load(options: EngineOptions) -> Engine:
    """Load the GGUF at options.model_path. Raises ModelLoadFailed with llama.cpp's own reason."""
    from src.engines.llamacpp.engine import LlamaCppEngine

    return LlamaCppEngine(options)
