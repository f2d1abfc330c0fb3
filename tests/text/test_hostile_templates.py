"""A chat template is code of a stranger: whatever it does costs the process that renders it, some seconds and some memory."""

import json
import re
import resource
import subprocess
import sys
import time

import jinja2.filters
import psutil
import pytest

from src.errors import ChatTemplateError, ChatTemplateTooCostly, InvalidValue, ModelLoadFailed, ServiceError
from src.settings import ROOT
from src.text.dialect import Dialect
from src.text.template import ChatTemplate, process
from src.text.template.sandbox import MOST_SOURCE
from src.text.tokenizer.base import ByteTokenizer
from tests.support.here import Here
from tests.support.peak import Peak

SECONDS = 0.25
MOST_BYTES = 450 << 20  # of the process: Python, and what a template may take
EVIL = [{"role": "user", "content": "evil"}]
GOOD = [{"role": "user", "content": "good"}]
RANGE = "range(99999)"


def template(source: str, seconds: float = SECONDS) -> ChatTemplate:
    return ChatTemplate(source, bos_text="<s>", eos_text="</s>", special_texts=("<s>",), seconds=seconds)


def loops(depth: int, inside: str = "") -> str:
    return f"{{% for i{depth} in {RANGE} %}}" * depth + inside + "{% endfor %}" * depth


# {{ x }} is the text of the last message, so that nothing of these can be computed while they are compiled.
COSTLY = {
    "loops in loops": loops(3),
    "loops in loops that write": loops(3, "x"),
    "loops that collect": "{% set n = namespace(l=[]) %}" + loops(3, "{% set n.l = n.l + [1] %}"),
    "a text doubled again and again": f"{{% set n = namespace(t=x) %}}{{% for i in {RANGE} %}}{{% set n.t = n.t + n.t %}}{{% endfor %}}",
    "a text times a number": "{{ x * 10**10 }}",
    "a list times a number": "{{ ([x] * 10**10) | length }}",
    "a text filled up": "{{ x.ljust(10**10) }}",
    "a text centred": "{{ x | center(10**10) }}",
    "a number of digits": "{{ (x | length + 3) ** (7 ** 12) }}",
    "powers of powers": "{% set n = x | length + 10 %}{{ (n ** (n ** 9)) % 7 }}",
    "a width in a format": "{{ '%10000000000d' % (x | length) }}",
    "a width in a format method": "{{ '{:10000000000}'.format(x) }}",
    "a width in a format filter": "{{ '%10000000000s' | format(x) }}",
    "replacements of replacements": "{{ x * 1000" + " | replace('e', 'e' * 1000)" * 4 + " }}",
    "an indentation": "{{ x | indent(10**10, true) }}",
    "words without end": "{{ lipsum(n=10**9) }}",
    "batches": "{{ [1] | batch(10**10, x) | list | length }}",
    "slices": "{{ [1] | slice(10**10, x) | list | length }}",
    "a sum of permutations": f"{{{{ {RANGE} | map('string') | join(x * 10**5) | length }}}}",
    "recursion that branches": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "a macro that writes into itself": f"{{% macro f() %}}{loops(2, '{{ x }}' * 100)}{{% endmacro %}}{{{{ f() | length }}}}",
    "a recursive loop": "{% for a in [[1]] recursive %}{{ loop([a, a]) }}{% endfor %}",
    "a constant": "{{ 'a' * 10**10 }}",
    "a constant format": "{{ '%10000000000d' % 1 }}",
    "a clock that says much": "{{ strftime_now('%c' * 10**9) }}",
}
COSTLY_TO_COMPILE = {
    "a power": "{{ 7 ** (7 ** 12) }}",
    "a megabyte of expressions": "{{ x }}a" * 140_000,
    "a sum of many": "{{ 1" + " + 1" * 200_000 + " }}",
    "brackets": "{{ " + "(" * 100_000,
    "minuses": "{{ " + "-" * 100_000 + "1 }}",
    "blocks in blocks": "{% if x %}" * 5000 + "{% endif %}" * 5000,
}
ESCAPES = [
    "''.__class__.__mro__",
    "cycler.__init__.__globals__.os.popen('touch {path}').read()",
    "joiner.__init__.__globals__['__builtins__'].open('{path}', 'w')",
    "lipsum.__globals__['os'].system('touch {path}')",
    "namespace.__init__.__globals__.os.system('touch {path}')",
    "self.__init__.__globals__",
    "self._TemplateReference__context.environment.from_string('x')",
    "(messages | attr('__class__')).__base__",
    "[messages] | map(attribute='__class__.__base__') | list | first | string | trim and ''.__class__.__base__",
    "'{0.__class__.__mro__}'.format(x)",
    "'{0.__class__.__mro__}' | attr('format')(x)",
    "'{a.__class__.__mro__}'.format_map({'a': x})",
    "raise_exception.__func__.__globals__",
    "raise_exception.__self__._template.environment",
    "strftime_now.__globals__.json",
    "messages.append(1)",
    "messages[0].update(role=1)",
]
NOTHING_THERE = [
    "{% include '/etc/passwd' %}",
    "{% import '/etc/passwd' as p %}",
    "{% from '../x' import y %}",
    "{% extends '/etc/passwd' %}",
]


