"""What every test may use: the built-in model, and a second one. Counts the tests that lacked a program of the system."""

import functools
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import httpx
import pytest

from src.settings import ROOT
from tests.support.gemma import gemma_model
from tests.support.programs import summary

LONGEST_TEMP = 30  # characters; a socket's path has at most 103, RUN_DIR 80
LONG = ["faults", "e2e", "manager", "engines", "api"]  # folders under tests/, those with the longest tests first

# Whoever runs the tests in the background may have Ctrl-C ignored, and every process that they start would ignore it too.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Containers often forbid Python to keep what it has compiled: every server would compile src anew, for 1 s and more.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Words that are compared one by one are a CPU's: a Mac's GPU sums in another order. tests/engines/test_devices.py takes the GPU.
if sys.platform == "darwin" or os.environ.get("LIKE_MACOS"):
    os.environ.setdefault("DEVICE_TYPE", "cpu")

# Each new client reads the certificates of all authorities, for 25 ms or more, and the tests make thousands of clients.
_transport = httpx._transports.default
_transport.create_ssl_context = functools.cache(_transport.create_ssl_context)


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


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Below macOS' folder for temporary files, of 49 characters, no socket would find room in tmp_path."""
    if len(tempfile.gettempdir()) > LONGEST_TEMP and not config.option.basetemp and not hasattr(config, "workerinput"):
        config.option.basetemp = tempfile.mkdtemp(prefix="t-", dir="/tmp")
        config.add_cleanup(lambda: shutil.rmtree(config.option.basetemp, ignore_errors=True))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Of a file that makes up its requests, for seconds, as each worker collects it, and has slow tests only."""
    return True if collection_path.name == "test_openapi_bounds.py" and config.option.markexpr == "not slow" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with long tests come first, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: next((place for place, name in enumerate(LONG) if f"/{name}/" in str(item.path)), len(LONG)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if line := summary(str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])):
        terminalreporter.write_line(line, yellow=True)
