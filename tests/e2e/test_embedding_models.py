"""A GGUF that can only embed, as BERT and its kin: vectors as llama.cpp's own, however long the text, and no word else."""

import llama_cpp
import pytest
from gguf import PoolingType

from tests.engines.test_embeddings import cosine
from tests.support.bert import CONTEXT, write_bert
from tests.support.openai_api import check_error
from tests.support.server import Server

LONG = " ".join("abcdefghijklmnopqrstuvwxyz"[place % 26] for place in range(400))  # more tokens than other models' pieces have
TEXTS = ["hello world", "the world", LONG, "hello"]


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_bert(folder / "mean.gguf", PoolingType.MEAN)
    write_bert(folder / "first.gguf", PoolingType.CLS)
    return folder


@pytest.fixture(scope="module")
def server(folder):
    settings = {"MODELS_DIR": folder, "DEFAULT_MODEL": "mean", "CONTEXT_LENGTH": 0, "MAX_CONCURRENT_MODELS": 2}
    with Server(INFERENCE_ENGINE="llama_cpp", **settings) as server:
        yield server


@pytest.mark.parametrize("model", ["mean", "first"])
def test_vectors_are_those_of_llama_cpp(server, folder, model):
    reference = llama_cpp.Llama(
        str(folder / f"{model}.gguf"), n_ctx=CONTEXT, n_batch=CONTEXT, n_ubatch=CONTEXT, n_threads=1, embedding=True, verbose=False
    )
    answer = server.client().embeddings.create(model=model, input=TEXTS, encoding_format="float")
    for text, found in zip(TEXTS, answer.data, strict=True):
        assert cosine(found.embedding, reference.embed(text)) > 0.9999
    assert answer.usage.prompt_tokens == sum(len(reference.tokenize(text.encode())) for text in TEXTS)
    reference.close()


def test_it_is_listed_as_a_model_for_embeddings(server):
    listed = {model.id: model.model_dump() for model in server.client().models.list().data}
    assert listed["mean"]["capabilities"] == ["embeddings"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hello"}]}),
        ("/v1/completions", {"prompt": "hello"}),
        ("/v1/completions", {"prompt": [2, 5, 3], "stream": True}),
    ],
)
def test_it_writes_no_text(server, path, body):
    with server.http() as http:
        response = http.post(path, json={"model": "mean", **body})
    check_error(response, 400, "unsupported_parameter", "model", told="/v1/embeddings")
