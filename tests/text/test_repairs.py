"""Conversations as clients send them, through chat templates that were written for less: none is refused, and nothing said is lost."""

import re

import pytest

from src.errors import ServiceError
from src.text.dialect import Dialect
from tests.support.here import template_here
from tests.support.marked_tokenizer import MarkedTokenizer
from tests.text.test_dialect import OBJECTS, SAY, TOOL, called, prompt, result
from tools.templates_page import PAGE, page, templates

# Templates of the kinds that are about, written for these tests.
ONLY_FIRST = "{% for m in messages %}{% if m.role != 'system' or loop.first %}<{{ m.role }}>{{ m.content or '' }}{% endif %}{% endfor %}"
REFUSES_LATER = SAY.replace(
    "<{{ m.role }}>", "{% if m.role == 'system' and not loop.first %}{{ raise_exception('at the beginning') }}{% endif %}<{{ m.role }}>"
)
NO_SYSTEM = SAY.replace("<{{ m.role }}>", "{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}<{{ m.role }}>")
HOISTS = (
    "{% for m in messages if m.role == 'system' %}{{ m.content }}\n{% endfor %}"
    "{% for m in messages if m.role != 'system' %}<{{ m.role }}>{{ m.content }}{% endfor %}"
)
# Like Mistral's: sides alternate, calls and results do not count, the system prompt stands in the last user's message.
ALTERNATES = (
    "{% if messages[0].role == 'system' %}{% set system, rest = messages[0].content, messages[1:] %}{% else %}"
    "{% set system, rest = none, messages %}{% endif %}{% set turn = namespace(of='user') %}"
    "{% for m in rest %}{% if m.role in ('user', 'assistant') and not m.tool_calls %}"
    "{% if m.role != turn.of %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% set turn.of = 'assistant' if m.role == 'user' else 'user' %}{% endif %}"
    "{% if m.tool_calls %}<tool_call>\n"
    '{"name": "{{ m.tool_calls[0].function.name }}", "arguments": {{ m.tool_calls[0].function.arguments | tojson }}}\n</tool_call>'
    "{% elif m.role == 'system' %}{{ raise_exception('not here') }}"
    "{% else %}<{{ m.role }}>{% if m.role == 'user' and loop.last and system %}{{ system }}\n\n{% endif %}{{ m.content }}{% endif %}"
    "{% endfor %}{{ tools | tojson }}"
)
THINKING = OBJECTS.replace(
    "{{ m.content or '' }}",
    "{% if m.tool_calls and m.thinking %}{% if m.content %}{{ raise_exception('not both') }}{% endif %}({{ m.thinking }}){% endif %}"
    "{{ m.content or '' }}",
)
PARTS = OBJECTS.replace(
    "{{ m.content or '' }}",
    "{% if m.content is string %}{{ m.content }}{% else %}{% for part in m.content or [] %}"
    "{% if part.type == 'thinking' %}({{ part.thinking }}){% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}",
)
# Takes what is said beside a call for all there is, as Llama 3's.
CALLS_ALONE = OBJECTS.replace("{{ m.content or '' }}", "{{ m.content or '' if not m.tool_calls else '' }}")


def said(role: str, text: str) -> dict:
    return {"role": role, "content": text}


LATER_SYSTEM = [said("system", "S1"), said("user", "U1"), said("assistant", "A1"), said("system", "S2"), said("user", "U2")]


@pytest.mark.parametrize("template", [SAY, OBJECTS])
def test_what_a_template_takes_stays_as_it_is(template):
    assert prompt(template, LATER_SYSTEM).startswith("<system>S1<user>U1<assistant>A1<system>S2<user>U2")
    assert prompt(template, [said("user", "U1"), said("user", "U2")]).startswith("<user>U1<user>U2")


