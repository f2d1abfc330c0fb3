"""Anthropic's Messages API over HTTP, by the echo engine and by Anthropic's own client."""

import anthropic
import httpx
import pytest

from src.api.render.anthropic import MessageRenderer
from src.api.render.base import ResponseOptions
from src.api.schema import parse
from src.api.schema.anthropic import CountTokensRequest, MessagesRequest
from src.api.schema.conversation import Chat, Message, Reasoning, Text, Tool, ToolCall, ToolResult
from src.api.schema.text_request import Wishes
from src.errors import InternalError
from src.protocol import Constraint, Ended, Finished
from tests.support.named_events import SAID, TOLD, events, replaying

PATH = "/v1/messages"
USER = {"role": "user", "content": "hello"}
HELLO = {"model": "echo", "max_tokens": 100, "messages": [USER]}
BANANA = {"type": "object", "properties": {"a": {"type": "banana"}}}


def check_error(response: httpx.Response, status: int, kind: str, told: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"type", "error", "request_id"}
    assert (body["type"], body["request_id"]) == ("error", response.headers["x-request-id"])
    assert set(body["error"]) == {"type", "message"}
    assert body["error"]["type"] == kind
    assert told in body["error"]["message"]


@pytest.fixture(scope="module")
def client(server):
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0, http_client=server.http2()) as client:
        yield client


# Over HTTP


def test_a_message_is_answered(http):
    answer = http.post(PATH, json=HELLO).json()
    assert answer.pop("id").startswith("msg_")
    assert answer == {
        "type": "message",
        "role": "assistant",
        "model": "echo",
        "content": [{"type": "text", "text": SAID}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 12, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 13},
    }


