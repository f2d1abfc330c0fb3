"""/openapi.json is true: it has every route, and what is sent by it is answered as it says."""

import pytest

from src.api.app import create_app
from src.api.routes import openapi
from src.api.routes.openapi import OPERATIONS
from src.settings import Settings
from tests.support.documented import DOCUMENT, check, documented, few, fuzzed_service


@pytest.fixture(scope="module")
def fuzzed():
    with fuzzed_service() as server:
        yield server


@documented(thorough=False).parametrize()
@few
def test_every_route_answers_as_the_document_says(case, fuzzed):
    check(case)


def test_the_document_has_every_route_and_no_other():
    found = {f"{method.upper()} {path}" for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert found == set(OPERATIONS)


def test_the_document_is_served_and_small(fuzzed):
    with fuzzed.http() as http:
        response = http.get("/openapi.json")
    assert response.json() == DOCUMENT
    assert len(response.content) < 100_000


def test_the_document_is_made_once(monkeypatch):
    client = create_app(Settings()).test_client()
    first = client.get("/openapi.json").data
    monkeypatch.setattr(openapi, "describe", None)
    assert client.get("/openapi.json").data == first
