"""Embeddings, once for every engine that makes them: a text has one vector, alone or among others, whatever else runs."""

import math

import pytest

from src.engines import engine_options, load_engine, why_not
from src.text.tokenizer.hf import HFTokenizer
from tests.engines.test_contract import EXACT, VLLM, job
from tests.support.hf_model import as_embedder, hf_model

ENGINES = ["echo", "llama_cpp", "mlx", "vllm"]
CONTEXT = 160  # longer than a piece of work
COMPUTING = ["llama_cpp", "mlx", "vllm"]
ALIKE = [
    ("The cat sleeps on the sofa.", "A kitten is napping on the couch."),
    ("How do I install Python on Linux?", "Setting up Python on a Linux machine"),
    ("The stock market fell sharply today.", "Shares dropped a lot this morning."),
]


@pytest.fixture(scope="module", params=ENGINES)
def engine(request, model_path, tmp_path_factory):
    if reason := why_not(request.param):
        pytest.skip(reason)
    path = model_path if request.param in ("echo", "llama_cpp") else hf_model("float32")
    if request.param == "vllm":  # which embeds with models alone that were made for it
        path = as_embedder(path, tmp_path_factory.mktemp("embedder"))
    fields = {"model_path": str(path), "context_length": CONTEXT, "max_sequences": 2, "threads": 1, "vllm": VLLM}
    loaded = load_engine(request.param, engine_options(request.param, fields | EXACT[request.param]))
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def tokenizer():
    return HFTokenizer(hf_model("float32"))


def tokens(length: int, start: int = 40) -> list[int]:
    return [start + (index * 7) % 60 for index in range(length)]


def vectors(engine, inputs) -> list[list[float]]:
    return [vector for vector in engine.embed(inputs) if vector is not None]


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def test_an_input_has_a_vector_of_the_length_told(engine):
    [vector] = vectors(engine, [tokens(9)])
    assert len(vector) == engine.embedding_length > 0
    assert math.hypot(*vector) > 0


def test_the_same_input_has_the_same_vector(engine):
    assert vectors(engine, [tokens(20)]) == vectors(engine, [tokens(20)])


def test_inputs_together_have_the_vectors_that_each_has_alone(engine):
    inputs = [tokens(length, 40 + length) for length in (1, 7, 150, 3, 60, 5)]
    together = vectors(engine, inputs)
    assert len(together) == len(inputs)
    for one, vector in zip(inputs, together, strict=True):
        [alone] = vectors(engine, [one])
        assert cosine(vector, alone) > 0.9999


def test_other_inputs_have_other_vectors(engine):
    first, second = vectors(engine, [tokens(30), tokens(30, 90)])
    assert cosine(first, second) < 0.999


def test_an_input_may_fill_the_context(engine):
    [vector] = vectors(engine, [tokens(CONTEXT)])
    assert math.isfinite(math.hypot(*vector))


def test_work_that_was_given_up_leaves_nothing_behind(engine):
    expected = vectors(engine, [tokens(50)])
    for pieces in (1, 2):
        work = engine.embed([tokens(CONTEXT, 60), tokens(CONTEXT, 70)])
        for _ in range(pieces):
            next(work)
        work.close()
        [vector] = vectors(engine, [tokens(50)])
        assert cosine(vector, expected[0]) > 0.9999


@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "vllm"], indirect=True)
def test_jobs_draw_the_same_tokens_beside_it_and_are_asked_between_its_pieces(engine):
    def drawn(work) -> list[int]:
        engine.add(job(1, max_tokens=6, temperature=0.0))
        found, pieces = [], 0
        while steps := engine.step():
            found += [step.token for step in steps if step.token is not None]
            pieces += next(work, None) is None
        return found

    alone = drawn(iter(()))
    work = engine.embed([tokens(CONTEXT, 60), tokens(20)])
    assert drawn(work) == alone
    work.close()


@pytest.mark.parametrize("engine", COMPUTING, indirect=True)
def test_texts_that_mean_the_same_are_nearer_than_others(engine, tokenizer):
    firsts, seconds = ([vectors(engine, [tokenizer.encode(pair[side], add_bos=True)])[0] for pair in ALIKE] for side in (0, 1))
    for index, first in enumerate(firsts):
        nearest = max(range(len(seconds)), key=lambda other: cosine(first, seconds[other]))
        assert nearest == index, ALIKE[index]
