"""The registry: the engine for a format where there is one, else an error that names every engine and what it lacks."""

import subprocess
import sys

import pytest

from src.engines import ENGINES, EngineKind, choose, detect, load_engine, version, why_not
from src.engines.base import EngineOptions
from src.errors import ModelLoadFailed
from src.settings import ROOT, Settings


def test_detect_tells_of_every_engine_whether_it_can_run_here_or_why_not():
    found = detect()
    assert list(found) == ["mlx", "vllm", "llama_cpp", "echo"]
    assert found["echo"] is None
    assert found["llama_cpp"] is None
    assert all(reason is None or len(reason) > 10 for reason in found.values())


def test_every_engine_of_the_registry_can_be_asked_for_by_a_setting():
    for engine in ENGINES:
        assert Settings(inference_engine=engine).inference_engine == engine


def test_a_gguf_file_gets_llama_cpp():
    assert choose("auto", "gguf") == "llama_cpp"
    assert choose("llama_cpp", "gguf") == "llama_cpp"


def test_the_echo_format_gets_echo():
    assert choose("echo", "echo") == choose("auto", "echo") == "echo"


def test_a_format_that_nothing_here_runs_by_itself_is_refused_with_every_engine_and_its_reason():
    if any(why_not(name) is None and ENGINES[name].prefers() for name in ("mlx", "vllm")):
        pytest.skip("this machine runs safetensors")
    with pytest.raises(ModelLoadFailed) as caught:
        choose("auto", "safetensors")
    for name in ("mlx", "vllm"):
        assert f"{name}: {why_not(name) or 'not chosen on this machine by itself'}" in caught.value.message
    assert "safetensors" in caught.value.message


@pytest.mark.parametrize(
    ("engine", "model_format", "able"),
    [
        ("llama_cpp", "safetensors", "mlx and vllm can"),
        ("mlx", "gguf", "llama_cpp can"),
        ("vllm", "gguf", "llama_cpp can"),
        ("echo", "gguf", "llama_cpp can"),
    ],
)
def test_an_engine_asked_for_with_a_format_it_cannot_run_names_those_that_can(engine, model_format, able):
    with pytest.raises(ModelLoadFailed) as caught:
        choose(engine, model_format)
    assert f"INFERENCE_ENGINE={engine}" in caught.value.message
    assert model_format in caught.value.message
    assert able in caught.value.message


@pytest.mark.parametrize("suits", [True, False])
def test_auto_takes_an_engine_only_where_it_suits_the_machine(monkeypatch, suits):
    formats = frozenset({"safetensors"})
    installed = EngineKind(module="src.engines.echo", package=None, formats=formats, prefers=lambda: suits)
    for name in ("mlx", "vllm"):
        monkeypatch.setitem(ENGINES, name, installed)
    assert choose("vllm", "safetensors") == "vllm"
    if suits:
        assert choose("auto", "safetensors") == "mlx", "the first in the registry's order"
        return
    with pytest.raises(ModelLoadFailed, match="set INFERENCE_ENGINE=vllm"):
        choose("auto", "safetensors")


@pytest.mark.parametrize("engine", ["mlx", "vllm"])
def test_an_engine_asked_for_that_is_not_here_says_why(engine):
    reason = why_not(engine)
    if reason is None:
        assert choose(engine, "safetensors") == engine
        return
    with pytest.raises(ModelLoadFailed) as caught:
        choose(engine, "safetensors")
    assert caught.value.message == f"INFERENCE_ENGINE={engine} cannot run here: {reason}."


def test_an_engine_is_loaded_by_its_name():
    engine = load_engine("echo", EngineOptions(model_path="", context_length=10))
    assert engine.context_length == 10
    engine.close()


def test_the_version_is_the_librarys():
    assert version("echo") == "-"
    assert version("llama_cpp")[0].isdigit()
    for engine in ("mlx", "vllm"):
        assert version(engine) == "unknown" or version(engine)[0].isdigit()


def test_importing_and_asking_the_registry_loads_no_engine():
    code = """
import sys
from src import engines
engines.detect(), engines.choose("auto", "gguf"), [engines.version(name) for name in engines.ENGINES]
print(sorted(name for name in sys.modules if name.split(".")[0] in {"llama_cpp", "mlx", "mlx_lm", "vllm", "torch", "numpy"}))
print(sorted(name for name in sys.modules if name.startswith("src.engines.")))
"""
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert loaded.splitlines() == ["[]", "['src.engines.base']"]
