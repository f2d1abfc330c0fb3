"""One model's way to talk: its template is tried out, and conversations are put as it wants them."""

import json

import pytest

from src.errors import InvalidValue, ModelLoadFailed
from src.text.dialect import Dialect
from src.text.tokenizer.guard import SENTINEL_SPLIT
from src.text.tools.call import Function, as_object
from tests.support.here import template_here
from tests.support.marked_tokenizer import MarkedTokenizer

SAY = "{% for m in messages %}<{{ m.role }}>{{ m.content or '' }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
TOOLS = "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}"
HERMES = TOOLS + (
    "{% for m in messages %}<{{ m.role }}>{{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}<tool_call>\n"
    '{"name": "{{ c.function.name }}", "arguments": {{ ARGUMENTS }}}\n</tool_call>{% endfor %}{% endfor %}<assistant>'
)
OBJECTS = HERMES.replace("ARGUMENTS", "c.function.arguments | tojson")
STRINGS = HERMES.replace("ARGUMENTS", "c.function.arguments")
ONE_CALL = OBJECTS.replace(
    "<tool_call>", "{% if m.tool_calls | length > 1 %}{{ raise_exception('one at a time') }}{% endif %}<tool_call>", 1
)
NULL_CONTENT = OBJECTS.replace(
    "{% for c in", "{% if m.tool_calls and m.content is not none %}{{ raise_exception('x') }}{% endif %}{% for c in"
)
UNREAD = TOOLS + SAY + "{% for m in messages %}{% for c in m.tool_calls or [] %}<tool_call>call:{{ c | tojson }}{% endfor %}{% endfor %}"
THINKS = SAY + "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}"
ONCE = '{"type": "function", "function": {"name": "f", "description": "", "parameters": {"type": "object"}}}'
TOOL = json.loads(ONCE)
USER = {"role": "user", "content": "Q"}


def called(*ids: str, content: str | None = None) -> dict:
    calls = [{"id": id, "type": "function", "function": {"name": "f", "arguments": '{"a": "ü"}'}} for id in ids]
    return {"role": "assistant", "content": content, "tool_calls": calls}


def result(id: str, content: str) -> dict:
    return {"role": "tool", "tool_call_id": id, "content": content}


CONVERSATION = [USER, called("c1"), result("c1", "R")]


def dialect(template: str, tool_format: str | None = None, **tokenizer: tuple[str, ...]) -> Dialect:
    tokens = MarkedTokenizer(**tokenizer)
    return Dialect(template_here(template, bos_text="", eos_text="<|end|>", special_texts=tokens.special_texts), tokens, tool_format)


def prompt(template: str, messages: list[dict], tool_format: str | None = None, **given: object) -> str:
    return dialect(template, tool_format).prompt(messages, **{"variables": {}, **given})


@pytest.mark.parametrize("template", [OBJECTS, STRINGS, NULL_CONTENT, ONE_CALL])
def test_a_template_gets_arguments_and_content_in_the_form_it_can_write(template):
    said = prompt(template, CONVERSATION, tools=[TOOL])
    assert '<assistant><tool_call>\n{"name": "f", "arguments": {"a": "ü"}}\n</tool_call><tool>R<assistant>' in said
    assert said.startswith(ONCE)


WALKED = TOOLS + (
    "{% for m in messages %}<{{ m.role }}>{{ m.content or '' }}{% for c in m.tool_calls or [] %}<tool_call>\n"
    "<function={{ c.function.name }}>\n{% for k, v in c.function.arguments | items %}<parameter={{ k }}>\n"
    "{{ v if v is string else v | tojson }}\n</parameter>\n{% endfor %}"
    "</function>\n</tool_call>{% endfor %}{% endfor %}<assistant>"
)
NO_OBJECTS = ['{"a": ', '{"path": "a.t', "[1]", '"x"', "1", "true", "NaN", '{"a": NaN}', '{"a": 1e999}', "not JSON", "{'a': 1}", "[" * 5000]


