"""Grammars over a vocabulary: what they allow, token by token, and what is refused."""

import json
import os
import subprocess
import sys
import time

import psutil
import pytest

from src.engines import load_engine
from src.engines.llamacpp import LlamaCppOptions
from src.errors import EngineError, InvalidSchema
from src.settings import ROOT
from src.text.grammar import Budget, GrammarCompiler, Limits, source_of
from src.text.grammar.matcher import TooSlow
from src.text.tokenizer.base import ByteTokenizer
from src.text.tokenizer.gguf import GGUFTokenizer

END = ByteTokenizer.END
LIMITS = Limits()
POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}},
    "required": ["x", "y"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def compiler():
    compiler = GrammarCompiler(ByteTokenizer())
    yield compiler
    compiler.close()


def of_schema(compiler, schema):
    return compiler.compile(source_of("json_schema", json.dumps(schema), LIMITS, "response_format"), [], "response_format")


def may(grammar, token: int) -> bool:
    return bool(grammar.allowed()[token // 8] >> token % 8 & 1)


def follows(grammar, text: str) -> bool:
    """Whether the grammar lets an answer be exactly this."""
    for byte in text.encode():
        if not may(grammar, byte):
            return False
        grammar.accept(byte)
    return may(grammar, END)


def test_an_answer_that_fits_the_schema_is_allowed_and_no_other(compiler):
    assert follows(of_schema(compiler, POINT), '{"x": 1, "y": -2}')
    for wrong in ('{"x": 1}', '{"x": 1, "y": "a"}', '{"x": 1, "y": 2, "z": 3}', "[]", "1", ""):
        assert not follows(of_schema(compiler, POINT), wrong), wrong


def test_an_answer_can_end_only_where_it_is_whole(compiler):
    grammar = of_schema(compiler, POINT)
    for byte in b'{"x": 1, "y": 2':
        assert not may(grammar, END)
        grammar.accept(byte)
    grammar.accept(ord("}"))
    assert may(grammar, END)
    assert sum(map(int.bit_count, grammar.allowed())) == 1, "something can follow"


def test_a_grammar_goes_on_behind_the_tokens_that_are_known(compiler):
    source = source_of("json_schema", json.dumps(POINT), LIMITS)
    grammar = compiler.compile(source, list(b'{"x": 1,'))
    assert follows(grammar, ' "y": 2}')


def test_the_same_grammar_can_be_followed_anew_behind_other_tokens(compiler):
    grammar = compiler.compile("start: /ab*c/")
    for token in b"abbc":
        grammar.accept(token)
    again = grammar.behind(list(b"ab"))
    assert (may(again, ord("b")), may(again, ord("c")), may(again, ord("a"))) == (True, True, False)
    assert not may(grammar, ord("b"))
    with pytest.raises(EngineError):
        grammar.behind(list(b"x"))


def test_known_tokens_that_do_not_follow_the_grammar_are_an_error(compiler):
    with pytest.raises(EngineError):
        compiler.compile(source_of("json_schema", json.dumps(POINT), LIMITS), list(b"no"))


def test_a_token_that_is_not_allowed_is_not_accepted(compiler):
    with pytest.raises(EngineError):
        of_schema(compiler, POINT).accept(ord("x"))


def test_grammars_of_the_same_source_do_not_disturb_each_other(compiler):
    one, other = of_schema(compiler, POINT), of_schema(compiler, POINT)
    one.accept(ord("{"))
    assert follows(other, '{"x":1,"y":2}')


def test_the_keyword_that_is_not_supported_is_named(compiler):
    with pytest.raises(InvalidSchema, match=r"^response_format: the keyword not is not supported\.$") as caught:
        of_schema(compiler, {"not": {"type": "string"}})
    assert caught.value.param == "response_format"
    assert caught.value.code == "invalid_schema"


# What is allowed


def test_a_property_has_one_spelling_so_that_no_other_schema_can_slip_in(compiler):
    grammar = of_schema(compiler, {"type": "object", "properties": {"a": {"type": "integer"}}})
    assert follows(grammar, '{"b":"x"}')
    for sneaky in ('{"\\u0061":"x"}', '{"a":"x"}', '{"b":1,"a":"x"}'):
        assert not follows(of_schema(compiler, {"type": "object", "properties": {"a": {"type": "integer"}}}), sneaky), sneaky


def test_white_space_is_that_of_people_and_bounded(compiler):
    for text in ('{"x":1,"y":2}', '{"x": 1, "y": 2}', '{\n  "x": 1,\n  "y": 2\n}', '{\n\t"x": 1,\n\t"y": 2\n}'):
        assert follows(of_schema(compiler, POINT), text), text
    for text in ('{  "x":1,"y":2}', '{\n\n"x":1,"y":2}', '{"x":' + "\n" + " " * 25 + '1,"y":2}', ' {"x":1,"y":2}', '{"x":1,"y":2} '):
        assert not follows(of_schema(compiler, POINT), text), text


def test_a_schema_cannot_loosen_the_rules(compiler):
    with pytest.raises(InvalidSchema, match="the keyword not is not supported"):
        of_schema(compiler, {"not": {}, "x-guidance": {"lenient": True}})
    loosened = of_schema(compiler, {**POINT, "x-guidance": {"whitespace_pattern": " *"}})
    assert not follows(loosened, '{    "x":1,"y":2}')


CHOICES = ['a"b', "c\\d", "é", "line\nbreak", "\t", "\x01", "😀", "/x/", "it's", "a", "ab", "<|end|>x", "start: b"]


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_can_be_made_and_nothing_else(compiler, choice):
    source = source_of("choice", json.dumps(CHOICES), LIMITS)
    if "<|end|>" not in choice:
        assert follows(compiler.compile(source), choice)
    assert not follows(compiler.compile(source), f"{choice}?")


@pytest.mark.parametrize(
    ("regex", "matches", "others"),
    [
        ("[a-z]{3}-\\d+", ["abc-12"], ["ab-1", "abc-", "xabc-1"]),
        ("^(yes|no)$", ["yes", "no"], ["", "yesno"]),
        ("a/b\\/c", ["a/b/c"], ["ab"]),
        ("a\nb\\\nc\\nd", ["a\nb\nc\nd"], ["a\\nb"]),
        ("\\\\/", ["\\/"], ["/"]),
        ("[^a]", ["b", "\n", "é"], ["a", ""]),
        ('"/', ['"/'], ['"']),
    ],
)
def test_a_regular_expression_matches_the_whole_answer(compiler, regex, matches, others):
    source = source_of("regex", regex, LIMITS)
    assert all(follows(compiler.compile(source), text) for text in matches)
    assert not any(follows(compiler.compile(source), text) for text in others)


def test_a_lark_grammar_is_taken_as_it_is(compiler):
    source = source_of("lark", 'start: "(" start ")" | "x"', LIMITS)
    assert follows(compiler.compile(source), "((x))")
    assert not follows(compiler.compile(source), "((x)")


def test_behind_reasoning_the_answer_is_held_to_its_grammar(compiler):
    for source in (source_of("json_schema", json.dumps(POINT), LIMITS), source_of("lark", 'start: "{" /[^}]*/ "}"', LIMITS)):
        behind = compiler.after(source, end="</think>")
        assert follows(compiler.compile(behind), 'Let me see: {"x"...</think>\n\n{"x":1,"y":2}')
        assert not follows(compiler.compile(behind), '{"x":1,"y":2}')
        assert not follows(compiler.compile(behind), "hm</think>no")
        assert follows(compiler.compile(compiler.after(source, end="</think>", begin="<think>")), '<think>hm</think>{"x":1,"y":2}')


def test_a_token_that_is_no_text_can_end_the_reasoning(compiler):
    behind = compiler.compile(compiler.after(source_of("choice", '["yes"]', LIMITS), end=ByteTokenizer.END_TEXT))
    for byte in b"hm":
        behind.accept(byte)
    behind.accept(END)
    assert follows(behind, "yes")


# What is refused


def nested(depth: int, inner: object) -> object:
    for _ in range(depth):
        inner = {"items": inner}
    return inner


def cannot(keyword: str, value: object, **fields: object):
    return pytest.param({keyword: value, **fields}, keyword, id=keyword)


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        *(cannot(keyword, {"type": "string"}) for keyword in ("not", "contains", "unevaluatedProperties")),
        cannot("if", {"type": "string"}, then={"minLength": 1}),
        cannot("propertyNames", {"pattern": "^a"}),
        cannot("uniqueItems", True, type="array"),
        cannot("dependentRequired", {"a": ["b"]}),
        cannot("$dynamicRef", "#a"),
        cannot("oneOf", [{"type": "integer"}, {"type": "number"}]),
        cannot("minProperties", 2, type="object"),
        cannot("pattern", "(?<=x)*", type="string"),
        cannot("pattern", "(", type="string"),
        ({"type": "banana"}, "banana"),
        ({"$ref": "#"}, "nothing that is finite"),
        ({"$ref": "#/$defs/none"}, "/$defs/none"),
        ({"$ref": "http://127.0.0.1/x.json"}, "127.0.0.1"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "minimum"),
        ({"type": "string", "enum": [1]}, "Unsatisfiable"),
        ({"properties": [1]}, "properties"),
        ({"type": "string", "minLength": -1}, "minLength"),
        ({"properties": {f"p{index}": {} for index in range(401)}}, "401 properties"),
        (nested(32, {}), "32 levels that MAX_GRAMMAR_DEPTH"),
        ({"enum": [f"value{index}" for index in range(10_000)]}, "MAX_GRAMMAR_BYTES"),
    ],
)
def test_a_schema_that_no_answer_can_be_held_to_is_refused_with_the_reason(compiler, schema, told):
    with pytest.raises(InvalidSchema) as caught:
        of_schema(compiler, schema)
    assert told in caught.value.message
    assert "response_format" in caught.value.message
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    "schema", [{"required": ["a", "b"], "minProperties": 3}, {"minProperties": 1}, {"const": {"minProperties": 9}}, nested(15, {})]
)
def test_what_can_be_held_is_not_refused(compiler, schema):
    of_schema(compiler, schema)


