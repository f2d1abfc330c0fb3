"""OpenAI's Responses API over HTTP, by the echo engine and by OpenAI's own client; what is kept, and for how long."""

import json
import os
import time
from pathlib import Path

import msgspec
import openai
import pytest

from src.api.generation.response_store import ResponseStore, Stored
from src.api.render.base import ResponseOptions
from src.api.render.responses import ResponseRenderer
from src.api.schema import parse
from src.api.schema.conversation import Chat, Message, Reasoning, Text, Tool, ToolCall, ToolResult
from src.api.schema.responses import ResponsesRequest
from src.api.schema.text_request import Wishes
from src.errors import InternalError
from src.protocol import Constraint
from tests.support.in_process import InProcess
from tests.support.named_events import SAID, TOLD, events, replaying
from tests.support.openai_api import check_error

PATH, DAY = "/v1/responses", 86_400
HELLO = {"model": "echo", "input": "hello"}
FUNCTION = [{"type": "function", "name": "f"}]
BANANA = {"type": "object", "properties": {"a": {"type": "banana"}}}


@pytest.fixture(scope="module")
def keeping():
    with (
        InProcess(CONTEXT_LENGTH=512, WORKERS=2, RESPONSE_STORE_SIZE=3) as server,
        server.http() as client,
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
    assert (answer["metadata"], answer["store"], answer["tool_choice"], answer["tools"]) == ({"a": "b"}, True, "auto", [])


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
        ({"input": [{"role": "tool", "content": "x"}]}, "invalid_value", "input[0].role"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "invalid_value", "input[0].id"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "unsupported_content", "input[0].content[0]"),
        ({"input": "x", "tools": FUNCTION, "tool_choice": {"type": "web_search"}}, "invalid_value", "tool_choice.type"),
        ({"input": "x", "tools": [{"type": "function"}]}, "missing_required_parameter", "tools[0].name"),
        ({"input": "x", "background": True}, "unsupported_parameter", "background"),
        ({"input": "x", "conversation": "c"}, "unsupported_parameter", "conversation"),
        ({"input": "x", "previous_response_id": "resp_" + "0" * 32}, "invalid_value", "previous_response_id"),
        ({"input": "x", "temperature": -3}, "invalid_value", "temperature"),
        ({"input": "x", "max_output_tokens": 0}, "invalid_value", "max_output_tokens"),
        ({"input": "x", "text": {"verbosity": "lower"}}, "invalid_value", "text.verbosity"),
        ({"input": "x", "text": {"format": {"type": "json_schema", "schema": {}}}}, "missing_required_parameter", "text.format.name"),
        ({"input": "x", "text": {"format": {"type": "json_schema", "name": "a b", "schema": {}}}}, "invalid_value", "text.format.name"),
        ({"input": "x", "tool_choice": {"type": "function", "name": ""}}, "invalid_value", "tool_choice.name"),
        ({"input": "x", "tool_choice": {"type": "allowed_tools"}}, "missing_required_parameter", "tool_choice.mode"),
        ({"input": [{"role": "user", "content": [{"type": "x"}]}]}, "invalid_value", "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": [{}]}]}, "missing_required_parameter", "input[0].content[0].type"),
        ({"input": "x", "tools": FUNCTION, "tool_choice": {"type": "function", "name": "g"}}, "invalid_value", "tool_choice"),
        # Errors of the runner, which knows the fields of a chat completion.
        ({"input": "x", "text": {"format": {"type": "json_schema", "name": "n", "schema": BANANA}}}, "invalid_schema", "text.format"),
        ({"input": "x" * 300}, "context_length_exceeded", "input"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_wrong_is_refused_by_this_routes_names(http, body, code, param, stream):
    response = http.post(PATH, json={**body, "stream": stream})
    check_error(response, 400, code, param)
    if code != "context_length_exceeded":
        assert param in response.json()["error"]["message"]


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


def test_a_response_is_stored_by_default(http):
    answer = http.post(PATH, json=HELLO).json()
    assert answer["store"] is True
    assert http.get(f"{PATH}/{answer['id']}").json() == answer


def test_a_setting_lets_nothing_be_stored():
    with InProcess(RESPONSE_STORE_SIZE=0) as server, server.http() as http:
        answer = http.post(PATH, json={**HELLO, "store": True}).json()
        assert answer["store"] is False
        check_error(http.get(f"{PATH}/{answer['id']}"), 404, "not_found", "id", told="RESPONSE_STORE_SIZE=0")
        on = http.post(PATH, json={**HELLO, "previous_response_id": answer["id"]})
        check_error(on, 400, "unsupported_parameter", "previous_response_id", told="store: false")
        reference = http.post(PATH, json={"input": [{"type": "item_reference", "id": answer["output"][0]["id"]}]})
        check_error(reference, 400, "invalid_value", "input[0].id", told="store: false")


def test_a_reference_stands_for_its_item_also_in_what_is_stored(keeping):
    first = keeping.post(PATH, json={"input": "a"}).json()
    said = {"type": "item_reference", "id": first["output"][0]["id"]}
    second = keeping.post(PATH, json={"input": [{"role": "user", "content": "a"}, said, {"role": "user", "content": "b"}]}).json()
    assert second["output"][0]["content"][0]["text"] == "user: a\nassistant: user: a\n\nuser: b\n"
    third = keeping.post(PATH, json={"input": "c", "previous_response_id": second["id"]}).json()
    assert third["output"][0]["content"][0]["text"].startswith("user: a\nassistant: user: a\n\nuser: b\nassistant: user: a")
    for id in (said["id"] + "0", said["id"][:-1] + "7", said["id"].replace("msg", "rs"), "msg_1", "msg_" + "0" * 33):
        wrong = keeping.post(PATH, json={"input": [{"role": "user", "content": "a"}, {"type": "item_reference", "id": id}]})
        check_error(wrong, 400, "invalid_value", "input[1].id", told="Send the whole conversation as input; with store: false")


def test_what_is_older_than_the_setting_allows_is_not_there_and_goes(tmp_path):
    store = ResponseStore(tmp_path / "r", 10, 10_000, DAY)
    store.put(numbered(1), "", Stored(response={}, items=[]))
    [path] = (tmp_path / "r").glob("*/*")
    os.utime(path, (time.time() - DAY / 2,) * 2)
    assert store.get(numbered(1), "")
    os.utime(path, (time.time() - DAY - 1,) * 2)
    assert store.get(numbered(1), "") is None
    store.put(numbered(2), "", Stored(response={}, items=[]))
    assert [kept.name for kept in (tmp_path / "r").glob("*/*")] == [numbered(2)]


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
    store, id = ResponseStore(tmp_path / "r", 3, 1000, DAY), "resp_" + "0" * 32
    store.put(id, "alice", Stored(response={"id": id}, items=[]))
    assert store.get(id, "bob") is None
    assert not store.remove(id, "bob")
    assert store.get(id, "alice").response == {"id": id}
    assert (tmp_path / "r").stat().st_mode & 0o777 == 0o700


def numbered(number: int) -> str:
    return f"resp_{number:032x}"


@pytest.mark.parametrize(("most", "size"), [(4, 10**6), (1000, 4500)], ids=["number", "bytes"])
def test_who_keeps_most_loses_the_oldest_of_its_own(tmp_path, most, size):
    store = ResponseStore(tmp_path / "r", most, size, DAY)
    kept = Stored(response={"text": "x" * 950}, items=[])
    for number, owner in enumerate(["alice", *["hog"] * 20, "alice"]):
        store.put(numbered(number), owner, kept)
    assert [store.get(numbered(number), "alice") is not None for number in (0, 21)] == [True, True]
    assert [number for number in range(1, 21) if store.get(numbered(number), "hog")] == [19, 20]


def test_one_that_is_larger_than_all_may_be_is_not_kept(tmp_path):
    store = ResponseStore(tmp_path / "r", 10, 1000, DAY)
    store.put(numbered(1), "", Stored(response={}, items=[]))
    store.put(numbered(2), "", Stored(response={"text": "x" * 1000}, items=[]))
    assert store.get(numbered(1), "")
    assert store.get(numbered(2), "") is None


def test_what_no_model_is_shown_is_not_kept(tmp_path):
    secret = {"type": "reasoning", "encrypted_content": "x" * 50_000, "summary": [{"type": "summary_text", "text": "x" * 50_000}]}
    part = {"type": "input_text", "text": "a", "annotations": ["x" * 50_000], "other": "x" * 50_000}
    with InProcess(CONTEXT_LENGTH=512, RESPONSE_STORE_SIZE=100) as server, server.http() as http:
        asked = {"input": [secret, {"role": "user", "content": [part]}], "max_output_tokens": 1}
        previous = None
        for _ in range(3):
            previous = http.post(PATH, json={**asked, "previous_response_id": previous}).json()["id"]
        sizes = [path.stat().st_size for path in Path(server.settings.run_dir, "responses").rglob("resp_*")]
    assert len(sizes) == 3
    assert max(sizes) < 5000


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
    calls = (ToolCall("c1", "weather", "{}"), ToolCall("c2", "time", "{}"))
    assert request.chat() == Chat(
        wishes=Wishes(constraint=Constraint(form="json_schema", source=json.dumps(schema), param="response_format")),
        tools=(Tool("weather", "d", schema, strict=True), Tool("time")),
        tool_choice="required",
        only_tool="weather",
        parallel_calls=False,
        reasoning_effort="low",
        messages=(
            Message("user", (Text("Paris?"),)),
            Message("assistant", (Reasoning("hm"), Text("I look."), *calls)),
            Message("tool", (ToolResult("c1", (Text("sun"),)),)),
            Message("tool", (ToolResult("c2", (Text("noon"),)),)),
            Message("assistant", (Text("Sun."),)),
            Message("assistant", (Text("Noon."),)),
            Message("user", (Text("And?"),)),
        ),
    )


def test_reasoning_that_tells_nothing_is_no_message_and_two_are_one():
    def thought(*texts: str) -> dict:
        return {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": text} for text in texts]}

    sealed = {"type": "reasoning", "summary": [], "encrypted_content": "…"}
    said = [{"role": "user", "content": "a"}, sealed, {"role": "user", "content": "b"}, thought("1", "2"), sealed, thought("3")]
    chat = parse(ResponsesRequest, {"input": [*said, {"role": "assistant", "content": "c"}, sealed]}).chat()
    assert chat.prompt().messages == [
        {"role": "user", "content": "a"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "c", "reasoning_content": "1\n2\n3"},
    ]


def test_allowed_tools_are_those_that_are_shown():
    tools = [{"type": "function", "name": name} for name in ("a", "b")]
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "b"}]}
    chat = parse(ResponsesRequest, {"input": "x", "tools": tools, "tool_choice": choice}).chat()
    assert (chat.tools, chat.tool_choice) == ((Tool("b"),), "required")


