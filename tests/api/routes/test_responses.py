"""OpenAI's Responses API over HTTP, by the echo engine and by OpenAI's own client; what is kept, and for how long."""

import json

import httpx
import openai
import pytest

from src.api.render import Wants
from src.api.response_events import ResponseRenderer
from src.api.response_store import ResponseStore, Stored
from src.api.schema import ResponsesRequest, parse
from src.errors import InternalError
from tests.api.named_events import SAID, TOLD, events, replaying
from tests.api.test_routes import check_error
from tests.server import Server

PATH = "/v1/responses"
HELLO = {"model": "echo", "input": "hello"}


@pytest.fixture(scope="module")
def keeping():
    with (
        Server(INFERENCE_ENGINE="echo", CONTEXT_LENGTH=512, WORKERS=2, RESPONSE_STORE_SIZE=3) as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):
        yield client


# Over HTTP


def test_a_text_is_answered(http):
    answer = http.post(PATH, json={**HELLO, "metadata": {"a": "b"}}).json()
    assert answer["id"].startswith("resp_")
    assert (answer["object"], answer["status"], answer["model"], answer["error"]) == ("response", "completed", "echo", None)
    [item] = answer["output"]
    assert item.pop("id").startswith("msg_")
    part = {"type": "output_text", "text": SAID, "annotations": [], "logprobs": []}
    assert item == {"type": "message", "status": "completed", "role": "assistant", "content": [part]}
    assert answer["usage"] == {
        "input_tokens": 12,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 13,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 25,
    }
    assert (answer["metadata"], answer["store"], answer["tool_choice"], answer["tools"]) == ({"a": "b"}, False, "auto", [])


def test_a_stream_is_openais_events_in_their_order(http):
    response = http.post(PATH, json={**HELLO, "stream": True})
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    found = events(response)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    names = [event["type"].removeprefix("response.") for event in found]
    deltas = names.count("output_text.delta")
    assert names == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        *["output_text.delta"] * deltas,
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert "".join(event["delta"] for event in found if event["type"] == "response.output_text.delta") == SAID
    plain = http.post(PATH, json=HELLO).json()
    last = found[-1]["response"]
    for response in (plain, last):
        del response["id"], response["created_at"], response["output"][0]["id"]
    assert last == plain


def test_instructions_and_items_reach_the_template(http):
    items = [
        {"role": "developer", "content": "d"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "c", "annotations": []}], "id": "msg_1"},
        {"role": "user", "content": "e"},
    ]
    answer = http.post(PATH, json={"input": items, "instructions": "i"}).json()
    assert answer["output"][0]["content"][0]["text"] == "system: i\nsystem: d\nuser: a\nb\nassistant: c\nuser: e\n"
    assert answer["instructions"] == "i"


