"""Grammars over a vocabulary: what they allow, token by token, and what is refused."""

import json

import pytest

from src.errors import EngineError, InvalidSchema
from src.text.grammar import GrammarCompiler, Limits, source_of
from src.text.tokenizer import ByteTokenizer

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
    return GrammarCompiler(ByteTokenizer())


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
