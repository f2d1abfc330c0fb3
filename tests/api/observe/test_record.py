"""What a request's line says of its end."""

import flask
import pytest

from src.api.app import create_app
from src.api.observe import record
from src.settings import Settings


@pytest.fixture
def lines(monkeypatch):
    written = []
    monkeypatch.setattr(record.AccessRecord, "listeners", [written.append])
    return written


@pytest.mark.parametrize(
    ("facts", "error"),
    [
        ({}, None),  # no stream that a model has begun
        ({"started": 0.1}, "client_gone"),  # its server gave the response up, for it could not be written
        ({"started": 0.1, "completion_tokens": 3}, None),
        ({"started": 0.1, "error": "engine_crashed", "stream_error_status": 502}, "engine_crashed"),
    ],
)
def test_a_stream_without_a_last_event_and_an_error_was_left_by_its_client(lines, facts, error):
    with create_app(Settings()).test_request_context("/v1/chat/completions"):
        record.begin(lambda peer, forwarded: peer)
        for name, value in facts.items():
            setattr(record.record(), name, value)
        response = record.end(flask.Response(iter([b"data: {}\n\n"])))
        response.close()
    [line] = lines
    assert line.error == error
