"""Every way to be refused has a test that expects it: by its code, as a client sees it, or by its class, below HTTP."""

import ast

import pytest

from src.errors import ServiceError
from src.settings import ROOT
from tests.test_documents import all_subclasses

FAILURES = sorted((kind for kind in all_subclasses(ServiceError) if kind.code), key=lambda kind: kind.__name__)


@pytest.fixture(scope="module")
def named() -> tuple[str, set[str]]:
    """All literals of the tests, and all names that they use."""
    literals, names = [], set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)):
                literals.append(node.value.decode(errors="replace") if isinstance(node.value, bytes) else node.value)
            elif isinstance(node, ast.Name):
                names.add(node.id)
    return "\n".join(literals), names


@pytest.mark.parametrize("failure", FAILURES, ids=lambda kind: kind.__name__)
def test_every_failure_is_expected_by_some_test(named, failure):
    literals, names = named
    assert failure.code in literals or failure.__name__ in names
