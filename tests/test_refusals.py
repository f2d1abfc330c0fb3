"""Every way to be refused has a test that names it."""

import ast

import pytest

from src.errors import ServiceError
from src.settings import ROOT
from tests.test_documents import all_subclasses

CODES = sorted({kind.code for kind in all_subclasses(ServiceError) if kind.code})


def strings() -> set[str]:
    """All string literals of the tests."""
    found = set()
    for path in (ROOT / "tests").rglob("*.py"):
        tree = ast.parse(path.read_text())
        found |= {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return found


@pytest.fixture(scope="module")
def literals() -> set[str]:
    return strings()


@pytest.mark.parametrize("code", CODES)
def test_every_error_code_is_expected_by_some_test(literals, code):
    assert code in literals
