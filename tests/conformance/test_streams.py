"""What a stream is made of: framing, the order of its chunks, and usage."""

import json

import pytest

from tests.conformance.api import CHAT, COMPLETIONS

pytestmark = pytest.mark.feature("chunk sequence")

BODY = {"temperature": 0, "max_tokens": 8, "ignore_eos": True}
CHAT_BODY = {**BODY, "messages": [{"role": "user", "content": "Tell me about the sea."}]}
TEXT_BODY = {**BODY, "prompt": "The sea is"}
BOTH = pytest.mark.parametrize(("path", "body"), [(CHAT, CHAT_BODY), (COMPLETIONS, TEXT_BODY)], ids=["chat", "text"])
WITH_USAGE = {"stream_options": {"include_usage": True}}


@BOTH
def test_a_stream_is_server_sent_events_that_end_with_done(api, path, body):
    stream = api.stream(path, body)
    assert stream.response.status_code == 200
    assert stream.response.headers["content-type"].split(";")[0] == "text/event-stream"
    assert "no-cache" in stream.response.headers["cache-control"]
    assert stream.text.endswith("data: [DONE]\n\n")
    for event in stream.text.removesuffix("\n\n").split("\n\n"):
        assert event.startswith(("data: ", ":")), event
        assert "\n" not in event, "an event is one line"
        if event.startswith("data: {"):
            json.loads(event.removeprefix("data: "))
    assert stream.data.count("[DONE]") == 1


@BOTH
def test_all_chunks_are_of_one_answer(api, path, body):
    chunks = api.stream(path, body).chunks
    assert len({(chunk["id"], chunk["created"], chunk["model"], chunk["object"]) for chunk in chunks}) == 1
    assert chunks[0]["object"] == ("chat.completion.chunk" if path == CHAT else "text_completion")
    assert chunks[0]["model"] == api.model


@BOTH
def test_every_choice_has_the_required_keys(api, path, body):
    for chunk in api.stream(path, body).chunks:
        assert {"id", "object", "created", "model", "choices"} <= set(chunk)
        for choice in chunk["choices"]:
            assert set(choice) == {"index", "delta" if path == CHAT else "text", "logprobs", "finish_reason"}


@BOTH
def test_only_a_choices_last_chunk_says_how_it_ended(api, path, body):
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in api.stream(path, body).chunks]
    assert reasons[-1] == "length"
    assert set(reasons[:-1]) <= {None}


def test_the_role_comes_once_and_first(api):
    deltas = [chunk["choices"][0]["delta"] for chunk in api.stream(CHAT, CHAT_BODY).chunks]
    assert deltas[0]["role"] == "assistant"
    assert not any("role" in delta for delta in deltas[1:])


def test_the_last_delta_is_empty(api):
    assert api.stream(CHAT, CHAT_BODY).chunks[-1]["choices"][0]["delta"] == {}


def test_no_delta_is_an_empty_text(api):
    deltas = [chunk["choices"][0]["delta"] for chunk in api.stream(CHAT, CHAT_BODY).chunks]
    assert all(delta["content"] for delta in deltas[1:-1])


def test_text_arrives_in_pieces(api):
    long = {**CHAT_BODY, "max_tokens": 200}
    assert len(api.stream(CHAT, long).chunks) > 10


@BOTH
@pytest.mark.feature("usage chunk")
def test_without_being_asked_no_chunk_has_usage(api, path, body):
    assert not any("usage" in chunk for chunk in api.stream(path, body).chunks)
    off = {**body, "stream_options": {"include_usage": False}}
    assert not any("usage" in chunk for chunk in api.stream(path, off).chunks)


@BOTH
@pytest.mark.feature("usage chunk")
def test_usage_comes_in_one_more_chunk_without_choices_before_done(api, path, body):
    stream = api.stream(path, {**body, **WITH_USAGE})
    *others, last = stream.chunks
    assert stream.data[-2] == last
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 8
    assert last["usage"]["total_tokens"] == last["usage"]["prompt_tokens"] + 8
    assert all(chunk["usage"] is None for chunk in others)
    assert all(chunk["choices"] for chunk in others)


@BOTH
@pytest.mark.feature("continuous usage")
def test_continuous_usage_stands_in_every_chunk_and_grows(api, path, body):
    stream = api.stream(path, {**body, "stream_options": {"include_usage": True, "continuous_usage_stats": True}})
    counts = [chunk["usage"]["completion_tokens"] for chunk in stream.chunks]
    assert counts == sorted(counts)
    assert counts[-1] == 8
    assert len({chunk["usage"]["prompt_tokens"] for chunk in stream.chunks}) == 1
    for chunk in stream.chunks:
        usage = chunk["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


@BOTH
@pytest.mark.feature("continuous usage")
def test_without_include_usage_continuous_usage_is_not_sent(api, path, body):
    stream = api.stream(path, {**body, "stream_options": {"include_usage": False, "continuous_usage_stats": True}})
    assert not any("usage" in chunk for chunk in stream.chunks)


@BOTH
def test_a_stream_may_be_left_and_the_next_request_is_answered(api, path, body):
    with api.http.stream("POST", path, json={**body, "model": api.model, "stream": True, "max_tokens": 2000}) as response:
        next(response.iter_bytes())
    assert api.stream(path, body).data[-1] == "[DONE]"


@BOTH
def test_a_request_with_a_mistake_is_refused_before_the_stream_begins(api, path, body):
    stream = api.stream(path, {**body, "temperature": "hot"})
    assert stream.response.status_code == 400
    assert stream.response.headers["content-type"].startswith("application/json")


def test_a_stream_begins_before_its_answer_is_complete(api):
    body = {**CHAT_BODY, "model": api.model, "stream": True, "max_tokens": 300}
    with api.http.stream("POST", CHAT, json=body) as response:
        assert b"[DONE]" not in next(response.iter_bytes())