@pytest.mark.parametrize(
    ("form", "text", "told"),
    [
        ("regex", "a\0b", "NUL"),
        ("regex", "(", "unclosed group"),
        ("regex", "(?=a)b", "look-around"),
        ("regex", r"\bword\b", "lookarounds"),
        ("regex", "[z-a]", "invalid character class range"),
        ("regex", "(" * 20_000 + "a" + ")" * 20_000, "wrong"),
        ("regex", "((((a{10}){10}){10}){10}){10}", "takes (too long|longer)"),
        ("lark", 'root ::= "a"', "GBNF"),
        ("lark", 'root: "a"', "start"),
        ("lark", "start: foo", "foo"),
        ("lark", "start: start", "nothing that is finite"),
        ("lark", "start: " + "(" * 30_000 + '"a"' + ")" * 30_000, "nested"),
    ],
)
def test_an_expression_or_grammar_that_is_wrong_is_refused_with_the_reason(compiler, form, text, told):
    with pytest.raises(InvalidSchema, match=told) as caught:
        compiler.compile(source_of(form, text, LIMITS, "guided"), [], "guided")
    assert caught.value.message.startswith("guided")
    assert len(caught.value.message) < 300


# What it may cost

ENDLESS = "start: A\nA: " + " & ".join(f"/(?s:.*)a{index}(?s:.*)/" for index in range(30))
TOO_DEEP = "start: r0\n" + "\n".join(f"r{index}: r{index + 1}" for index in range(4000)) + '\nr4000: "a"'


