"""An answer whose request has an Idempotency-Key is computed once, whoever asks again, from wherever, and whatever died meanwhile."""

import json
import os
import signal
import uuid
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.support.server import Server, wait_until

PROMPT = "abcdefghij" * 6


@pytest.fixture(scope="module")
def server():
    with Server(INFERENCE_ENGINE="echo", ECHO_STEP_MS=15, WORKERS=2, RESUME_SECONDS=2) as server:
        yield server


@pytest.fixture
def key() -> dict[str, str]:
    return {"Idempotency-Key": uuid.uuid4().hex}


def body(prompt: str = PROMPT, **fields: object) -> dict:
    return {"model": "echo", "prompt": prompt, "stream": True, **fields}


def post(server: Server, headers: dict[str, str], **fields: object) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/completions", json=body(**fields), headers=headers, timeout=60)


def generated(server: Server) -> int:
    return server.status()["models"][0]["stats"]["generated"]


def running(server: Server) -> int:
    return server.status()["requests"]["running"]


def events(stream: str) -> list[tuple[int, dict]]:
    """The whole events of a stream, or of a part of one, with their numbers."""
    found = []
    for event in stream.split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in event.split("\n") if not line.startswith(":"))
        if fields and fields["data"] != "[DONE]":
            found.append((int(fields["id"]), json.loads(fields["data"])))
    return found


def text(found: list[tuple[int, dict]]) -> str:
    assert [number for number, _ in found] == list(range(1, len(found) + 1)), "an event is missing, or came twice"
    return "".join(choice["text"] for _, chunk in found for choice in chunk["choices"])


def begin(server: Server, headers: dict[str, str], count: int, **fields: object) -> list[tuple[int, dict]]:
    """A client that vanishes after so many events."""
    got = ""
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body(**fields), headers=headers, timeout=60) as response:
        for piece in response.iter_text():
            got += piece
            if len(events(got)) >= count:
                break
    return events(got)


def go_on(server: Server, first: list[tuple[int, dict]]) -> list[tuple[int, dict]]:
    """Ask for the rest by the answer's id."""
    last, chunk = first[-1]
    response = httpx.get(f"{server.url}/v1/completions/{chunk['id']}", headers={"Last-Event-ID": str(last)}, timeout=60)
    assert response.status_code == 200
    assert response.text.endswith("data: [DONE]\n\n")
    return first + events(response.text)


def test_requests_with_the_same_key_at_the_same_time_are_one(server, key):
    before = generated(server)
    with ThreadPoolExecutor(6) as pool:
        answers = [answer.text for answer in pool.map(lambda _: post(server, key), range(6))]
    assert text(events(answers[0])) == PROMPT
    assert set(answers) == {answers[0]}
    assert generated(server) == before + len(PROMPT) + 1


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "plain"])
def test_a_finished_answer_is_told_again_and_costs_nothing(server, key, stream):
    first = post(server, key, stream=stream)
    before = generated(server)
    assert post(server, key, stream=stream).content == first.content
    if not stream:
        again = httpx.get(f"{server.url}/v1/completions/{first.json()['id']}")
        assert again.content == first.content
        assert first.json()["choices"][0]["text"] == PROMPT
        assert first.json()["usage"]["completion_tokens"] == len(PROMPT) + 1
    assert generated(server) == before


def test_a_chat_is_kept_too(server, key):
    question = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}
    first = httpx.post(f"{server.url}/v1/chat/completions", json=question, headers=key, timeout=60)
    assert first.json()["choices"][0]["message"]["content"] == "user: hello\n"
    assert httpx.get(f"{server.url}/v1/chat/completions/{first.json()['id']}").content == first.content
    assert httpx.get(f"{server.url}/v1/completions/{first.json()['id']}").status_code == 404, "it is an answer of another route"


def test_a_key_that_was_used_for_another_request_is_refused(server, key):
    assert post(server, key, prompt="hello").status_code == 200
    refused = post(server, key, prompt="hullo")
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "idempotency_key_reused")
    assert post(server, key, prompt="hello", max_tokens=None).status_code == 200, "null is as good as not there"


@pytest.mark.parametrize("bad", ["", "two words", "x" * 256, "käse".encode()])
def test_a_key_that_is_none_is_refused(server, bad):
    refused = httpx.post(f"{server.url}/v1/completions", json=body(), headers={"Idempotency-Key": bad})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "Idempotency-Key")


def test_an_error_is_not_kept(server, key):
    refused = post(server, key, prompt="x" * 2000)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert post(server, key, prompt="hello").status_code == 200, "the key is free again"


def test_a_stream_without_a_key_has_no_ids_and_an_unknown_id_no_answer(server):
    assert "id: " not in post(server, {}).text
    for id in ("cmpl-" + "0" * 32, "cmpl-..", "x", "cmpl-../../etc"):
        assert httpx.get(f"{server.url}/v1/completions/{id}").status_code == 404


def test_cut_at_every_byte_the_joined_text_is_the_same(server, key):
    whole = post(server, key, prompt="käse 日本", stream_options={"include_usage": True}).content
    rests: dict[int, list] = {}
    for cut in range(len(whole) + 1):
        got = events(whole[:cut].decode(errors="ignore"))
        last = got[-1][0] if got else 0
        if last not in rests:
            rest = post(server, {**key, "Last-Event-ID": str(last)}, prompt="käse 日本", stream_options={"include_usage": True})
            rests[last] = events(rest.text)
        assert got + rests[last] == events(whole.decode())
    assert text(events(whole.decode())) == "käse 日本"


def test_a_client_that_comes_back_goes_on_where_it_was(server, key):
    before = generated(server)
    first = begin(server, key, 5)
    assert text(go_on(server, first)) == PROMPT
    assert generated(server) == before + len(PROMPT) + 1


def test_a_client_that_does_not_come_back_is_not_waited_for_for_ever(server, key):
    begin(server, key, 3, prompt="x" * 500, ignore_eos=True)
    assert running(server) == 1, "it goes on for RESUME_SECONDS"
    wait_until(lambda: running(server) == 0, timeout=10, what="the end of what nobody follows")
    assert text(events(post(server, key, prompt="hello").text)) == "hello", "the key is free again"


def test_a_dead_runner_is_a_pause(server, key):
    first = begin(server, key, 5)
    os.kill(server.pids("runner")[0], signal.SIGKILL)
    assert text(go_on(server, first)) == PROMPT


def test_dead_workers_are_a_pause_and_leave_no_job_behind(server, key):
    runner, workers = server.pids("runner"), server.pids("gateway")
    first = begin(server, key, 5)
    for worker in workers:
        os.kill(worker, signal.SIGKILL)

    def others() -> bool:
        try:
            return len(set(server.pids("gateway")) - set(workers)) == 2
        except httpx.TransportError:
            return False

    wait_until(others, what="new workers")
    wait_until(lambda: running(server) == 0, what="the end of the dead workers' jobs")
    assert text(go_on(server, first)) == PROMPT
    assert server.pids("runner") == runner, "no model is loaded for it"
