"""The registry: which engines this machine can run, and which one a model format gets. No engine's library is imported until
a model is loaded."""

import platform
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from src.engines import echo, llamacpp, mlx, vllm
from src.engines.base import Engine, EngineOptions, Feature, Footprint
from src.errors import ModelLoadFailed


class EngineKind(msgspec.Struct, frozen=True, kw_only=True):
    """An engine as the registry knows it: what the manager asks instead of its name. `package` is what must be installed for it."""

    load: Callable[[Any], Engine]  # takes `options`; raises ModelLoadFailed
    options: type[EngineOptions]
    features: frozenset[Feature]  # of the engine; a model may have fewer
    package: str | None
    formats: frozenset[str]
    prefers: Callable[[], bool]  # whether auto should choose it on this machine
    device: Callable[[], str]  # cpu, mps, cuda: what it computes on with DEVICE_TYPE=auto, by what is installed
    install: str = ""
    has_models: bool = True  # False: it makes one up, and reads no files
    default_context: int | None = None  # tokens, where CONTEXT_LENGTH is open; None: the planner's own default
    manages_memory_of: frozenset[str] = frozenset()  # kinds of memory of which it takes a share and admits what has room there
    places_threads: bool = False  # it binds its threads to cores itself
    footprint: Callable[[Mapping[str, Any]], Footprint] = lambda fields: Footprint()  # by the fields of its options


def _apple_silicon() -> bool:
    return sys.platform == "darwin" and platform.machine() == "arm64"


def _cuda() -> bool:
    """Is there an NVIDIA driver? Asked without importing torch, which would take seconds and gigabytes."""
    return Path("/proc/driver/nvidia/version").exists()


def _device(*, cuda: bool) -> str:
    """`cuda`: whether the engine's installed library was built for it."""
    if sys.platform == "darwin":
        return "mps"
    return "cuda" if cuda and _cuda() else "cpu"


# In order of preference, where more than one can run a format.
ENGINES = {
    "mlx": EngineKind(
        load=mlx.load,
        options=mlx.MLXOptions,
        features=frozenset({"generation", "mean_embeddings"}),
        package="mlx_lm",
        formats=frozenset({"safetensors", "mlx"}),
        prefers=_apple_silicon,
        device=lambda: _device(cuda=False),
        install="pip install mlx-lm (on Linux also 'mlx[cpu]')",
    ),
    "vllm": EngineKind(
        load=vllm.load,
        options=vllm.VLLMOptions,
        features=frozenset({"generation", "embeddings", "lora", "adapters", "speculation"}),
        package="vllm",
        formats=frozenset({"safetensors"}),
        prefers=_cuda,
        device=lambda: _device(cuda=True),
        install="pip install vllm",
        manages_memory_of=frozenset({"cuda"}),
        places_threads=True,
        footprint=vllm.footprint,
    ),
    "llama_cpp": EngineKind(
        load=llamacpp.load,
        options=llamacpp.LlamaCppOptions,
        features=frozenset({"generation", "embeddings", "mean_embeddings", "lora", "kv_quantised"}),
        package="llama_cpp",
        formats=frozenset({"gguf"}),
        prefers=lambda: True,
        device=lambda: _device(cuda=llamacpp.built_for_cuda()),
        install="pip install llama-cpp-python",
    ),
    "echo": EngineKind(
        load=echo.load,
        options=echo.EchoOptions,
        features=frozenset({"generation", "mean_embeddings"}),
        package=None,
        formats=frozenset({"echo"}),
        prefers=lambda: True,
        device=lambda: "cpu",
        has_models=False,
        default_context=8192,
    ),
}


def why_not(engine: str) -> str | None:
    """None where the engine can run here, else the reason, with what to do about it."""
    kind = ENGINES[engine]
    if kind.package and find_spec(kind.package) is None:
        return f"the package {kind.package} is not installed: {kind.install}"
    return None


def detect() -> dict[str, str | None]:
    """Every engine with None where it can run here, else why it cannot."""
    return {engine: why_not(engine) for engine in ENGINES}


def reasons(model_format: str) -> dict[str, str | None]:
    """Every engine for models with None where it can run one of this format here, else why it cannot."""
    able = [name for name, kind in ENGINES.items() if model_format in kind.formats]
    names = [name for name, kind in ENGINES.items() if kind.has_models or name in able]
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
    why = "; ".join(
        f"{name}: {reason or f'not chosen on this machine by itself, set INFERENCE_ENGINE={name}'}" for name, reason in missing.items()
    )
    raise ModelLoadFailed(f"No engine here can run a model in the format {model_format}. {why}.")


def with_feature(feature: Feature) -> list[str]:
    """The engines that have it."""
    return [name for name, kind in ENGINES.items() if feature in kind.features]


def engine_options(engine: str, fields: Mapping[str, Any]) -> EngineOptions:
    """An engine's own options from fields that are meant for any engine: those that it does not have are left out."""
    return msgspec.convert(fields, ENGINES[engine].options)


def load_engine(engine: str, options: EngineOptions) -> Engine:
    """Load a model into an engine. `options` is of the engine's own type. Raises ModelLoadFailed."""
    return ENGINES[engine].load(options)


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