def test_a_stream_is_anthropics_events_in_their_order(http):
    response = http.post(PATH, json={**HELLO, "stream": True})
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    start, ping, block, *deltas, stop, delta, end = events(response)
    assert start["type"] == "message_start"
    assert (start["message"]["content"], start["message"]["stop_reason"]) == ([], None)
    assert start["message"]["usage"]["input_tokens"] == 12
    assert ping == {"type": "ping"}
    assert block == {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    assert {delta["type"] for delta in deltas} == {"content_block_delta"}
    assert "".join(delta["delta"]["text"] for delta in deltas) == SAID
    assert stop == {"type": "content_block_stop", "index": 0}
    assert delta["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert delta["usage"]["output_tokens"] == 13
    assert end == {"type": "message_stop"}


def test_system_and_turns_reach_the_template(http):
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c"},
        {"role": "user", "content": "d"},
    ]
    answer = http.post(PATH, json={**HELLO, "messages": messages, "system": [{"type": "text", "text": "s"}]}).json()
    assert answer["content"][0]["text"] == "system: s\nuser: a\nb\nassistant: c\nuser: d\n"


@pytest.mark.parametrize(
    ("fields", "reason", "sequence", "text"),
    [
        ({"max_tokens": 4}, "max_tokens", None, "user"),
        ({"stop_sequences": ["zz", "ll"]}, "stop_sequence", "ll", "user: he"),
        ({"max_tokens": 1000, "messages": [{"role": "user", "content": "x" * 240}]}, "model_context_window_exceeded", None, "user: xxx"),
    ],
)
def test_the_reason_tells_why_it_stopped(http, fields, reason, sequence, text):
    answer = http.post(PATH, json={**HELLO, **fields}).json()
    assert (answer["stop_reason"], answer["stop_sequence"], answer["content"][0]["text"]) == (reason, sequence, text)


def test_tokens_are_counted(http):
    answer = http.post(f"{PATH}/count_tokens", json={key: value for key, value in HELLO.items() if key != "max_tokens"})
    assert answer.json() == {"input_tokens": 12}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"messages": None}, "messages is required"),
        ({"max_tokens": None}, "max_tokens is required"),
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"temperature": -1}, "temperature must be at least 0."),
        ({"messages": []}, "messages must not be empty"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role must be 'user', 'assistant' or 'system'."),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "messages[0].content[0] is of type 'image'"),
        ({"messages": [{"role": "user", "content": [{"type": "document"}]}]}, "messages[0].content[0] is of type 'document'"),
        (
            {
                "tools": [{"type": "web_search_20250305", "name": "web_search"}, {"name": "f"}],
                "tool_choice": {"type": "tool", "name": "web_search"},
            },
            "tool_choice names the function web_search, which is not in tools",
        ),
        ({"tools": [{"input_schema": {}}]}, "tools[0].name is required"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice needs a name for the type tool"),
        (
            {"tools": [{"name": "f"}], "tool_choice": {"type": "tool", "name": "g"}},
            "tool_choice names the function g, which is not",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "tool_use", "id": "t"}]}]}, "messages[0].content[0].name is required"),
        ({"messages": [{"role": "user", "content": [{}]}]}, "messages[0].content[0].type is required"),
        ({"messages": [{"role": "assistant", "content": ""}]}, "messages: the answer can only continue a last message from"),
        # Errors of the runner, which knows the fields of a chat completion.
        ({"output_config": {"format": {"type": "json_schema", "schema": BANANA}}}, "output_config.format: "),
        ({"messages": [{"role": "user", "content": "x" * 300}]}, "prompt is too long: 307 tokens > 255 maximum"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_wrong_is_told_in_anthropics_shape(http, change, told, stream):
    body = {key: value for key, value in {**HELLO, "stream": stream, **change}.items() if value is not None}
    check_error(http.post(PATH, json=body), 400, "invalid_request_error", told)


def test_other_failures_have_that_shape_too(http):
    check_error(http.post(PATH, content=b"{", headers={"Content-Type": "application/json"}), 400, "invalid_request_error", "JSON")
    check_error(http.post(PATH, json={**HELLO, "model": "claude"}), 404, "not_found_error", "Models here: echo")
    check_error(http.post(f"{PATH}/count_tokens", json={"messages": 5}), 400, "invalid_request_error", "messages")
    check_error(http.post(f"{PATH}/batches", json={}), 404, "not_found_error", "There is no route POST")
    check_error(http.get(PATH), 405, "invalid_request_error", "GET")


def test_unknown_fields_are_named_by_their_places(http):
    response = http.post(PATH, json={**HELLO, "container": "c", "messages": [{"role": "user", "content": "x", "mood": 1}]})
    assert response.headers["X-Ignored-Fields"] == "container, messages[0].mood"


# Anthropic's client


def test_anthropics_client_reads_a_message(client):
    message = client.messages.create(**HELLO)
    assert (message.content[0].text, message.stop_reason, message.usage.output_tokens) == (SAID, "end_turn", 13)


def test_anthropics_client_reads_a_stream(client):
    with client.messages.stream(**HELLO) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert text == message.content[0].text == SAID
    assert message.usage.output_tokens == 13


def test_anthropics_client_counts_tokens(client):
    assert client.messages.count_tokens(model="echo", messages=HELLO["messages"]).input_tokens == 12


def test_anthropics_client_raises_its_own_errors(client):
    with pytest.raises(anthropic.NotFoundError, match="Models here: echo"):
        client.messages.create(**{**HELLO, "model": "claude"})
    with pytest.raises(anthropic.BadRequestError, match=r"prompt is too long: \d+ tokens > 255 maximum"):
        client.messages.create(**{**HELLO, "messages": [{"role": "user", "content": "x" * 300}]})


# Tools and thinking, in both directions


def test_tools_and_their_results_become_those_of_a_chat():
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    request = parse(
        MessagesRequest,
        {
            "max_tokens": 9,
            "stop_sequences": ["x"],
            "tools": [{"name": "weather", "description": "d", "input_schema": schema, "cache_control": {"type": "ephemeral"}}],
            "tool_choice": {"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
            "thinking": {"type": "enabled", "budget_tokens": 2000},
            "messages": [
                {"role": "user", "content": "Paris?"},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "hm", "signature": "s"},
                        {"type": "text", "text": "I look."},
                        {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Paris"}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "sun"}]},
                        {"type": "text", "text": "And?"},
                    ],
                },
            ],
        },
    )
    assert request.chat() == Chat(
        wishes=Wishes(max_tokens=9, stop=["x"]),
        tools=(Tool("weather", "d", schema),),
        tool_choice="required",
        only_tool="weather",
        parallel_calls=False,
        variables={"enable_thinking": True},
        messages=(
            Message("user", (Text("Paris?"),)),
            Message("assistant", (Reasoning("hm"), Text("I look."), ToolCall("t1", "weather", '{"city": "Paris"}'))),
            Message("tool", (ToolResult("t1", (Text("sun"),)),)),
            Message("user", (Text("And?"),)),
        ),
    )


