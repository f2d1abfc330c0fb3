"""Each limit of a field is a setting: what it allows passes, one more is refused by the field's place and the setting's name."""

import pytest

from src.api.app import create_app
from src.api.routes.openapi import describe
from src.api.schema import constraint, parse
from src.api.schema.anthropic import MessagesRequest
from src.api.schema.chat import ChatRequest
from src.api.schema.completion import CompletionRequest
from src.api.schema.embedding import EmbeddingRequest
from src.api.schema.responses import ResponsesRequest
from src.errors import InvalidSchema, InvalidValue, renamed
from src.settings import Limits, Settings
from src.text.grammar import Limits as GrammarLimits
from src.text.grammar import source_of

USER = {"role": "user", "content": "x"}
CHAT = {"messages": [USER]}
TEXT = {"prompt": "x"}
MESSAGES = {"messages": [USER], "max_tokens": 1}


def tool(name: str = "f", **fields: object) -> dict:
    return {"type": "function", "function": {"name": name, **fields}}


def calls(count: int) -> dict:
    made = [{"id": f"c{index}", "type": "function", "function": {"name": "f", "arguments": "{}"}} for index in range(count)]
    return {"role": "assistant", "content": None, "tool_calls": made}


def parts(count: int) -> list:
    return [{"type": "text", "text": "x"}] * count


def deep(levels: int) -> dict:
    schema: dict = {}
    for _ in range(levels - 1):
        schema = {"items": schema}
    return schema


# setting, kind, a body that asks for so much of it, the param of what is too much
CASES = [
    ("max_messages", ChatRequest, lambda size: {"messages": [USER] * size}, "messages"),
    ("max_messages", MessagesRequest, lambda size: {**MESSAGES, "messages": [USER] * size}, "messages"),
    ("max_content_parts", ChatRequest, lambda size: {"messages": [{"role": "user", "content": parts(size)}]}, "messages[0].content"),
    (
        "max_content_parts",
        MessagesRequest,
        lambda size: {**MESSAGES, "messages": [{"role": "user", "content": parts(size)}]},
        "messages[0].content",
    ),
    ("max_content_parts", ResponsesRequest, lambda size: {"input": [{"role": "user", "content": parts(size)}]}, "input[0].content"),
    ("max_input_items", ResponsesRequest, lambda size: {"input": [USER] * size}, "input"),
    ("max_tool_calls", ChatRequest, lambda size: {"messages": [calls(size)]}, "messages[0].tool_calls"),
    ("max_prompts", CompletionRequest, lambda size: {"prompt": ["x"] * size}, "prompt"),
    ("max_prompts", CompletionRequest, lambda size: {"prompt": [[1]] * size}, "prompt"),
    ("max_inputs", EmbeddingRequest, lambda size: {"input": ["x"] * size}, "input"),
    ("max_inputs", EmbeddingRequest, lambda size: {"input": [[1]] * size}, "input"),
    ("max_n", ChatRequest, lambda size: {**CHAT, "n": size}, "n"),
    ("max_n", CompletionRequest, lambda size: {**TEXT, "n": size}, "n"),
    ("max_logprobs", ChatRequest, lambda size: {**CHAT, "logprobs": True, "top_logprobs": size}, "top_logprobs"),
    ("max_logprobs", CompletionRequest, lambda size: {**TEXT, "logprobs": size}, "logprobs"),
    ("max_logprobs", ResponsesRequest, lambda size: {"input": "x", "top_logprobs": size}, "top_logprobs"),
    ("max_stop", ChatRequest, lambda size: {**CHAT, "stop": ["x"] * size}, "stop"),
    ("max_stop", MessagesRequest, lambda size: {**MESSAGES, "stop_sequences": ["x"] * size}, "stop_sequences"),
    ("max_stop_length", ChatRequest, lambda size: {**CHAT, "stop": "x" * size}, "stop"),
    ("max_stop_length", CompletionRequest, lambda size: {**TEXT, "stop": ["a", "x" * size]}, "stop[1]"),
    ("max_stop_token_ids", ChatRequest, lambda size: {**CHAT, "stop_token_ids": [1] * size}, "stop_token_ids"),
    ("max_logit_bias", ChatRequest, lambda size: {**CHAT, "logit_bias": {str(token): 1 for token in range(size)}}, "logit_bias"),
    ("max_tools", ChatRequest, lambda size: {**CHAT, "tools": [tool(f"f{index}") for index in range(size)]}, "tools"),
    ("max_tools", MessagesRequest, lambda size: {**MESSAGES, "tools": [{"name": f"f{index}"} for index in range(size)]}, "tools"),
    (
        "max_tools",
        ResponsesRequest,
        lambda size: {"input": "x", "tools": [{"type": "function", "name": f"f{index}"} for index in range(size)]},
        "tools",
    ),
    ("max_tool_description", ChatRequest, lambda size: {**CHAT, "tools": [tool(description="x" * size)]}, "tools[0].function.description"),
    (
        "max_tool_description",
        MessagesRequest,
        lambda size: {**MESSAGES, "tools": [{"name": "f", "description": "x" * size}]},
        "tools[0].description",
    ),
    (
        "max_tool_description",
        ResponsesRequest,
        lambda size: {"input": "x", "tools": [{"type": "function", "name": "f", "description": "x" * size}]},
        "tools[0].description",
    ),
    (
        "max_grammar_depth",
        MessagesRequest,
        lambda size: {**MESSAGES, "tools": [{"name": "f", "input_schema": deep(size)}]},
        "tools[0].input_schema",
    ),
    ("max_grammar_depth", ChatRequest, lambda size: {**CHAT, "tools": [tool(parameters=deep(size))]}, "tools[0].function.parameters"),
    (
        "max_grammar_bytes",
        ChatRequest,
        lambda size: {**CHAT, "tools": [tool(parameters={"a": "x" * (size - 9)})]},
        "tools[0].function.parameters",
    ),
    (
        "max_template_variables",
        ChatRequest,
        lambda size: {**CHAT, "chat_template_kwargs": {f"v{index}": 1 for index in range(size)}},
        "chat_template_kwargs",
    ),
    ("max_template_variable_length", ChatRequest, lambda size: {**CHAT, "chat_template_kwargs": {"v": "x" * size}}, "chat_template_kwargs"),
    ("max_grammar_choices", ChatRequest, lambda size: {**CHAT, "guided_choice": ["x"] * size}, "guided_choice"),
]


