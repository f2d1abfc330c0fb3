"""A model for embeddings behind the server on vLLM: vectors as OpenAI's SDK asks for them, and a refusal of all else."""

import math

import openai
import pytest

from src.engines import why_not
from tests.e2e.conftest import MODEL, settings_of
from tests.support.hf_model import as_embedder
from tests.support.server import Server

if reason := why_not("vllm"):
    pytest.skip(reason, allow_module_level=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    settings, home = settings_of("vllm"), tmp_path_factory.mktemp("models")
    as_embedder(settings["MODELS_DIR"] / MODEL, home)
    with Server(**{**settings, "MODELS_DIR": home, "CONTEXT_LENGTH": 300, "MAX_PARALLEL_SEQUENCES": 4}) as server:
        yield server


def test_texts_that_mean_the_same_are_nearer_and_vectors_have_length_one(server):
    texts = ["The cat sleeps on the sofa.", "A kitten is napping on the couch.", "Shares dropped a lot this morning."] * 3
    reply = server.client().embeddings.create(model=MODEL, input=texts)
    vectors = [item.embedding for item in reply.data]
    assert [len(vector) for vector in vectors] == [576] * len(texts)
    assert all(math.isclose(math.hypot(*vector), 1, abs_tol=1e-4) for vector in vectors)
    cat, kitten, shares = vectors[:3]
    assert sum(map(float.__mul__, cat, kitten)) > sum(map(float.__mul__, cat, shares))
    assert reply.usage.prompt_tokens > 9 * 5


def test_it_says_what_it_can_and_refuses_what_it_cannot(server):
    model = server.client().models.retrieve(MODEL)
    assert "embeddings" in model.capabilities
    with pytest.raises(openai.BadRequestError, match="made for embeddings") as refused:
        server.client().completions.create(model=MODEL, prompt="x")
    assert refused.value.param == "model"