@pytest.mark.parametrize("template", [ONLY_FIRST, REFUSES_LATER])
def test_later_system_messages_join_the_first_or_the_user_behind_them(template):
    shown = prompt(template, [said("system", "S0"), *LATER_SYSTEM])
    assert shown.startswith("<system>S0\n\nS1<user>U1<assistant>A1<user><system-reminder>\nS2\n</system-reminder>\n\nU2")


@pytest.mark.parametrize("template", [ONLY_FIRST, REFUSES_LATER, HOISTS])
def test_a_prompt_goes_on_as_it_began_when_system_messages_come(template):
    conversation = [
        *LATER_SYSTEM,
        said("system", "S3"),
        said("assistant", "A2"),
        said("system", "S4"),
        said("system", "S5"),
        said("user", "U3"),
    ]
    whole = prompt(template, conversation, generation_prompt=False)
    for length in (2, 3, 6, 7, 10):
        assert whole.startswith(prompt(template, conversation[:length], generation_prompt=False))
    assert [re.findall(rf"\b{word}\b", whole) for word in ("S1", "S2", "S3", "S4", "S5")] == [["S1"], ["S2"], ["S3"], ["S4"], ["S5"]]


def test_a_template_without_system_messages_has_them_before_what_the_user_says():
    shown = prompt(NO_SYSTEM, [said("system", "S0"), *LATER_SYSTEM])
    assert shown.startswith("<user>S0\n\nS1\n\nU1<assistant>A1<user><system-reminder>\nS2")
    assert prompt(NO_SYSTEM, [said("system", "S1")]).startswith("<user>S1")
    assert prompt(NO_SYSTEM, [said("system", ""), said("user", "U1")]).startswith("<user>U1<assistant>")
    assert prompt(NO_SYSTEM, [said("system", "S1"), said("assistant", "A1")]).startswith("<user>S1<assistant>A1")


def test_roles_alternate_where_a_template_wants_them_to():
    answers, questions = [said("assistant", "A1"), said("assistant", "A2")], [said("user", "U1"), said("user", "U2")]
    shown = prompt(ALTERNATES, [said("system", "S1"), *questions, *answers, said("user", "U3")])
    assert "<user>U1\n\nU2<assistant>A1\n\nA2<user>S1\n\nU3" in shown
    loop = [called("c1", content="B1"), result("c1", "R1")]
    shown = prompt(ALTERNATES, [said("system", "S1"), said("user", "U1"), *loop, *loop, said("user", "U2")], tools=[TOOL])
    assert re.findall(r"S1|U1|B1|R1|U2|<tool_call>", shown) == ["U1", "B1", "<tool_call>", "R1", "B1", "<tool_call>", "R1", "S1", "U2"]


def test_the_system_message_is_there_in_a_tool_loop_too():
    conversation = [said("system", "S1"), said("user", "U1"), called("c1"), result("c1", "R1")]
    assert "<user>S1\n\nU1<tool_call>" in prompt(ALTERNATES, conversation, tools=[TOOL])


def test_text_beside_a_call_becomes_a_message_of_its_own():
    shown = prompt(CALLS_ALONE, [said("user", "U1"), called("c1", content="B1"), result("c1", "R1")], tools=[TOOL])
    assert "<user>U1<assistant>B1<assistant><tool_call>" in shown


def test_text_beside_a_call_of_a_past_turn_is_kept():
    past = CALLS_ALONE.replace("if not m.tool_calls", "if not m.tool_calls or messages[-1].role == 'tool'")
    turn = [said("user", "U1"), called("c1", content="B1"), result("c1", "R1")]
    assert "<user>U1<assistant>B1<tool_call>" in prompt(past, turn, tools=[TOOL])
    whole = [*turn, said("assistant", "A1"), said("user", "U2"), called("c2", content="B2"), result("c2", "R2")]
    assert "<user>U1<assistant>B1<assistant><tool_call>" in prompt(past, whole, tools=[TOOL])
    assert "<user>U2<assistant>B2<tool_call>" in prompt(past, whole, tools=[TOOL])