@pytest.mark.parametrize(("setting", "kind", "body", "param"), CASES)
def test_what_a_limit_allows_passes_and_one_more_is_refused_by_its_name(setting, kind, body, param):
    most = 3 if setting == "max_logprobs" else 20
    limits = Settings(**{setting: most})
    parse(kind, body(most), limits)
    with pytest.raises(InvalidValue, match=f"{setting.upper()} allows {most}") as raised:
        parse(kind, body(most + 1), limits)
    assert raised.value.param == param


OF_GRAMMARS = [
    ("max_grammar_bytes", {"bytes": 20}, "regex", "x" * 20, "x" * 21),
    ("max_grammar_depth", {"depth": 2}, "json_schema", '{"items": {}}', '{"items": {"items": {}}}'),
    ("max_grammar_properties", {"properties": 1}, "json_schema", '{"properties": {"a": {}}}', '{"properties": {"a": {}, "b": {}}}'),
]


@pytest.mark.parametrize(("setting", "limit", "form", "right", "wrong"), OF_GRAMMARS)
def test_a_grammar_has_its_limits_too(setting, limit, form, right, wrong):
    limits = GrammarLimits(**limit)
    source_of(form, right, limits, "guided")
    with pytest.raises(InvalidSchema, match=setting.upper()) as raised:
        source_of(form, wrong, limits, "guided")
    assert raised.value.param == "guided"


ELSEWHERE = {
    "max_completion_tokens",  # cuts, and refuses nothing: tests/api/test_limits.py
    "unsupported_media",  # the tests of those that no body shows
    *("request_timeout", "queue_timeout", "header_timeout", "body_timeout", "send_timeout", "keepalive_timeout"),
    *(
        "max_concurrent_requests",
        "max_request_line",
        "max_headers",
        "max_header_bytes",
        "max_body_bytes",
        "max_bodies_bytes",
        "max_json_depth",
        "max_json_containers",
        "max_json_values",
    ),
    *("max_prompt_tokens", "max_answer_logprobs", "grammar_compile_seconds", "template_seconds", "strict_fields"),
}


