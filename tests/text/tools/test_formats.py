"""Tool calls as models write them are read the same however they are cut, and what is no call is not lost.

The golden texts are from the formats' own documentation:
hermes: https://qwen.readthedocs.io/en/latest/framework/function_call.html
qwen3_coder: https://huggingface.co/Qwen/Qwen3-Coder-30B-A3B-Instruct (chat_template.jinja)
mistral, mistral_args: https://docs.mistral.ai/cookbooks/concept-deep-dive-tokenization-tool_calling
llama3: https://github.com/meta-llama/llama-models/blob/main/models/llama3_1/prompt_format.md
pythonic: https://github.com/meta-llama/llama-models/blob/main/models/llama3_2/text_prompt_format.md, https://huggingface.co/LiquidAI/LFM2-1.2B
deepseek, deepseek_v31: https://huggingface.co/deepseek-ai/DeepSeek-V3-0324, https://huggingface.co/deepseek-ai/DeepSeek-V3.1
harmony: https://cookbook.openai.com/articles/openai-harmony
"""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.errors import ModelLoadFailed
from src.text.output.channels import ChannelDelta
from src.text.tools import FORMATS, by_name, detect
from src.text.tools.call import Call, Function

WEATHER = Function(
    "get_weather",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "deep": {"type": "object"},
            "maybe": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
        "required": ["city"],
    },
)
FUNCTIONS = [WEATHER, Function("now")]
BARE = ("generic", "llama3", "pythonic")  # nothing but the answer's first character tells a call
SEPARATE = [name for name in FORMATS if name not in (*BARE, "harmony")]
DS = {
    "begin": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>",
    "next": "<｜tool▁call▁begin｜>",
    "sep": "<｜tool▁sep｜>",
    "end": "<｜tool▁call▁end｜>",
    "last": "<｜tool▁calls▁end｜>",
}


def read(name: str, pieces: list[str], functions: list[Function] = FUNCTIONS) -> tuple[str, str, list[tuple[str, str]]]:
    """Content, reasoning, and each call's name and arguments; by the rules that clients rely on."""
    reader, said = FORMATS[name].reader(functions), ChannelDelta()
    for piece in pieces:
        said.add(reader.push(piece))
    said.add(reader.flush())
    calls: list[list[str]] = []
    for piece in said.calls:
        if piece.name is not None:
            assert piece.index == len(calls)
            assert piece.arguments == ""
            calls.append([piece.name, ""])
        else:
            assert piece.index == len(calls) - 1
            assert piece.arguments
            calls[-1][1] += piece.arguments
    assert reader.called == bool(calls)
    return said.content, said.reasoning, [(name, arguments) for name, arguments in calls]


def calls(name: str, text: str) -> list[Call]:
    return [Call(called, json.loads(arguments)) for called, arguments in read(name, [text])[2]]


