"""A model whose numbers are NaN: the request that meets them hears so at once, others do not notice; one that computes nothing else
is started again, and then given up."""

import httpx
import openai
import pytest

from tests.support.answers import Crowd, ask, ask_whole
from tests.support.in_process import InProcess
from tests.support.metrics import Figures, scrape
from tests.support.model_files import put
from tests.support.nan_model import nan_gguf
from tests.support.server import Server, wait_until

SETTINGS = {"INFERENCE_ENGINE": "echo", "ECHO_FAULT": "nan POISON"}
CODE = "invalid_model_output"
LONG = "abcdefghij" * 25


@pytest.fixture(scope="module")
def server():
    with InProcess(**SETTINGS) as running:
        yield running


@pytest.fixture(autouse=True)
def others_are_served_between(request):
    """Several such requests in a row would end the process, here pytest's own."""
    if "server" in request.fixturenames:
        assert ask(request.getfixturevalue("server"), "hello").error is None


def computed_nan(server: InProcess) -> float:
    with server.http() as http:
        return Figures(http.get("/metrics").text).sum("llm_invalid_outputs_total", model="echo")


def test_a_plain_request_hears_it_once_and_sdks_are_told_not_to_retry(server):
    before = computed_nan(server)
    with pytest.raises(openai.InternalServerError) as raised:
        server.client(max_retries=2).chat.completions.create(model="echo", messages=[{"role": "user", "content": "POISON"}])
    assert raised.value.code == CODE
    assert "NaN" in raised.value.message
    assert computed_nan(server) == before + 1, "it was asked again"
    assert server.status()["models"][0]["restarts"] == 0


def test_a_stream_ends_with_the_error(server):
    answer = ask(server, "some text and then POISON", logprobs=True, top_logprobs=3)
    assert answer.error == CODE
    assert "user: some text and then ".startswith(answer.text), "it may lack the last tokens before the error"
    assert all(logprob <= 0 for _, logprob in answer.logprobs[0])


@pytest.mark.parametrize("fields", [{"n": 3}, {"temperature": 0}, {"logprobs": True}], ids=str)
def test_whatever_is_asked_of_it_no_answer_is_made_of_nan(server, fields):
    assert ask_whole(server, "POISON", **fields).error == CODE


def test_who_runs_beside_it_does_not_notice(server):
    with Crowd() as crowd:
        others = [crowd.ask(server, f"{number} {LONG}", whole=number % 2 == 0) for number in range(4)]
        assert ask(server, "POISON").error == CODE
        for number, answer in enumerate(others):
            assert answer.result().text == f"user: {number} {LONG}\n"


def test_no_vector_is_made_of_nan(server):
    with pytest.raises(openai.InternalServerError) as raised:
        server.client().embeddings.create(model="echo", input=["fine", "POISON"])
    assert raised.value.code == CODE
    assert len(server.client().embeddings.create(model="echo", input=["fine"]).data) == 1


@pytest.mark.slow
def test_a_model_that_computes_nothing_else_is_started_again_and_then_given_up():
    with Server(**SETTINGS, ECHO_STEP_MS=10) as server, Crowd() as crowd:

        def restarts() -> int:
            return server.status()["models"][0]["restarts"]

        def five_in_a_row() -> None:
            assert [ask(server, "POISON").error for _ in range(5)] == [CODE] * 5

        other = crowd.ask(server, LONG)
        wait_until(lambda: server.status()["requests"]["running"] == 1, what="a neighbour")
        five_in_a_row()
        wait_until(lambda: restarts() == 1, what="the restart")
        assert other.result().text == f"user: {LONG}\n", "a neighbour goes on in the new process"
        five_in_a_row()  # one that has served is started again
        wait_until(lambda: restarts() == 2, what="the second restart")
        assert scrape(server.url).sum("llm_invalid_outputs_total", model="echo") >= 5
        five_in_a_row()  # one that has not is given up
        wait_until(lambda: server.status()["models"][0]["state"] == "failed", what="the end")
        refusal = httpx.post(f"{server.url}/v1/chat/completions", json={"messages": [{"role": "user", "content": "hello"}]})
        assert (refusal.status_code, refusal.json()["error"]["code"]) == (503, "model_load_failed")
        assert "NaN or infinite numbers" in refusal.json()["error"]["message"]


FIELDS = [
    {"temperature": 0},
    {"temperature": 1, "logprobs": True, "top_logprobs": 3},
    {"extra_body": {"top_k": 40}},
    {"extra_body": {"min_p": 0.1}},
    {"response_format": {"type": "json_object"}},
]


@pytest.mark.slow
def test_a_real_engine_that_computes_nan_is_answered_for_in_the_same_way(tmp_path):
    put(tmp_path, "nan.gguf", content=nan_gguf())
    with InProcess(INFERENCE_ENGINE="llama_cpp", MODELS_DIR=tmp_path, CONTEXT_LENGTH=256, MAX_PARALLEL_SEQUENCES=4) as server:
        healthy = ask(server, "hello", model="nan", temperature=0, max_tokens=8)
        assert healthy.error is None
        for fields in FIELDS:
            with Crowd() as crowd:
                plain = crowd.ask(server, "a Z", model="nan", max_tokens=8, whole=True, **fields)
                streamed = crowd.ask(server, "a Z", model="nan", max_tokens=8, **fields)
                beside = crowd.ask(server, "hello", model="nan", max_tokens=8, temperature=0)
            assert (plain.result().error, streamed.result().error) == (CODE, CODE)
            assert beside.result().texts == healthy.texts
            assert ask(server, "hello", model="nan", temperature=0, max_tokens=8).texts == healthy.texts
        with pytest.raises(openai.InternalServerError, match="NaN"):
            server.client().embeddings.create(model="nan", input=["hello", "a Z"])
        assert server.client().embeddings.create(model="nan", input=["hello"]).data
