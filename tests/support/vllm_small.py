"""vLLM with the built-in model and as little of everything as tests need. Importing it needs no vLLM."""

import psutil
import pytest

from src.engines.base import Engine
from src.engines.vllm import VLLMOptions
from tests.support.hf_model import hf_model

CONTEXT = 2048


def options(**fields) -> VLLMOptions:
    vllm = {"dtype": "float32", "enforce_eager": True, "max_num_batched_tokens": 128, **fields.pop("vllm", {})}
    defaults = {"model_path": str(hf_model("float32")), "context_length": CONTEXT, "max_sequences": 4, "cached_prefixes": 4}
    return VLLMOptions(**{**defaults, **fields}, vllm=vllm)


def vllms_processes() -> list[psutil.Process]:
    family = psutil.Process().children(recursive=True)
    return [process for process in family if process.name().startswith("VLLM::") and process.status() != psutil.STATUS_ZOMBIE]


def place_threads_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the engine that is loaded next; what it makes of the environment is undone behind the test."""
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "")  # else there would be nothing to be undone
    monkeypatch.delenv("VLLM_CPU_OMP_THREADS_BIND")


def step_on(engine: Engine) -> None:
    """Until nothing is left, whoever's steps they are: what was drawn before a death is told before it."""
    while engine.step():
        pass
