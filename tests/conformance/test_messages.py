"""POST /v1/messages: Anthropic's Messages API (https://docs.anthropic.com/en/api/messages)."""

import pytest

from tests.conformance.api import MESSAGES

pytestmark = pytest.mark.feature("messages (Anthropic)")

ASK = [{"role": "user", "content": "Tell me about the sea."}]
CITY = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"], "additionalProperties": False}
TOOL = {"name": "get_weather", "description": "The weather of a city.", "input_schema": CITY}


def ask(api, **fields: object) -> dict:
    return api.ask(MESSAGES, {"messages": ASK, "max_tokens": 16, **fields})


def test_an_answer_has_the_fields_of_anthropics_api(either, api):
    answer = ask(either)
    assert answer["type"] == "message"
    assert answer["role"] == "assistant"
    assert answer["model"] == api.model
    assert answer["id"].startswith("msg_")
    assert all(block["type"] == "text" and isinstance(block["text"], str) for block in answer["content"])
    assert answer["stop_reason"] in ("end_turn", "max_tokens")
    assert answer["stop_sequence"] is None


def test_usage_counts_input_and_output(either):
    usage = ask(either, max_tokens=5)["usage"]
    assert usage["input_tokens"] + usage.get("cache_read_input_tokens", 0) > 0
    assert 1 <= usage["output_tokens"] <= 5


@pytest.mark.parametrize("system", ["Be brief.", [{"type": "text", "text": "Be brief."}]], ids=["text", "blocks"])
def test_a_system_prompt_is_taken(either, system):
    assert ask(either, system=system)["content"] is not None


def test_text_blocks_are_taken(either):
    messages = [{"role": "user", "content": [{"type": "text", "text": "Tell me about the sea."}]}]
    assert ask(either, messages=messages)["content"] == ask(either)["content"]


def test_a_stop_sequence_ends_the_answer_and_is_named(either):
    text = "".join(block["text"] for block in ask(either, max_tokens=40)["content"])
    stop = text[4:8]
    answer = ask(either, max_tokens=40, stop_sequences=[stop])
    assert "".join(block["text"] for block in answer["content"]) == text[: text.index(stop)]
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("stop_sequence", stop)


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "get_weather"}], ids=["any", "named"])
def test_a_tool_is_called_where_it_has_to_be(either, choice):
    answer = ask(either, tools=[TOOL], tool_choice={**choice, "disable_parallel_tool_use": True}, max_tokens=300)
    (block, *_) = [block for block in answer["content"] if block["type"] == "tool_use"]
    assert block["name"] == "get_weather"
    assert block["input"]["city"] in ("Paris", "Rome")
    assert block["id"]
    assert answer["stop_reason"] == "tool_use"


def test_tool_results_are_taken(either):
    messages = [
        *ASK,
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Paris"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "Sunny."}]},
    ]
    assert ask(either, messages=messages, tools=[TOOL], max_tokens=4)["role"] == "assistant"


def test_events_come_in_anthropics_order(api):
    stream = api.stream(MESSAGES, {"messages": ASK, "max_tokens": 8, "temperature": 0})
    names = [name for name in stream.names if name != "ping"]
    assert names[0] == "message_start"
    assert names[-2:] == ["message_delta", "message_stop"]
    assert names.count("content_block_start") == names.count("content_block_stop")
    assert set(names[1:-2]) <= {"content_block_start", "content_block_delta", "content_block_stop"}
    assert stream.names == [event["type"] for event in stream.chunks]
    assert "[DONE]" not in stream.data


@pytest.mark.parametrize(
    "fields",
    [{"max_tokens": None}, {"messages": []}, {"messages": "a"}, {"temperature": "hot"}, {"tool_choice": {"type": "any"}}],
    ids=str,
)
def test_a_mistake_is_refused_in_anthropics_shape(api, fields):
    body = {key: value for key, value in {"messages": ASK, "max_tokens": 4, **fields}.items() if value is not None}
    for stream in (False, True):
        response = api.post(MESSAGES, {**body, "stream": stream})
        assert response.status_code == 400
        error = response.json()
        assert error["type"] == "error"
        assert error["error"]["type"] == "invalid_request_error"
        assert error["error"]["message"]


def test_a_model_that_is_not_there_is_not_found(api):
    response = api.post(MESSAGES, {"messages": ASK, "max_tokens": 4, "model": "no-such-model"})
    assert response.status_code == 404
    assert response.json()["error"]["type"] == "not_found_error"
