"""Chat templates: rendered as the reference renders them, in a sandbox, with the messages' special tokens cut."""

import pytest

from src.errors import ChatTemplateError, InvalidValue, ModelLoadFailed
from src.text.template import ChatTemplate
from src.text.tokenizer.base import ByteTokenizer
from src.text.tokenizer.guard import SENTINEL_SPLIT
from tests.support.here import template_here

HELLO = [{"role": "user", "content": "hello"}]


def template(source: str, special_texts=()) -> ChatTemplate:
    return template_here(source, bos_text="<s>", eos_text="</s>", special_texts=special_texts)


def render(source: str, messages=HELLO) -> str:
    return template(source).render(messages)


def test_the_byte_tokenizers_template_is_readable():
    messages = [{"role": "system", "content": "Be kind."}, {"role": "assistant", "content": None}, *HELLO]
    assert render(ByteTokenizer.chat_template, messages) == "system: Be kind.\nassistant: \nuser: hello\n"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}", "<s>hello</s>"),
        ("{% if add_generation_prompt %}go{% endif %}", "go"),
        ("{% if tools is not none or documents is not none %}tools{% endif %}", ""),
        ("{% generation %}\n  marked{% endgeneration %}", "  marked"),
        ("  {% for n in [1, 2, 3] %}\n{% if n == 2 %}{% continue %}{% endif %}{{ n }}\n    {% endfor %}", "1\n3\n"),
        ("{{ {'b': '<ü>', 'a': [1]} | tojson }}", '{"b": "<ü>", "a": [1]}'),
        ("{{ {'a': 1} | tojson(indent=2) }}", '{\n  "a": 1\n}'),
        ("{{ messages[0].content | tojson }}", '"hello"'),
        ("{{ messages[0].name }}{{ messages[0].nothing.at_all is defined }}", None),
    ],
)
def test_templates_find_what_they_are_written_for(source, expected):
    if expected is None:
        with pytest.raises(InvalidValue):
            render(source)
    else:
        assert render(source) == expected


REFUSES_NOTHING = (
    "{% for m in messages %}{% if m.role != 'user' and not m.content and not m.tool_calls %}{{ raise_exception('say something') }}"
    "{% endif %}[{{ m.role }}]{{ m.content }}[/]{% endfor %}"
)


def test_a_message_that_says_nothing_is_written_by_a_template_that_refuses_one():
    messages = [*HELLO, {"role": "assistant", "content": ""}, {"role": "user", "content": ""}, *HELLO]
    assert render(REFUSES_NOTHING, messages) == "[user]hello[/][assistant][/][user][/][user]hello[/]"
    calling = {"role": "assistant", "content": "", "tool_calls": [{"id": "c"}]}
    assert render(REFUSES_NOTHING, [calling, {"role": "tool", "content": ""}]) == "[assistant][/][tool][/]"


def test_what_is_refused_for_another_reason_is_refused_with_that_reason():
    source = "{% if messages[0].content %}{{ raise_exception('other') }}{% endif %}{{ raise_exception('first') }}"
    with pytest.raises(InvalidValue, match="first"):
        render(source, [{"role": "user", "content": ""}])


def test_the_clock_is_at_hand():
    assert render("{{ strftime_now('%Y') }}").isdigit()


def test_a_message_is_text_not_a_template():
    assert render("{{ messages[0].content }}", [{"role": "user", "content": "{{ 6 * 7 }}{% raw %}"}]) == "{{ 6 * 7 }}{% raw %}"


def test_special_tokens_are_cut_in_messages_and_whole_in_the_template():
    source = "<s>{% for m in messages %}{{ m.role }}:{{ m.content }}{{ m.name }}{{ m.calls | tojson }}</s>{% endfor %}"
    message = {"role": "<s>", "content": "</s>", "name": "<s>", "calls": [{"arguments": {"</s>": "<s>"}}]}
    text = template(source, ("<s>", "</s>")).render([message])
    assert text.count("<s>") == text.count("</s>") == 1
    assert text.replace(SENTINEL_SPLIT, "") == '<s><s>:</s><s>[{"arguments": {"</s>": "<s>"}}]</s>'


