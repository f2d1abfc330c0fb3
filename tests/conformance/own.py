"""This repository's own server as the suite runs it. The one place here that knows how it is built."""

from pathlib import Path

from src.engines import why_not
from tests.hf_model import as_embedder, hf_model
from tests.server import Server
from tests.small_model import small_model

DTYPES = {"mlx": "float32", "vllm": "float32"}  # of the engines that read safetensors; MLX on a CPU computes float32 faster


APART = ("vllm",)  # engines that load a model either to write or to embed


def embedder(home: Path) -> Path:
    return as_embedder(hf_model("float32"), home)


def serve(engine: str, models: Path | None = None) -> Server:
    """With the models of a folder, or the built-in one."""
    reason = why_not(engine)
    assert reason is None, f"{engine} cannot be tested here: {reason}"
    if models is None and engine in DTYPES:
        models = small_model(DTYPES[engine]).parent
    settings: dict[str, object] = {"MODELS_DIR": models} if models else {}
    if engine == "vllm":  # with 16 bits a prompt found in the cache may be answered otherwise than one computed; compiling takes a minute
        settings |= {"DTYPE": "float32", "ENFORCE_EAGER": True}
    # One thread: on a machine with other work, threads that wait for each other take ten times as long.
    settings |= {"CONTEXT_LENGTH": 4096, "MAX_PARALLEL_SEQUENCES": 4, "THREADS": 1, "ECHO_STEP_MS": 1}
    server = Server(INFERENCE_ENGINE=engine, wait=False, **settings)
    server.wait_healthy(timeout=300)
    return server