@pytest.mark.parametrize(("kind", "choice"), [("auto", "auto"), ("any", "required"), ("none", "none")])
def test_a_tool_choice_is_a_chats(kind, choice):
    body = {"messages": [{"role": "user", "content": "x"}], "tools": [{"name": "f"}], "tool_choice": {"type": kind}}
    assert parse(CountTokensRequest, body).chat().tool_choice == choice


def test_an_answer_that_is_begun_is_gone_on_with():
    body = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "It is"}]}
    assert parse(CountTokensRequest, body).chat().continued is True


def test_an_output_format_is_a_response_format():
    schema = {"type": "object"}
    body = {"messages": [{"role": "user", "content": "x"}], "output_config": {"format": {"type": "json_schema", "schema": schema}}}
    constraint = parse(CountTokensRequest, body).chat().wishes.constraint
    assert constraint == Constraint(form="json_schema", source='{"type": "object"}', param="response_format")


CONTENT = [
    {"type": "thinking", "thinking": "I see.", "signature": ""},
    {"type": "text", "text": "Let me look."},
    {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Paris"}},
    {"type": "tool_use", "id": "c2", "name": "time", "input": {}},
]


def renderer() -> MessageRenderer:
    return MessageRenderer(id="msg_1", created=7, model="m", fingerprint="f", wants=ResponseOptions(), max_tokens=100)


def test_thinking_text_and_calls_are_blocks_one_after_another():
    chunks = [chunk for chunk in renderer().chunks(TOLD) if chunk]
    blocks = [(chunk["type"][14:], chunk["index"]) for chunk in chunks if chunk["type"].startswith("content_block")]
    assert [block for block in blocks if block[0] != "delta"] == [(what, index) for index in range(4) for what in ("start", "stop")]
    assert [index for what, index in blocks if what == "delta"] == [0, 0, 1, 1, 2, 2, 3]


def test_the_plain_message_is_the_fold_of_its_events():
    message = renderer().fold(renderer().chunks(TOLD))
    assert message["content"] == CONTENT
    assert message["stop_reason"] == "tool_use"
    assert message["usage"] == {
        "input_tokens": 5,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 4,
        "output_tokens": 20,
    }


def test_anthropics_client_makes_the_same_message_of_the_stream():
    http = replaying(renderer().frames(renderer().chunks(TOLD)))
    with (
        anthropic.Anthropic(base_url="http://x", api_key="none", http_client=http) as client,
        client.messages.stream(model="m", max_tokens=9, messages=HELLO["messages"]) as stream,
    ):
        message = stream.get_final_message()
    assert [block.to_dict() for block in message.content] == CONTENT


def test_a_call_cut_by_max_tokens_has_no_input():
    told = [TOLD[0], *TOLD[5:7], Ended(reason="length"), Finished(prompt_tokens=9, completion_tokens=100, cached_tokens=4)]
    message = renderer().fold(renderer().chunks(told))
    assert (message["content"][-1]["input"], message["stop_reason"]) == ({}, "max_tokens")


def test_silence_is_a_ping_and_a_failure_an_error_event():
    frames = list(renderer().frames(renderer().chunks(TOLD)))
    assert frames.count(b'event: ping\ndata: {"type":"ping"}\n\n') == 2
    failed = renderer().failed(InternalError("x"))
    assert failed == b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"x"}}\n\n'


def test_anthropics_client_reads_the_models(client):
    (model,) = client.models.list().data
    assert (model.id, model.display_name, model.type) == ("echo", "echo", "model")
    assert model.max_input_tokens == model.max_tokens - 1
    assert client.models.retrieve("echo") == model
