"""Tools, calls in the history, and what a request tells the chat template: what is taken, and what is refused by its place."""

import pytest

from src.api.schema import parse
from src.api.schema.chat import ChatRequest
from src.api.schema.limits import DEFAULTS
from src.api.schema.template_variables import RESERVED
from src.errors import InvalidValue, MissingField, ServiceError, UnsupportedContent
from src.protocol import ChatPrompt

CANARY = "canary-7f3a"
USER = {"role": "user", "content": "hi"}
ASSISTANT = {"role": "assistant", "content": "Once upon"}


def tool(name: str = "f", **function: object) -> dict:
    return {"type": "function", "function": {"name": name, **function}}


def prompt(**fields: object) -> ChatPrompt:
    return parse(ChatRequest, {"messages": [USER], **fields}).chat().prompt()


def nested(levels: int) -> dict:
    schema: dict = {"type": "object"}
    for _ in range(levels - 1):
        schema = {"properties": schema}
    return schema


NAMED = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    ("fields", "failure", "param"),
    [
        ({"tools": [tool(), {"type": "custom", "custom": {"name": f"{CANARY} x"}}]}, InvalidValue, "tools[1].custom.name"),
        ({"tools": [tool(), {"type": "custom"}]}, MissingField, "tools[1].custom"),
        ({"tools": [{"type": "function"}]}, MissingField, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {}}]}, MissingField, "tools[0].function.name"),
        ({"tools": [tool("a b")]}, InvalidValue, "tools[0].function.name"),
        ({"tools": [tool("x" * 129)]}, InvalidValue, "tools[0].function.name"),
        ({"tools": [tool("f\n")]}, InvalidValue, "tools[0].function.name"),
        ({"tools": [tool(description="d" * (DEFAULTS.max_tool_description + 1))]}, InvalidValue, "tools[0].function.description"),
        ({"tools": [tool(parameters=[])]}, InvalidValue, "tools[0].function.parameters"),
        ({"tools": [tool(parameters={"type": "array"})]}, InvalidValue, "tools[0].function.parameters"),
        ({"tools": [tool(parameters=nested(DEFAULTS.max_grammar_depth + 1))]}, InvalidValue, "tools[0].function.parameters"),
        ({"tools": [tool(parameters={"title": "x" * 65536})]}, InvalidValue, "tools[0].function.parameters"),
        ({"tools": [tool(strict="yes")]}, InvalidValue, "tools[0].function.strict"),
        ({"tools": [tool(f"f{place}") for place in range(DEFAULTS.max_tools + 1)]}, InvalidValue, "tools"),
        ({"tools": [tool(), tool("g"), tool()]}, InvalidValue, "tools"),
        ({"tool_choice": "required"}, InvalidValue, "tool_choice"),
        ({"tool_choice": NAMED, "tools": []}, InvalidValue, "tool_choice"),
        ({"tool_choice": NAMED, "tools": [tool("g")]}, InvalidValue, "tool_choice"),
        ({"tool_choice": "any", "tools": [tool()]}, InvalidValue, "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools"}, "tools": [tool()]}, MissingField, "tool_choice.allowed_tools"),
        ({"tool_choice": {"type": "web_search"}, "tools": [tool()]}, InvalidValue, "tool_choice.type"),
        (
            {"tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [{"type": "mcp"}]}, "tools": [tool()]},
            InvalidValue,
            "tool_choice",
        ),
        ({"tool_choice": {"type": "function"}, "tools": [tool()]}, MissingField, "tool_choice.function"),
        ({"parallel_tool_calls": 1}, InvalidValue, "parallel_tool_calls"),
        ({"reasoning_effort": "extreme"}, InvalidValue, "reasoning_effort"),
        ({"chat_template_kwargs": []}, InvalidValue, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"tone": [CANARY * 100]}}, InvalidValue, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"tone": [1] * 1025}}, InvalidValue, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"tone": [{"size": 2**63}]}}, InvalidValue, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"tone": [{"__class__": CANARY}]}}, InvalidValue, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"tone": "x" * 1025}}, InvalidValue, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"size": 2**63}}, InvalidValue, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"__class__": 1}}, InvalidValue, "chat_template_kwargs"),
        ({"chat_template_kwargs": {f"k{place}": 1 for place in range(17)}}, InvalidValue, "chat_template_kwargs"),
        ({"continue_final_message": True}, InvalidValue, "continue_final_message"),
        ({"continue_final_message": True, "messages": [USER, {"role": "assistant"}]}, InvalidValue, "continue_final_message"),
        (
            {"continue_final_message": True, "add_generation_prompt": True, "messages": [USER, ASSISTANT]},
            InvalidValue,
            "continue_final_message",
        ),
        ({"messages": [{**USER, "tool_calls": [{"id": "a", "function": {"name": "f"}}]}]}, InvalidValue, "messages[0]"),
    ],
)
def test_what_is_wrong_is_refused_by_its_place(fields, failure, param):
    with pytest.raises(ServiceError) as caught:
        prompt(**fields)
    assert type(caught.value) is failure
    assert caught.value.param == param
    assert param in caught.value.message
    assert CANARY not in caught.value.message


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_no_variable_replaces_what_a_renderer_sets(name):
    with pytest.raises(InvalidValue) as caught:
        prompt(chat_template_kwargs={name: True})
    assert caught.value.param == "chat_template_kwargs"


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file", "video_url", "input_image", "input_file"])
def test_parts_that_are_no_text_are_refused_by_their_place(kind):
    parts = [{"type": "text", "text": "a"}, {"type": kind, kind: {"url": f"http://127.0.0.1/{CANARY}"}}]
    with pytest.raises(UnsupportedContent) as caught:
        prompt(messages=[USER, {"role": "user", "content": parts}])
    assert (caught.value.status, caught.value.code) == (400, "unsupported_content")
    assert caught.value.param == "messages[1].content[1]"
    assert CANARY not in caught.value.message


