"""POST /v1/embeddings."""

import base64
import math
import struct

import pytest

from tests.conformance.api import EMBEDDINGS, answered, refused

pytestmark = pytest.mark.feature("embeddings")


@pytest.fixture(scope="module")
def api(api, embedding_api):
    return embedding_api or api


def embed(api, given: object, **fields: object) -> dict:
    return answered(api.post(EMBEDDINGS, {"input": given, **fields}))


def vectors(answer: dict) -> list[list[float]]:
    return [entry["embedding"] for entry in answer["data"]]


def cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True)) / math.hypot(*one) / math.hypot(*other)


def test_an_answer_has_openais_fields(api):
    answer = embed(api, "The sea")
    assert answer["object"] == "list"
    assert answer["model"] == api.model
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] > 0
    (entry,) = answer["data"]
    assert entry["object"] == "embedding"
    assert entry["index"] == 0
    assert all(isinstance(value, float) for value in entry["embedding"])


def test_a_vector_has_the_length_one(api):
    (vector,) = vectors(embed(api, "The sea"))
    assert math.hypot(*vector) == pytest.approx(1, abs=1e-3)


def test_several_texts_are_embedded_in_their_order(api):
    texts = ["The sea", "A mountain", "Twelve"]
    together = embed(api, texts)
    assert [entry["index"] for entry in together["data"]] == [0, 1, 2]
    for text, vector in zip(texts, vectors(together), strict=True):
        assert cosine(vector, vectors(embed(api, text))[0]) > 0.999


def test_usage_adds_up_over_the_texts(api):
    texts = ["The sea", "A mountain", "Twelve"]
    alone = sum(embed(api, text)["usage"]["prompt_tokens"] for text in texts)
    assert embed(api, texts)["usage"]["prompt_tokens"] == alone


def test_token_lists_are_taken(api):
    tokens = [72, 101, 108, 108, 111]
    one, two = embed(api, tokens), embed(api, [tokens, tokens[:2]])
    assert one["usage"]["prompt_tokens"] == 5
    assert two["usage"]["prompt_tokens"] == 7
    assert cosine(vectors(one)[0], vectors(two)[0]) > 0.999


def test_base64_is_the_same_vector_in_32_bits(api):
    (plain,) = vectors(embed(api, "The sea", encoding_format="float"))
    (packed,) = vectors(embed(api, "The sea", encoding_format="base64"))
    data = base64.b64decode(packed)
    unpacked = struct.unpack(f"<{len(data) // 4}f", data)
    assert len(unpacked) == len(plain)
    assert list(unpacked) == pytest.approx(plain, abs=1e-3)


def test_the_same_text_has_the_same_vector_and_another_text_another(api):
    one, same, other = (vectors(embed(api, text))[0] for text in ("The sea", "The sea", "Twelve monkeys"))
    assert cosine(one, same) > 0.999
    assert cosine(one, other) < 0.999


def test_all_vectors_have_as_many_numbers(api):
    assert len({len(vector) for vector in vectors(embed(api, ["a", "b c d", "The sea is wide. " * 20]))}) == 1


def test_dimensions_are_honoured_or_refused_by_name(api):
    response = api.post(EMBEDDINGS, {"input": "The sea", "dimensions": 16})
    if response.status_code == 200:
        (vector,) = vectors(response.json())
        assert len(vector) == 16
        assert math.hypot(*vector) == pytest.approx(1, abs=1e-3)
    else:
        refused(response, 400, response.json()["error"]["code"], "dimensions")


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({}, "missing_required_parameter", "input"),
        ({"input": ""}, "invalid_value", "input"),
        ({"input": []}, "invalid_value", "input"),
        ({"input": 5}, "invalid_value", "input"),
        ({"input": ["a", ""]}, "invalid_value", "input[1]"),
        ({"input": ["a", 5]}, "invalid_value", "input[1]"),
        ({"input": "a", "encoding_format": "hex"}, "invalid_value", "encoding_format"),
        ({"input": "a", "dimensions": 0}, "invalid_value", "dimensions"),
        ({"input": "a", "dimensions": 10**6}, "unsupported_parameter", "dimensions"),
        ({"input": "word " * 150_000}, "context_length_exceeded", "input"),
        ({"input": [2**31 - 1]}, "invalid_value", "input"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_what_cannot_be_embedded_is_refused_by_name(api, fields, code, param):
    refused(api.post(EMBEDDINGS, fields), 400, code, param)


def test_a_model_that_is_not_there_is_not_found(api):
    refused(api.post(EMBEDDINGS, {"input": "a", "model": "no-such-model"}), 404, "model_not_found", "model")
