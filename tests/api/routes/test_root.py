"""What clients ask beside the API: none of it is an error, in the answer or in the log."""

import pytest
from loguru import logger


@pytest.fixture
def lines():
    """What is logged, line by line."""
    found: list[str] = []
    sink = logger.add(lambda line: found.append(str(line)), format="{level} {message}")
    yield found
    logger.remove(sink)


@pytest.mark.parametrize("accept", [None, "*/*", "text/plain", "text/html,*/*;q=0.8"])
def test_the_address_alone_says_where_to_go(http, accept):
    headers = {"Accept": accept} if accept else {}
    response = http.get("/", headers=headers)
    assert (response.status_code, response.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert "/v1/models" in response.text
    assert response.headers["vary"] == "Accept"
    head = http.head("/", headers=headers)
    assert (head.status_code, head.content) == (200, b"")


def test_it_does_so_as_json_where_json_is_asked_for(http):
    answer = http.get("/", headers={"Accept": "application/json"}).json()
    assert answer["openai_base_url"] == "/v1"
    assert answer["message"].startswith("This is an inference server")


def test_what_claude_code_looks_for_and_sends_is_no_error(http, lines):
    assert http.head("/api/hello").status_code == 200
    assert http.get("/api/hello").status_code == 200
    for body in (b"{", b'{"events": []}'):
        response = http.post("/api/event_logging/batch", content=body)
        assert (response.status_code, response.content) == (204, b"")
    told = [line for line in lines if "/api/" in line]  # the manager may log something of its own
    assert len(told) == 4
    assert all(line.startswith("INFO") and " error=- " in line for line in told)
