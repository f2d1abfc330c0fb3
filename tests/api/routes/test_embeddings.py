"""Embeddings over HTTP in OpenAI's shapes, by the echo engine, whose vectors count bytes."""

import base64
import math
import struct
import threading

import pytest

from tests.support.openai_api import check_error
from tests.support.server import Server, wait_until

PATH = "/v1/embeddings"


def vectors(http, input, **fields) -> list[list[float]]:
    response = http.post(PATH, json={"input": input, **fields})
    assert response.status_code == 200, response.text
    return [entry["embedding"] for entry in response.json()["data"]]


@pytest.fixture(scope="module")
def slow_steps():
    """A token, and an input, every 50 ms."""
    with Server(INFERENCE_ENGINE="echo", ECHO_STEP_MS=50) as running:
        yield running


def test_a_text_is_embedded(http):
    answer = http.post(PATH, json={"model": "echo", "input": "aab"}).json()
    [entry] = answer["data"]
    assert answer == {"object": "list", "data": [entry], "model": "echo", "usage": {"prompt_tokens": 3, "total_tokens": 3}}
    assert (entry["object"], entry["index"], len(entry["embedding"])) == ("embedding", 0, 64)
    assert entry["embedding"][ord("a") % 64] == pytest.approx(2 / math.sqrt(5))
    assert math.hypot(*entry["embedding"]) == pytest.approx(1)


def test_texts_come_back_in_their_order_as_each_would_alone(http):
    texts = ["one", "two", "three", "o"]
    assert vectors(http, texts) == [vectors(http, text)[0] for text in texts]


def test_tokens_are_embedded_as_their_text(http):
    assert vectors(http, list(b"one")) == vectors(http, "one")
    assert vectors(http, [list(b"one"), list(b"two")]) == vectors(http, ["one", "two"])


def test_base64_is_the_same_numbers(http):
    [text] = vectors(http, "one", encoding_format="base64")
    data = base64.b64decode(text)
    assert list(struct.unpack(f"<{len(data) // 4}f", data)) == vectors(http, "one", encoding_format="float")[0]


def test_openais_client_reads_them(server):
    with server.client() as client:  # which asks for base64 by itself
        answer = client.embeddings.create(model="echo", input=["one", "two"])
    assert [len(entry.embedding) for entry in answer.data] == [64, 64]
    assert answer.usage.prompt_tokens == 6


def test_an_input_may_fill_the_context_and_no_more(http):
    assert len(vectors(http, "x" * 256)) == 1
    error = check_error(http.post(PATH, json={"input": ["y", "x" * 257]}), 400, "context_length_exceeded", "input")
    assert "257 tokens" in error["message"]
    assert "256 tokens" in error["message"]


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({}, "missing_required_parameter", "input"),
        ({"input": ""}, "invalid_value", "input"),
        ({"input": []}, "invalid_value", "input"),
        ({"input": ["a", ""]}, "invalid_value", "input[1]"),
        ({"input": ["a", 5]}, "invalid_value", "input[1]"),
        ({"input": [[1], []]}, "invalid_value", "input[1]"),
        ({"input": [257]}, "invalid_value", "input"),
        ({"input": ["a"] * 2049}, "invalid_value", "input"),
        ({"input": "a", "encoding_format": "hex"}, "invalid_value", "encoding_format"),
        ({"input": "a", "dimensions": 0}, "invalid_value", "dimensions"),
        ({"input": "a", "dimensions": 32}, "unsupported_parameter", "dimensions"),
    ],
)
def test_what_is_wrong_is_refused_by_name(http, body, code, param):
    check_error(http.post(PATH, json=body), 400, code, param)


def test_as_many_dimensions_as_the_model_has_may_be_asked_for(http):
    assert vectors(http, "one", dimensions=64) == vectors(http, "one")


def test_a_client_that_hangs_up_stops_the_work(slow_steps):
    busy = threading.Thread(target=abandon, args=(slow_steps,))
    busy.start()
    wait_until(lambda: slow_steps.status()["requests"]["waiting"] == 1, what="the request")
    busy.join()
    wait_until(lambda: slow_steps.status()["requests"]["waiting"] == 0, what="its end")  # 2,048 inputs would take 100 s


def abandon(server) -> None:
    with pytest.raises(Exception, match="timed out"), server.client(timeout=1) as client:
        client.embeddings.create(model="echo", input=["x"] * 2048)


def test_a_stream_goes_on_while_inputs_are_embedded(slow_steps):
    with slow_steps.client() as client:
        stream = client.completions.create(model="echo", prompt="x", stream=True, max_tokens=20, extra_body={"ignore_eos": True})
        chunks = iter(stream)
        next(chunks)
        busy = threading.Thread(target=lambda: client.embeddings.create(model="echo", input=["x"] * 60))
        busy.start()
        assert sum(1 for _ in chunks) >= 19
        assert busy.is_alive(), "the stream waited for the inputs"
        busy.join()


def test_requests_take_turns(slow_steps):
    with slow_steps.client() as client:
        busy = threading.Thread(target=lambda: client.embeddings.create(model="echo", input=["x"] * 60))
        busy.start()
        wait_until(lambda: slow_steps.status()["requests"]["waiting"] == 1, what="the long request")
        client.embeddings.create(model="echo", input="y")
        assert busy.is_alive(), "the short request waited for the long one"
        busy.join()


def test_the_models_capabilities_say_so(http):
    assert "mean_embeddings" in http.get("/v1/models/echo").json()["capabilities"]
