"""A hint never fails a request, nor does what was said before: what is left out is named, or has a note in its place."""

import json

import pytest

from src.api.schema import parse, unknown
from src.api.schema.anthropic import MessagesRequest
from src.api.schema.chat import ChatRequest
from src.api.schema.response_tools import called_as
from src.api.schema.responses import ResponsesRequest
from src.api.schema.tool_choice import MODES
from src.errors import InvalidValue, UnsupportedContent
from src.settings import Limits
from src.text.tool_messages import paired

HI = {"role": "user", "content": "hi"}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
IMAGE_URL = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
INPUT_IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,aGk="}
NOTE = "[an image was here; this model takes text only]"
SPAWN = {"type": "function", "name": "spawn_agent", "parameters": {"type": "object", "properties": {"target": {"type": "string"}}}}
CODEX_TOOLS = [
    {"type": "function", "name": "exec_command"},
    {"type": "namespace", "name": "multi_agent_v1", "description": "D", "tools": [SPAWN, {"type": "function", "name": "wait_agent"}]},
    {"type": "web_search", "external_web_access": True},
]


def responses(**fields):
    parsed = parse(ResponsesRequest, {"input": "x", **fields})
    return parsed.chat(), list(unknown(parsed))


def messages(*said, **fields):
    parsed = parse(MessagesRequest, {"max_tokens": 5, "messages": list(said), **fields})
    return parsed.chat(), list(unknown(parsed))


def chat(*said, limits=None, **fields):
    parsed = parse(ChatRequest, {"messages": list(said), **fields}, limits or Limits())
    return parsed.chat(), list(unknown(parsed))


def texts(asked) -> list[str | None]:
    return [message.text for message in asked.messages]


def test_tools_that_are_no_functions_do_not_fail_a_request():
    asked, ignored = responses(tools=CODEX_TOOLS)
    assert [tool.name for tool in asked.tools] == ["exec_command", "multi_agent_v1__spawn_agent", "multi_agent_v1__wait_agent"]
    assert asked.tools[1].parameters == SPAWN["parameters"]
    assert ignored == ["tools[2]"]


@pytest.mark.parametrize("kind", ["file_search", "code_interpreter", "mcp", "image_generation", "local_shell", "tool_search", "x y"])
def test_a_tool_of_any_kind_is_left_out_and_named(kind):
    asked, ignored = responses(tools=[{"type": kind, "server_label": "s", "tools": [1]}])
    assert (asked.tools, ignored) == ((), ["tools[0]"])


def test_a_tool_that_is_left_out_cannot_be_demanded():
    with pytest.raises(InvalidValue, match=r"tool_choice\.type"):
        responses(tools=CODEX_TOOLS, tool_choice={"type": "web_search"})


