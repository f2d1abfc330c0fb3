"""The registry: which engines this machine can run, and which one a model format gets. Imports no engine until one is loaded."""

import importlib
import platform
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import msgspec

from src.engines.base import Engine, EngineOptions
from src.errors import ModelLoadFailed


class EngineKind(msgspec.Struct, frozen=True, kw_only=True):
    """An engine as the registry knows it: `module` offers `load`, `package` is what has to be installed for it."""

    module: str
    package: str | None
    formats: frozenset[str]
    prefers: Callable[[], bool]  # is this machine one that auto should choose it on?
    install: str = ""
    embeds: bool = True  # whether it makes embeddings with models that were not trained for them


def _apple_silicon() -> bool:
    return sys.platform == "darwin" and platform.machine() == "arm64"


def _cuda() -> bool:
    """Is there an NVIDIA driver? Asked without importing torch, which would take seconds and gigabytes."""
    return Path("/proc/driver/nvidia/version").exists()


# In order of preference, where more than one can run a format.
ENGINES = {
    "mlx": EngineKind(
        module="src.engines.mlx",
        package="mlx_lm",
        formats=frozenset({"safetensors", "mlx"}),
        prefers=_apple_silicon,
        install="pip install mlx-lm (on Linux also 'mlx[cpu]')",
    ),
    "vllm": EngineKind(
        module="src.engines.vllm",
        package="vllm",
        formats=frozenset({"safetensors"}),
        prefers=_cuda,
        embeds=False,
        install="pip install vllm",
    ),
    "llama_cpp": EngineKind(
        module="src.engines.llamacpp",
        package="llama_cpp",
        formats=frozenset({"gguf"}),
        prefers=lambda: True,
        install="pip install llama-cpp-python",
    ),
    "echo": EngineKind(module="src.engines.echo", package=None, formats=frozenset({"echo"}), prefers=lambda: True),
}


def why_not(engine: str) -> str | None:
    """None where the engine can run here, else the reason, with what to do about it."""
    kind = ENGINES[engine]
    if find_spec(kind.module) is None:
        return "this version of the service has no such engine yet"
    if kind.package and find_spec(kind.package) is None:
        return f"the package {kind.package} is not installed: {kind.install}"
    return None


def detect() -> dict[str, str | None]:
    """Every engine with None where it can run here, else why it cannot."""
    return {engine: why_not(engine) for engine in ENGINES}


def reasons(model_format: str) -> dict[str, str | None]:
    """Every engine for models with None where it can run one of this format here, else why it cannot."""
    able = [name for name, kind in ENGINES.items() if model_format in kind.formats]
    names = [name for name in ENGINES if name != "echo" or name in able]
    return {name: why_not(name) if name in able else f"it does not read the format {model_format}" for name in names}


def choose(wanted: str, model_format: str, asked: str | None = None) -> str:
    """The engine for a model's format: the one wanted, or with "auto" the first that can and that suits the machine.

    `asked` is how an error calls the wish. Raises ModelLoadFailed that says why none can, and what could.
    """
    asked = asked or f"INFERENCE_ENGINE={wanted}"
    able = [name for name, kind in ENGINES.items() if model_format in kind.formats]
    if wanted != "auto":
        if model_format not in ENGINES[wanted].formats:
            raise ModelLoadFailed(f"{asked} cannot run a model in the format {model_format}; {' and '.join(able)} can.")
        if reason := why_not(wanted):
            raise ModelLoadFailed(f"{asked} cannot run here: {reason}.")
        return wanted
    missing = {name: why_not(name) for name in able}
    for name in able:
        if missing[name] is None and ENGINES[name].prefers():
            return name
    told = "; ".join(
        f"{name}: {reason or f'not chosen on this machine by itself, set INFERENCE_ENGINE={name}'}" for name, reason in missing.items()
    )
    raise ModelLoadFailed(f"No engine here can run a model in the format {model_format}. {told}.")


def load_engine(engine: str, options: EngineOptions) -> Engine:
    """Load a model into an engine. Raises ModelLoadFailed."""
    loaded: Engine = importlib.import_module(ENGINES[engine].module).load(options)
    return loaded


def version(engine: str) -> str:
    """The version of an engine's library, without importing it."""
    from importlib.metadata import PackageNotFoundError, packages_distributions
    from importlib.metadata import version as distribution_version

    package = ENGINES[engine].package
    if package is None:
        return "-"
    try:
        return distribution_version(packages_distributions()[package][0])
    except (KeyError, PackageNotFoundError):
        return "unknown"