def test_tools_arrive_with_all_that_templates_read():
    asked = prompt(tools=[tool(), tool("g.h-1", description="D", parameters={"type": "object"}, strict=True)])
    assert [one["function"] for one in asked.tools] == [
        {"name": "f", "description": "", "parameters": {"type": "object", "properties": {}}},
        {"name": "g.h-1", "description": "D", "parameters": {"type": "object"}, "strict": True},
    ]
    assert (asked.must_call, asked.only_tool, asked.parallel_calls) == (False, None, True)


@pytest.mark.parametrize(
    ("choice", "tools", "must_call", "only_tool"),
    [(None, 1, False, None), ("auto", 1, False, None), ("none", 0, False, None), ("required", 1, True, None), (NAMED, 1, True, "f")],
)
def test_a_choice_shows_tools_or_not_and_forces_a_call_or_not(choice, tools, must_call, only_tool):
    asked = prompt(tools=[tool()], tool_choice=choice, parallel_tool_calls=False)
    assert (len(asked.tools), asked.must_call, asked.only_tool, asked.parallel_calls) == (tools, must_call, only_tool, False)


def test_a_history_with_calls_arrives_in_one_form():
    calls = [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
        {"id": "b", "function": {"name": "f", "arguments": {"x": 1}}},
        {"id": "c", "function": {"name": "f", "arguments": ""}},
    ]
    result = {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "R"}]}
    told, answered = prompt(messages=[{"role": "assistant", "tool_calls": calls, "reasoning": "hm"}, result]).messages
    assert told["content"] is None
    assert told["reasoning_content"] == "hm"
    assert [(call["id"], call["type"], call["function"]["arguments"]) for call in told["tool_calls"]] == [
        ("a", "function", '{"x": 1}'),
        ("b", "function", '{"x": 1}'),
        ("c", "function", "{}"),
    ]
    assert answered == {"role": "tool", "tool_call_id": "a", "content": "R"}


def test_what_the_template_is_told_arrives_as_given():
    variables = {"enable_thinking": False, "tone": "dry", "size": 1.5, "nothing": None}
    asked = prompt(messages=[USER, ASSISTANT], chat_template_kwargs=variables, reasoning_effort="low", continue_final_message=True)
    assert (asked.variables, asked.reasoning_effort, asked.continued) == (variables, "low", True)
    assert prompt(add_generation_prompt=False).generation_prompt is False
    assert prompt().generation_prompt is True