def test_no_limit_is_without_a_case():
    assert {case[0] for case in (*CASES, *OF_GRAMMARS)} | ELSEWHERE == set(Limits.model_fields)


OF_A_CHAT = [  # what only the whole chat shows: a message of Messages may be several, and items of Responses one
    ("max_messages", MessagesRequest, lambda size: {**MESSAGES, "messages": [USER] * (size - 1), "system": "s"}, "messages"),
    (
        "max_tool_calls",
        MessagesRequest,
        lambda size: {
            **MESSAGES,
            "messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "f", "input": {}}] * size}],
        },
        "messages",
    ),
    ("max_messages", ResponsesRequest, lambda size: {"input": [USER] * (size - 1), "instructions": "i"}, "input"),
    (
        "max_tool_calls",
        ResponsesRequest,
        lambda size: {"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}] * size},
        "input",
    ),
]


@pytest.mark.parametrize(("setting", "kind", "body", "param"), OF_A_CHAT)
def test_limits_hold_for_the_chat_that_a_body_becomes(setting, kind, body, param):
    limits = Settings(**{setting: 20})
    parse(kind, body(20), limits).chat(limits)
    request = parse(kind, body(21), limits)
    with pytest.raises(InvalidValue, match=f"{setting.upper()} allows 20") as raised:
        request.chat(limits)
    assert renamed(raised.value.path, kind.names) == (param,)


def test_nought_means_unlimited_only_where_it_is_the_default():
    parse(ChatRequest, {**CHAT, "max_tokens": 2**31 - 1}, Settings(max_completion_tokens=0))
    with pytest.raises(InvalidValue, match="MAX_STOP allows 0"):
        parse(ChatRequest, {**CHAT, "stop": ["x"]}, Settings(max_stop=0))


def test_a_list_that_is_too_long_is_not_looked_into():
    with pytest.raises(InvalidValue) as raised:
        parse(ChatRequest, {"messages": [5] * 21}, Settings(max_messages=20))
    assert raised.value.param == "messages"


def test_the_served_document_has_the_limits_of_this_server():
    chat = describe(create_app(Settings(max_n=7)))["components"]["schemas"]["ChatRequest"]["properties"]
    assert [of["maximum"] for of in chat["n"]["anyOf"] if "maximum" in of] == [7]
    assert "x-setting" not in str(chat)


def test_items_of_a_response_are_held_to_the_settings_limits_and_not_to_the_defaults():
    limits = Settings(max_content_parts=3000)
    request = parse(ResponsesRequest, {"input": [{"role": "user", "content": parts(2500)}]}, limits)
    assert len(request.chat(limits).messages) == 1


@pytest.mark.parametrize(
    ("setting", "arguments"), [("max_json_containers", "[" + "[]," * 600 + "{}]"), ("max_json_values", "[" + "1," * 1000 + "1]")]
)
def test_arguments_of_calls_are_bounded_together_as_the_body_is(setting, arguments):
    """They are JSON in a string, which templates get parsed."""
    limits = Limits(**{setting: 1000})
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    of = lambda count: parse(ChatRequest, {"messages": [{"role": "assistant", "tool_calls": [call] * count}]}, limits).chat(limits)  # noqa: E731
    assert of(1)
    with pytest.raises(InvalidValue, match=setting.upper()) as caught:
        of(2)
    assert caught.value.param == "messages"


@pytest.mark.parametrize("field", ["guided_json", "guided_regex", "guided_grammar"])
def test_the_source_of_a_constraint_is_refused_by_its_length_before_it_is_read(field, monkeypatch):
    monkeypatch.setattr(constraint.json, "loads", None)
    with pytest.raises(InvalidSchema, match="MAX_GRAMMAR_BYTES allows 65536") as caught:
        parse(CompletionRequest, {**TEXT, field: "[" * 65_537})
    assert caught.value.param == field