def test_two_names_that_become_one_are_refused():
    twice = [{"type": "function", "name": "n__f"}, {"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "f"}]}]
    with pytest.raises(InvalidValue, match="two functions named n__f"):
        responses(tools=twice)


def test_namespaces_hold_no_more_tools_than_a_request_may_have():
    def namespace(name: str) -> dict:
        return {"type": "namespace", "name": name, "tools": [{"type": "function", "name": f"f{index}"} for index in range(300)]}

    with pytest.raises(InvalidValue, match="MAX_TOOLS allows 512"):
        responses(tools=[namespace("a"), namespace("b")])


def test_a_call_is_told_by_its_namespace_and_sent_back_by_it():
    tools = parse(ResponsesRequest, {"input": "x", "tools": CODEX_TOOLS}).tools
    told = called_as(tools)["multi_agent_v1__spawn_agent"]
    assert told == {"type": "function_call", "namespace": "multi_agent_v1", "name": "spawn_agent"}
    asked, ignored = responses(
        input=[
            {"role": "user", "content": "x"},
            {**told, "call_id": "c", "arguments": '{"target": "a"}'},
            {"type": "function_call_output", "call_id": "c", "output": "done"},
        ],
        tools=CODEX_TOOLS[:2],
    )
    assert asked.messages[1].calls[0].name == "multi_agent_v1__spawn_agent"
    assert ignored == []


def test_a_custom_tool_is_a_function_of_one_text():
    asked, ignored = responses(
        input=[
            {"role": "user", "content": "x"},
            {"type": "custom_tool_call", "call_id": "c", "name": "apply_patch", "input": '*** "a"'},
            {"type": "custom_tool_call_output", "call_id": "c", "output": "done"},
        ],
        tools=[{"type": "custom", "name": "apply_patch", "description": "D", "format": {"type": "grammar", "syntax": "lark"}}],
    )
    assert asked.tools[0].parameters["required"] == ["input"]
    assert json.loads(asked.messages[1].calls[0].arguments) == {"input": '*** "a"'}
    assert texts(asked)[2] == "done"
    assert ignored == ["tools[0].format"]


def test_items_of_other_kinds_are_left_out_and_named():
    asked, ignored = responses(input=[{"type": "web_search_call", "id": "w", "action": {}}, {"role": "user", "content": "x"}])
    assert (texts(asked), ignored) == (["x"], ["input[0]"])


def test_hints_of_responses_are_named():
    _, ignored = responses(truncation="auto", text={"verbosity": "low"})
    assert ignored == ["truncation", "text.verbosity"]
    _, ignored = responses(truncation="disabled", text={"verbosity": "medium"})
    assert ignored == []


def test_tools_of_anthropics_own_are_left_out_and_named():
    asked, ignored = messages(HI, tools=[{"type": "web_search_20250305", "name": "web_search", "max_uses": 3}, {"name": "f"}])
    assert ([tool.name for tool in asked.tools], ignored) == (["f"], ["tools[0]"])


def test_a_deferred_tool_is_in_no_prompt_before_a_reference_brings_it():
    fetch = {"name": "WebFetch", "description": "Gets a page.", "input_schema": {"type": "object"}, "defer_loading": True}
    found = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "tool_reference", "tool_name": "WebFetch"}]}
    search = {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "ToolSearch", "input": {}}]}
    asked, ignored = messages(HI, search, {"role": "user", "content": [found]}, tools=[{"name": "ToolSearch"}, fetch])
    prompt = asked.prompt()
    assert prompt.deferred_tools == ["WebFetch"]
    assert [tool["function"]["name"] for tool in prompt.tools] == ["ToolSearch", "WebFetch"], "it can be called"
    assert json.loads(texts(asked)[2]) == asked.tools[1].as_dict()
    assert ignored == []
    unknown_tool = {**found, "content": [{"type": "tool_reference", "tool_name": "Other"}]}
    asked, _ = messages(HI, search, {"role": "user", "content": [unknown_tool]}, tools=[{"name": "ToolSearch"}, fetch])
    assert texts(asked)[2] == "Other"


def test_what_claude_code_counts_of_itself_is_no_prompt():
    billing = {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.332.0b8; cc_entrypoint=sdk-cli;"}
    asked, _ = messages(HI, system=[billing, {"type": "text", "text": "You are an agent."}])
    assert texts(asked) == ["You are an agent.", "hi"]
    asked, _ = messages(HI, system=[billing])
    assert texts(asked) == ["hi"]


def test_a_picture_that_a_tool_returned_does_not_end_a_session():
    use = {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "Read", "input": {}}]}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "red.png"}, IMAGE]}
    asked, ignored = messages(HI, use, {"role": "user", "content": [result]})
    assert texts(asked)[2] == f"red.png\n{NOTE}"
    assert ignored == ["messages[2].content[0].content[1]"]
    output = {"type": "function_call_output", "call_id": "c", "output": [INPUT_IMAGE]}
    call = {"type": "function_call", "call_id": "c", "name": "view_image", "arguments": "{}"}
    asked, ignored = responses(input=[{"role": "user", "content": "x"}, call, output])
    assert (texts(asked)[2], ignored) == (NOTE, ["input[2].output[0]"])
    tool = {"role": "tool", "tool_call_id": "c", "content": [IMAGE_URL]}
    call_message = {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]}
    asked, ignored = chat(HI, call_message, tool)
    assert (texts(asked)[2], ignored) == (NOTE, ["messages[2].content[0]"])


