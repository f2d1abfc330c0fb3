"""Results find the calls they belong to, whatever IDs a client gives, and templates of every kind show them in that order."""

import itertools
import re
import time

import pytest

from src.text.tool_messages import paired, split
from tests.text.test_dialect import HERMES, OBJECTS, ONE_CALL, SAY, TOOL, USER, prompt, result

MISTRAL = (
    "[AVAILABLE_TOOLS]{{ tools | tojson }}{% for m in messages %}{{ m.content or '' }}{% if m.tool_calls %}[TOOL_CALLS]["
    "{% for c in m.tool_calls %}"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}, "id": "{{ c.id }}"}{% endfor %}]{% endif %}'
    "{% if m.tool_call_id %}={{ m.tool_call_id }}{% endif %}{% endfor %}"
)
# Like Llama 3.1's and gpt-oss's: one call a message, and a result knows its call by what came last.
LLAMA = (
    "<|python_tag|>{{ tools | tojson }}{% for m in messages %}{% if m.tool_calls %}"
    "{% if m.tool_calls | length != 1 %}{{ raise_exception('This model only supports single tool-calls at once!') }}{% endif %}"
    "<assistant>{% set f = m.tool_calls[0].function %}"
    '{"name": "{{ f.name }}", "parameters": {{ f.arguments | tojson }}}'
    "{% elif m.role == 'tool' %}<ipython>{{ m.content | tojson }}{% else %}<{{ m.role }}>{{ m.content }}{% endif %}{% endfor %}"
)
HARMONY = (
    "{% set last = namespace(name=none) %}<|channel|><|message|>{{ tools | tojson }}{% for m in messages %}{% if m.tool_calls %}"
    "{% set last.name = m.tool_calls[0].function.name %}<|start|>assistant<|channel|>commentary to=functions.{{ last.name }} "
    "<|constrain|>json<|message|>{{ m.tool_calls[0].function.arguments | tojson }}<|call|>"
    "{% elif m.role == 'tool' %}{% if last.name is none %}{{ raise_exception('no call') }}{% endif %}"
    "<|start|>functions.{{ last.name }} to=assistant<|channel|>commentary<|message|>{{ m.content | tojson }}<|end|>"
    "{% else %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
)
BY_ID = HERMES.replace("ARGUMENTS", "c.function.arguments | tojson").replace(
    "{{ m.content or '' }}",
    "{% if m.role == 'tool' %}{% for o in messages %}{% for c in o.tool_calls or [] %}{% if c.id == m.tool_call_id %}"
    "[{{ c.function.arguments.of }}]{% endif %}{% endfor %}{% endfor %}{% endif %}{{ m.content or '' }}",
    1,
)
TEMPLATES = {"hermes": OBJECTS, "one call": ONE_CALL, "by id": BY_ID, "mistral": MISTRAL, "llama": LLAMA, "gpt-oss": HARMONY, "words": SAY}


def calls(*asked: tuple[str, str]) -> dict:
    """`asked`: IDs, and what is asked for."""
    made = [{"id": id, "type": "function", "function": {"name": f"get_{of}", "arguments": f'{{"of": "{of}"}}'}} for id, of in asked]
    return {"role": "assistant", "content": None, "tool_calls": made}


def turn(*ids: str, number: int) -> list[dict]:
    of = [f"t{number}c{place}" for place in range(len(ids))]
    return [
        {"role": "user", "content": f"Q{number}"},
        calls(*zip(ids, of, strict=True)),
        *(result(id, f"R{one}") for id, one in zip(ids, of, strict=True)),
        {"role": "assistant", "content": "ok"},
    ]


def order(said: str) -> list[str]:
    """The results as they are told."""
    return re.findall(r"Rt\dc\d", said)


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("ids", [("f:0", "f:1"), ("same", "same"), ("same", "same", "same"), ("only",)])
def test_each_turns_results_are_its_own_where_ids_begin_anew(name, ids):
    conversation = [message for number in (1, 2, 3) for message in turn(*ids, number=number)]
    said = prompt(TEMPLATES[name], conversation, tools=[TOOL])
    expected = [f"Rt{number}c{place}" for number in (1, 2, 3) for place in range(len(ids))]
    assert order(said) == expected
    if name in ("one call", "llama", "gpt-oss"):
        assert re.findall(r'"of": "(t\dc\d)"', said) == [one[1:] for one in expected]
        assert re.findall(r'(?s)"of": "(t\dc\d)".*?R(t\dc\d)', said) == [(one[1:], one[1:]) for one in expected]
    if name == "by id":
        assert re.findall(r"\[(t\dc\d)\]R(t\dc\d)", said) == [(one[1:], one[1:]) for one in expected]


def test_results_that_come_in_another_order_are_told_behind_their_calls():
    conversation = [USER, calls(("f:0", "a"), ("f:1", "b")), result("f:1", "RB"), result("f:0", "RA")]
    told = split(paired([*conversation, *conversation]))
    assert [message["content"] for message in told if message["role"] == "tool"] == ["RA", "RB", "RA", "RB"]
    assert [message["name"] for message in paired(conversation) if message["role"] == "tool"] == ["get_b", "get_a"]


def test_a_result_belongs_to_the_nearest_message_with_its_id_and_no_result_is_lost():
    conversation = [
        result("c", "before any call"),
        calls(("a", "first"), ("c", "one")),
        calls(("b", "second")),
        result("a", "RA"),
        result("b", "RB"),
        {"role": "user", "content": "and?"},
        result("c", "RC"),
        result("c", "again"),
        result("unknown", "kept"),
        {"role": "tool", "content": "without an id"},
    ]
    named = {message["content"]: message.get("name") for message in paired(conversation) if message["role"] == "tool"}
    assert named == {
        **{"before any call": None, "RA": "get_first", "RB": "get_second", "RC": "get_one", "again": "get_one"},
        **{"kept": None, "without an id": "get_second"},
    }
    told = [message["content"] or message["tool_calls"][0]["id"] for message in split(paired(conversation))]
    assert told == ["before any call", "a", "RA", "c", "RC", "b", "RB", "and?", "again", "kept", "without an id"]


def test_a_cut_history_leaves_results_where_they_are():
    conversation = [USER, result("gone", "R"), calls(("a", "x")), result("a", "RA")]
    assert [message["content"] for message in split(paired(conversation)) if message["role"] == "tool"] == ["R", "RA"]


def test_made_ids_are_nobodys():
    conversation = [calls(("a", "1"), ("a_2", "2")), result("a_3", "stray"), calls(("a", "3")), calls(("a", "4"), ("a_2", "5"))]
    ids = [call["id"] for message in paired(conversation) for call in message.get("tool_calls", [])]
    assert len(set(ids)) == 5
    assert ids[:2] == ["a", "a_2"]
    assert "a_3" not in ids


@pytest.mark.parametrize("ids", [itertools.repeat("same"), (f"id{number}" for number in itertools.count())])
def test_thousands_of_calls_and_results_take_no_time(ids):
    named = list(itertools.islice(ids, 10_000))
    conversation = [calls(*((id, "x") for id in named)), *(result(id, "R") for id in named), *(result("unknown", "R") for id in named)]
    conversation += [calls((id, "x")) for id in named]
    began = time.thread_time()
    assert len(split(paired(conversation))) == 40_000
    assert time.thread_time() - began < 2