def processor_seconds() -> float:
    """Of processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("source", COSTLY.values(), ids=COSTLY)
def test_what_costs_too_much_fails_in_bounded_time_and_memory_and_the_next_prompt_is_rendered(source):
    if_evil = "{% set x = messages[-1].content %}{% if x == 'evil' %}" + source + "{% else %}{{ x }}{% endif %}"
    one = template(if_evil)
    before = processor_seconds()
    with Peak() as peak, pytest.raises((ChatTemplateTooCostly, InvalidValue)) as caught:
        one.render(EVIL)
    assert one.render(GOOD) == "good"
    one.close()
    assert processor_seconds() - before < 3 * SECONDS + 2, "two starts, and the time allowed"
    assert peak.bytes < MOST_BYTES
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("source", COSTLY_TO_COMPILE.values(), ids=COSTLY_TO_COMPILE)
def test_what_costs_too_much_to_compile_does_not_load(source):
    before = processor_seconds()
    with Peak() as peak, pytest.raises((ModelLoadFailed, ChatTemplateTooCostly), match="chat template") as caught:
        template(source)
    assert processor_seconds() - before < SECONDS + 1
    assert peak.bytes < MOST_BYTES
    assert len(caught.value.message) < 500


def test_a_template_of_megabytes_is_not_even_looked_at():
    with pytest.raises(ModelLoadFailed, match="has 1,048,577 characters, and 1,048,576 are allowed"):
        template("a" * (MOST_SOURCE + 1))


def test_an_endless_template_is_ended_by_the_time_it_uses(monkeypatch):
    monkeypatch.setattr(process, "PATIENCE", 1000)  # not by the clock on the wall
    one = template(loops(3), seconds=0.1)
    began = time.monotonic()
    with pytest.raises(ChatTemplateTooCostly, match=r"longer than the 0\.1 s that TEMPLATE_SECONDS"):
        one.render(EVIL)
    assert time.monotonic() - began < 20


def test_a_template_may_write_some_times_what_it_is_given_and_no_more():
    one = template(
        "{{ messages[0].content * 3 }}{% if messages | length > 1 %}{% for i in range(99999) %}{{ 'y' * 99 }}{% endfor %}{% endif %}", 20
    )
    long = [{"role": "user", "content": "x" * 3_000_000}]
    assert one.render(long) == "x" * 9_000_000
    with pytest.raises(ChatTemplateTooCostly, match="writes far more than"):
        one.render(GOOD * 2)


def test_want_of_memory_does_not_even_end_the_process():
    one = template("{{ messages[0].content * 10**10 }}")
    before = process_of(one)
    with pytest.raises(ChatTemplateTooCostly, match="too much memory"):
        one.render(GOOD)
    assert process_of(one) == before


def process_of(one: ChatTemplate) -> psutil.Process:
    return psutil.Process(one._rendering.pid)


@pytest.mark.parametrize("expression", ESCAPES)
def test_no_expression_leaves_the_sandbox(expression, tmp_path):
    path = tmp_path / "touched"
    one = template("{{ " + expression.replace("{path}", str(path)).replace("(x", "(messages") + " }}")
    with pytest.raises(ChatTemplateError):
        one.render(GOOD)
    assert not path.exists()


@pytest.mark.parametrize("source", NOTHING_THERE)
def test_a_template_includes_no_file(source):
    with pytest.raises(InvalidValue):
        template(source).render(GOOD)


@pytest.mark.slow
def test_every_filter_works_where_no_file_can_be_opened():
    values = "'a b'", "[3, 1]", "{'a': 1}", "7", "[{'a': 1}]"
    arguments = "", "('a')", "(1)", "(1, 2)", "('a', 'b')", "(attribute='a')"
    sources = [f"{{{{ {value} | {name}{given} | string }}}}" for name in jinja2.filters.FILTERS for value in values for given in arguments]
    said = {source: text for source in sources if (text := _said(source)) and " at 0x" not in text and "random" not in source}
    assert len(said) > 200
    assert template("\n".join(said), 20).render([]) == "\n".join(said.values())


def _said(source: str) -> str:
    try:
        return Here(source, "", "", 0).render({})
    except (ServiceError, StopIteration):
        return ""


def test_what_the_messages_hold_arrives_as_it_is():
    odd = {"role": "user", "content": "\ud800 \udcff é 😀 \0", "n": 10**30, "f": 1.5, "list": [None, True]}
    one = template("{{ messages | tojson }}")
    assert json.loads(one.render([odd])) == [odd | {"content": "? ? é 😀 \0"}]


def test_a_template_that_never_ends_fails_the_load():
    began = time.monotonic()
    with pytest.raises(ChatTemplateTooCostly, match="TEMPLATE_SECONDS"):
        Dialect(template(loops(3)), ByteTokenizer())
    assert time.monotonic() - began < 20


def test_a_template_that_writes_much_of_what_begins_a_call_does_not_hold_up_the_load():
    """It shows calls, in a form that looks like one that is known, and so is tried from each place where one may begin."""
    call = "{{ '<tool_call>{' * 9000 }} {% for c in m.tool_calls or [] %}<tool_call> {{ c | tojson }}{% endfor %}"
    source = "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}{% for m in messages %}{{ m.content }}" + call + "{% endfor %}"
    one = template(source, 5)
    began = time.thread_time()
    Dialect(one, ByteTokenizer())
    assert time.thread_time() - began < 5


def test_an_ordinary_prompt_costs_little_more_than_in_this_process():
    source = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    apart, here = template(source), Here(source, "", "", 0)
    messages = [{"role": "user", "content": "hello " * 50}] * 6

    def best(render) -> float:
        taken = []
        for _ in range(200):
            began = time.perf_counter()
            render()
            taken.append(time.perf_counter() - began)
        return sorted(taken)[20]  # others use this machine too

    assert best(lambda: apart.render(messages)) - best(lambda: here.render({"messages": messages})) < 0.001


def test_no_other_module_renders_templates():
    """Jinja is imported where the sandbox is made and in its process, and there is one environment."""
    users = {
        path.relative_to(ROOT / "src")
        for path in (ROOT / "src").rglob("*.py")
        if re.search(r"^\s*(import|from) jinja2", path.read_text(), re.M)
    }
    assert {str(path) for path in users} == {"text/template/sandbox.py", "text/template/__main__.py"}
    made = re.findall(r"\b\w*Environment\(", (ROOT / "src/text/template/sandbox.py").read_text())
    assert made == ["ImmutableSandboxedEnvironment("]
    others = re.compile(r"apply_chat_template|render_template|Jinja2ChatFormatter|\.from_string\(|chat_handler")
    found = [path.name for path in (ROOT / "src").rglob("*.py") if others.search(path.read_text())]
    assert found == ["sandbox.py"]


def test_the_process_ends_with_its_own():
    program = (
        "import os, sys\nfrom src.text.template import ChatTemplate\n"
        "one = ChatTemplate('x', bos_text='', eos_text='', special_texts=())\n"
        "print(one._rendering.pid, flush=True)\nos.kill(os.getpid(), 9)"
    )
    said = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    pid = int(said.stdout)
    give_up = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < give_up
        time.sleep(0.02)