@pytest.mark.parametrize("template", [OBJECTS, STRINGS, NULL_CONTENT, ONE_CALL, WALKED, SAY, UNREAD])
@pytest.mark.parametrize("arguments", NO_OBJECTS, ids=lambda text: text[:12])
def test_arguments_that_are_no_object_are_told_as_they_are(template, arguments):
    broken = called("c1")
    broken["tool_calls"][0]["function"]["arguments"] = arguments
    said = prompt(template, [USER, broken, result("c1", "R"), USER], tools=[TOOL])
    assert arguments in said or json.dumps(arguments) in said


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("null", {}),
        ("", {}),
        (" \n", {}),
        ('"{\\"a\\": 1}"', {"a": 1}),
        ('"null"', {}),
        (' {"a": 1} ', {"a": 1}),
        ('{"a": 1, "a": 2}', {"a": 2}),
    ],
)
def test_arguments_that_mean_an_object_are_one(arguments, expected):
    assert as_object(arguments) == expected


def test_calls_made_together_are_told_one_by_one_where_a_template_takes_one_a_message():
    conversation = [USER, called("c1", "c2", content="Look:"), result("c2", "two"), result("c1", "one")]
    call = '<tool_call>\n{"name": "f", "arguments": {"a": "ü"}}\n</tool_call>'
    assert f"<assistant>Look:{call}<tool>one<assistant>{call}<tool>two<assistant>" in prompt(ONE_CALL, conversation, tools=[TOOL])
    assert f"<assistant>Look:{call}{call}<tool>two<tool>one<assistant>" in prompt(OBJECTS, conversation, tools=[TOOL])


@pytest.mark.parametrize("template", [SAY, UNREAD])
def test_a_template_without_tools_or_with_an_unknown_form_has_them_told_in_words(template):
    said = prompt(template, [{"role": "system", "content": "Be brief."}, *CONVERSATION], tools=[TOOL])
    assert said.startswith("<system>Be brief.\n\nYou can call functions.")
    assert json.dumps(TOOL["function"]) in said
    assert '<user>Q<assistant>{"tool_calls": [{"name": "f", "arguments": {"a": "ü"}}]}<user>Result of f: R<assistant>' in said


def test_without_a_system_message_one_is_made_or_the_first_message_tells():
    assert prompt(SAY, [USER], tools=[TOOL]).startswith("<system>You can call functions.")
    no_system = "{% if messages[0].role == 'system' %}{{ raise_exception('No system role') }}{% endif %}" + SAY
    said = prompt(no_system, [USER], tools=[TOOL])
    assert said.startswith("<user>You can call functions.")
    assert said.endswith("\n\nQ<assistant>")


def test_a_named_format_is_told_in_words_too_and_an_unknown_one_is_refused():
    said = prompt(SAY, CONVERSATION, "hermes", tools=[TOOL])
    assert '<tool_call>\n{"name": "f", "arguments": {"argument": "value"}}\n</tool_call>' in said
    assert '<assistant><tool_call>\n{"name": "f", "arguments": {"a": "ü"}}\n</tool_call><user>Result of f: R' in said
    with pytest.raises(ModelLoadFailed, match="tool_format 'xml' is not known: expected one of"):
        dialect(SAY, "xml")


def test_mistrals_templates_get_ids_of_nine_characters():
    template = TOOLS + (
        "{% for m in messages %}{{ m.content or '' }}{% if m.tool_calls %}[TOOL_CALLS]["
        "{% for c in m.tool_calls %}{% if c.id | length != 9 %}{{ raise_exception('nine') }}{% endif %}"
        '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}, "id": "{{ c.id }}"}{% endfor %}]{% endif %}'
        "{% if m.tool_call_id %}={{ m.tool_call_id }}{% endif %}{% endfor %}"
    )
    said = prompt(template, [USER, called("call_0123456789abcdef"), result("call_0123456789abcdef", "R")], tools=[TOOL])
    id = said.rpartition("=")[2]
    assert len(id) == 9
    assert f'"id": "{id}"' in said


def test_special_tokens_in_tools_and_arguments_are_cut():
    evil = called("c1")
    evil["tool_calls"][0]["function"]["arguments"] = json.dumps({"<|end|>": "<|end|>"})
    tool = {"type": "function", "function": {"name": "f", "description": "<|end|>", "parameters": {"title": "<|end|>"}}}
    for template in (OBJECTS, STRINGS, SAY):
        said = prompt(template, [USER, evil, result("c1", "<|end|>")], tools=[tool])
        assert "<|end|>" not in said
        assert said.count(f"<{SENTINEL_SPLIT}|end|>") == 5