@pytest.fixture
def fresh():
    compiler = GrammarCompiler(ByteTokenizer(), Limits(seconds=60))
    yield compiler
    compiler.close()


@pytest.mark.parametrize(
    ("source", "seconds", "told"),
    [(ENDLESS, 1, "1 s that GRAMMAR_COMPILE_SECONDS"), (TOO_DEEP, 60, "too complex")],
    ids=["endless", "too deep"],
)
def test_a_grammar_that_never_ends_or_ends_its_process_is_refused_and_the_next_one_is_served(source, seconds, told):
    compiler = GrammarCompiler(ByteTokenizer(), Limits(seconds=seconds))
    with pytest.raises(InvalidSchema, match=told):
        compiler.compile(source, [], "guided_grammar")
    assert follows(compiler.compile('start: "a"'), "a")
    compiler.close()


def test_what_was_refused_is_not_tried_again(fresh, monkeypatch):
    with pytest.raises(InvalidSchema) as first:
        fresh.compile("start: foo", [], "guided_grammar")
    monkeypatch.setattr(fresh._idle[0], "check", None)
    with pytest.raises(InvalidSchema) as second:
        fresh.compile("start: foo", [], "guided_grammar")
    assert second.value.message == first.value.message


class Slow:
    """In place of the process: takes a tenth of a second or as long as it may, and is never through."""

    def __init__(self, compiler: GrammarCompiler, monkeypatch: pytest.MonkeyPatch) -> None:
        compiler.compile('start: "a"')
        self.asked: list[float] = []
        monkeypatch.setattr(compiler._idle[0], "check", self.check)

    def check(self, source: str, seconds: float) -> None:
        self.asked.append(seconds)
        time.sleep(min(seconds, 0.1))
        raise TooSlow(1)

    def times(self) -> int:
        number, self.asked = len(self.asked), []
        return number


def refused(compiler: GrammarCompiler, *words: str, budget: Budget | None = None, parts: bool = False) -> None:
    for word in words:
        with pytest.raises(InvalidSchema, match="GRAMMAR_COMPILE_SECONDS"):
            (compiler.try_part if parts else compiler.compile)(f'start: "{word}"', budget=budget)


def test_the_grammars_of_a_request_share_its_seconds(fresh, monkeypatch):
    slow, budget = Slow(fresh, monkeypatch), Budget(0.25)
    refused(fresh, "b", "c", "d", "e", "f", budget=budget)
    assert slow.times() == 3
    assert budget.left <= 0


