"""From a model and what is wanted of it to what its runner is told."""

import pytest

from src.catalog import Library
from src.errors import ModelLoadFailed
from src.manager.planning import Planner
from src.settings import Settings
from tests.model_files import put


@pytest.fixture
def planner(tmp_path):
    return Planner(Settings(models_dir=str(tmp_path), inference_engine="llama_cpp"), tmp_path)


def entry(tmp_path, options: str):
    put(tmp_path, "chat.gguf", "adapters/style.gguf", "adapters/domain.gguf")
    (tmp_path / "models.toml").write_text(f"[chat]\n{options}")
    return Library(tmp_path, pytest.fail).find("chat")


def test_adapters_of_models_toml_reach_the_engine_as_files_of_the_models_folder(planner, tmp_path):
    found = entry(tmp_path, 'lora = ["adapters/style.gguf", "adapters/domain.gguf"]')
    [engine] = planner.engines(found)
    spec = planner.spec(found, planner.plan(found, engine, planner.available(engine, (), 0)))
    assert spec.options.lora == (str(tmp_path / "adapters/style.gguf"), str(tmp_path / "adapters/domain.gguf"))


def test_an_engine_without_adapters_refuses_them_by_name(planner, tmp_path, monkeypatch):
    found = entry(tmp_path, 'lora = ["adapters/style.gguf"]')
    monkeypatch.setattr("src.engines.choose", lambda *given: "mlx")
    with pytest.raises(ModelLoadFailed, match="mlx takes no LoRA adapters here, llama_cpp does: remove lora of chat"):
        planner.engines(found)
