"""Requests that schemathesis makes up of /openapi.json, and the service in this process that answers them."""

import contextlib
from collections.abc import Callable, Iterable, Iterator

import hypothesis
import schemathesis
from schemathesis import checks

from src.api.app import create_app
from src.api.routes.openapi import describe
from src.settings import Settings
from tests.support.in_process import InProcess

RUNNING: list[InProcess] = []


@contextlib.contextmanager
def fuzzed_service() -> Iterator[InProcess]:
    """Short answers, so that thousands of requests take seconds."""
    with InProcess(CONTEXT_LENGTH=64, RESPONSE_STORE_SIZE=3, ADMIN_FROM_LOOPBACK="true") as server:
        RUNNING.append(server)
        yield server
    RUNNING.clear()


def application(environ: dict, start_response: Callable) -> Iterable[bytes]:
    """The app of the fixture's server, for the requests are made up before it runs."""
    return RUNNING[0].wsgi({"REMOTE_ADDR": "127.0.0.1", **environ}, start_response)


DOCUMENT = describe(create_app(Settings()))


def documented(*, thorough: bool) -> schemathesis.BaseSchema:
    """`thorough`: every field with every value at its bounds and beyond them, thousands of requests."""
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    schema.app = application
    schema.config.phases.coverage.enabled = thorough
    schema.config.checks.negative_data_rejection.expected_statuses = ["400", "404", "405", "413", "415"]
    schema.config.checks.not_a_server_error.expected_statuses = ["2xx", "3xx", "4xx", "504"]  # to a timeout of nothing at all
    schema = schema.exclude(path="/v1/models/download", method="POST")  # it would ask the hubs
    return schema.exclude(path=["/v1/tokenize", "/v1/detokenize"])  # they are /tokenize and /detokenize


EXCLUDED = [
    checks.positive_data_acceptance,  # a schema cannot say how many tokens a context has, or which fields do not go together
    checks.allow_header_conformance,  # GET /v1/models/load is a model's name
]


few = hypothesis.settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck))


def check(case: schemathesis.Case) -> None:
    response = case.call_and_validate(excluded_checks=EXCLUDED)
    assert response.status_code != 504 or case.body["timeout"] < 1