PARIS = Call("get_weather", {"city": "Paris"})
GOLDEN = [
    ("hermes", '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>', "", [PARIS]),
    (
        "hermes",
        'I look.\n\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>',
        "I look.",
        [PARIS, Call("now", {})],
    ),
    ("hermes", '<tool_call>{"arguments": {"city": "Paris"}, "name": "get_weather"}</tool_call> So.', " So.", [PARIS]),
    ("hermes", '<tool_call>\n{"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\"}"}\n</tool_call>', "", [PARIS]),
    ("hermes", '<tool_call>\n{"name": "now"}\n</tool_call>', "", [Call("now", {})]),
    (
        "qwen3_coder",
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nNew\nYork\n</parameter>\n<parameter=days>\n3\n</parameter>\n"
        '<parameter=tags>\n["a", "b"]\n</parameter>\n</function>\n</tool_call>',
        "",
        [Call("get_weather", {"city": "New\nYork", "days": 3, "tags": ["a", "b"]})],
    ),
    ("qwen3_coder", "<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>", "", [PARIS]),
    ("qwen3_coder", "<tool_call>\n<function=now>\n</function>\n</tool_call>", "", [Call("now", {})]),
    (
        "qwen3_coder",
        "<tool_call><function=get_weather><parameter=city>12</parameter><parameter=maybe>None</parameter></function></tool_call>",
        "",
        [Call("get_weather", {"city": "12", "maybe": None})],
    ),
    (
        "mistral",
        '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Paris"}, "id": "VvvODy9mT"}, {"name": "now", "arguments": {}}]',
        "",
        [PARIS, Call("now", {})],
    ),
    (
        "mistral_args",
        '[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}[TOOL_CALLS]now[CALL_ID]123456789[ARGS]{}',
        "",
        [PARIS, Call("now", {})],
    ),
    ("llama3", '{"name": "get_weather", "parameters": {"city": "Paris"}}', "", [PARIS]),
    ("llama3", '<|python_tag|>{"type": "function", "name": "get_weather", "parameters": {"city": "Paris"}}', "", [PARIS]),
    (
        "llama3",
        '{"name": "get_weather", "parameters": {"city": "Paris"}}; {"name": "now", "parameters": {}}',
        "",
        [PARIS, Call("now", {})],
    ),
    (
        "pythonic",
        "[get_weather(city='New \\'York\\'', days=3, tags=['a', \"b\",], deep={'x': (1, None, True)}), now()]",
        "",
        [Call("get_weather", {"city": "New 'York'", "days": 3, "tags": ["a", "b"], "deep": {"x": [1, None, True]}}), Call("now", {})],
    ),
    ("pythonic", '<|tool_call_start|>[get_weather(city="Paris")]<|tool_call_end|>Wait.', "Wait.", [PARIS]),
    ("pythonic", 'Well. <|python_start|>[get_weather(city="Paris")]<|python_end|>', "Well.", [PARIS]),
    (
        "deepseek",
        "{begin}function{sep}get_weather\n```json\n{{\"city\": \"Paris\"}}\n```{end}\n"
        "{next}function{sep}now\n```json\n{{}}\n```{end}{last}",
        "",
        [PARIS, Call("now", {})],
    ),
    ("deepseek_v31", '{begin}get_weather{sep}{{"city": "Paris"}}{end}{next}now{sep}{{}}{end}{last}', "", [PARIS, Call("now", {})]),
    (
        "harmony",
        "<|channel|>analysis<|message|>I need the weather.<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather "
        '<|constrain|>json<|message|>{"city": "Paris"}<|call|>',
        "",
        [PARIS],
    ),
    (
        "harmony",
        ' to=functions.get_weather<|channel|>commentary json<|message|>{"city": "Paris"}',
        "",
        [PARIS],
    ),
    ("generic", ' {"tool_calls":[{"name":"get_weather","arguments":{"city":"Paris"}},{"name":"now","arguments":{}}]}\n', "",
     [PARIS, Call("now", {})]),
]  # fmt: skip
GOLDEN = [(name, text.format(**DS) if name.startswith("deepseek") else text, content, found) for name, text, content, found in GOLDEN]


@pytest.mark.parametrize(("name", "text", "content", "expected"), GOLDEN)
def test_what_models_write_is_read(name, text, content, expected):
    assert calls(name, text) == expected
    assert read(name, [text])[0] == content


@pytest.mark.parametrize(("name", "text", "content", "expected"), GOLDEN)
def test_however_a_text_is_cut_or_cut_off_it_is_read_the_same(name, text, content, expected):
    whole = read(name, [text])
    for place in range(len(text) + 1):
        assert read(name, [text[:place], text[place:]]) == whole
        assert read(name, list(text[:place])) == read(name, [text[:place]]), text[:place]


def test_every_format_has_a_golden_text():
    assert {name for name, *_ in GOLDEN} == set(FORMATS)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_a_format_writes_it_reads(name, data):
    simple = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)
    deep = st.dictionaries(st.text(max_size=4), values, max_size=3)
    arguments = st.fixed_dictionaries({"city": simple}, optional={"days": st.integers(-9, 9), "deep": deep})
    one = st.builds(Call, st.just("get_weather"), arguments) | st.just(Call("now", {}))
    written = data.draw(st.lists(one, min_size=1, max_size=1 if name == "harmony" else 3))
    text = FORMATS[name].write(written)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    content, _, found = read(name, pieces)
    assert [Call(called, json.loads(arguments)) for called, arguments in found] == written
    assert content == ""