def test_an_answer_cut_by_max_output_tokens_is_incomplete(http):
    answer = http.post(PATH, json={**HELLO, "max_output_tokens": 4}).json()
    assert (answer["status"], answer["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert (answer["output"][0]["status"], answer["output"][0]["content"][0]["text"]) == ("incomplete", "user")
    *_, last = events(http.post(PATH, json={**HELLO, "max_output_tokens": 4, "stream": True}))
    assert last["type"] == "response.incomplete"


def test_logprobs_come_where_they_are_asked_for(http):
    body = {**HELLO, "include": ["message.output_text.logprobs"], "top_logprobs": 1}
    [item] = http.post(PATH, json=body).json()["output"]
    entries = item["content"][0]["logprobs"]
    assert "".join(entry["token"] for entry in entries) == SAID
    assert entries[0]["top_logprobs"][0]["token"] == "u"
    streamed = events(http.post(PATH, json={**body, "stream": True}))
    deltas = [event for event in streamed if event["type"] == "response.output_text.delta"]
    assert [entry for event in deltas for entry in event["logprobs"]] == entries


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({}, "missing_required_parameter", "input"),
        ({"input": 5}, "invalid_value", "input"),
        ({"input": []}, "invalid_value", "input"),
        ({"input": [{"role": "user"}]}, "missing_required_parameter", "input[0].content"),
        ({"input": [{"role": "tool", "content": "x"}]}, "invalid_value", "input[0].role"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "unsupported_parameter", "input[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "unsupported_content", "input[0].content[0]"),
        (
            {"input": [{"type": "function_call_output", "call_id": "c", "output": [{"type": "input_file"}]}]},
            "unsupported_content",
            "input[0].output[0]",
        ),
        ({"input": "x", "tools": [{"type": "web_search"}]}, "unsupported_parameter", "tools[0].type"),
        ({"input": "x", "tools": [{"type": "function"}]}, "missing_required_parameter", "tools[0].name"),
        ({"input": "x", "background": True}, "unsupported_parameter", "background"),
        ({"input": "x", "truncation": "auto"}, "unsupported_parameter", "truncation"),
        ({"input": "x", "conversation": "c"}, "unsupported_parameter", "conversation"),
        ({"input": "x", "previous_response_id": "resp_" + "0" * 32}, "unsupported_parameter", "previous_response_id"),
        ({"input": "x", "temperature": 3}, "invalid_value", "temperature"),
        ({"input": "x", "max_output_tokens": 0}, "invalid_value", "max_output_tokens"),
        ({"input": "x", "text": {"verbosity": "low"}}, "unsupported_parameter", "text.verbosity"),
        ({"input": "x" * 300}, "context_length_exceeded", "input"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_wrong_is_refused_by_this_routes_names(http, body, code, param, stream):
    check_error(http.post(PATH, json={**body, "stream": stream}), 400, code, param)


def test_unknown_fields_are_named_and_what_openai_ignores_is_not(http):
    known = {"user": "u", "metadata": {}, "store": True, "prompt_cache_key": "k", "truncation": "disabled", "background": False}
    response = http.post(PATH, json={**HELLO, **known, "moderation": {"model": "m"}, "messages": []})
    assert response.headers["X-Ignored-Fields"] == "moderation, messages"


# OpenAI's client


def test_openais_client_reads_a_response(server):
    with server.client() as client:
        response = client.responses.create(model="echo", input="hello")
    assert (response.output_text, response.status, response.usage.output_tokens) == (SAID, "completed", 13)


def test_openais_client_reads_a_stream(server):
    with server.client() as client, client.responses.stream(model="echo", input="hello") as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert text == final.output_text == SAID


# What is kept


def test_nothing_is_kept_by_default(http):
    answer = http.post(PATH, json={**HELLO, "store": True}).json()
    assert answer["store"] is False
    check_error(http.get(f"{PATH}/{answer['id']}"), 404, "not_found", "id", told="RESPONSE_STORE_SIZE=0")


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_goes_on_from_one_before_it(keeping, stream):
    first = keeping.post(PATH, json={"input": "a", "instructions": "i"}).json()
    assert first["store"] is True
    for _ in range(4):  # of two workers each knows it
        second = keeping.post(PATH, json={"input": "b", "previous_response_id": first["id"], "store": False, "stream": stream})
        answer = events(second)[-1]["response"] if stream else second.json()
        # Instructions are not taken over.
        assert answer["output"][0]["content"][0]["text"] == "user: a\nassistant: system: i\nuser: a\n\nuser: b\n"
        assert answer["previous_response_id"] == first["id"]
        assert answer["store"] is False


def test_a_streamed_response_is_kept_too(keeping):
    *_, last = events(keeping.post(PATH, json={"input": "a", "stream": True}))
    assert keeping.get(f"{PATH}/{last['response']['id']}").json() == last["response"]


def test_what_is_kept_can_be_asked_for_and_deleted(keeping):
    answer = keeping.post(PATH, json={"input": "a"}).json()
    assert keeping.get(f"{PATH}/{answer['id']}").json() == answer
    assert keeping.delete(f"{PATH}/{answer['id']}").json() == {"id": answer["id"], "object": "response", "deleted": True}
    for asked in (keeping.get, keeping.delete):
        check_error(asked(f"{PATH}/{answer['id']}"), 404, "not_found", "id")
    gone = {"input": "b", "previous_response_id": answer["id"]}
    check_error(keeping.post(PATH, json=gone), 400, "invalid_value", "previous_response_id")


def test_the_oldest_go_when_there_are_more_than_the_setting_allows(keeping):
    ids = [keeping.post(PATH, json={"input": "a"}).json()["id"] for _ in range(5)]
    assert [keeping.get(f"{PATH}/{id}").status_code for id in ids] == [404, 404, 200, 200, 200]


def test_store_false_keeps_nothing(keeping):
    answer = keeping.post(PATH, json={"input": "a", "store": False}).json()
    check_error(keeping.get(f"{PATH}/{answer['id']}"), 404, "not_found", "id")


@pytest.mark.parametrize("id", ["..", "%2e%2e%2fmanager.sock", "resp_1", "resp_" + "0" * 33, "x" * 3000])
def test_an_id_is_never_a_path(keeping, id):
    check_error(keeping.get(f"{PATH}/{id}"), 404, "not_found", "id" if "." not in id else None)


def test_a_response_is_its_owners_alone(tmp_path):
    store, id = ResponseStore(tmp_path / "r", 3), "resp_" + "0" * 32
    store.put(id, Stored(owner="alice", response={"id": id}, items=[]))
    assert store.get(id, "bob") is None
    assert not store.remove(id, "bob")
    assert store.get(id, "alice").response == {"id": id}
    assert (tmp_path / "r").stat().st_mode & 0o777 == 0o700


# Tools and reasoning, in both directions


def test_functions_and_their_outputs_become_those_of_a_chat():
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    function = {"type": "function", "name": "weather", "description": "d", "parameters": schema, "strict": True}
    request = parse(
        ResponsesRequest,
        {
            "tools": [function, {"type": "function", "name": "time"}],
            "tool_choice": {"type": "function", "name": "weather"},
            "parallel_tool_calls": False,
            "reasoning": {"effort": "low", "summary": "auto"},
            "text": {"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": True}},
            "input": [
                {"role": "user", "content": "Paris?"},
                {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
                {"role": "assistant", "content": "I look."},
                {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
                {"type": "function_call", "call_id": "c2", "name": "time", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c1", "output": "sun"},
                {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "noon"}]},
                {"role": "assistant", "content": "Sun."},
                {"role": "assistant", "content": "Noon."},
                {"role": "user", "content": "And?"},
            ],
        },
    )
    calls = [
        {"id": id, "type": "function", "function": {"name": name, "arguments": "{}"}} for id, name in (("c1", "weather"), ("c2", "time"))
    ]
    assert request.chat() == {
        "tools": [
            {"type": "function", "function": {"name": "weather", "description": "d", "parameters": schema, "strict": True}},
            {"type": "function", "function": {"name": "time"}},
        ],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "parallel_tool_calls": False,
        "reasoning_effort": "low",
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}},
        "messages": [
            {"role": "user", "content": "Paris?"},
            {"role": "assistant", "content": "I look.", "reasoning_content": "hm", "tool_calls": calls},
            {"role": "tool", "tool_call_id": "c1", "content": "sun"},
            {"role": "tool", "tool_call_id": "c2", "content": "noon"},
            {"role": "assistant", "content": "Sun."},
            {"role": "assistant", "content": "Noon."},
            {"role": "user", "content": "And?"},
        ],
    }


def test_reasoning_that_tells_nothing_is_no_message_and_two_are_one():
    def thought(*texts: str) -> dict:
        return {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": text} for text in texts]}

    sealed = {"type": "reasoning", "summary": [], "encrypted_content": "…"}
    said = [{"role": "user", "content": "a"}, sealed, {"role": "user", "content": "b"}, thought("1", "2"), sealed, thought("3")]
    messages = parse(ResponsesRequest, {"input": [*said, {"role": "assistant", "content": "c"}, sealed]}).chat()["messages"]
    assert messages == [
        {"role": "user", "content": "a"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "c", "reasoning_content": "1\n2\n3"},
    ]


def test_allowed_tools_are_those_that_are_shown():
    tools = [{"type": "function", "name": name} for name in ("a", "b")]
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "b"}]}
    body = parse(ResponsesRequest, {"input": "x", "tools": tools, "tool_choice": choice}).chat()
    assert (body["tools"], body["tool_choice"]) == ([{"type": "function", "function": {"name": "b"}}], "required")