@pytest.mark.parametrize(("template", "beside"), [(THINKING, "(T1\n\nB1)"), (PARTS, "(T1)B1"), (OBJECTS, "B1")])
def test_reasoning_has_the_name_that_the_template_reads(template, beside):
    call = called("c1", content="B1") | {"reasoning_content": "T1"}
    assert f"<assistant>{beside}<tool_call>" in prompt(template, [said("user", "U1"), call, result("c1", "R1")], tools=[TOOL])


def test_the_last_message_may_have_reasoning_and_be_gone_on_with():
    messages = [said("user", "U1"), said("assistant", "A1") | {"reasoning_content": "T1"}]
    assert prompt(PARTS, messages, continued=True, tools=[TOOL]).endswith("<assistant>(T1)A1")


def test_variables_of_one_template_alone_have_a_value():
    template = SAY + "{{ functions + ' ' + datetime }}"
    assert re.search(r"\[\] \d{4}-\d\d-\d\d$", prompt(template, [said("user", "U1")]))
    assert prompt(template, [said("user", "U1")], variables={"functions": "F", "datetime": "now"}).endswith("F now")


def test_a_template_that_was_written_for_tools_alone_serves_without():
    assert prompt("{% for t in tools %}{{ t | tojson }}{% endfor %}" + SAY, [said("user", "U1")]) == "<user>U1<assistant>"


def test_what_a_filter_has_made_is_written_as_json():
    template = "{% if tools %}{{ tools | map(attribute='function') | map(attribute='name') | tojson }}{% endif %}" + SAY
    assert template_here(template, bos_text="", eos_text="", special_texts=()).render([said("user", "U")], tools=[TOOL]).startswith('["f"]')


CONVERSATIONS = {
    "two systems": [said("system", "SYS1"), said("system", "SYS2"), said("user", "USR1")],
    "system in the middle": LATER_SYSTEM,
    "system at the end": [said("system", "SYS1"), said("user", "USR1"), said("system", "SYS2")],
    "two users": [said("user", "USR1"), said("user", "USR2"), said("assistant", "ANS1"), said("user", "USR3"), said("user", "USR4")],
    "tool loop with text": [said("system", "SYS1"), said("user", "USR1"), called("c1", content="BESIDE1"), result("c1", "RESULT1")],
    "user after tool": [said("system", "SYS1"), said("user", "USR1"), called("c1"), result("c1", "RESULT1"), said("user", "USR2")],
    "an agent's": [
        *(said("system", "SYS1"), said("system", "SYS2"), said("user", "USR1")),
        *(called("c1", content="BESIDE1"), result("c1", "RESULT1"), called("c2", content="BESIDE2"), result("c2", "RESULT2")),
        *(said("user", "USR2"), said("assistant", "ANS1"), said("system", "SYS3"), said("user", "USR3"), said("system", "SYS4")),
    ],
}


@pytest.mark.slow
def test_no_template_that_llama_cpp_tests_refuses_or_loses_anything():
    wrong = []
    for name, source in templates().items():
        dialect = Dialect(template_here(source, bos_text="<s>", eos_text="</s>", special_texts=()), MarkedTokenizer())
        for kind, conversation in CONVERSATIONS.items():
            tools = [TOOL] if any(message["role"] == "tool" for message in conversation) else None
            try:
                shown = dialect.prompt(conversation, tools=tools, variables={})
            except ServiceError as error:
                wrong.append(f"{name}, {kind}: {error.message}")
                continue
            texts = [message["content"] for message in conversation if message["content"]]
            wrong += [f"{name}, {kind}: {text} is lost" for text in texts if text not in shown]
    assert wrong == []
    assert len(templates()) >= 70


@pytest.mark.slow
def test_the_page_shows_what_is_done_for_each_template():
    assert PAGE.read_text() == page()
