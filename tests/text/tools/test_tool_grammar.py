"""What a grammar of tool calls allows and what it does not, for every format and for vocabularies of three kinds."""

import contextlib
import json

import pytest

from src.errors import InvalidSchema, InvalidValue
from src.text.grammar import GrammarCompiler, source_of
from src.text.output.thinking import THINK_TAGS, Phase
from src.text.tools import FORMATS
from src.text.tools.call import Call, Function
from src.text.tools.lark import Lark, Token, Want
from tests.support.marked_tokenizer import MarkedTokenizer

STRICT = Function(
    "get_weather",
    {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "unit": {"enum": ["c", "f"]}},
        "required": ["city"],
    },
    strict=True,
    param="tools[0].function.parameters",
)
TREE = Function(
    "plant",
    {
        "type": "object",
        "properties": {"tree": {"$ref": "#/$defs/tree"}},
        "$defs": {"tree": {"type": "object", "properties": {"left": {"$ref": "#/$defs/tree"}}, "additionalProperties": False}},
    },
)
FUNCTIONS = [STRICT, Function("now"), TREE]
CALLS = [Call("get_weather", {"city": "Pa ris", "days": 3}), Call("now", {}), Call("get_weather", {"city": "x", "unit": "c"})]
WRONG = [Call("get_weather", {"city": "x", "days": "no"}), Call("get_weather", {"days": 3}), Call("nobody", {})]
BARE = ("generic", "llama3", "pythonic")
ALL_MARKERS = tuple(dict.fromkeys(marker for one in FORMATS.values() for marker in (*one.MARKERS, "<think>", "</think>")))
VOCABULARIES = {
    "markers are control tokens": MarkedTokenizer(controls=ALL_MARKERS),
    "markers are words": MarkedTokenizer(words=ALL_MARKERS),
    "markers are text": MarkedTokenizer(),
}


class Held:
    """A format's grammars over one vocabulary."""

    def __init__(self, name: str, tokenizer: MarkedTokenizer, compiler: GrammarCompiler) -> None:
        self.name, self.format = name, FORMATS[name]
        self._tokenizer, self._compiler = tokenizer, compiler

    def text(self, calls: list[Call]) -> str:
        return self.format.write(calls)

    def many(self) -> str:
        return self.text(CALLS[:1] if self.name == "harmony" else CALLS)

    def content(self, text: str) -> str:
        return f"<|channel|>final<|message|>{text}" if self.name == "harmony" else text

    def allows(self, source: str, text: str) -> bool:
        grammar = self._compiler.compile(source, (), "tools")
        for token in (*self._tokenizer.encode(text, add_bos=False), self._tokenizer.END):
            if not grammar.allowed()[token // 8] >> token % 8 & 1:
                return False
            grammar.accept(token)
        return True

    def source(self, *, functions: list[Function] = FUNCTIONS, content: str | None = None, **want: object) -> str:
        lark = Lark(self._token_of, self._compiler, content)
        return lark.source(self.format.grammar(lark, functions, Want(content=content is not None, **want)))

    def json(self, schema: dict) -> str:
        return source_of("json_schema", json.dumps(schema), self._compiler.limits, "response_format")

    def _token_of(self, text: str) -> Token | None:
        id = self._tokenizer.markers.get(text)
        return None if id is None else Token(id, control=text in self._tokenizer.controls)


@pytest.fixture(scope="module")
def compilers():
    with contextlib.ExitStack() as stack:
        compilers = {kind: GrammarCompiler(tokenizer) for kind, tokenizer in VOCABULARIES.items()}
        for compiler in compilers.values():
            stack.callback(compiler.close)
        yield compilers


@pytest.fixture(params=VOCABULARIES)
def vocabulary(request) -> str:
    return request.param


# gpt-oss always has its markers as control tokens.
HELD = [(name, kind) for name in FORMATS for kind in VOCABULARIES if (name, kind) != ("harmony", "markers are text")]


@pytest.fixture(params=HELD, ids=" ".join)
def held(request, compilers) -> Held:
    name, kind = request.param
    return Held(name, VOCABULARIES[kind], compilers[kind])


def test_a_forced_answer_is_calls_and_nothing_else(held):
    forced = held.source(forced=True)
    assert held.allows(forced, held.text(CALLS[:1]))
    assert held.allows(forced, held.many())
    assert not held.allows(forced, held.content("hi"))
    assert not held.allows(forced, "")
    assert not any(held.allows(forced, held.text([call])) for call in WRONG)


def test_a_named_choice_is_a_call_of_that_function(held):
    forced = held.source(functions=FUNCTIONS[1:2], forced=True, parallel=False)
    assert held.allows(forced, held.text([Call("now", {})]))
    assert not held.allows(forced, held.text(CALLS[:1]))


def test_without_parallel_calls_there_is_one_at_most(held):
    for forced in (True, False):
        single = held.source(forced=forced, parallel=False)
        assert held.allows(single, held.text(CALLS[:1]))
        assert held.name == "harmony" or not held.allows(single, held.many())
    assert held.allows(single, held.content("Not [one], {none}."))


def test_what_is_no_call_is_free_and_a_call_that_begins_is_held_to_its_schema(held):
    free = held.source()
    for text in ("hi", "Two\n\nlines, <b>tags</b>"):
        assert held.allows(free, held.content(text))
    assert held.allows(free, held.many())
    assert not any(held.allows(free, held.text([call])) for call in WRONG)


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in (*BARE, "harmony")])
def test_a_call_in_the_midst_of_text_is_held_to_its_schema_too(name, vocabulary, compilers):
    held = Held(name, VOCABULARIES[vocabulary], compilers[vocabulary])
    free, call = held.source(), held.text(CALLS[:1])
    assert held.allows(free, f"Let me see. {call} And\n{call}")
    assert not held.allows(free, f"Let me see. {held.text(WRONG[:1])}")
    assert not held.allows(free, f"Let me see. {call} And\n{held.text(WRONG[:1])}")


