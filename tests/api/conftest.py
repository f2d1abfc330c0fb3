"""Real servers for the tests of the routes, one for each set of settings and shared by a module."""

import httpx
import pytest

from tests.server import Server


@pytest.fixture(scope="module")
def server():
    with Server(INFERENCE_ENGINE="echo", CONTEXT_LENGTH=256, MAX_BODY_BYTES=250_000, BODY_TIMEOUT=1) as running:
        yield running


@pytest.fixture(scope="module")
def http(server):
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def slow():
    """A token every 50 ms, 2 requests at a time, 3 seconds for each."""
    with Server(INFERENCE_ENGINE="echo", ECHO_STEP_MS=50, MAX_CONCURRENT_REQUESTS=2, REQUEST_TIMEOUT=3) as running:
        yield running