@pytest.mark.parametrize("name", SEPARATE)
def test_content_before_between_and_after_calls_is_kept(name):
    call = FORMATS[name].write([PARIS])
    content, _, found = read(name, list(f"Let me see.\n\n{call}\nAnd again: {call} Done."))
    assert content.split() == "Let me see. And again: Done.".split()
    assert [name for name, _ in found] == ["get_weather", "get_weather"]


MALFORMED = [
    ("hermes", "<tool_call>\nnot JSON\n</tool_call>"),
    ("hermes", '<tool_call>\n{"name": 5, "arguments": {}}\n</tool_call>'),
    ("hermes", '<tool_call>\n{"arguments": {}}\n</tool_call> text'),
    ("hermes", '<tool_call>\n{"name": "now", "arguments": [1]}\n</tool_call>'),
    ("hermes", '<tool_call>\n{"name": "now", "arguments": "no object"}\n</tool_call>'),
    ("hermes", "The tag is <tool_call>"),
    ("hermes", "<tool_cal"),
    ("qwen3_coder", "<tool_call>\n{}\n</tool_call>"),
    ("qwen3_coder", "<tool_call>\n<function=get weather>\n</function>"),
    ("qwen3_coder", "<function=now>\n<parameter>\n"),
    ("mistral", "[TOOL_CALLS] whatever"),
    ("mistral_args", "[TOOL_CALLS]now[ARGS]none"),
    ("llama3", '{"name": "Bob", "age": 3}'),
    ("llama3", '{"name": "nobody", "parameters": {}}'),
    ("llama3", '{"a": 1}'),
    ("llama3", "Just {text}"),
    ("pythonic", "[1, 2, 3]"),
    ("pythonic", "[get_weather(x) for x in y]"),
    ("pythonic", "[nobody(a=1)]"),
    ("pythonic", "[get_weather('Paris')]"),
    ("generic", '{"tool_calls": []}'),
    ("generic", '{"answer": [1, 2]}'),
    ("generic", '{"tool_calls": [{"name": "nobody", "arguments": {}}]}'),
    ("deepseek", f"{DS['begin']}function now{DS['sep']}"),
    ("deepseek_v31", f"{DS['begin']}now{DS['sep']}none{DS['end']}"),
]


@pytest.mark.parametrize(("name", "text"), MALFORMED)
def test_what_only_looks_like_a_call_is_content(name, text):
    for pieces in ([text], list(text)):
        assert read(name, pieces) == (text, "", [])


@pytest.mark.parametrize(
    ("name", "text", "arguments", "content"),
    [
        ("hermes", '<tool_call>{"name": "now", "arguments": {"a": nonsense}}</tool_call> end', '{"a": ', "nonsense}}</tool_call> end"),
        ("mistral_args", '[TOOL_CALLS]now[ARGS]{"a": 1]} end', '{"a": 1', "]} end"),
        ("pythonic", "[get_weather(city=foo)] end", '{"city": ', "foo)] end"),
    ],
)
def test_a_call_that_breaks_inside_leaves_the_rest_as_content(name, text, arguments, content):
    for pieces in ([text], list(text)):
        said, _, [(_, found)] = read(name, pieces)
        assert (found, said) == (arguments, content)


@pytest.mark.parametrize("name", FORMATS)
def test_arguments_come_in_pieces_behind_the_name(name):
    text = FORMATS[name].write([Call("get_weather", {"city": "x" * 50})])
    reader = FORMATS[name].reader(FUNCTIONS)
    pieces = [piece for character in text for piece in reader.push(character).calls]
    assert pieces[0].name == "get_weather"
    assert len(pieces) > 30


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "qwen3_coder"])  # its strings have no quotes
def test_a_line_break_in_a_string_is_escaped_so_that_arguments_are_json(name):
    text = FORMATS[name].write([Call("get_weather", {"city": "a b"})]).replace("a b", "a\nb\t")
    assert [call.arguments for call in calls(name, text)] == [{"city": "a\nb\t"}]


