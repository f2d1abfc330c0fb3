"""POST /v1/responses: OpenAI's Responses API."""

import json

import pytest

from tests.conformance.api import RESPONSES, answered

pytestmark = pytest.mark.feature("responses (OpenAI)")

SCHEMA = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"], "additionalProperties": False}
TOOL = {"type": "function", "name": "get_weather", "description": "The weather.", "parameters": SCHEMA, "strict": True}


def ask(api, given: object = "Tell me about the sea.", **fields: object) -> dict:
    return api.ask(RESPONSES, {"input": given, "max_output_tokens": 16, **fields})


def text_of(answer: dict) -> str:
    return "".join(part["text"] for item in answer["output"] if item["type"] == "message" for part in item["content"])


def test_an_answer_has_the_fields_of_openais_api(either, api):
    answer = ask(either)
    assert answer["object"] == "response"
    assert answer["id"].startswith("resp_")
    assert answer["model"] == api.model
    assert answer["status"] in ("completed", "incomplete")
    assert answer["error"] is None
    (item,) = answer["output"]
    assert (item["type"], item["role"]) == ("message", "assistant")
    assert all(part["type"] == "output_text" and isinstance(part["annotations"], list) for part in item["content"])


def test_usage_has_its_own_names_here(either):
    usage = ask(either)["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert usage["input_tokens_details"]["cached_tokens"] >= 0
    assert usage["output_tokens_details"]["reasoning_tokens"] >= 0


def test_an_answer_that_is_cut_says_so(either):
    answer = ask(either, max_output_tokens=3)
    if answer["usage"]["output_tokens"] == 3:
        assert answer["status"] == "incomplete"
        assert answer["incomplete_details"]["reason"] == "max_output_tokens"


def test_a_list_of_messages_is_taken(either):
    given = [{"role": "user", "content": [{"type": "input_text", "text": "Tell me about the sea."}]}]
    assert text_of(ask(either, given)) == text_of(ask(either))


def test_instructions_add_to_the_prompt(either):
    assert ask(either, instructions="Be brief.")["status"] in ("completed", "incomplete")


def test_a_function_is_called_where_it_has_to_be(either):
    answer = ask(either, tools=[TOOL], tool_choice="required", parallel_tool_calls=False, max_output_tokens=300)
    (call, *_) = [item for item in answer["output"] if item["type"] == "function_call"]
    assert call["name"] == "get_weather"
    assert json.loads(call["arguments"])["city"] in ("Paris", "Rome")
    assert call["call_id"]


def test_results_of_functions_are_taken(either):
    given = [
        {"role": "user", "content": "What is the weather?"},
        {"type": "function_call", "call_id": "c1", "name": "get_weather", "arguments": '{"city": "Paris"}'},
        {"type": "function_call_output", "call_id": "c1", "output": "Sunny."},
    ]
    assert ask(either, given, tools=[TOOL], max_output_tokens=4)["output"] is not None


def test_a_schema_is_held(either):
    form = {"format": {"type": "json_schema", "name": "card", "schema": SCHEMA, "strict": True}}
    assert json.loads(text_of(ask(either, text=form, max_output_tokens=200)))["city"] in ("Paris", "Rome")


def test_events_come_in_openais_order(api):
    stream = api.stream(RESPONSES, {"input": "Tell me about the sea.", "max_output_tokens": 8, "temperature": 0})
    assert stream.names == [event["type"] for event in stream.chunks]
    assert stream.names[:2] == ["response.created", "response.in_progress"]
    assert stream.names[-1] in ("response.completed", "response.incomplete")
    assert [event["sequence_number"] for event in stream.chunks] == list(range(len(stream.chunks)))
    middle = stream.names[2:-1]
    assert middle[:2] == ["response.output_item.added", "response.content_part.added"]
    assert middle[-3:] == ["response.output_text.done", "response.content_part.done", "response.output_item.done"]
    assert set(middle[2:-3]) == {"response.output_text.delta"}


def test_an_earlier_response_is_refused_where_none_are_kept(api):
    body = {"input": "a", "previous_response_id": "resp_unknown", "max_output_tokens": 4}
    response = api.post(RESPONSES, body)
    assert response.status_code in (400, 404)
    assert response.json()["error"]["param"] == "previous_response_id"


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({}, "missing_required_parameter", "input"),
        ({"input": 5}, "invalid_value", "input"),
        ({"input": "a", "temperature": -3}, "invalid_value", "temperature"),
        ({"input": "a", "max_output_tokens": 0}, "invalid_value", "max_output_tokens"),
    ],
    ids=str,
)
def test_what_is_wrong_is_refused_by_name(api, fields, code, param):
    api.refuse(RESPONSES, fields, 400, code, param)


def test_what_is_stored_is_continued_by_its_id_and_by_references_to_its_items(api):
    first = answered(api.post(RESPONSES, {"input": "a", "max_output_tokens": 4}))
    if not first["store"]:
        pytest.skip("this server stores nothing")
    [*_, last] = first["output"]
    by_id = {"input": "b", "previous_response_id": first["id"]}
    by_reference = {
        "input": [{"role": "user", "content": "a"}, {"type": "item_reference", "id": last["id"]}, {"role": "user", "content": "b"}]
    }
    used = [answered(api.post(RESPONSES, {**body, "max_output_tokens": 4}))["usage"]["input_tokens"] for body in (by_id, by_reference)]
    assert used[0] == used[1] > first["usage"]["input_tokens"]


def test_with_store_false_nothing_is_stored(api):
    answer = answered(api.post(RESPONSES, {"input": "a", "max_output_tokens": 4, "store": False}))
    assert answer["store"] is False
    api.refuse(RESPONSES, {"input": "b", "previous_response_id": answer["id"]}, 400, "invalid_value", "previous_response_id")