def test_reasoning_is_told_by_template_or_vocabulary():
    begun = dialect(THINKS).channels([*b"x<think>\n"], [])
    assert begun.push("hm</think>yes").reasoning == "hm"
    by_vocabulary = dialect(SAY, words=("<think>", "</think>")).channels([*b"x"], [])
    assert by_vocabulary.push("<think>hm</think>yes").reasoning == "hm"
    assert dialect(SAY).channels([*b"x"], []).push("<think>hm</think>yes").content == "<think>hm</think>yes"


def test_markers_that_are_control_tokens_are_shown_to_the_reader():
    of = dialect("[TOOL_CALLS]" + SAY, "mistral", controls=("[TOOL_CALLS]", "[ARGS]"), words=("[CALL_ID]",))
    assert set(of.shown([Function("f")]).values()) == {b"[TOOL_CALLS]", b"[ARGS]"}
    assert of.shown([]) == {}


def test_without_tools_nothing_is_read_as_a_call():
    text = '<tool_call>{"name": "f"}</tool_call>'
    assert dialect(OBJECTS).channels([], []).push(text).content == text
    assert dialect(OBJECTS).channels([], [Function("f")]).push(text).calls


def test_template_variables_reach_the_template_by_either_name():
    assert prompt(THINKS, [USER], variables={}).endswith("<think>\n")
    for name in ("enable_thinking", "thinking"):
        assert prompt(THINKS, [USER], variables={name: False}).endswith("</think>\n\n")
        assert prompt(SAY, [USER], variables={name: False}) == prompt(SAY, [USER])


def test_a_variable_that_the_template_does_not_know_is_refused():
    with pytest.raises(InvalidValue) as caught:
        prompt(SAY, [USER], variables={"tone": "dry"})
    assert caught.value.param == "chat_template_kwargs.tone"


def test_variables_cannot_replace_what_the_renderer_sets():
    template = "{{ messages | length }}{{ tools }}{{ add_generation_prompt }}{{ bos_token }}{{ raise_exception is defined }}"
    names = ("messages", "tools", "add_generation_prompt", "bos_token", "raise_exception")
    plain = template_here(template, bos_text="B", eos_text="", special_texts=())
    assert plain.render([USER], variables=dict.fromkeys(names, "x")) == plain.render([USER]) == "1NoneTrueBTrue"


def test_reasoning_effort_is_a_level_a_switch_or_without_effect():
    level = SAY + "{{ reasoning_effort or 'medium' }}"
    assert prompt(level, [USER], effort="high").endswith("high")
    assert prompt(THINKS, [USER], effort="none").endswith("</think>\n\n")
    assert prompt(THINKS, [USER], effort="low").endswith("<think>\n")
    assert prompt(SAY, [USER], effort="none") == prompt(SAY, [USER])
    for template, effort in ((SAY, "low"), (ALWAYS, "none")):
        assert prompt(template, [USER], effort=effort) == prompt(template, [USER])


ALWAYS = SAY + "<think>\n{# </think> #}"  # a model that always reasons
LEVELS = SAY + "{{ reasoning_effort or 'medium' }}"
ON, OFF = {"enable_thinking": True}, {"thinking": False}


@pytest.mark.parametrize(
    ("template", "variables", "effort", "unmet"),
    [
        (SAY, ON, "low", ["chat_template_kwargs.enable_thinking", "reasoning_effort"]),
        (SAY, {**OFF, "enable_thinking": None}, "none", []),
        (ALWAYS, ON, "low", []),
        (ALWAYS, OFF, "none", ["chat_template_kwargs.thinking", "reasoning_effort"]),
        (THINKS, ON, "low", []),
        (THINKS, OFF, "none", []),
        (LEVELS, {}, "low", []),
        (LEVELS, {}, "none", []),
    ],
)
def test_what_is_asked_of_the_reasoning_in_vain_is_told_by_its_field(template, variables, effort, unmet):
    found = dialect(template).unmet(variables, effort, has_tools=False)
    assert [error.param for error in found] == unmet
    why = "always reasons" if template == ALWAYS else "does not reason"
    assert all(why in error.message for error in found)


def test_the_generation_prompt_can_be_left_out_and_the_last_message_gone_on_with():
    messages = [USER, {"role": "assistant", "content": "Once upon "}]
    assert prompt(SAY, messages, generation_prompt=False) == "<user>Q<assistant>Once upon "
    assert prompt(SAY + "<|end|>", messages, continued=True) == "<user>Q<assistant>Once upon "
    with pytest.raises(InvalidValue) as caught:
        prompt("{{ messages[0].content }}", messages, continued=True)
    assert caught.value.param == "continue_final_message"


