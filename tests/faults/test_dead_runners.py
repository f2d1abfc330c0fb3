"""A runner that dies, however it does, is a pause: every request is answered as if nothing had happened."""

import os
import signal
import time

import httpx
import psutil
import pytest

from tests.support.answers import Crowd, ask
from tests.support.server import Server, wait_until

LONG = "abcdefghij" * 9


def expected(prompt: str) -> str:
    return f"user: {prompt}\n"


def runner(server: Server) -> int | None:
    return next(iter(server.pids("runner")), None)


def kill_runner(server: Server, how: signal.Signals = signal.SIGKILL) -> None:
    """Returns once another serves."""
    victim = runner(server)
    os.kill(victim, how)
    wait_until(lambda: runner(server) not in (None, victim), what="the next runner")


def running(server: Server) -> int:
    return server.status()["requests"]["running"]


@pytest.fixture(scope="module")
def server():
    with Server(INFERENCE_ENGINE="echo", ECHO_STEP_MS=15, ECHO_FAULT="crash POISON", MAX_PARALLEL_SEQUENCES=12) as server:
        yield server


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV], ids=lambda how: how.name)
def test_streams_plain_replies_and_those_that_wait_go_on(server, how):
    prompts = [f"{number} {LONG}" for number in range(16)]
    with Crowd() as crowd:
        answers = [crowd.ask(server, prompt, whole=number % 4 == 0) for number, prompt in enumerate(prompts)]
        wait_until(lambda: running(server) == 12, what="a full batch")
        kill_runner(server, how)
        for prompt, answer in zip(prompts, answers, strict=True):
            answer = answer.result()
            tokens = len(expected(prompt))
            assert (answer.text, answer.error, answer.reasons) == (expected(prompt), None, {0: "stop"})
            assert answer.usage == (tokens, tokens + 1)


def test_a_stream_survives_several_deaths(server):
    with Crowd() as crowd:
        answer = crowd.ask(server, LONG, n=2, logprobs=True, top_logprobs=1)
        for _ in range(2):
            wait_until(lambda: running(server) == 2, what="its being computed")
            kill_runner(server)
        answer = answer.result()
    assert answer.texts == {0: expected(LONG), 1: expected(LONG)}
    assert answer.reasons == {0: "stop", 1: "stop"}
    assert "".join(token for token, _ in answer.logprobs[1]) == expected(LONG)


@pytest.mark.slow
def test_among_twenty_good_requests_the_one_that_kills_the_engine_is_found_and_fails_alone(server):
    prompts = [f"{number} {LONG[:50]}" for number in range(20)]
    before = server.status()["models"][0]["restarts"]
    with Crowd() as crowd:
        answers = [crowd.ask(server, prompt) for prompt in prompts]
        poison = crowd.ask(server, "some text before the POISON comes")
        assert poison.result().error == "engine_crashed"
        assert "SIGSEGV" in poison.result().message
        assert [answer.result().text for answer in answers] == [expected(prompt) for prompt in prompts]
    assert server.status()["models"][0]["restarts"] == before + 2, "it has to be found at its second death"


@pytest.mark.slow
def test_embeddings_are_asked_again_and_none_comes_twice(server):
    """Each text takes a step; the runner dies between the first and the last."""
    texts = [f"{number}" * (number + 1) for number in range(8)] * 16
    body = {"model": "echo", "input": texts}
    alone = httpx.post(f"{server.url}/v1/embeddings", json=body, timeout=60).json()
    with Crowd() as crowd:
        answer = crowd._pool.submit(httpx.post, f"{server.url}/v1/embeddings", json=body, timeout=60)
        time.sleep(0.5)
        kill_runner(server)
        assert answer.result().json() == alone
    assert [entry["index"] for entry in alone["data"]] == list(range(len(texts)))


@pytest.mark.slow
def test_one_that_kills_the_engine_before_its_first_token_gets_500_and_is_not_to_be_sent_again(server):
    response = httpx.post(f"{server.url}/v1/completions", json={"model": "echo", "prompt": "POISON"}, timeout=60)
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "engine_crashed"
    assert response.headers["x-should-retry"] == "false"


@pytest.mark.slow
def test_a_model_is_not_given_up_for_requests_that_kill_it(server):
    for _ in range(3):
        assert ask(server, "POISON").error == "engine_crashed"
        assert ask(server, LONG).text == expected(LONG)


@pytest.mark.slow
def test_a_step_that_does_not_end_is_a_death_and_the_request_behind_it_is_found():
    with Server(INFERENCE_ENGINE="echo", ECHO_STEP_MS=10, ECHO_FAULT="stall POISON", ENGINE_STALL_SECONDS=1) as server, Crowd() as crowd:
        answers = [crowd.ask(server, LONG) for _ in range(3)]
        poison = crowd.ask(server, "some text before the POISON comes")
        assert poison.result().error == "engine_crashed"
        assert "hang" in poison.result().message
        assert {answer.result().text for answer in answers} == {expected(LONG)}
        assert "a hang: no step" in server.log("model_operations")


@pytest.mark.slow
def test_a_process_that_does_not_answer_is_replaced():
    with Server(INFERENCE_ENGINE="echo", ECHO_STEP_MS=10, ENGINE_STALL_SECONDS=6) as server, Crowd() as crowd:
        answer = crowd.ask(server, LONG)
        wait_until(lambda: running(server) == 1, what="its being computed")
        psutil.Process(runner(server)).suspend()
        assert answer.result().text == expected(LONG)
        assert "a hang: no answer" in server.log("model_operations")
