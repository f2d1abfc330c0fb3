"""The registry: the engine for a format where there is one, else an error that names every engine and what it lacks."""

import subprocess
import sys

import msgspec
import pytest

from src.engines import ENGINES, choose, detect, engine_options, load_engine, version, why_not, with_feature
from src.engines.base import EngineOptions
from src.engines.echo import EchoOptions
from src.engines.mlx import MLXOptions
from src.engines.vllm import RANK_BYTES
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
    installed = msgspec.structs.replace(ENGINES["echo"], formats=formats, prefers=lambda: suits)
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
    engine = load_engine("echo", EchoOptions(model_path="", context_length=10, max_sequences=1))
    assert engine.context_length == 10
    engine.close()


FIELDS = {
    "model_path": "m", "context_length": 100, "max_sequences": 3, "kv_type": "f16", "lora": ["a"], "adapters": {"b": "c"},
    "memory_fraction": 0.5, "vllm": {"tensor_parallel_size": 2}, "step_delay": 0.1, "fault": "", "measurements": "d",
}  # fmt: skip


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_is_told_what_it_has_an_option_for_and_nothing_else(engine):
    options = engine_options(engine, FIELDS)
    common = {"device", "cached_prefixes", "threads", "memory_bytes", "step_time_target", "context_is_open", "sequences_are_open"}
    assert set(options.__struct_fields__) <= FIELDS.keys() | common
    assert isinstance(options, EngineOptions)
    assert engine_options(engine, msgspec.to_builtins(options)) == options, "it crosses to the runner"


@pytest.mark.parametrize("engine", ENGINES)
def test_only_an_engine_that_counts_its_sequences_itself_may_be_told_no_number(engine):
    fields = {**FIELDS, "max_sequences": None}
    if ENGINES[engine].manages_memory_of:
        assert engine_options(engine, fields).max_sequences is None
    else:
        with pytest.raises(msgspec.ValidationError, match="max_sequences"):
            engine_options(engine, fields)


def test_engines_are_found_by_what_they_can_do():
    assert with_feature("generation") == list(ENGINES)
    assert with_feature("adapters") == ["vllm"]
    assert with_feature("kv_quantised") == ["llama_cpp"]


def test_vllms_footprint_grows_by_its_ranks_and_copies():
    one, four = (ENGINES["vllm"].footprint({"vllm": sizes}) for sizes in ({}, {"data_parallel_size": 2, "tensor_parallel_size": 2}))
    assert (one.copies, four.copies) == (1, 2)
    assert four.process_bytes - one.process_bytes == 3 * RANK_BYTES


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
"""
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert loaded == "[]\n"


def test_an_mlx_that_is_given_no_gpu_fails_the_load_with_its_own_words(monkeypatch, tmp_path):
    """MLX for Metal looks for the GPU when it is imported."""
    (tmp_path / "mlx").mkdir()
    (tmp_path / "mlx/__init__.py").touch()
    (tmp_path / "mlx/core.py").write_text('raise ImportError("[metal::load_device] No Metal device available.")')
    for name in [name for name in sys.modules if name.split(".")[0] == "mlx" or name.startswith("src.engines.mlx.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelLoadFailed, match=r"MLX cannot be used here: .*No Metal device available"):
        load_engine("mlx", MLXOptions(model_path="x", context_length=1, max_sequences=1))