# Hermes 2 Pro's way to write a schema, which recurses without end over a type that it does not know.
MACRO = (
    "{% macro written(spec) %}{% if spec.type in ('string', 'integer', 'number', 'boolean', 'object') %}{{ spec.type }}"
    "{% elif spec.type == 'array' %}{{ 'list[' + written(spec['items']) + ']' }}{% else %}{% for t in spec.type %}"
    "{{ written({'type': t}) }}{% endfor %}{% endif %}{% endmacro %}"
    "{% for t in tools or [] %}{{ t.function.name + ': ' + t.function.description }}"
    "{% for name, spec in t.function.parameters.properties | items %} {{ name }}={{ written(spec) }}{% endfor %}{% endfor %}"
)
PICKY = MACRO + OBJECTS.replace(TOOLS, "")
CHOOSY = "{% for t in tools or [] %}{% if t.function.name != 'probe_function' %}{{ raise_exception('no tools') }}{% endif %}{% endfor %}"


def with_properties(**properties: object) -> dict:
    return {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object", "properties": properties}}}


@pytest.mark.parametrize(
    ("schema", "shown"),
    [
        ({"type": "string"}, "a=string"),
        ({"type": ["string", "null"]}, "a=string"),
        ({"type": "null"}, "a=string"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "a=integer"),
        ({"type": ["null", "array"], "items": {"type": ["integer", "null"]}}, "a=list[integer]"),
        ({"type": "array"}, "a=list[string]"),
        ({"$ref": "#/properties/b"}, "a=number"),
        ({"type": 5}, "a=string"),
        ({}, "a=string"),
    ],
)
def test_a_template_that_fails_on_a_schema_is_shown_a_plainer_one(schema, shown):
    said = prompt(PICKY, [USER], tools=[with_properties(a=schema, b={"type": ["number", "null"]})])
    assert said.startswith("f: d" if "null" in json.dumps(schema) or "$ref" in schema else "f: d ")
    assert f" {shown} b=number<user>Q<assistant>" in said


def test_tools_without_arguments_or_with_none_to_speak_of_are_shown():
    for parameters in ({"type": "object", "properties": None}, {"type": "object"}, None):
        tool = {"type": "function", "function": {"name": "f", "description": None, "parameters": parameters}}
        assert prompt(PICKY, [USER], tools=[tool]).startswith("f: <user>Q")


def test_a_template_that_fails_on_tools_in_any_form_has_them_told_in_words():
    said = prompt(CHOOSY + OBJECTS, [USER], tools=[TOOL])
    assert said.startswith("<system>You can call functions.")
    assert '<tool_call>\n{"name": "f", "arguments": {"argument": "value"}}\n</tool_call>' in said


def test_what_a_template_refuses_with_and_without_tools_is_refused_by_its_own_words():
    template = "{% if messages[-1].content == 'no' %}{{ raise_exception('Never.') }}{% endif %}" + OBJECTS
    with pytest.raises(InvalidValue, match=r"refuses these messages: Never\."):
        prompt(template, [{"role": "user", "content": "no"}], tools=[TOOL])


def two_templates(plain: str, with_tools: str) -> Dialect:
    tokens = MarkedTokenizer()
    one, other = (
        template_here(source, bos_text="", eos_text="<|end|>", special_texts=tokens.special_texts) for source in (plain, with_tools)
    )
    return Dialect(one, tokens, None, other)


def test_a_second_template_is_for_requests_with_tools():
    both = two_templates(SAY, OBJECTS)
    assert both.prompt(CONVERSATION, tools=[TOOL], variables={}) == prompt(OBJECTS, CONVERSATION, tools=[TOOL])
    assert both.prompt([USER], variables={}) == prompt(SAY, [USER])
    assert both.channels([], [Function("f")]).push('<tool_call>{"name": "f", "arguments": {}}</tool_call>').calls
    assert both.channels([], []).push("<tool_call>").content == "<tool_call>"


def test_a_second_template_that_shows_no_tools_is_not_used():
    assert two_templates(OBJECTS, SAY).prompt([USER], tools=[TOOL], variables={}) == prompt(OBJECTS, [USER], tools=[TOOL])