@pytest.mark.parametrize(("ask", "picture"), [(chat, IMAGE_URL), (messages, IMAGE)])
def test_a_picture_is_refused_in_what_was_asked_last_and_has_a_note_in_what_was_answered(ask, picture):
    seen = {"role": "user", "content": [{"type": "text", "text": "look"}, picture]}
    with pytest.raises(UnsupportedContent) as caught:
        ask(HI, {"role": "assistant", "content": "hello"}, seen)
    assert caught.value.param == "messages[2].content[1]"
    with pytest.raises(UnsupportedContent):
        ask(seen, HI)
    asked, ignored = ask(seen, {"role": "assistant", "content": "I cannot see it."}, HI)
    assert texts(asked) == [f"look\n{NOTE}", "I cannot see it.", "hi"]
    assert ignored == ["messages[0].content[1]"]


def test_a_picture_in_responses_is_refused_by_its_place():
    with pytest.raises(UnsupportedContent) as caught:
        responses(input=[{"role": "user", "content": [{"type": "input_text", "text": "look"}, INPUT_IMAGE]}])
    assert caught.value.param == "input[0].content[1]"


def test_a_setting_lets_a_note_stand_for_a_new_picture_too():
    asked, ignored = chat({"role": "user", "content": [IMAGE_URL]}, limits=Limits(unsupported_media="note"))
    assert (texts(asked), ignored) == ([NOTE], ["messages[0].content[0]"])


@pytest.mark.parametrize("kind", ["search_result", "container_upload", "tool_addition", "whatever_comes_next"])
def test_blocks_of_unknown_kinds_do_not_end_a_session(kind):
    asked, ignored = messages({"role": "user", "content": [{"type": kind, "data": [1]}, {"type": "text", "text": "x"}]})
    assert texts(asked) == [f"[a part of the type '{kind}' was here; this model takes text only]\nx"]
    assert ignored == ["messages[0].content[0]"]


def test_agents_tools_are_large_and_many():
    long = [{"name": "n" * 128, "description": "d" * 18_780}, *({"name": f"t{index}"} for index in range(511))]
    assert len(messages(HI, tools=long)[0].tools) == 512


@pytest.mark.parametrize("ask", [chat, messages, lambda hi, **fields: responses(**fields)])
def test_a_temperature_that_is_too_high_is_the_highest_and_named(ask):
    asked, ignored = ask(HI, temperature=3.5)
    assert (asked.wishes.sampling["temperature"], ignored) == (2.0, ["temperature"])
    asked, ignored = ask(HI, temperature=1.5)
    assert (asked.wishes.sampling["temperature"], ignored) == (1.5, [])


def test_what_asks_for_all_tokens_is_taken_in_every_api():
    assert messages(HI, top_k=-1)[0].generate().sampling.top_k == 0


def test_empty_texts_beside_others_are_not_there():
    empty, x = {"type": "text", "text": ""}, {"type": "text", "text": "x"}
    use = {"role": "assistant", "content": [empty, x, {"type": "tool_use", "id": "t", "name": "f", "input": {}}]}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [empty, x]}
    asked, _ = messages({"role": "user", "content": [empty, x]}, use, {"role": "user", "content": [result]}, system=[empty, x])
    assert texts(asked) == ["x"] * 4


def test_a_chats_verbosity_is_a_hint():
    assert chat(HI, verbosity="low")[1] == ["verbosity"]
    assert chat(HI, verbosity="medium")[1] == []


F, G = ({"type": "function", "function": {"name": name}} for name in "fg")
PATCH = {"type": "custom", "custom": {"name": "patch", "description": "D", "format": {"type": "grammar"}}}


def test_a_chats_tools_of_other_kinds_do_not_fail_it():
    asked, ignored = chat(HI, tools=[F, {"type": "web_search"}, PATCH])
    assert [(tool.name, tool.custom) for tool in asked.tools] == [("f", False), ("patch", True)]
    assert asked.custom_tools == ("patch",)
    assert ignored == ["tools[1]", "tools[2].custom.format"]