@pytest.mark.parametrize("forced", [True, False])
@pytest.mark.parametrize(
    ("phase", "thought"),
    [(Phase.BEGUN, "hm\n</think>\n\n"), (Phase.POSSIBLE, "<think>\nhm</think>\n"), (Phase.POSSIBLE, ""), (Phase.OVER, "")],
)
def test_reasoning_comes_first_and_the_call_behind_it_is_held(held, forced, phase, thought):
    if held.name == "harmony":
        thought = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant" if thought else ""
    source = held.source(forced=forced, marks=THINK_TAGS[0], phase=phase)
    assert held.allows(source, thought + held.text(CALLS[:1]))
    assert not held.allows(source, thought + held.text(WRONG[:1]))
    assert held.allows(source, thought + held.content("hi")) == (not forced)


def test_beside_calls_content_is_held_to_its_own_grammar(held):
    number = {"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"], "additionalProperties": False}
    for content, right, wrong in ((held.json(number), '{"answer": 3}', '{"answer": "x"}'), ('start: "yes" | "no"', "yes", "maybe")):
        source = held.source(content=content)
        assert held.allows(source, held.content(right))
        assert not held.allows(source, held.content(wrong))
        assert held.allows(source, held.text(CALLS[:1]))
        assert held.allows(source, held.text([Call("plant", {"tree": {"left": {}}})]))
        assert not held.allows(source, held.text(WRONG[:1]))
        assert not held.allows(source, held.text([Call("plant", {"tree": {"right": {}}})]))


def test_a_schema_that_cannot_be_enforced_is_refused_where_it_is_strict_and_loosened_where_not(held):
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "(?<=x)a"}}, "required": ["a"]}
    with pytest.raises((InvalidSchema, InvalidValue)) as caught:
        held.source(functions=[Function("f", schema, strict=True, param="tools[0].function.parameters")], forced=True)
    assert caught.value.param in ("tools[0].function.parameters", "tools")
    assert "pattern" in caught.value.message
    loose = held.source(functions=[Function("f", schema)], forced=True)
    assert held.allows(loose, held.text([Call("f", {"a": "anything"})]))