ECHO = {"parallel_tool_calls": True, "tools": [], "tool_choice": "auto", "temperature": 1.0, "top_p": 1.0}


def renderer() -> ResponseRenderer:
    return ResponseRenderer(id="resp_1", created=7, model="m", fingerprint="f", wants=Wants(), echo=ECHO)


def test_reasoning_text_and_calls_are_items_one_after_another():
    response = renderer().fold(renderer().chunks(TOLD))
    assert [(item["type"], item["status"]) for item in response["output"]] == [
        ("reasoning", "completed"),
        ("message", "completed"),
        ("function_call", "completed"),
        ("function_call", "completed"),
    ]
    assert response["output"][0]["content"] == [{"type": "reasoning_text", "text": "I see."}]
    assert [(item["call_id"], item["arguments"]) for item in response["output"][2:]] == [("c1", '{"city": "Paris"}'), ("c2", "{}")]
    assert len({item["id"] for item in response["output"]}) == 4
    assert response["usage"]["output_tokens_details"] == {"reasoning_tokens": 2}


def test_events_are_frozen_when_they_are_told():
    seen = [json.loads(json.dumps(chunk)) for chunk in renderer().chunks(TOLD)]  # as a stream sends them
    added = [event for event in seen if event and event["type"] == "response.output_item.added"]
    assert len(added) == 4
    assert all(event["item"]["status"] == "in_progress" and not event["item"].get("content") for event in added)


def test_openais_client_makes_the_same_response_of_the_stream():
    http = replaying(renderer().frames(renderer().chunks(TOLD)))
    with (
        openai.OpenAI(base_url="http://x/v1", api_key="none", http_client=http) as client,
        client.responses.stream(model="m", input="x") as stream,
    ):
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds.count("response.function_call_arguments.done") == 2
    assert [item.type for item in final.output] == ["reasoning", "message", "function_call", "function_call"]
    assert final.output_text == "Let me look."


def test_a_failure_is_the_last_event():
    of = renderer()
    for _ in zip(range(3), of.chunks(TOLD), strict=False):
        pass
    name, data = of.failed(InternalError("x")).decode().strip().split("\n")
    event = json.loads(data.removeprefix("data: "))
    assert name == "event: response.failed"
    assert event["sequence_number"] > 1
    assert (event["response"]["status"], event["response"]["error"]) == ("failed", {"code": "server_error", "message": "x"})