ECHO = {"parallel_tool_calls": True, "tools": [], "tool_choice": "auto", "temperature": 1.0, "top_p": 1.0}


def renderer() -> ResponseRenderer:
    return ResponseRenderer(id="resp_1", created=7, model="m", fingerprint="f", wants=ResponseOptions(), echo=ECHO)


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
    seen = [json.loads(msgspec.json.encode(chunk)) for chunk in renderer().chunks(TOLD)]  # as a stream sends them
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


def test_silence_is_an_event_with_the_number_of_the_last_one():
    of, [started, *_] = renderer(), TOLD
    frames = [frame.decode() for frame in of.frames(of.chunks([started, None, None]), 0)]
    assert [frame.partition("\n")[0] for frame in frames] == ["id: 1", "id: 2", *2 * ["event: response.in_progress"]]
    numbers = [json.loads(frame.partition("data: ")[2])["sequence_number"] for frame in frames]
    assert numbers == [0, 1, 1, 1]


def test_a_failure_is_the_last_event():
    rendering = renderer()
    for _ in zip(range(3), rendering.chunks(TOLD), strict=False):
        pass
    name, data = rendering.failed(InternalError("x")).decode().strip().split("\n")
    event = json.loads(data.removeprefix("data: "))
    assert name == "event: response.failed"
    assert event["sequence_number"] > 1
    assert (event["response"]["status"], event["response"]["error"]) == ("failed", {"code": "server_error", "message": "x"})


def test_the_tokens_of_a_prompt_are_counted_without_an_answer(http, keeping):
    body = {"input": "abc", "instructions": "Be kind.", "personality": "friendly"}
    counted = http.post(f"{PATH}/input_tokens", json=body)
    used = http.post(PATH, json={**body, "max_output_tokens": 1}).json()["usage"]["input_tokens"]
    assert counted.json() == {"object": "response.input_tokens", "input_tokens": used}
    assert counted.headers["x-ignored-fields"] == "personality"
    check_error(http.post(f"{PATH}/input_tokens", json={}), 400, "invalid_value", "input")
    first = keeping.post(PATH, json={"input": "abc", "max_output_tokens": 2}).json()
    on = keeping.post(f"{PATH}/input_tokens", json={"previous_response_id": first["id"]}).json()
    assert on["input_tokens"] > first["usage"]["input_tokens"]
