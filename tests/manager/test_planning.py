"""From a model and what is wanted of it to what its runner is told."""

import os
import sys

import pytest

from src.catalog import Library
from src.engines.vllm import RANK_BYTES
from src.errors import ModelLoadFailed
from src.manager import memory
from src.manager.manager import ECHO
from src.manager.memory import GIB
from src.manager.planning import Planner
from src.settings import Settings
from tests.support.model_files import put

pytestmark = pytest.mark.macos


@pytest.fixture
def planner(tmp_path):
    return Planner(Settings(models_dir=str(tmp_path), inference_engine="llama_cpp"), tmp_path)


def entry(tmp_path, options: str):
    put(tmp_path, "chat.gguf", "adapters/style.gguf", "adapters/domain.gguf")
    (tmp_path / "models.toml").write_text(f"[chat]\n{options}")
    return Library(tmp_path, pytest.fail).look().find("chat")


def test_adapters_of_models_toml_reach_the_engine_as_files_of_the_models_folder(planner, tmp_path):
    found = entry(tmp_path, 'lora = ["adapters/style.gguf", "adapters/domain.gguf"]')
    [engine] = planner.engines(found)
    spec = planner.spec(found, planner.plan(found, engine, planner.available(engine)))
    assert spec.options["lora"] == (str(tmp_path / "adapters/style.gguf"), str(tmp_path / "adapters/domain.gguf"))


def test_an_engine_without_adapters_refuses_them_by_name(planner, tmp_path, monkeypatch):
    found = entry(tmp_path, 'lora = ["adapters/style.gguf"]')
    monkeypatch.setattr("src.engines.choose", lambda *given: "mlx")
    with pytest.raises(ModelLoadFailed, match=r"mlx does not support lora in models\.toml; vllm and llama_cpp can\. Remove lora of chat"):
        planner.engines(found)


def test_adapters_that_requests_name_reach_vllm_and_no_other_engine(planner, tmp_path, monkeypatch):
    found = entry(tmp_path, 'adapters = {sql = "adapters/style.gguf"}')
    with pytest.raises(ModelLoadFailed, match=r"llama_cpp does not support adapters in models\.toml; vllm can\. Remove adapters of chat"):
        planner.engines(found)
    monkeypatch.setattr("src.engines.choose", lambda *given: "vllm")
    assert planner.engines(found) == ["vllm"], "none takes its place: it would answer without them"
    spec = planner.spec(found, planner.plan(found, "vllm", planner.available("vllm")))
    assert spec.options["adapters"] == {"sql": str(tmp_path / "adapters/style.gguf")}


def vllm_options(tmp_path, settings: dict, table: str) -> dict:
    """What vLLM is told of its own settings."""
    put(tmp_path, "chat.gguf")
    (tmp_path / "models.toml").write_text(f"[chat.vllm]\n{table}")
    planner = Planner(Settings(models_dir=str(tmp_path), **settings), tmp_path)
    found = Library(tmp_path, pytest.fail).look().find("chat")
    return planner.spec(found, planner.plan(found, "vllm", planner.available("vllm"))).options["vllm"]


def test_vllms_own_settings_reach_it_by_its_names_and_only_those_that_were_set(tmp_path):
    assert vllm_options(tmp_path, {}, "") == {}
    set_for_all = {"dtype": "float32", "pipeline_parallel_size": 2, "distributed_executor_backend": "ray"}
    assert vllm_options(tmp_path, set_for_all, "") == set_for_all


def test_a_models_own_settings_of_vllm_win(tmp_path):
    given = vllm_options(tmp_path, {"tensor_parallel_size": 2, "dtype": "float16"}, "tensor_parallel_size = 1\nblock_size = 16")
    assert given == {"tensor_parallel_size": 1, "dtype": "float16", "block_size": 16}


def test_vllms_processes_count_as_memory_the_more_the_more_ranks_and_copies(tmp_path):
    put(tmp_path, "chat.gguf")
    found = Library(tmp_path, pytest.fail).look().find("chat")
    room = memory.Memory("ram", 64 * GIB, 60 * GIB, 0)

    def needed(engine: str, **settings) -> float:
        return Planner(Settings(models_dir=str(tmp_path), **settings), tmp_path).plan(found, engine, room).fit.need.total / GIB

    assert needed("vllm") > needed("llama_cpp") + 1
    assert needed("vllm", tensor_parallel_size=2) == pytest.approx(needed("vllm") + RANK_BYTES / GIB)
    assert needed("vllm", data_parallel_size=2, tensor_parallel_size=2) > needed("vllm") + 3 * RANK_BYTES / GIB


def test_on_a_gpu_vllm_finds_by_itself_how_many_sequences_have_room(tmp_path):
    put(tmp_path, "chat.gguf")
    found = Library(tmp_path, pytest.fail).look().find("chat")
    gpu = memory.Memory("cuda", 80 * GIB, 79 * GIB, 0)
    planner = Planner(Settings(models_dir=str(tmp_path)), tmp_path)
    plan = planner.plan(found, "vllm", gpu)
    assert plan.fit.sequences == 0
    assert planner.spec(found, plan).options["max_sequences"] is None
    assert planner.spec(found, plan._replace(engine="mlx")).options["max_sequences"] == memory.DEFAULT_SEQUENCES, "MLX cannot"
    told = Planner(Settings(models_dir=str(tmp_path), max_parallel_sequences=7), tmp_path)
    assert told.spec(found, told.plan(found, "vllm", gpu)).options["max_sequences"] == 7


def test_the_echo_engine_has_a_context_of_its_own_where_none_is_set(tmp_path):
    room = memory.Memory("ram", 64 * GIB, 60 * GIB, 0)

    def planned(**settings) -> tuple[int, int]:
        planner = Planner(Settings(inference_engine="echo", **settings), tmp_path)
        options = planner.spec(ECHO, planner.plan(ECHO, "echo", room)).options
        return options["context_length"], options["max_sequences"]

    assert planned() == (8192, 20)
    assert planned(context_length=100, max_parallel_sequences=3) == (100, 3)


def test_vllm_is_left_to_place_its_threads(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith(("OMP_", "GOMP_"))]:
        monkeypatch.delenv(name)
    put(tmp_path, "chat.gguf")
    planner = Planner(Settings(models_dir=str(tmp_path)), tmp_path)
    found = Library(tmp_path, pytest.fail).look().find("chat")
    room = memory.Memory("ram", 64 * GIB, 60 * GIB, 0)
    names = {engine: set(planner.attempt(found, planner.plan(found, engine, room)).environ) for engine in ("vllm", "llama_cpp")}
    assert not any(name.startswith(("OMP_", "GOMP_")) for name in names["vllm"])
    assert "GOMP_SPINCOUNT" in names["llama_cpp"] or sys.platform != "linux"


@pytest.mark.parametrize(("platform", "expected"), [("darwin", "1"), ("linux", None)])
def test_macos_is_asked_not_to_end_long_gpu_work(planner, monkeypatch, platform, expected):
    name = "AGX_RELAX_CDM_CTXSTORE_TIMEOUT"
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.delenv(name, raising=False)
    assert planner.environ("mlx").get(name) == expected
    monkeypatch.setenv(name, "0")
    assert planner.environ("mlx")[name] == "0", "the operator's own wins"
