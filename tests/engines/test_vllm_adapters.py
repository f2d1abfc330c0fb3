"""LoRA adapters on vLLM: one for all answers, or several of which each job names one. The same as if they were in the weights."""

from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from src.engines import load_engine, why_not
from src.engines.base import Engine, Job
from src.errors import EngineError, ModelLoadFailed
from tests.engines.test_contract import Run, job
from tests.support.hf_model import hf_model
from tests.support.lora import merged, write_adapter
from tests.support.server import assert_gone
from tests.support.vllm_small import options, vllms_processes

if reason := why_not("vllm"):
    pytest.skip(reason, allow_module_level=True)

NAMES = ("", "nothing", "strong", "other")


@dataclass
class Loaded:
    engine: Engine
    folders: dict[str, str]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    base, home = hf_model("float32"), tmp_path_factory.mktemp("adapters")
    folders = {
        "nothing": str(write_adapter(home / "nothing", base, strength=0)),
        "strong": str(write_adapter(home / "strong", base, strength=0.05)),
        "other": str(write_adapter(home / "other", base, strength=0.05, rank=9, seed=2)),
    }
    engine = load_engine("vllm", options(context_length=256, adapters=folders))
    yield Loaded(engine, folders)
    engine.close()


def with_adapter(id: int, name: str, length: int = 12) -> Job:
    return msgspec.structs.replace(job(id, length=length, max_tokens=16, temperature=0.0), adapter=name)


def test_jobs_of_several_adapters_are_computed_together_each_with_its_own(loaded):
    alone = {name: Run(loaded.engine, [with_adapter(1, name)]).tokens[1] for name in NAMES}
    assert alone["nothing"] == alone[""]
    assert len({tuple(tokens) for tokens in alone.values()}) == 3, "each of the others says something else"
    together = Run(loaded.engine, [with_adapter(id, name) for id, name in enumerate(NAMES)])
    assert list(together.tokens.values()) == list(alone.values())
    order = together.order
    assert order.index(len(NAMES) - 1) < len(order) - 1 - order[::-1].index(0), "the last began before the first ended"


def test_what_was_computed_with_one_adapter_is_not_found_by_another(loaded):
    long = {name: with_adapter(1, name, length=130) for name in ("strong", "other")}
    assert Run(loaded.engine, [long["strong"]]).cached[1] == 0
    assert Run(loaded.engine, [long["other"]]).cached[1] == 0
    assert Run(loaded.engine, [long["strong"]]).cached[1] >= 96


def test_an_adapter_that_was_not_loaded_is_an_error_of_the_job(loaded):
    with pytest.raises(EngineError, match="without the adapter 'new': load it anew"):
        loaded.engine.add(with_adapter(1, "new"))


@pytest.mark.parametrize("name", ["strong", "other"])
def test_an_adapter_is_as_if_it_were_in_the_weights(loaded, name, tmp_path):
    of_adapter = Run(loaded.engine, [with_adapter(1, name)]).tokens[1]
    inside = load_engine(
        "vllm", options(context_length=256, model_path=str(merged(tmp_path / "model", hf_model("float32"), Path(loaded.folders[name]))))
    )
    try:
        assert Run(inside, [with_adapter(1, "")]).tokens[1] == of_adapter
    finally:
        inside.close()


def test_one_without_its_weights_is_refused_when_the_model_is_loaded(tmp_path):
    folder = write_adapter(tmp_path / "adapter", hf_model("float32"), strength=0.05)
    (folder / "adapter_model.safetensors").unlink()
    before = vllms_processes()
    with pytest.raises(ModelLoadFailed, match="vLLM cannot apply the LoRA adapter"):
        load_engine("vllm", options(context_length=256, adapters={"a": str(folder)}))
    assert_gone([process for process in vllms_processes() if process not in before])


def test_one_for_all_answers(loaded):
    of_adapter = Run(loaded.engine, [with_adapter(1, "strong")]).tokens[1]
    engine = load_engine("vllm", options(context_length=256, lora=(loaded.folders["strong"],)))
    try:
        assert Run(engine, [with_adapter(1, "")]).tokens[1] == of_adapter
    finally:
        engine.close()
