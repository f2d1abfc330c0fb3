"""What is only a hint never fails a request; what of it has no effect is named in a header."""

import pytest

from tests.conformance.api import CHAT, COMPLETIONS, MESSAGES, RESPONSES, answered

pytestmark = pytest.mark.feature("hints")

HELLO = {"messages": [{"role": "user", "content": "hello"}]}
BODIES = {
    CHAT: {**HELLO, "max_tokens": 4},
    COMPLETIONS: {"prompt": "hello", "max_tokens": 4},
    MESSAGES: {**HELLO, "max_tokens": 4},
    RESPONSES: {"input": "hello", "max_output_tokens": 4},
}
SEARCH = {"type": "web_search"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "fields", "named"),
    [
        *((path, {"temperature": 3}, "temperature") for path in BODIES),
        (CHAT, {"verbosity": "low"}, "verbosity"),
        (CHAT, {"tools": [SEARCH]}, "tools[0]"),
        (RESPONSES, {"tools": [SEARCH]}, "tools[0]"),
        (MESSAGES, {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0]"),
    ],
)
def test_what_has_no_effect_is_named_and_the_rest_is_answered(api, path, fields, named, stream):
    response = api.post(path, {**BODIES[path], **fields, "stream": stream})
    assert response.status_code == 200, response.text
    assert response.headers["x-ignored-fields"] == named


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        *((path, {"temperature": 2.0, "top_p": 1.0}) for path in BODIES),
        (CHAT, {"max_tokens": 4.0, "n": 1.0, "seed": -1, "stop": [""], "tool_choice": {"type": "auto"}}),
        (MESSAGES, {"top_k": -1, "temperature": 1.5}),
    ],
)
def test_what_other_servers_take_is_taken_without_a_word(api, path, fields):
    response = api.post(path, {**BODIES[path], **fields})
    answered(response)
    assert "x-ignored-fields" not in response.headers
