"""Clients that take Unicode's line separators for the end of a line read streams all the same."""

import json

import pytest

from tests.support.openai_api import CHAT, COMPLETIONS

SEPARATORS = "a\u0085b\u2028c\u2029d’"
MESSAGES = {"messages": [{"role": "user", "content": SEPARATORS}], "max_tokens": 100}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, MESSAGES),
        (COMPLETIONS, {"prompt": SEPARATORS, "max_tokens": 100}),
        ("/v1/responses", {"input": SEPARATORS, "max_output_tokens": 100}),
        ("/v1/messages", MESSAGES),
    ],
)
def test_no_event_has_a_line_separator_within_it(http, path, body):
    answer = http.post(path, json={**body, "stream": True}).text
    lines = [line.partition(": ") for line in answer.splitlines() if line]
    assert {field for field, _, _ in lines} <= {"event", "data"}
    spoken = "".join(json.dumps(json.loads(data)) for field, _, data in lines if field == "data" and data != "[DONE]")
    assert all(json.dumps(separator)[1:-1] in spoken for separator in "\u0085\u2028\u2029’")
