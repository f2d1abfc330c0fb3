"""What only llama.cpp can show: vectors are those of its own pooling, pieces keep to the time, and memory is refused by numbers."""

import math

import llama_cpp
import msgspec
import pytest

from src.engines import load_engine
from src.engines.llamacpp import LlamaCppOptions
from src.engines.llamacpp.embedder import BATCH_TOKENS, Embedder
from src.errors import InsufficientMemory
from tests.engines.test_contract import job
from tests.engines.test_embeddings import cosine, tokens, vectors


def load(model_path, **changes):
    options = {"model_path": str(model_path), "context_length": 256, "max_sequences": 2, "threads": 1, "device": "cpu"}
    return load_engine("llama_cpp", LlamaCppOptions(**{**options, **changes}))


@pytest.fixture(scope="module")
def engine(model_path):
    loaded = load(model_path)
    yield loaded
    loaded.close()


@pytest.mark.slow
def test_a_vector_is_the_mean_that_llama_cpp_itself_makes(engine, model_path):
    pooling = llama_cpp.LLAMA_POOLING_TYPE_MEAN
    reference = llama_cpp.Llama(
        str(model_path), n_ctx=256, n_batch=256, n_ubatch=256, n_threads=1, embedding=True, pooling_type=pooling, verbose=False
    )
    text = "The quick brown fox jumps over the lazy dog. " * 16  # more tokens than one piece of work has
    ids = reference.tokenize(text.encode(), add_bos=False)
    assert len(ids) > BATCH_TOKENS
    [vector] = vectors(engine, [ids])
    assert cosine(vector, reference.embed(text)) > 0.999
    reference.close()


@pytest.mark.parametrize(("pooling", "part"), [(llama_cpp.LLAMA_POOLING_TYPE_CLS, slice(0, 1)), (llama_cpp.LLAMA_POOLING_TYPE_LAST, None)])
def test_models_that_pool_otherwise_are_pooled_so(engine, monkeypatch, pooling, part):
    inputs = [tokens(150), tokens(5, 70)]
    [mean, _] = vectors(engine, inputs)
    monkeypatch.setattr(engine._model, "pooling", pooling)
    [found, _] = vectors(engine, inputs)
    assert cosine(found, mean) < 0.999
    if part:  # the first token attends to itself alone
        [alone] = vectors(engine, [inputs[0][part]])
        assert cosine(found, alone) > 0.9999


@pytest.mark.slow
def test_a_piece_is_smaller_while_jobs_run(model_path):
    engine = load(model_path, step_time_target=0.005)
    pieces = sum(1 for vector in engine.embed([tokens(256, 60)]) if vector is None)
    assert pieces == 256 // BATCH_TOKENS - 1
    engine.add(job(1, max_tokens=30))
    while not any(step.token is not None for step in engine.step()):
        pass
    assert sum(1 for vector in engine.embed([tokens(100, 60)]) if vector is None) > 5
    engine.close()


@pytest.mark.slow
def test_a_piece_is_short_where_a_key_has_asked_for_text_a_moment_ago(model_path):
    engine = load(model_path)
    alone = sum(1 for vector in engine.embed([tokens(256, 60)]) if vector is None)
    engine.add(msgspec.structs.replace(job(1, max_tokens=1), key="other"))
    while not any(step.finish for step in engine.step()):
        pass
    pieces = sum(1 for vector in engine.embed([tokens(256, 60)] * 3) if vector is None)
    engine.close()
    assert alone == 256 // BATCH_TOKENS - 1
    assert pieces > 3 * alone + 3


def test_where_memory_is_short_the_numbers_are_told_and_the_engine_goes_on(model_path):
    engine = load(model_path, memory_bytes=150 * 2**20)
    with pytest.raises(InsufficientMemory, match=r"need 0\.\d\d GiB .* but 0\.0\d GiB are free"):
        next(engine.embed([tokens(5)]))
    engine.add(job(1, max_tokens=2))
    assert engine.step()
    engine.cancel(1)
    engine.close()


def test_the_context_for_embeddings_is_made_when_first_asked_for(model_path):
    engine = load(model_path)
    assert engine._embedder is None
    [vector] = vectors(engine, [tokens(5)])
    assert isinstance(engine._embedder, Embedder)
    assert math.hypot(*vector) > 0
    engine.close()
