"""The suite of the HTTP contract itself: what it is allowed to know, and that its own comparing can fail."""

import ast

import pytest

from src.settings import ROOT
from tests.conformance import fold
from tests.conformance.results import case_name

SUITE = ROOT / "tests" / "conformance"
CASES = sorted(SUITE.glob("test_*.py"))


def chunk(delta: dict, finish: str | None = None, **fields: object) -> dict:
    return {"id": "a", "created": 1, "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish, **fields}]}


@pytest.mark.parametrize("path", [*CASES, SUITE / "api.py", SUITE / "fold.py"], ids=lambda path: path.stem)
def test_cases_know_http_alone(path):
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    assert not [name for name in imported if name.startswith("src") or (name.startswith("tests") and "conformance" not in name)]


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_every_case_belongs_to_a_feature(path):
    assert "\npytestmark = pytest.mark.feature(" in path.read_text()


def test_deltas_fold_to_one_message():
    folded = fold.chat([chunk({"role": "assistant", "content": ""}), chunk({"content": "a"}), chunk({"content": "b"}), chunk({}, "stop")])
    (choice,) = folded["choices"]
    assert choice["message"] == {"role": "assistant", "content": "ab"}
    assert choice["finish_reason"] == "stop"


def test_a_name_that_is_streamed_twice_stands_there_twice():
    piece = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}
    folded = fold.chat([chunk({"tool_calls": [piece]}), chunk({"tool_calls": [piece]})])
    assert folded["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "ff"


def test_a_choice_that_ends_twice_is_a_mistake():
    with pytest.raises(AssertionError, match="ends once"):
        fold.chat([chunk({}, "stop"), chunk({}, "stop")])


@pytest.mark.parametrize(
    ("plain", "folded"),
    [
        ({"a": "x"}, {"a": "y"}),
        ({"a": "x"}, {}),
        ({}, {"a": "x"}),
        ({"a": [1]}, {"a": [1, 2]}),
        ({"logprob": -0.5}, {"logprob": -0.6}),
        ({"finish_reason": "stop"}, {"finish_reason": "length"}),
        ({"usage": {"completion_tokens": 7}}, {"usage": {"completion_tokens": 8}}),
        ({"a": 0}, {}),
        ({"a": False}, {}),
    ],
)
def test_answers_that_differ_in_a_field_are_not_the_same(plain, folded):
    with pytest.raises(AssertionError):
        fold.assert_same(plain, folded)


@pytest.mark.parametrize(
    ("plain", "folded"),
    [
        ({"id": "a", "created": 1}, {"id": "b", "created": 2}),
        ({"content": None, "refusal": None}, {"content": ""}),
        ({"logprob": -0.5}, {"logprob": -0.5000001}),
        ({"details": {"cached_tokens": 0}}, {"details": {"cached_tokens": 5}}),
    ],
)
def test_what_belongs_to_a_request_alone_may_differ(plain, folded):
    fold.assert_same(plain, folded)


@pytest.mark.parametrize("column", ["mlx", "llama-server", "http://127.0.0.1:8080"])
def test_a_case_has_one_name_for_all_that_is_tested(column):
    for given, name in (("plain-on {}-1-a", "plain-1-a"), ("on {}-/v1/x-f-{{'a': 1}}", "/v1/x-f-{{'a': 1}}"), ("plain-on {}", "plain")):
        assert case_name(f"tests/test_n.py::test_it[{given.format(column)}]", column) == f"test_n::test_it[{name.format()}]"
    assert case_name(f"tests/test_n.py::test_it[on {column}]", column) == "test_n::test_it"
