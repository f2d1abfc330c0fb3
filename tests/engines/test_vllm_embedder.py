"""Models for embeddings on vLLM: the vectors that their own library computes, and nothing else."""

import math

import pytest

from src.engines import load_engine, why_not
from tests.engines.test_contract import job
from tests.support.hf_model import as_embedder, hf_model, write_pooling
from tests.support.server import assert_gone
from tests.support.vllm_small import options, vllms_processes

if reason := why_not("vllm"):
    pytest.skip(reason, allow_module_level=True)

CONTEXT = 600  # more than vLLM computes in one step otherwise


def llama(home):
    return as_embedder(hf_model("float32"), home)


def bert(home):
    """By chance, but with weights large enough that a text's order and length tell."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(1)
    settings = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 96, "vocab_size": 200}
    model = BertModel(BertConfig(**settings, max_position_embeddings=CONTEXT, initializer_range=0.3))
    model.save_pretrained(home / "bert")
    write_pooling(home / "bert", "cls_token")
    return home / "bert"


@pytest.fixture(scope="module", params=[llama, bert])
def loaded(request, tmp_path_factory):
    folder = request.param(tmp_path_factory.mktemp("models"))
    engine = load_engine("vllm", options(model_path=str(folder), context_length=CONTEXT))
    family = vllms_processes()
    yield folder, engine
    engine.close()
    assert_gone(family)


def tokens(length: int, start: int) -> list[int]:
    return [start + (index * 7) % 60 for index in range(length)]


def by_transformers(folder, inputs):
    import torch
    from transformers import AutoModel

    model, vectors = AutoModel.from_pretrained(folder, dtype=torch.float32).eval(), []
    for one in inputs:
        with torch.no_grad():
            states = model(input_ids=torch.tensor([one])).last_hidden_state[0]
        vectors.append(states[0] if folder.name == "bert" else states.mean(0))
    return [vector.tolist() for vector in vectors]


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def test_vectors_are_those_of_the_models_own_library(loaded):
    folder, engine = loaded
    inputs = [tokens(length, 40 + length) for length in (1, 9, 100, 5, 33, 2, 17)]
    vectors = [vector for vector in engine.embed(inputs) if vector is not None]
    for one, other in zip(vectors, by_transformers(folder, inputs), strict=True):
        assert cosine(one, other) > 0.9999


def test_an_input_of_the_whole_context_is_embedded_and_one_more_token_is_not(loaded):
    folder, engine = loaded
    [vector] = [vector for vector in engine.embed([tokens(CONTEXT, 40)]) if vector is not None]
    assert cosine(vector, by_transformers(folder, [tokens(CONTEXT, 40)])[0]) > 0.9999
    for wrong in ([], tokens(CONTEXT + 1, 40), [10**6]):
        with pytest.raises(AssertionError):
            next(engine.embed([tokens(3, 40), wrong]))


def test_inputs_of_two_callers_take_turns(loaded):
    _, engine = loaded
    many, one = engine.embed([tokens(50, 40 + n) for n in range(12)]), engine.embed([tokens(9, 70)])
    assert next(vector for vector in many if vector)
    assert next(vector for vector in one if vector)
    assert len([vector for vector in many if vector]) == 11


def test_it_writes_no_text(loaded):
    _, engine = loaded
    assert engine.features == {"embeddings"}
    with pytest.raises(AssertionError):
        engine.add(job(1))