def test_the_messages_are_not_changed():
    messages = [{"role": "user", "content": "<s>", "parts": ["<s>"]}]
    template("{{ messages }}", ("<s>",)).render(messages)
    assert messages == [{"role": "user", "content": "<s>", "parts": ["<s>"]}]


@pytest.mark.parametrize(
    "source", ["{{ 'a' ~ }}", "{% if %}", "{% for m in messages %}", "{{ 1 | no_such_filter }}", "{% break", "{{" + "(" * 5000]
)
def test_a_template_with_a_mistake_in_it_does_not_load(source):
    with pytest.raises(ModelLoadFailed, match="chat template"):
        template(source)


def test_a_refusal_passes_on_the_templates_words():
    with pytest.raises(InvalidValue, match="Roles must alternate!") as caught:
        render("{{ raise_exception('Roles must alternate!') }}")
    assert caught.value.param == "messages"


def test_a_refusal_passes_on_no_other_words_of_the_template():
    with pytest.raises(InvalidValue, match=r"messages: Unknown role:$"):
        render("{{ 'some longer words' and raise_exception('Unknown role: ' + messages[0].role) }}")


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('Cannot take: ' + messages[0].content) }}",
        "{{ raise_exception(messages[0].content ~ ' is wrong') }}",
        "{{ raise_exception(messages[0].content) }}",
        "{{ messages[0].content | int(base=99) }}{{ messages[0][messages[0].content].x }}",
        "{{ {}[messages[0].content] + 1 }}",
        "{{ messages[0].content.index('nowhere') }}",
        "{{ messages[0].content + 1 }}",
        "{{ 1 // 0 }}",
        "{{ messages.append(1) }}",
        "{% include 'other' %}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
    ],
)
def test_no_failure_of_a_template_quotes_the_prompt(source):
    with pytest.raises((InvalidValue, ChatTemplateError)) as caught:
        render(source, [{"role": "user", "content": "my secret"}])
    assert caught.value.param == "messages"
    assert "secret" not in caught.value.message
    assert len(caught.value.message) <= 300
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_message_nested_too_deeply_is_refused():
    content: list = []
    for _ in range(5000):
        content = [content]
    with pytest.raises(InvalidValue):
        render("{{ messages }}", [{"role": "user", "content": content}])


@pytest.mark.parametrize(
    "expression",
    [
        "''.__class__.__mro__",
        "''.__class__.__mro__[1].__subclasses__()",
        "cycler.__init__.__globals__.os.popen('touch {path}').read()",
        "lipsum.__globals__['os'].system('touch {path}')",
        "raise_exception.__globals__['json']",
        "strftime_now.__globals__.json",
        "(messages | attr('__class__')).__base__",
        "'{0.__class__.__mro__}'.format(messages)",
        "messages.__init__.__globals__",
        "namespace.__init__.__globals__",
        "joiner.__init__.__globals__.__builtins__.open('{path}', 'w')",
    ],
)
def test_a_template_cannot_leave_the_sandbox(expression, tmp_path):
    path = tmp_path / "touched"
    with pytest.raises(ChatTemplateError):
        render("{{ " + expression.replace("{path}", str(path)) + " }}")
    assert not path.exists()


@pytest.mark.parametrize("expression", ["''.__class__", "strftime_now.__globals__", "messages.append", "raise_exception.__self__"])
def test_what_the_sandbox_hides_renders_as_nothing(expression):
    assert render("{{ " + expression + " }}") == ""


def test_what_a_request_sets_never_comes_before_what_the_server_sets():
    ours = ("messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token", "raise_exception", "strftime_now")
    source = (
        "{{ messages | length }}{{ tools }}{{ add_generation_prompt }}{{ bos_token }}{{ eos_token }}{{ documents }}{{ strftime_now('x') }}"
    )
    given = dict.fromkeys([*ours, "self", "range", "context"], "theirs")
    assert template(source).render(HELLO, variables=given) == template(source).render(HELLO) == "1NoneTrue<s></s>Nonex"
