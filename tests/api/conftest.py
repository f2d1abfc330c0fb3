"""The service for the tests of the routes, in this process, or served by Gunicorn for what needs that. Shared by a module."""

import pytest

from tests.support.in_process import InProcess
from tests.support.server import Server

SETTINGS = {"INFERENCE_ENGINE": "echo", "CONTEXT_LENGTH": 256, "MAX_BODY_BYTES": 250_000, "BODY_TIMEOUT": 1, "ADMIN_FROM_LOOPBACK": "true"}


@pytest.fixture(scope="module")
def server():
    with InProcess(**SETTINGS) as running:
        yield running


@pytest.fixture(scope="module")
def http(server):
    with server.http() as client:
        yield client


@pytest.fixture(scope="module")
def served():
    with Server(**SETTINGS) as running:
        yield running


@pytest.fixture(scope="module")
def served_http(served):
    with served.http() as client:
        yield client


@pytest.fixture(scope="module")
def slow():
    """A token every 50 ms, 2 requests at a time, 3 seconds for each."""
    with Server(INFERENCE_ENGINE="echo", ECHO_STEP_MS=50, MAX_CONCURRENT_REQUESTS=2, REQUEST_TIMEOUT=3) as running:
        yield running
