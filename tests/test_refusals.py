"""Every way to be refused has a test that expects it: by its code, as a client sees it, or by its class, below HTTP.

A code has to stand by itself: `model_not_found` is no test of `not_found`.
"""

import ast

import pytest

from src.settings import ROOT
from tests.support.failures import failures

FAILURES = sorted((kind for kind in failures() if kind.code), key=lambda kind: kind.__name__)


@pytest.fixture(scope="module")
def expected() -> set[str]:
    """Every string that stands by itself in a test, and every name that the tests use."""
    found = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
            elif isinstance(node, ast.Name):
                found.add(node.id)
    return found


@pytest.mark.parametrize("failure", FAILURES, ids=lambda kind: kind.__name__)
def test_every_failure_is_expected_by_some_test(expected, failure):
    assert {failure.code, failure.__name__} & expected


def test_a_part_of_a_code_does_not_count(expected):
    assert "model_not" + "_found" in expected
    assert "model_not" + "_foun" not in expected
