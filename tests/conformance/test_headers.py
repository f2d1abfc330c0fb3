"""Headers of responses: the request's id, and the fields that were ignored."""

import pytest

from tests.conformance.api import CHAT, COMPLETIONS

pytestmark = pytest.mark.feature("X-Request-ID")

HELLO = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2, "temperature": 0}
WAYS = [
    ("POST", CHAT, HELLO),
    ("POST", CHAT, {**HELLO, "stream": True}),
    ("POST", CHAT, {**HELLO, "temperature": -9}),
    ("POST", COMPLETIONS, {"prompt": "a", "max_tokens": 1}),
    ("GET", "/v1/models", None),
    ("GET", "/health", None),
    ("GET", "/nothing", None),
    ("PUT", CHAT, None),
]


@pytest.mark.parametrize(("method", "path", "body"), WAYS, ids=str)
def test_every_response_has_a_request_id_and_hands_back_a_clients_own(api, method, path, body):
    own = api.http.request(method, path, json=body, headers={"X-Request-ID": "my-request.1"})
    assert own.headers["x-request-id"] == "my-request.1"
    made = [api.http.request(method, path, json=body).headers["x-request-id"] for _ in range(2)]
    assert all(made)
    assert made[0] != made[1]


@pytest.mark.parametrize("id", ["a b", "<script>", "x" * 200, "ä".encode()], ids=str)
def test_an_id_that_is_not_well_formed_is_replaced(api, id):
    response = api.http.get("/v1/models", headers={"X-Request-ID": id})
    assert response.status_code == 200
    assert response.headers["x-request-id"] not in (id, "")


@pytest.mark.feature("X-Ignored-Fields")
def test_fields_that_nobody_knows_are_named(api):
    response = api.post(CHAT, {**HELLO, "mood": "good", "colour": 7})
    assert response.status_code == 200
    assert set(response.headers["x-ignored-fields"].split(", ")) == {"mood", "colour"}


@pytest.mark.feature("X-Ignored-Fields")
def test_a_field_within_an_object_is_named_by_its_place(api):
    messages = [{"role": "user", "content": "hello", "mood": "good"}]
    assert api.post(CHAT, {**HELLO, "messages": messages}).headers["x-ignored-fields"] == "messages[0].mood"


@pytest.mark.feature("X-Ignored-Fields")
@pytest.mark.parametrize("stream", [False, True])
def test_without_such_fields_there_is_no_such_header(api, stream):
    body = {**HELLO, "user": "me", "store": False, "metadata": {"a": "b"}, "stream": stream}
    assert "x-ignored-fields" not in api.post(CHAT, body).headers


@pytest.mark.feature("X-Ignored-Fields")
def test_a_stream_names_them_too(api):
    assert api.post(CHAT, {**HELLO, "mood": 1, "stream": True}).headers["x-ignored-fields"] == "mood"


@pytest.mark.feature("timings")
def test_timings_are_told_on_request(either):
    answer = either.chat(timings=True, ignore_eos=True)
    assert "timings" in answer or either.streams


@pytest.mark.feature("timings")
def test_timings_count_the_answers_tokens_and_are_not_told_unasked(api):
    told = api.chat(timings=True, ignore_eos=True)["timings"]
    assert told["predicted_n"] == 16
    assert told["predicted_per_second"] > 0
    assert "timings" not in api.chat()
