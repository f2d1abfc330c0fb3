"""Servers that several tests of this folder share: a real model, on every engine that is installed here."""

from collections.abc import Iterator

import pytest

from src.engines import why_not
from tests.support.hf_model import NAME, hf_model
from tests.support.server import Server

MODEL = NAME


def settings_of(engine: str) -> dict[str, object]:
    """What a server needs to serve the built-in model on this engine."""
    if engine == "mlx":  # on the CPU it computes float32 faster than bfloat16
        return {"INFERENCE_ENGINE": "mlx", "MODELS_DIR": hf_model("float32").parent}
    if engine == "vllm":  # with 16 bits a prompt found in the cache may be answered otherwise than one computed; compiling takes a minute
        return {"INFERENCE_ENGINE": "vllm", "MODELS_DIR": hf_model("float32").parent, "DTYPE": "float32", "ENFORCE_EAGER": True}
    return {}


@pytest.fixture(scope="module", params=["llama_cpp", "mlx", "vllm"])
def engine(request) -> str:
    if reason := why_not(request.param):
        pytest.skip(reason)
    return request.param


@pytest.fixture(scope="module")
def server(engine) -> Iterator[Server]:
    """The built-in model, as `python run.py --mode prod` serves it."""
    with Server(**settings_of(engine)) as server:
        yield server
