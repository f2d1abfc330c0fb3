"""llama.cpp through its C API: GGUF models on CPU, Metal or CUDA. Imports the library only when a model is loaded."""

from importlib.util import find_spec
from pathlib import Path

from src.engines.base import Engine, EngineOptions


class LlamaCppOptions(EngineOptions, frozen=True, kw_only=True):
    max_sequences: int
    kv_type: str = "auto"  # how the KV cache is stored: auto (as is quickest on this machine), f16, q8_0
    measurements: str = ""  # a folder for what was measured on this machine; empty: nothing is measured, and auto goes by the processor
    lora: tuple[str, ...] = ()  # files of LoRA adapters, all applied


def load(options: LlamaCppOptions) -> Engine:
    """Load the GGUF at options.model_path. Raises ModelLoadFailed with llama.cpp's own reason."""
    from src.engines.llamacpp.engine import LlamaCppEngine

    return LlamaCppEngine(options)


def built_for_cuda() -> bool:
    """Whether the installed library was, by its files."""
    package = find_spec("llama_cpp")
    return bool(package and package.origin and any(Path(package.origin).parent.glob("lib/*ggml-cuda*")))
