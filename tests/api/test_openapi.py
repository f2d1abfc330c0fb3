"""/openapi.json is true: it has every route, and what is sent by it is answered as it says. Requests are made up by schemathesis."""

import httpx
import hypothesis
import pytest
import schemathesis
from schemathesis import checks

from src.api.app import create_app
from src.api.openapi import OPERATIONS, describe
from src.settings import Settings
from tests.server import Server


@pytest.fixture(scope="module")
def fuzzed():
    """Short answers, so that thousands of requests take seconds."""
    with Server(INFERENCE_ENGINE="echo", CONTEXT_LENGTH=64, RESPONSE_STORE_SIZE=3, LOG_LEVEL="ERROR") as server:
        yield server


DOCUMENT = describe(create_app(Settings()))
schema = schemathesis.openapi.from_dict(DOCUMENT)
schema = schema.exclude(path="/v1/models/download", method="POST")  # it would ask the hubs
schema = schema.exclude(path=["/v1/tokenize", "/v1/detokenize"])  # they are /tokenize and /detokenize


schema.config.checks.negative_data_rejection.expected_statuses = ["400", "404", "405", "413", "415"]
schema.config.checks.not_a_server_error.expected_statuses = ["2xx", "3xx", "4xx", "504"]  # to a timeout of nothing at all
EXCLUDED = [
    checks.positive_data_acceptance,  # a schema cannot say how many tokens a context has, or which fields do not go together
    checks.allow_header_conformance,  # GET /v1/models/load is a model's name
]


@schema.parametrize()
@hypothesis.settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck))
def test_every_route_answers_as_the_document_says(case, fuzzed):
    response = case.call_and_validate(base_url=fuzzed.url, excluded_checks=EXCLUDED, timeout=60)
    assert response.status_code != 504 or case.body["timeout"] < 1


def test_the_document_has_every_route_and_no_other():
    found = {f"{method.upper()} {path}" for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert found == set(OPERATIONS)


def test_the_document_is_served_and_small(fuzzed):
    response = httpx.get(f"{fuzzed.url}/openapi.json")
    assert response.json() == DOCUMENT
    assert len(response.content) < 100_000
