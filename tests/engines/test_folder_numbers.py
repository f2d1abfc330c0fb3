"""The engines of Hugging Face folders: a job whose numbers are NaN ends alone, with an error that says so, on every path to a token."""

import pytest

from src.engines import engine_options, load_engine, why_not
from src.engines.base import Job
from src.errors import InvalidOutput, NothingToDraw
from src.sampling import SamplingParams
from tests.support.nan_model import NAN, PATHS, nan_folder, run

ENGINE = next((name for name in ("vllm", "mlx") if why_not(name) is None), None)
if ENGINE is None:
    pytest.skip("neither vLLM nor MLX is installed", allow_module_level=True)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = nan_folder(tmp_path_factory.mktemp("nan") / "model")
    fields = {"model_path": str(folder), "context_length": 256, "max_sequences": 4, "cached_prefixes": 4}
    own = {"vllm": {"dtype": "float32", "enforce_eager": True}} if ENGINE == "vllm" else {"device": "cpu"}
    engine = load_engine(ENGINE, engine_options(ENGINE, {**fields, **own}))
    yield engine
    engine.close()


def job(id: int, *tokens: int, **sampling) -> Job:
    prompt = [1000, 1001, 1002, 1003, *tokens]
    params = SamplingParams(**{"seed": 3, "temperature": 0.0, "ignore_eos": True, **sampling})
    return Job(id=id, tokens=prompt, prompt_tokens=len(prompt), max_tokens=6, sampling=params)


@pytest.mark.parametrize("sampling", PATHS, ids=str)
def test_a_row_of_nan_ends_its_job_alone(engine, sampling):
    alone = run(engine, job(1, 2000))[1]
    assert len(alone) == 6
    beside = run(engine, job(1, 2000), job(2, NAN, **sampling), job(3, 2000))
    assert isinstance(beside[2], InvalidOutput)
    assert beside[1] == beside[3] == alone


def test_it_is_so_for_many_at_once_and_the_next_ones_are_answered(engine):
    alone = run(engine, job(1, 2000))[1]
    assert all(isinstance(result, InvalidOutput) for result in run(engine, *(job(id, NAN, 2000 + id) for id in range(9))).values())
    assert list(run(engine, *(job(id, 2000) for id in range(9))).values()) == [alone] * 9


def test_a_row_that_masks_have_emptied_is_the_requests_own_fault_and_says_which(engine):
    nothing = run(engine, job(1, 2000, min_tokens=2, stop_tokens=list(range(engine.vocab_size))))[1]
    assert isinstance(nothing, NothingToDraw)
    assert "min_tokens" in nothing.message