def test_parts_leave_half_of_the_seconds_to_the_whole(fresh, monkeypatch):
    slow, budget = Slow(fresh, monkeypatch), Budget(0.4)
    refused(fresh, "b", "c", "d", "e", budget=budget, parts=True)
    assert slow.times() == 2
    refused(fresh, "f", budget=budget)
    assert slow.asked[0] > 0.1


def test_what_was_too_slow_is_refused_at_once_unless_it_may_take_longer_now(fresh, monkeypatch):
    slow = Slow(fresh, monkeypatch)
    refused(fresh, "b", "b", "b", budget=Budget(1))
    assert slow.times() == 1
    refused(fresh, "b", budget=Budget(1))
    assert slow.times() == 0
    refused(fresh, "b", budget=Budget(2))
    assert slow.times() == 1


def test_many_that_were_too_slow_are_not_all_remembered_and_push_out_no_others(fresh, monkeypatch):
    monkeypatch.setattr("src.text.grammar.compiler.KEPT_SLOW", 2)
    slow = Slow(fresh, monkeypatch)
    refused(fresh, "b", "c", "d", budget=Budget(10))
    refused(fresh, "b", budget=Budget(9))
    assert slow.times() == 4
    refused(fresh, "d", budget=Budget(9))
    fresh.compile('start: "a"')
    assert slow.times() == 0


def test_a_grammar_that_ends_its_process_pays_for_the_next_one(fresh):
    fresh.compile('start: "a"')
    budget = Budget(60)
    with pytest.raises(InvalidSchema):
        fresh.compile(TOO_DEEP, budget=budget)
    assert fresh._idle[0].pid is not None


def test_many_schemas_leave_no_file_and_no_memory_behind(tmp_path):
    """In a process of its own: what others have opened here, started or kept is not counted."""
    script = """
import json, os, psutil
from src.text.grammar import GrammarCompiler, Limits, source_of
from src.text.tokenizer.base import ByteTokenizer
compiler = GrammarCompiler(ByteTokenizer())
def compile_some(first, last):
    for index in range(first, last):
        schema = {"type": "object", "properties": {f"name{index}": {"type": "integer"}}}
        compiler.compile(source_of("json_schema", json.dumps(schema), Limits(), "response_format"), [], "response_format")
os.chdir(os.environ["TMPDIR"])
compile_some(0, 100)
processes = [psutil.Process(), *psutil.Process().children()]
def rss():
    return [process.memory_info().rss for process in processes]
before = rss()
compile_some(100, 500)
written = [file.path for process in processes for file in process.open_files() if "w" in file.mode or "a" in file.mode]
print(json.dumps({
    "processes": len(processes), "grown": max(map(int.__sub__, rss(), before)), "written": written,
    "kept": len(compiler._kept), "kept_bytes": sum(map(len, compiler._kept)),
}))
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    found = json.loads(run.stdout)
    assert found["processes"] == 2
    assert 0 < found["kept"] <= 64
    assert found["kept_bytes"] <= 2**20
    assert found["grown"] < 32 * 2**20
    assert found["written"] == list(tmp_path.iterdir()) == []


def test_masks_that_take_too_long_end_their_job(compiler, monkeypatch):
    monkeypatch.setattr("src.text.grammar.compiler.MASK_SECONDS", -1.0)
    with pytest.raises(EngineError, match="too complex"):
        of_schema(compiler, POINT).allowed()


def test_the_process_that_tries_grammars_ends_with_its_own(tmp_path):
    script = """
import time, psutil
from src.text.grammar import GrammarCompiler
from src.text.tokenizer.base import ByteTokenizer
compiler = GrammarCompiler(ByteTokenizer())
compiler.compile('start: "a"')
print(psutil.Process().children()[0].pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as runner:
        trial = psutil.Process(int(runner.stdout.readline()))
        runner.kill()
        trial.wait(10)
    assert not trial.is_running()


def test_a_model_without_an_end_cannot_be_held_to_a_grammar():
    class Endless(ByteTokenizer):
        end_tokens = ()

    with pytest.raises(EngineError, match="no token that ends an answer"):
        GrammarCompiler(Endless()).compile('start: "a"')


def test_the_tokenizer_ends_where_the_engine_does(model_path):
    tokenizer = GGUFTokenizer(model_path)
    engine = load_engine("llama_cpp", LlamaCppOptions(model_path=str(model_path), context_length=64, max_sequences=1))
    assert list(tokenizer.end_tokens) == engine._model.end_tokens
    assert {tokenizer.display_bytes(token) for token in tokenizer.end_tokens} >= {b"<|im_end|>"}
    engine.close()
    tokenizer.close()
