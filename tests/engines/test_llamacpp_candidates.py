"""Picking the best few logits first changes no draw: llama.cpp's chain selects from them what it selects from all."""

import llama_cpp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from src.engines import load_engine
from src.engines.base import Job
from src.engines.llamacpp import LlamaCppOptions
from src.engines.llamacpp.candidates import GROUPS, Candidates
from src.sampling import SamplingParams

pytestmark = pytest.mark.slow


@given(
    arrays.arrays(np.float32, st.integers(GROUPS * 4, GROUPS * 5), elements=st.floats(-50, 50, width=32)),
    st.integers(1, GROUPS // 2),
)
def test_all_of_the_greatest_are_picked(row, count):
    picked = Candidates(len(row)).pick(row, count)
    left = np.delete(row, picked)
    assert len(picked) >= count
    assert not len(left) or left.max() < row[picked].min()
    assert sorted(row[picked])[-count:] == sorted(row)[-count:]


@pytest.fixture(scope="module")
def engine(model_path):
    engine = load_engine(
        "llama_cpp", LlamaCppOptions(model_path=str(model_path), context_length=512, max_sequences=2, threads=1, device="cpu")
    )
    yield engine
    engine.close()


SAMPLINGS = [
    {"temperature": 0.0},
    {"temperature": 0.0, "ignore_eos": True},
    {"temperature": 0.8, "top_k": 40, "top_p": 0.95},
    {"temperature": 1.3, "top_k": 20, "min_p": 0.02, "ignore_eos": True},
    {"temperature": 1.0, "top_k": 1},
]


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_what_is_drawn_is_what_llama_cpp_draws_from_the_whole_vocabulary(engine, monkeypatch, sampling):
    def drawn() -> list[list[int]]:
        answers = []
        for seed in range(6):
            tokens = [1000 + seed * 17 + index * 5 for index in range(30)]
            engine.add(Job(id=seed, tokens=tokens, prompt_tokens=30, max_tokens=24, sampling=SamplingParams(**{"seed": seed, **sampling})))
            answers.append([])
            while steps := engine.step():
                answers[-1] += [step.token for step in steps if step.token is not None]
        return answers

    picked = drawn()
    whole_vocabulary = llama_cpp.llama_cpp.llama_sampler_sample
    calls = []
    monkeypatch.setattr("src.engines.llamacpp.sampler._candidate_count", lambda model, params: 0)
    monkeypatch.setattr(llama_cpp.llama_cpp, "llama_sampler_sample", lambda *given: calls.append(1) or whole_vocabulary(*given))
    assert drawn() == picked
    assert len(calls) == sum(len(answer) for answer in picked)


def test_penalties_are_applied_to_the_whole_vocabulary(engine):
    sampling = SamplingParams(seed=1, temperature=0.0, repetition_penalty=5.0, ignore_eos=True)
    tokens = list(range(1000, 1030))
    engine.add(Job(id=1, tokens=tokens, prompt_tokens=30, max_tokens=40, sampling=sampling))
    drawn = []
    while steps := engine.step():
        drawn += [step.token for step in steps]
    assert len(set(drawn)) > 35, "a strong penalty, and still it repeats itself"
