"""Chat requests made up by chance, to a whole server: none fails it, none takes over a second, and the next good one is answered."""

import json
import time

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from src.api.schema.chat import ChatRequest
from tests.support.fuzz import EXAMPLES
from tests.support.in_process import InProcess

CHAT = "/v1/chat/completions"
SECONDS = 1.0
GOOD = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}}}
FIELDS = sorted(ChatRequest.model_fields)
numbers = st.integers(-3, 30) | st.integers() | st.sampled_from([2**31, 2**63 - 1, 2**63, 2**64, 10**400]) | st.floats()
scalars = (
    st.none() | st.booleans() | numbers | st.text(max_size=12) | st.sampled_from(["auto", "none", "user", "json_object", "\0", "<|end|>"])
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6) | st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=12,
)
contents = anything | st.lists(st.fixed_dictionaries({"type": st.sampled_from(["text", "image_url", "x"]), "text": anything}), max_size=3)
calls = st.lists(
    st.fixed_dictionaries(
        {"id": scalars, "type": st.just("function"), "function": st.fixed_dictionaries({"name": scalars, "arguments": scalars})}
    ),
    max_size=2,
)
message = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool", "developer", "function"]) | scalars, "content": contents},
    optional={"tool_calls": calls | anything, "tool_call_id": scalars, "name": scalars, "refusal": scalars, "extra": anything},
)
objects = st.sampled_from(["object", "array", "x"])
schemas = st.recursive(
    st.sampled_from([{}, {"type": "string"}, {"type": "integer"}, {"$ref": "#"}, {"pattern": "("}, {"enum": []}, True]) | anything,
    lambda inner: st.fixed_dictionaries(
        {"type": objects, "properties": st.dictionaries(st.text(max_size=3), inner, max_size=2), "items": inner}
    ),
    max_leaves=4,
)
forms = st.sampled_from(["json_schema", "json_object", "text", "x"])
formats = st.fixed_dictionaries({"type": forms, "json_schema": st.fixed_dictionaries({"name": st.just("n"), "schema": schemas})})
functions = st.fixed_dictionaries({"name": st.sampled_from(["f", "g"]), "parameters": schemas})
tools = st.lists(st.just(TOOL) | st.fixed_dictionaries({"type": st.just("function"), "function": functions}), max_size=3)
variables = st.sampled_from(["messages", "tools", "self", "tokenize", "enable_thinking", "a"])
PLAUSIBLE = {
    "messages": st.lists(message, max_size=3),
    "tools": tools,
    "tool_choice": st.sampled_from(["auto", "none", "required", {"type": "function", "function": {"name": "f"}}]),
    "response_format": formats,
    "stop": st.lists(st.text(max_size=3), max_size=5) | st.text(max_size=3),
    "logit_bias": st.dictionaries(st.integers(-1, 300).map(str) | st.text(max_size=3), numbers, max_size=3),
    "chat_template_kwargs": st.dictionaries(variables, scalars, max_size=3),
    "stream_options": st.fixed_dictionaries({}, optional={"include_usage": scalars, "x": scalars}),
    "stop_token_ids": st.lists(numbers, max_size=3),
    "top_logprobs": st.integers(-1, 21),
}  # fmt: skip


def field(name: str) -> st.SearchStrategy:
    return (PLAUSIBLE.get(name, scalars)) | anything


some_fields = st.fixed_dictionaries({}, optional={name: field(name) for name in FIELDS})
names = st.lists(st.sampled_from(FIELDS), max_size=4, unique=True)
bodies = (
    names.flatmap(lambda names: st.fixed_dictionaries({name: field(name) for name in names})).map(lambda fields: GOOD | fields)
    | some_fields
    | st.dictionaries(st.text(max_size=8), anything, max_size=5)
)
pieces = st.binary(max_size=6) | st.sampled_from([b"[" * 9999, b"\\ud800", b"NaN", b'{"a":' * 999])


@st.composite
def spoiled(draw: st.DrawFn) -> bytes:
    """The bytes of a request, changed somewhere."""
    data = bytearray(json.dumps(draw(bodies), ensure_ascii=draw(st.booleans())).encode(errors="surrogatepass"))
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(data)))
        data[place : place + draw(st.integers(0, 9))] = draw(pieces)
    return bytes(data)


@pytest.fixture(scope="module")
def server():
    with InProcess(CONTEXT_LENGTH=128) as server:
        yield server


def ask(client: httpx.Client, data: bytes) -> tuple[httpx.Response, float]:
    began = time.monotonic()
    answer = client.post(CHAT, content=data, headers={"Content-Type": "application/json"})
    return answer, time.monotonic() - began


def check(client: httpx.Client, data: bytes) -> None:
    answer, seconds = ask(client, data)
    assert answer.status_code < 500 or answer.json()["error"]["code"] == "request_timeout", answer.text  # a `timeout` of nothing
    if seconds > SECONDS:  # this machine may have been busy
        assert min(ask(client, data)[1] for _ in range(3)) < SECONDS
    if answer.status_code != 200:
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["code"]
        assert len(answer.content) < 4096
    elif "text/event-stream" in answer.headers["Content-Type"]:
        assert answer.content.endswith(b"data: [DONE]\n\n") or b'"error"' in answer.content
    else:
        assert answer.json()["object"] == "chat.completion"


def test_no_request_of_chance_fails_the_server_or_takes_over_a_second(server):
    with server.http() as client:
        tried: list[int] = []

        @settings(max_examples=2 * EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
        @given(data=bodies.map(lambda body: json.dumps(body).encode()) | spoiled())
        def try_all(data: bytes) -> None:
            check(client, data)
            tried.append(len(data))
            if len(tried) % 20 == 0:
                assert client.post(CHAT, json=GOOD).status_code == 200

        try_all()
        good = client.post(CHAT, json=GOOD).json()
        assert good["usage"]["completion_tokens"] == 3
    assert server.status()["models"][0]["restarts"] == 0
    assert server.errors == []
