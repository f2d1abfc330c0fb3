"""Several copies of a model in vLLM (data_parallel_size): they share the jobs, and each computes what the only one would."""

import contextlib
import json
import os
import signal

import msgspec
import psutil
import pytest

from src.engines import load_engine, why_not
from src.errors import EngineDead, ModelLoadFailed
from tests.engines.test_contract import Run, job
from tests.support.hf_model import hf_model
from tests.support.lora import write_adapter
from tests.support.server import assert_gone
from tests.support.vllm_small import options, place_threads_anew, step_on, vllms_processes
from tests.support.watching import watching

if reason := why_not("vllm"):
    pytest.skip(reason, allow_module_level=True)

CONTEXT, SEQUENCES = 256, 2


def load(folder: str, copies: int):
    given = {"context_length": CONTEXT, "max_sequences": SEQUENCES, "adapters": {"strong": folder}}
    return load_engine("vllm", options(**given, vllm={"data_parallel_size": copies}))


def jobs():
    """More than have a place at once."""
    of = [job(id, start=10 * id, temperature=0.0 if id % 2 else 0.9, seed=id, max_tokens=12) for id in range(1, 9)]
    return [msgspec.structs.replace(one, adapter="strong" if one.id % 3 == 0 else "") for one in of]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory) -> str:
    return str(write_adapter(tmp_path_factory.mktemp("adapters") / "strong", hf_model("float32"), strength=0.05))


def cached_of_twins(engine) -> list[int]:
    """Tokens that each of two long jobs with one prompt, added at once, finds computed."""
    found = Run(engine, [job(id, start=700, length=130, max_tokens=4) for id in (1, 2)]).cached
    return sorted(found.values())


@pytest.fixture(scope="module")
def alone(adapter) -> Run:
    """What one copy draws."""
    engine = load(adapter, 1)
    try:
        assert cached_of_twins(engine) == [0, 128]
        return Run(engine, jobs())
    finally:
        engine.close()


@contextlib.contextmanager
def listening():
    """The addresses that this process and those it starts listen on meanwhile."""
    found = set()

    def look():
        for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                found.update(each.laddr.ip for each in process.net_connections("inet") if each.status == psutil.CONN_LISTEN)

    with watching(look, 0.02):
        yield found


@pytest.fixture
def engine(adapter, alone, monkeypatch):
    place_threads_anew(monkeypatch)
    with listening() as addresses:
        loaded = load(adapter, 2)
    assert addresses == {"127.0.0.1"}, "nobody else is to reach what its processes tell one another"
    family = vllms_processes()
    yield loaded
    loaded.close()
    assert_gone(family)


def test_copies_share_the_jobs_draw_what_one_draws_and_die_together(engine, alone):
    assert (engine.stats().slots, engine.stats().kv_total) == (2 * SEQUENCES, 2 * SEQUENCES * CONTEXT)
    for each in jobs():
        engine.add(each)
    engine.step()
    assert engine.stats().running == 2 * SEQUENCES, "twice as many as one has places for"
    for each in jobs():
        engine.cancel(each.id)
    assert [cached_of_twins(engine) for _ in range(2)] == [[0, 0], [128, 128]], "each copy computed one of them"
    run = Run(engine, jobs())
    assert run.tokens == alone.tokens
    assert run.finish == alone.finish

    # Of jobs that come one by one, each finds what the one before has left, and cancelled ones leave their place.
    long = job(20, length=130, max_tokens=4)
    assert [Run(engine, [long]).cached[20] for _ in range(2)] == [0, 128]
    for _ in range(3 * SEQUENCES):
        engine.add(job(30, max_tokens=200))
        engine.step()
        engine.cancel(30)
    assert Run(engine, jobs()).tokens == alone.tokens

    second = next(process for process in vllms_processes() if process.name().startswith("VLLM::EngineCore_DP1"))
    for each in jobs():
        engine.add(each)
    engine.step()
    os.kill(second.pid, signal.SIGKILL)
    with pytest.raises(EngineDead, match="core has died"):
        step_on(engine)


def test_copies_of_a_mixture_of_experts_are_refused_by_name(monkeypatch, tmp_path):
    config = json.loads((hf_model("float32") / "config.json").read_text())
    experts = {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}
    (tmp_path / "config.json").write_text(json.dumps(config | experts))
    monkeypatch.setattr("vllm.LLMEngine.__init__", lambda *given, **named: pytest.fail("it was loaded"))
    with pytest.raises(ModelLoadFailed, match=r"data_parallel_size=2 .*several instances"):
        load_engine("vllm", options(model_path=str(tmp_path), vllm={"data_parallel_size": 2}))