EVIL = [
    "[f(a=" * 200_000,
    "[" * 50_000,
    "[get_weather(city=" + "[" * 200_000,
    "<tool_call>" * 90_000,
    '<tool_call>{"name":' * 50_000,
    '<tool_call>{"name": "now", "arguments": ' + "[" * 500_000,
    "{" * 200_000,
    '{"tool_calls": [' * 60_000,
    "<|channel|>" * 90_000,
    "<tool_call><function=" * 50_000,
    "<function=now>" + "<parameter=a>\n" * 60_000,
    "<function=now>\n<parameter=a>\n" + "</parameter>\n" * 80_000,
    "<function=now>\n<parameter=a>\n</parameter>" + "\n" * 1_000_000,
    '<tool_call>{"name": "now", "arguments": {' + '"a": 1, ' * 100_000,
    "[TOOL_CALLS]now[ARGS]{" * 50_000,
    "<｜tool▁calls▁begin｜>" * 50_000,
    " " * 1_000_000,
    "[get_weather(city='" + "\\" * 500_000,
    '[get_weather(city="' + "x" * 1_000_000,
]


@pytest.mark.parametrize("name", FORMATS)
def test_a_megabyte_of_anything_is_read_in_a_time_that_grows_with_its_length(name):
    for text in EVIL:
        began = time.process_time()
        read(name, [text])
        assert time.process_time() - began < 10, text[:40]  # what grows with the square takes minutes


@pytest.mark.parametrize("text", ["<|channel|>commentary to=functions.now <|constrain|>json", "<|channel|>final", " to=functions.now"])
def test_a_message_that_is_cut_off_before_its_body_is_nothing_yet(text):
    assert read("harmony", [text]) == ("", "", [])


def test_messages_of_harmony_are_told_apart_by_their_channel():
    text = (
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|>"
        "<|start|>assistant<|channel|>final<|message|>It is 5.<|return|>"
    )
    for place in range(len(text)):
        assert read("harmony", [text[:place], text[place:]], []) == ("I look.\n\nIt is 5.", "Hm.", [])
    unknown = "<|channel|>commentary to=python<|message|>1 + 1<|call|>"
    assert read("harmony", [unknown]) == ("1 + 1", "", [])


def test_nothing_a_model_writes_is_evaluated():
    text = "[get_weather(city=__import__('os').getcwd())]"
    assert read("pythonic", [text])[2] == [("get_weather", '{"city": ')]
    coder = "<function=get_weather>\n<parameter=days>\n__import__('os')\n</parameter>\n</function>"
    assert calls("qwen3_coder", coder) == [Call("get_weather", {"days": "__import__('os')"})]


@pytest.mark.parametrize(
    ("name", "template"),
    [
        ("harmony", "<|start|>assistant<|channel|>final<|message|>{{ content }}"),
        ("deepseek", "'<｜tool▁calls▁begin｜>' + name + '\\n```json\\n' + arguments"),
        ("deepseek_v31", "'<｜tool▁calls▁begin｜>' + name + arguments"),
        ("qwen3_coder", "<tool_call>\\n<function=example_function_name>\\n<parameter=example_parameter_1>"),
        ("hermes", '<tool_call>\\n{\\"name\\": <function-name>, \\"arguments\\": <args-json-object>}\\n</tool_call>'),
        ("mistral_args", '{{- "[TOOL_CALLS]" + name + "[ARGS]" + arguments }}'),
        ("mistral", '{{- "[TOOL_CALLS][" }}'),
        ("pythonic", "[func_name1(params_name1=params_value1, params_name2=params_value2...), func_name2(params)]"),
        ("pythonic", "{{ '<|tool_list_start|>' }}"),
        ("llama3", 'Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}.'),
        ("generic", "<tool_call>name\\n<arg_key>city</arg_key>"),
        ("generic", "{{ messages }}"),
    ],
)
def test_a_templates_text_tells_its_format(name, template):
    assert detect(template) == name


def test_an_unknown_format_is_refused_with_those_there_are():
    with pytest.raises(ModelLoadFailed, match=r"'xml' is not known: expected one of harmony, .*, generic"):
        by_name("xml")
