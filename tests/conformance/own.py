"""This repository's own server as the suite runs it. The one place here that knows how it is built."""

import atexit
import shutil
import tempfile
from pathlib import Path

from src.engines import why_not
from src.settings import ROOT
from tests.support.hf_model import as_embedder, hf_model
from tests.support.server import Server
from tests.support.small_model import small_model

DTYPES = {"mlx": "float32", "vllm": "float32"}  # of the engines that read safetensors; MLX on a CPU computes float32 faster


APART = ("vllm",)  # engines that load a model either to write or to embed


def embedder(home: Path) -> Path:
    return as_embedder(hf_model("float32"), home)


def without_makers_sampling() -> Path:
    """A folder with the built-in model's file alone: the suite holds the contract's defaults, not those of a model's makers."""
    folder = Path(tempfile.mkdtemp(prefix="test-models-"))
    atexit.register(shutil.rmtree, folder)
    (folder / "smollm2-135m").mkdir()
    for file in (ROOT / "models/smollm2-135m").glob("*.gguf"):
        (folder / "smollm2-135m" / file.name).symlink_to(file)
    return folder


def serve(engine: str, models: Path | None = None) -> Server:
    """With the models of a folder, or the built-in one."""
    reason = why_not(engine)
    assert reason is None, f"{engine} cannot be tested here: {reason}"
    if models is None and engine in DTYPES:
        models = small_model(DTYPES[engine]).parent
    if models is None and engine == "llama_cpp":
        models = without_makers_sampling()
    settings: dict[str, object] = {"MODELS_DIR": models} if models else {}
    if engine == "vllm":  # with 16 bits a prompt found in the cache may be answered otherwise than one computed; compiling takes a minute
        settings |= {"DTYPE": "float32", "ENFORCE_EAGER": True}
    settings |= {"CONTEXT_LENGTH": 4096, "MAX_PARALLEL_SEQUENCES": 4, "ECHO_STEP_MS": 0.5}
    server = Server(INFERENCE_ENGINE=engine, wait=False, **settings)
    server.wait_healthy(timeout=300)
    return server
