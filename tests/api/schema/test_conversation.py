"""Every API's chat becomes one and the same: an agent's conversation, in the forms in which its clients send it, is one prompt."""

import json

import pytest

from src.api.schema import parse
from src.api.schema.anthropic import CountTokensRequest, MessagesRequest
from src.api.schema.chat import ChatRequest
from src.api.schema.conversation import Chat, Message, Reasoning, Text, ToolCall, ToolResult
from src.api.schema.responses import ResponsesRequest
from src.api.schema.tokens import TokenizeChatRequest
from src.errors import InvalidValue
from src.protocol import encode
from src.settings import Limits

SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"], "additionalProperties": False}
ARGUMENTS = '{"path": "/home/u/notiz ä.txt"}'

# As a coding agent sends it by each API: instructions, a question in two parts, a call, its result.
CHAT = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "You are an agent.\nBe brief."},
        {"role": "user", "content": [{"type": "text", "text": "<context>"}, {"type": "text", "text": "read it"}]},
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "hm",
            "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "read", "arguments": ARGUMENTS}}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "1: note"},
    ],
    "tools": [{"type": "function", "function": {"name": "read", "description": "Reads.", "parameters": SCHEMA}}],
    "tool_choice": "auto",
    "max_tokens": 32000,
    "stream": True,
}
MESSAGES = {
    "model": "m",
    "system": [
        {"type": "text", "text": "You are an agent."},
        {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}},
    ],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "<context>"}, {"type": "text", "text": "read it"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": ""},
                {"type": "tool_use", "id": "call_1", "name": "read", "input": json.loads(ARGUMENTS)},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "call_1", "content": "1: note", "cache_control": {"type": "ephemeral"}},
            ],
        },
    ],
    "tools": [{"name": "read", "description": "Reads.", "input_schema": SCHEMA}],
    "max_tokens": 32000,
    "thinking": {"type": "adaptive"},
    "output_config": {"effort": "high"},
    "stream": True,
}
RESPONSES = {
    "model": "m",
    "instructions": "You are an agent.\nBe brief.",
    "input": [
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "<context>"}, {"type": "input_text", "text": "read it"}],
        },
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "function_call", "id": "fc_1", "status": "completed", "name": "read", "arguments": ARGUMENTS, "call_id": "call_1"},
        {"type": "function_call_output", "call_id": "call_1", "output": "1: note"},
    ],
    "tools": [{"type": "function", "name": "read", "description": "Reads.", "strict": False, "parameters": SCHEMA}],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "reasoning": {"summary": "auto"},
    "store": False,
    "max_output_tokens": 32000,
    "stream": True,
}
BODIES = {
    ChatRequest: CHAT,
    MessagesRequest: MESSAGES,
    ResponsesRequest: RESPONSES,
    CountTokensRequest: MESSAGES,
    TokenizeChatRequest: CHAT,
}

PROMPT = (  # the very bytes: a template that writes a message as JSON shows the order of its fields
    '{"kind":"ChatPrompt","messages":['
    '{"role":"system","content":"You are an agent.\\nBe brief."},'
    '{"role":"user","content":"<context>\\nread it"},'
    '{"role":"assistant","content":null,"tool_calls":[{"id":"call_1","type":"function","function":'
    '{"name":"read","arguments":"{\\"path\\": \\"/home/u/notiz ä.txt\\"}"}}],"reasoning_content":"hm"},'
    '{"role":"tool","content":"1: note","tool_call_id":"call_1"}],'
    '"tools":[{"type":"function","function":{"name":"read","description":"Reads.","parameters":{"type":"object",'
    '"properties":{"path":{"type":"string"}},"required":["path"],"additionalProperties":false}}}]}'
)


@pytest.mark.parametrize("kind", BODIES)
def test_a_conversation_is_the_same_prompt_by_every_api(kind):
    assert encode(parse(kind, BODIES[kind]).chat().prompt()).decode().rstrip() == PROMPT


def test_what_a_conversation_asks_for_is_the_same_by_every_api():
    chats = [parse(kind, BODIES[kind]).chat() for kind in (ChatRequest, MessagesRequest, ResponsesRequest)]
    assert {(chat.model, chat.stream, chat.wishes.max_tokens) for chat in chats} == {("m", True, 32000)}
    assert len({chat.tools[0].name for chat in chats}) == 1


@pytest.mark.parametrize("kind", BODIES)
def test_what_is_asked_for_is_a_function_of_the_body(kind):
    first, second = (parse(kind, BODIES[kind]).chat() for _ in range(2))
    assert first == second
    other = parse(kind, {**BODIES[kind], "model": "other"}).chat()
    dumps = [json.dumps(chat.model_dump(mode="json")) for chat in (first, second, other)]
    assert dumps[0] == dumps[1] != dumps[2]


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (Message("user", (Text("a"), Text(""), Text("b"))), {"role": "user", "content": "a\n\nb"}),
        (Message("user", (Text(""),), name="n"), {"role": "user", "content": "", "name": "n"}),
        (Message("assistant", ()), {"role": "assistant", "content": ""}),
        (Message("assistant", (Reasoning("1"), Reasoning("2"))), {"role": "assistant", "content": "", "reasoning_content": "1\n2"}),
        (Message("tool", (ToolResult("c", (Text("r"), Text("s"))),)), {"role": "tool", "content": "r\ns", "tool_call_id": "c"}),
    ],
)
def test_a_message_is_shown_to_a_template_as_one_string(message, shown):
    assert message.as_dict() == shown


def test_a_message_of_calls_alone_has_no_content_and_one_with_an_empty_text_has():
    call = ToolCall("c", "f", "{}")
    assert Message("assistant", (call,)).as_dict()["content"] is None
    assert Message("assistant", (Text(""), call)).as_dict()["content"] == ""


@pytest.mark.parametrize(
    "last", [Message("user", (Text("a"),)), Message("assistant", ()), Message("assistant", (Text("a"), ToolCall("c", "f", "{}")))]
)
def test_only_the_assistants_text_can_be_continued(last):
    with pytest.raises(InvalidValue, match="can only continue") as raised:
        Chat(messages=(last,), continued=True).checked(Limits())
    assert raised.value.param == "continue_final_message"


def test_items_of_an_earlier_response_come_first_and_go_together_with_those_that_follow():
    kept = [
        {"role": "user", "content": "a"},
        {"type": "reasoning", "id": "rs_1", "status": "completed", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
    ]
    request = parse(
        ResponsesRequest, {"input": [{"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}], "instructions": "i"}
    )
    assert request.chat(history=kept).messages == (
        Message("system", (Text("i"),)),
        Message("user", (Text("a"),)),
        Message("assistant", (Reasoning("hm"), Text("b"))),
        Message("user", (Text("c"),)),
    )


def test_items_that_no_longer_fit_the_limits_are_refused_by_the_response_they_came_with():
    kept = [{"role": "user", "content": [{"type": "input_text", "text": "a"}] * 3}]
    with pytest.raises(InvalidValue) as raised:
        parse(ResponsesRequest, {"input": "b"}).chat(Limits(max_content_parts=2), kept)
    assert raised.value.param == "previous_response_id"