def test_a_call_of_a_custom_tool_is_sent_back_as_one():
    call = {"id": "c", "type": "custom", "custom": {"name": "patch", "input": '"x"'}}
    asked, _ = chat(
        HI, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c", "content": "done"}, tools=[PATCH]
    )
    assert json.loads(asked.messages[1].calls[0].arguments) == {"input": '"x"'}


ALLOWED = {"mode": "required", "tools": [G, {"type": "mcp", "server_label": "s"}]}


@pytest.mark.parametrize(
    ("choice", "names", "mode", "only"),
    [
        ({"type": "auto"}, "fg", "auto", None),
        ({"type": "none"}, "fg", "none", None),
        ({"type": "required"}, "fg", "required", None),
        ({"type": "function", "name": "g"}, "fg", "required", "g"),
        ({"type": "allowed_tools", "allowed_tools": ALLOWED}, "g", "required", None),
        ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]}, "f", "auto", None),
    ],
)
def test_a_choice_of_tools_may_have_any_apis_form(choice, names, mode, only):
    asked, _ = chat(HI, tools=[F, G], tool_choice=choice)
    assert ("".join(tool.name for tool in asked.tools), asked.tool_choice, asked.only_tool) == (names, mode, only)


def test_a_mode_of_responses_may_be_an_object():
    tools = [{"type": "function", "name": "f"}]
    assert [responses(tools=tools, tool_choice={"type": mode})[0].tool_choice for mode in MODES] == [*MODES]


def test_a_custom_tool_can_be_demanded():
    asked, _ = chat(HI, tools=[F, PATCH], tool_choice={"type": "custom", "custom": {"name": "patch"}})
    assert (asked.tool_choice, asked.only_tool) == ("required", "patch")
    asked, _ = responses(tools=[{"type": "custom", "name": "patch"}], tool_choice={"type": "custom", "name": "patch"})
    assert (asked.tool_choice, asked.only_tool) == ("required", "patch")


def test_tools_that_are_left_out_may_be_allowed_beside_others():
    tools = [{"type": "function", "name": "f"}, {"type": "web_search"}]
    asked, ignored = responses(tools=tools, tool_choice={"type": "allowed_tools", "mode": "auto", "tools": [tools[0], tools[1]]})
    assert [tool.name for tool in asked.tools] == ["f"]
    assert ignored == ["tools[1]", "tool_choice.tools[1]"]


def test_arguments_that_may_be_null_are_an_object():
    asked, _ = chat(HI, tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": ["object", "null"]}}}])
    assert asked.tools[0].parameters == {"type": "object"}


@pytest.mark.parametrize("id", [{}, {"id": ""}, {"id": None}])
def test_a_call_may_have_no_id(id):
    calls = [{**id, "type": "function", "function": {"name": name}} for name in "fg"]
    results = [{"role": "tool", "tool_call_id": id.get("id"), "content": text} for text in ("1", "2")]
    asked, _ = chat(HI, {"role": "assistant", "tool_calls": calls}, *results)
    found = paired(asked.prompt().messages)
    assert all(call["id"] for call in found[1]["tool_calls"])
    assert [call["id"] for call in found[1]["tool_calls"]] == [message["tool_call_id"] for message in found[2:]]
    assert [message["name"] for message in found[2:]] == ["f", "g"]


@pytest.mark.parametrize("thought", ["hm", [{"type": "text", "text": "hm"}]])
def test_a_thought_may_be_a_part_of_a_chats_message(thought):
    said = {"role": "assistant", "content": [{"type": "thinking", "thinking": thought}, {"type": "text", "text": "x"}]}
    shown = chat(HI, said, HI)[0].prompt().messages[1]
    assert shown == {"role": "assistant", "content": "x", "reasoning_content": "hm"}


def test_variables_of_a_template_may_be_nested():
    value = {"a": [{"b": None}, 1.5, "x"]}
    assert chat(HI, chat_template_kwargs={"tone": value})[0].prompt().variables == {"tone": value}
