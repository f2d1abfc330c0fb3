"""Where the model computes NaN for a job, that job ends with an error that says so, and nobody else notices."""

import llama_cpp.llama_cpp as ll
import numpy as np
import pytest

from src.engines import load_engine
from src.engines.base import Job
from src.engines.llamacpp import LlamaCppOptions
from src.engines.llamacpp.candidates import Candidates
from src.errors import InvalidOutput, NothingToDraw
from src.sampling import SamplingParams
from tests.support.nan_model import LENGTH, NAN, PATHS, nan_gguf, run


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("nan") / "nan.gguf"
    path.write_bytes(nan_gguf())
    return path


def load(model, **changes):
    return load_engine("llama_cpp", LlamaCppOptions(**{**OPTIONS, **changes}, model_path=str(model)))


OPTIONS = {"context_length": 256, "max_sequences": 4, "cached_prefixes": 4, "threads": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def engine(model):
    engine = load(model)
    yield engine
    engine.close()


class OnlyX:
    """A grammar."""

    source = ""

    def allowed(self) -> bytes:
        bits = np.zeros(LENGTH, np.uint8)
        bits[ord("x")] = 1
        return np.packbits(bits, bitorder="little").tobytes()

    def accept(self, token: int) -> None:
        assert token == ord("x")


def job(id: int, text: str, grammar=None, **sampling) -> Job:
    tokens = [NAN if letter == "Z" else ord(letter) for letter in text]
    params = SamplingParams(**{"seed": 3, "temperature": 0.0, **sampling})
    return Job(id=id, tokens=tokens, prompt_tokens=len(tokens), max_tokens=8, sampling=params, grammar=grammar)


@pytest.mark.parametrize("sampling", PATHS, ids=str)
def test_a_row_of_nan_ends_its_job_alone_on_every_path_to_a_token(engine, sampling):
    alone = run(engine, job(1, "hello"))[1]
    assert len(alone) == 8
    beside = run(engine, job(1, "hello"), job(2, "a Z", **sampling), job(3, "hello"))
    assert isinstance(beside[2], InvalidOutput)
    assert beside[1] == beside[3] == alone


def test_so_does_one_behind_a_grammar_which_is_not_blamed_for_it(engine):
    results = run(engine, job(1, "a Z", OnlyX()), job(2, "hello", OnlyX()))
    assert isinstance(results[1], InvalidOutput)
    assert results[2] == [ord("x")] * 8


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_one_number_of_a_row_is_enough(engine, monkeypatch, number):
    row_of = Candidates.row

    def spoilt(self, context, output):
        row = row_of(self, context, output)
        row[4000] = number
        return row

    monkeypatch.setattr(Candidates, "row", spoilt)
    assert isinstance(run(engine, job(1, "hello"))[1], InvalidOutput)


def test_a_row_that_masks_have_emptied_is_the_requests_own_fault_and_says_which(engine):
    nothing = run(engine, job(1, "hello", min_tokens=2, stop_tokens=list(range(LENGTH))))[1]
    assert isinstance(nothing, NothingToDraw)
    assert nothing.status == 400
    assert "min_tokens" in nothing.message


@pytest.fixture
def without_flash_attention(monkeypatch):
    """On a CPU it leaves out what is masked. Other ways to compute attention multiply it by 0, which NaN survives."""
    defaults = ll.llama_context_default_params

    def changed():
        params = defaults()
        params.flash_attn_type = ll.LLAMA_FLASH_ATTN_TYPE_DISABLED
        return params

    monkeypatch.setattr(ll, "llama_context_default_params", changed)


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.usefixtures("without_flash_attention")
def test_nan_in_a_sequences_cells_does_not_reach_the_job_that_has_its_place_next(model, slots):
    engine = load(model, max_sequences=slots)
    try:
        alone = run(engine, job(1, "hello"))[1]
        spoilt = run(engine, *(job(id, f"{id} a long text that holds Z") for id in range(slots)))
        assert all(isinstance(result, InvalidOutput) for result in spoilt.values())
        later = run(engine, *(job(id, "hello") for id in range(slots)))
        assert list(later.values()) == [alone] * slots
    finally:
        engine.close()


@pytest.mark.usefixtures("without_flash_attention")
def test_what_an_input_to_embed_left_does_not_reach_the_next(model):
    engine = load(model)
    try:
        before, spoilt, after = (
            next(vector for vector in engine.embed([tokens]) if vector)
            for tokens in (list(b"hello"), [*b"a long text that holds", NAN], list(b"hello"))
        )
        assert np.isnan(spoilt).any()
        assert after == before
    finally:
        engine.close()
