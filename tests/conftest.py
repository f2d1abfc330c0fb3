"""What every test may use: the built-in model, and a second one."""

import signal
from pathlib import Path

import pytest

from src.settings import ROOT
from tests.gemma import gemma_model

# Whoever runs the tests in the background may have Ctrl-C ignored, and every process that they start would ignore it too.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def model_path() -> Path:
    """The built-in model, a real one of 98 MB."""
    path = ROOT / "models" / "smollm2-135m" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if not path.exists():
        pytest.fail(f"{path} is missing: run ./scripts/start or ./scripts/test, which fetch it")
    return path


@pytest.fixture(scope="session")
def gemma_path() -> Path:
    """Gemma 3 270M, fetched the first time. It has no chat template: it completes text."""
    return gemma_model()
