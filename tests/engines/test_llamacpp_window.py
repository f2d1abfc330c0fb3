"""A model whose memory cannot be cut anywhere: Gemma 3 drops what has left its sliding window of 512 tokens."""

import pytest

from src.engines import load_engine
from src.engines.llamacpp import LlamaCppOptions
from tests.engines.test_llamacpp_prefix import job, run, words
from tests.support.llamacpp_greedy import GreedyReference

pytestmark = pytest.mark.slow

CONTEXT = 1024


@pytest.fixture(scope="module")
def engine(gemma_path):
    options = LlamaCppOptions(
        model_path=str(gemma_path), context_length=CONTEXT, max_sequences=3, cached_prefixes=3, threads=1, device="cpu"
    )
    engine = load_engine("llama_cpp", options)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def reference(gemma_path):
    return GreedyReference(gemma_path, CONTEXT)


def test_it_is_such_a_model(engine):
    assert engine._model.n_swa == 512


def test_what_goes_on_where_a_sequence_ended_is_computed_from_there(engine, reference):
    talk = words(1, 700)
    drawn, _ = run(engine, [job(1, talk)])
    longer = talk + drawn[1] + words(2, 20)
    drawn, cached = run(engine, [job(2, longer)])
    assert cached[2] == len(talk) + 7
    reference.assert_greedy(longer, drawn[2])


@pytest.mark.parametrize("shared", [100, 300, 650])
def test_what_parts_before_the_window_is_answered_as_if_nothing_were_kept(engine, reference, shared):
    talk = words(10 + shared, 700)
    run(engine, [job(1, talk, max_tokens=100)])
    other = talk[:shared] + words(11 + shared, 30)
    drawn, cached = run(engine, [job(2, other)])
    assert cached[2] in (0, shared)
    reference.assert_greedy(other, drawn[2])


def test_streams_that_move_together_go_on_as_they_would_have(engine, reference):
    jobs = [job(id, words(30 + id, 600 + id), max_tokens=200) for id in range(3)]
    drawn = {id: [] for id in range(3)}

    def step() -> bool:
        steps = engine.step()
        for one in steps:
            drawn[one.job_id] += [] if one.token is None else [one.token]
        return bool(steps)

    for one in jobs:
        engine.add(one)
    while not all(drawn.values()):
        step()
    moves, middle = engine.stats().moves, engine._slots.all[1].job.id
    engine.cancel(middle)
    while step():
        pass
    assert engine.stats().moves == moves + 1
    for id in {0, 1, 2} - {middle}:
        reference.assert_greedy(jobs[id].tokens, drawn[id])
