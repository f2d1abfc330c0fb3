"""Every route over real HTTP: what a right request gets, what each wrong one is told, and what of it reaches the logs."""

import contextlib
import json
import re
import socket
import threading
import time

import httpx
import psutil
import pytest
from loguru import logger

from src import logs
from src.api.app import create_app
from src.settings import Settings
from tests.server import Server, wait_until

CANARY = "canary-7f3a"
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HELLO = {"messages": [{"role": "user", "content": "hello"}]}
ENDLESS = {**HELLO, "ignore_eos": True}
OWN_ID = re.compile(r"[0-9a-f]{32}")
FIELDS = ("model", "status", "error", "tokens_in", "tokens_out", "queue_ms", "ttft_ms", "total_ms")
LINE = re.compile(r"id=(?P<id>\S+) key=- client=\S+ route='(?P<route>.*)' " + " ".join(rf"{name}=(?P<{name}>\S+)" for name in FIELDS) + "$")


def check_error(response: httpx.Response, status: int, code: str, param: str | None = None, told: str = "") -> dict:
    """The response is OpenAI's error object with these values, and nothing of it is HTML."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    assert set(response.json()) == {"error"}
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == {429: "rate_limit_error"}.get(status, "invalid_request_error" if status < 500 else "server_error")
    assert (error["code"], error["param"]) == (code, param)
    assert told in error["message"]
    return error


def post(http: httpx.Client, path: str, body: bytes, content_type: str | None = "application/json") -> httpx.Response:
    return http.post(path, content=body, headers={"Content-Type": content_type} if content_type is not None else {})


def raw(server: Server, data: bytes, *, half_close: bool = False) -> httpx.Response:
    """Send bytes as they are; the response, once the server has closed the connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(data)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while received := connection.recv(65536):
                answer += received
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *headers = head.split(b"\r\n")
    return httpx.Response(int(status.split()[1]), headers=[tuple(line.split(b": ", 1)) for line in headers], content=body)


def raw_post(*headers: str, path: str = CHAT) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def generated(server: Server) -> int:
    """Tokens generated so far."""
    return server.status()["models"][0]["stats"]["generated"]


def events(response: httpx.Response) -> list:
    return [data if data == "[DONE]" else json.loads(data) for data in re.findall(r"^data: (.*)$", response.text, re.MULTILINE)]


# What a right request gets


def test_a_chat_is_answered(http):
    answer = http.post(CHAT, json={**HELLO, "model": "echo"}).json()
    assert answer["object"] == "chat.completion"
    assert answer["id"].startswith("chatcmpl-")
    assert answer["model"] == "echo"
    assert abs(answer["created"] - time.time()) < 60
    [choice] = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": "user: hello\n", "refusal": None}
    assert (choice["index"], choice["finish_reason"], choice["logprobs"]) == (0, "stop", None)
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (12, 13)
    assert answer["usage"]["total_tokens"] == 25


def test_a_text_is_completed(http):
    answer = http.post(COMPLETIONS, json={"prompt": "abc", "max_tokens": 2}).json()
    assert answer["object"] == "text_completion"
    assert answer["id"].startswith("cmpl-")
    assert answer["choices"] == [{"index": 0, "text": "ab", "logprobs": None, "finish_reason": "length"}]
    assert answer["usage"]["completion_tokens"] == 2


def test_a_list_of_tokens_is_completed(http):
    assert http.post(COMPLETIONS, json={"prompt": [104, 105]}).json()["choices"][0]["text"] == "hi"


@pytest.mark.parametrize(("path", "body"), [(CHAT, HELLO), (COMPLETIONS, {"prompt": "grüße 😀"})])
def test_a_stream_says_the_same_as_the_plain_reply(http, path, body):
    plain = http.post(path, json=body).json()
    streamed = http.post(path, json={**body, "stream": True, "stream_options": {"include_usage": True}})
    assert streamed.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert streamed.headers["cache-control"] == "no-cache"
    assert streamed.headers["x-request-id"]
    *chunks, usage, done = events(streamed)
    assert done == "[DONE]"
    assert (usage["choices"], usage["usage"]) == ([], plain["usage"])
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in [*chunks, usage]}) == 1
    choices = [chunk["choices"][0] for chunk in chunks]
    text = "".join(choice["delta"].get("content", "") if path == CHAT else choice["text"] for choice in choices)
    [whole] = plain["choices"]
    assert text == (whole["message"]["content"] if path == CHAT else whole["text"])
    assert choices[-1]["finish_reason"] == whole["finish_reason"]


def test_a_stop_string_ends_the_answer_and_is_not_part_of_it(http):
    [choice] = http.post(COMPLETIONS, json={"prompt": "one two three", "stop": [" three", " t"]}).json()["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("one", "stop")


def test_max_tokens_larger_than_the_context_means_up_to_its_end(http):
    answer = http.post(COMPLETIONS, json={"prompt": "abc", "max_tokens": 2**31 - 1, "ignore_eos": True}).json()
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["total_tokens"] == 256


def test_requests_one_after_another_may_share_a_connection(server):
    request = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(request + b"\r\n" + request + b"Connection: close\r\n\r\n")
        assert b"".join(iter(lambda: connection.recv(65536), b"")).count(b"HTTP/1.1 200") == 2


def test_a_chat_may_be_followed_by_the_next_request_before_it_is_answered(server):
    body = json.dumps(HELLO).encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(
            raw_post(f"Content-Length: {len(body)}") + body + b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        answers = b"".join(iter(lambda: connection.recv(65536), b""))
    assert b"user: hello" in answers
    assert b'"status":"ok"' in answers


def test_a_chunked_body_is_read(server):
    body = json.dumps(HELLO).encode()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:7], body[7:])) + b"0\r\n\r\n"
    response = raw(server, raw_post("Transfer-Encoding: chunked", "Connection: close") + chunks)
    assert response.json()["choices"][0]["message"]["content"] == "user: hello\n"


# The other routes


def test_health_names_the_models_that_are_ready(http):
    response = http.get("/health")
    assert (response.status_code, response.json()) == (200, {"status": "ok", "models_ready": ["echo"]})


def test_a_model_has_openais_fields_and_ours(http):
    [model] = http.get("/v1/models").json()["data"]
    assert model == {
        "id": "echo",
        "object": "model",
        "created": 0,
        "owned_by": "local",
        "state": "ready",
        "reason": None,
        "engine": "echo",
        "format": "echo",
        "size_bytes": 0,
        "context_length": 256,
        "note": None,
        "aliases": [],
        "adapters": [],
        "parent": None,
        "architecture": None,
        "parameters": None,
        "quantisation": None,
        "trained_context_length": 2**20,
        "capabilities": ["mean_embeddings"],
        "engines": {
            "mlx": "it does not read the format echo",
            "vllm": "it does not read the format echo",
            "llama_cpp": "it does not read the format echo",
            "echo": None,
        },
        "pinned": False,
        "progress": None,
    }
    assert http.get("/v1/models").json()["object"] == "list"
    assert http.get("/v1/models/echo").json() == model
    assert http.post("/v1/models/load", json={"model_name": "echo"}).json() == model


def test_the_status_tells_of_engines_models_requests_and_processes(server, http):
    status = http.get("/v1/system/status").json()
    assert set(status) == {
        "uptime_seconds", "versions", "platform", "engines", "default_model", "models", "requests", "system", "processes",
    }  # fmt: skip
    assert set(status["versions"]) == {"python", "flask", "gunicorn", "gevent"}
    assert set(status["engines"]) == {"mlx", "vllm", "llama_cpp", "echo"}
    assert status["engines"]["echo"] == "available"
    assert status["default_model"] == "echo"
    [model] = status["models"]
    assert (model["name"], model["state"], model["engine"], model["restarts"]) == ("echo", "ready", "echo", 0)
    assert set(model["stats"]) == {
        "running", "waiting", "slots", "kv_used", "kv_total", "prefix_hit", "prefix_asked", "generated", "tokens_per_second",
        "steps", "step_seconds", "compute_seconds", "longest_wait", "admitted", "waited_seconds", "step_age", "resumed",
    }  # fmt: skip
    assert set(status["requests"]) == {"running", "waiting", "tokens_per_second", "kv_used_tokens", "kv_total_tokens"}
    assert set(status["system"]) == {"cpu_percent", "memory_used_bytes", "memory_total_bytes"}
    assert sorted(use["name"] for use in status["processes"]) == ["gateway", "manager", "master", "runner"]
    assert {use["pid"] for use in status["processes"]} <= {process.pid for process in server.processes()}
    for use in status["processes"]:
        assert set(use) == {"name", "pid", "cpu_percent", "cpu_seconds", "rss_bytes", "threads", "model"}
        assert use["rss_bytes"] > 2**20
        assert (use["model"] == "echo") == (use["name"] == "runner")


def test_the_status_counts_what_runs_and_waits(slow):
    with slow.client().chat.completions.create(model="echo", **HELLO, extra_body={"ignore_eos": True}, stream=True) as stream:
        next(iter(stream))
        requests = slow.status()["requests"]
        assert (requests["running"], requests["waiting"]) == (1, 0)
        assert requests["kv_used_tokens"] > 0
    wait_until(lambda: slow.status()["requests"]["running"] == 0, what="the end of the request whose client left")


# What a wrong request is told


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, "/v1/models/load"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"not json",
        b"{'a': 1}",
        b'{"a": 1,}',
        b'{"a": 1} x',
        b"\xef\xbb\xbf{}",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a": "\\ud800"}',
        b'{"a": "\xed\xa0\x80"}',
        b'{"a": "\xff"}',
        b'{"a": "\x00"}',
        b'{"a": "\n"}',
        b"null",
        b"true",
        b"5",
        b'"text"',
        b"[]",
        b'[{"messages": []}]',
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 40_000,
    ],
    ids=range(27),
)
def test_a_body_that_is_no_json_object_is_refused(http, path, body):
    check_error(post(http, path, body), 400, "invalid_json")


@pytest.mark.parametrize(
    ("path", "body", "code", "param"),
    [
        (CHAT, {}, "missing_required_parameter", "messages"),
        (CHAT, {**HELLO, "temperature": 3}, "invalid_value", "temperature"),
        (CHAT, {**HELLO, "stream": True, "max_tokens": 0}, "invalid_value", "max_tokens"),
        (CHAT, {**HELLO, "n": 0}, "invalid_value", "n"),
        (CHAT, {**HELLO, "n": True}, "invalid_value", "n"),
        (CHAT, {**HELLO, "logprobs": 1}, "invalid_value", "logprobs"),
        (CHAT, {**HELLO, "logit_bias": {"300": 1}}, "invalid_value", "logit_bias"),
        (CHAT, {**HELLO, "stop_token_ids": [300], "stream": True}, "invalid_value", "stop_token_ids"),
        (CHAT, {**HELLO, "audio": {"voice": "alloy"}, "stream": True}, "unsupported_parameter", "audio"),
        (CHAT, {**HELLO, "seed": 2**64}, "invalid_value", "seed"),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "unsupported_content", "messages[0].content[0]"),
        (COMPLETIONS, {}, "missing_required_parameter", "prompt"),
        (COMPLETIONS, {"prompt": ""}, "invalid_value", "prompt"),
        (COMPLETIONS, {"prompt": [300]}, "invalid_value", "prompt"),
        (COMPLETIONS, {"prompt": [300], "stream": True}, "invalid_value", "prompt"),
        ("/v1/models/load", {}, "missing_required_parameter", "model_name"),
        ("/v1/models/load", {"model_name": 5}, "invalid_value", "model_name"),
    ],
)
def test_a_wrong_field_is_refused_by_name(http, path, body, code, param):
    check_error(http.post(path, json=body), 400, code, param)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body", "param", "length"),
    [
        (CHAT, {"messages": [{"role": "user", "content": "x" * 249}]}, "messages", "256"),
        (CHAT, {"messages": [{"role": "user", "content": "x" * 100}] * 5}, "messages", "535"),
        (CHAT, {"messages": [{"role": "user", "content": "x" * 100_000}]}, "messages", "more than 256"),
        (COMPLETIONS, {"prompt": "x" * 256}, "prompt", "256"),
        (COMPLETIONS, {"prompt": "x" * 100_000}, "prompt", "more than 256"),
        (COMPLETIONS, {"prompt": [120] * 1000}, "prompt", "1000"),
    ],
)
def test_a_prompt_too_long_is_refused_with_both_numbers_before_a_stream_begins(http, path, body, param, length, stream):
    error = check_error(http.post(path, json={**body, "stream": stream}), 400, "context_length_exceeded", param)
    assert f"has {length} tokens" in error["message"]
    assert "context is 256 tokens" in error["message"]


def test_the_longest_prompt_that_fits_is_answered(http):
    answer = http.post(COMPLETIONS, json={"prompt": "x" * 255}).json()
    assert answer["choices"] == [{"index": 0, "text": "x", "logprobs": None, "finish_reason": "length"}]


BAD_NAMES = ["gpt-4", "../x", "../../etc/passwd", "/etc/passwd", "\0", "echo\0", "echo/", "./echo", "ECHO", "x" * 10_000, "é😀" * 100, " "]


@pytest.mark.parametrize("name", BAD_NAMES, ids=range(len(BAD_NAMES)))
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, "/v1/models/load"])
def test_an_unknown_model_is_refused_with_the_names_of_those_there_are(http, path, name):
    body = {"model_name": name} if path == "/v1/models/load" else {**HELLO, "prompt": "x", "model": name, "stream": True}
    error = check_error(http.post(path, json=body), 404, "model_not_found", "model", told="Models here: echo.")
    assert len(error["message"]) < 1000


@pytest.mark.parametrize(
    "path", ["gpt-4", "../x", "..", "%2e%2e%2fx", "%2Fetc%2Fpasswd", "/etc/passwd", "%00", "echo%00", "%ff%fe", "%0d%0aX:y", "x" * 3000]
)
def test_a_model_name_in_an_address_is_only_a_name(server, path):
    response = raw(server, f"GET /v1/models/{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    code = response.json()["error"]["code"]
    assert code in ("model_not_found", "not_found")
    check_error(response, 404, code, "model" if code == "model_not_found" else None)


@pytest.mark.parametrize("path", ["/", "/v1", "/v2/models", "/v1/models/", "/v1//models", "/health/", "/v1/chat/x", "/.env", "/%00"])
def test_an_unknown_route_is_told_as_such(http, path):
    check_error(http.get(path), 404, "not_found", told="GET /")
    check_error(http.post(path, json={}), 404, "not_found", told="POST /")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", CHAT, {"POST", "OPTIONS"}),
        ("DELETE", COMPLETIONS, {"POST", "OPTIONS"}),
        ("POST", "/health", {"GET", "HEAD", "OPTIONS"}),
        ("PUT", "/v1/models", {"GET", "HEAD", "OPTIONS"}),
        ("DELETE", "/v1/models/echo", {"GET", "HEAD", "OPTIONS"}),
        ("BREW", "/v1/system/status", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_a_wrong_method_is_told_with_those_allowed(http, method, path, allowed):
    response = http.request(method, path)
    check_error(response, 405, "method_not_allowed", told=method)
    assert set(response.headers["allow"].split(", ")) == allowed


@pytest.mark.parametrize("content_type", [None, "", "text/plain", "application/x-www-form-urlencoded", "application/jsonp", "nonsense"])
def test_a_body_of_another_type_is_refused(http, content_type):
    check_error(post(http, CHAT, json.dumps(HELLO).encode(), content_type), 415, "unsupported_media_type", told="application/json")


def test_a_charset_beside_the_type_is_fine(http):
    assert post(http, CHAT, json.dumps(HELLO).encode(), "application/json; charset=utf-8").status_code == 200


@pytest.mark.parametrize("length", [250_001, 5_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_too_large_is_refused_by_the_name_of_the_limit(http, length, chunked):
    body = json.dumps(HELLO).encode().ljust(length)  # what comes before the limit is a request of its own
    parts = iter([body[at : at + 10_000] for at in range(0, length, 10_000)])
    response = http.post(CHAT, content=parts if chunked else body, headers={"Content-Type": "application/json"})
    check_error(response, 413, "request_too_large", told="MAX_BODY_BYTES")


@pytest.mark.parametrize("chunked", [False, True])
def test_the_largest_body_is_read(http, chunked):
    body = json.dumps(HELLO).encode().ljust(250_000)
    response = http.post(CHAT, content=iter([body]) if chunked else body, headers={"Content-Type": "application/json"})
    assert response.status_code == 200


BODY = json.dumps(HELLO).encode().ljust(200)


@pytest.mark.parametrize(
    "data",
    [
        raw_post("Content-Length: 1000") + BODY,
        raw_post("Content-Length: 1000"),
        raw_post("Transfer-Encoding: chunked") + b"c8\r\n" + BODY,
        raw_post("Transfer-Encoding: chunked") + b"c8\r\n" + BODY + b"\r\n",
        raw_post("Transfer-Encoding: chunked") + b"3e8\r\n" + BODY,
        raw_post("Transfer-Encoding: chunked") + b"5\r\n" + BODY + b"\r\n0\r\n\r\n",
        raw_post("Transfer-Encoding: chunked") + b"zz\r\n" + BODY + b"\r\n0\r\n\r\n",
        raw_post("Transfer-Encoding: chunked") + b"-1\r\n" + BODY + b"\r\n0\r\n\r\n",
        raw_post("Transfer-Encoding: chunked") + b"c8\r\n" + BODY + b"\r\n0\r\nbad trailer\r\n\r\n",
    ],
    ids=["cut", "empty", "chunk cut", "last chunk missing", "chunk shorter", "chunk longer", "no size", "negative size", "bad trailer"],
)
def test_a_body_that_breaks_off_is_refused_and_nothing_is_generated(server, data):
    before = generated(server)
    check_error(raw(server, data, half_close=True), 400, "invalid_json")
    assert generated(server) == before
    assert server.log("errors") == "", "a client's mistake was logged as ours"


def test_a_body_that_comes_too_slowly_is_given_up(server):
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(raw_post("Content-Length: 1000"))
        stop = threading.Event()

        def trickle() -> None:
            with contextlib.suppress(OSError):
                while not stop.wait(0.1):
                    connection.sendall(b" ")

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            answer = b""
            with contextlib.suppress(ConnectionResetError):  # by a byte that came after the answer
                while received := connection.recv(65536):
                    answer += received
        finally:
            stop.set()
            thread.join()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"request_body_timeout"' in answer
    assert 0.9 < time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * 65536 + b"\r\n\r\n", 431, "headers_too_large"),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: " + b"a" * 10_000 + b"\r\n\r\n", 431, "headers_too_large"),
        (b"GET /" + b"a" * 5120 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414, "uri_too_long"),
        (b"GET /v1/models/" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414, "uri_too_long"),
        (b"nonsense\r\n\r\n", 400, "invalid_http"),
        (b"GET /health HTTP/9\r\n\r\n", 400, "invalid_http"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "invalid_http"),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\nbad header\r\n\r\n", 400, "invalid_http"),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: a\r\n b\r\n\r\n", 400, "invalid_http"),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: a\nSet-Cookie: b\r\n\r\n", 400, "invalid_http"),
        (raw_post("Content-Length: 5,5") + b"hello", 400, "invalid_http"),
        (raw_post("Content-Length: -1") + b"hello", 400, "invalid_http"),
        (raw_post("Content-Length: 2", "Transfer-Encoding: chunked") + b"{}", 400, "invalid_http"),
        (raw_post("Transfer-Encoding: xchunked") + b"hello", 501, "unsupported_transfer_coding"),
        (raw_post("Content-Length: 2", "Expect: something") + b"{}", 417, "expectation_failed"),
    ],
    ids=range(15),
)
def test_what_is_not_http_gets_json_all_the_same(server, data, status, code):
    response = raw(server, data)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert (error["code"], error["type"], error["param"]) == (code, "invalid_request_error", None)
    assert OWN_ID.fullmatch(response.headers["x-request-id"])
    assert "set-cookie" not in response.headers
    wait_until(lambda: f"id={response.headers['x-request-id']} " in server.log("api_requests"), what="the request's line")
    line = next(line for line in server.log("api_requests").splitlines() if response.headers["x-request-id"] in line)
    assert (LINE.search(line)["status"], LINE.search(line)["error"]) == (str(status), code)


def test_our_own_mistake_is_a_500_without_its_traceback_that_the_log_names_by_the_requests_id(tmp_path):
    settings = Settings(log_dir=str(tmp_path))
    app = create_app(settings)
    app.add_url_rule("/mistake", view_func=lambda: {}[CANARY])
    logs.configure(settings, "gateway")
    try:
        response = app.test_client().get("/mistake", headers={"X-Request-ID": "the-one"})
    finally:
        logger.remove()
    assert (response.status_code, response.json["error"]["code"]) == (500, "internal_error")
    assert CANARY not in response.text
    assert "Traceback" not in response.text
    log = (tmp_path / "errors.log").read_text()
    assert "the-one" in log
    assert "KeyError" in log


# Too many, too early, too late


def test_a_request_beyond_the_limit_is_told_when_to_come_again(slow):
    lines = []
    with contextlib.ExitStack() as streams:
        http = streams.enter_context(httpx.Client(base_url=slow.url, timeout=30))
        for _ in range(2):
            stream = streams.enter_context(http.stream("POST", CHAT, json={**ENDLESS, "stream": True}))
            lines.append(stream.iter_lines())  # kept: one that is collected closes its stream
            next(lines[-1])
        for stream in (False, True):
            response = http.post(CHAT, json={**HELLO, "stream": stream})
            check_error(response, 429, "rate_limit_exceeded", told="MAX_CONCURRENT_REQUESTS")
            assert 1 <= int(response.headers["retry-after"]) <= 120
        assert http.get("/health").status_code == 200
    wait_until(lambda: httpx.post(slow.url + CHAT, json=HELLO).status_code == 200, what="room for the next request")


def test_a_request_that_takes_too_long_is_ended_and_says_so(slow):
    def ask(stream: bool) -> None:
        answers[stream] = httpx.post(slow.url + CHAT, json={**ENDLESS, "stream": stream}, timeout=30)

    answers: dict[bool, httpx.Response] = {}
    threads = [threading.Thread(target=ask, args=[stream]) for stream in (False, True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    check_error(answers[False], 504, "request_timeout", told="REQUEST_TIMEOUT")
    assert answers[True].status_code == 200
    *chunks, last = events(answers[True])
    assert last["error"]["code"] == "request_timeout"
    assert chunks[1]["choices"][0]["delta"]["content"]
    wait_until(lambda: slow.status()["requests"]["running"] == 0, what="the end of both requests")


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_ends_its_request_and_is_logged_as_gone(slow, stream):
    request_id = f"gone-{stream}"
    body = json.dumps({**ENDLESS, "stream": stream}).encode()
    with socket.create_connection(("127.0.0.1", slow.port), timeout=20) as connection:
        connection.sendall(raw_post(f"Content-Length: {len(body)}", f"X-Request-ID: {request_id}") + body)
        wait_until(lambda: slow.status()["requests"]["running"] == 1, what="the start of the request")
        if stream:
            connection.recv(1)  # before that there is no 200 that could be logged
    wait_until(lambda: slow.status()["requests"]["running"] == 0, timeout=2, what="the end of the request")
    wait_until(lambda: f"id={request_id} " in slow.log("api_requests"), what="the request's line")
    line = next(line for line in slow.log("api_requests").splitlines() if f"id={request_id} " in line)
    assert (LINE.search(line)["status"], LINE.search(line)["error"]) == ("200" if stream else "499", "client_gone")


def test_while_the_model_loads_a_request_is_told_when_to_come_again():
    def listening() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port)):
            return True
        return False

    def runner() -> psutil.Process | None:
        for process in server.processes():
            with contextlib.suppress(psutil.Error):
                if "src.runner" in process.cmdline():
                    return process
        return None

    with Server(INFERENCE_ENGINE="echo", LOAD_WAIT_SECONDS=0, wait=False) as server:
        loading = wait_until(runner, what="the runner")
        loading.suspend()
        try:
            with httpx.Client(base_url=server.url, timeout=30) as http:
                wait_until(listening, what="the gateway")
                for path, body in ((CHAT, HELLO), (COMPLETIONS, {"prompt": "x", "stream": True})):
                    response = http.post(path, json=body)
                    check_error(response, 503, "model_loading", told="echo is being loaded")
                    assert 1 <= int(response.headers["retry-after"]) <= 120
                health = http.get("/health")
                assert (health.status_code, health.json()["status"]) == (503, "loading")
                assert health.headers["retry-after"] == "2"
                assert http.get("/v1/models/echo").json()["state"] == "loading"
        finally:
            loading.resume()
        server.wait_healthy()
        assert httpx.post(server.url + CHAT, json=HELLO).status_code == 200


# Who asked, and what is kept of it


@pytest.mark.parametrize("given", ["a", "A-z_0.9", "x" * 128, "7f3a2b1c-0000-4000-8000-000000000000"])
def test_a_well_formed_request_id_is_given_back(http, given):
    assert http.get("/health", headers={"X-Request-ID": given}).headers["x-request-id"] == given
    assert http.get("/nowhere", headers={"X-Request-ID": given}).headers["x-request-id"] == given
    assert http.post(CHAT, json={**HELLO, "stream": True}, headers={"X-Request-ID": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "a b", "a/b", "<b>", "a;b", 'a"b', "a\tb", b"\xe9", "x" * 129, "x" * 8000])
def test_any_other_request_id_is_replaced(http, given):
    response = http.get("/health", headers={"X-Request-ID": given})
    assert response.status_code == 200
    assert OWN_ID.fullmatch(response.headers["x-request-id"])


def test_each_request_without_an_id_gets_one_of_its_own(http):
    assert len({http.get("/health").headers["x-request-id"] for _ in range(10)}) == 10


def line_of(server: Server, request_id: str) -> dict[str, str]:
    """The one line of a request in api_requests.log, as its fields."""
    wait_until(lambda: f"id={request_id} " in server.log("api_requests"), what="the request's line")
    [line] = [line for line in server.log("api_requests").splitlines() if f"id={request_id} " in line]
    return LINE.search(line).groupdict()


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_is_one_line_with_its_tokens_and_times(server, http, stream):
    request_id = f"logged-{stream}"
    http.post(CHAT, json={**HELLO, "stream": stream}, headers={"X-Request-ID": request_id})
    line = line_of(server, request_id)
    assert (line["route"], line["model"], line["status"], line["error"]) == (f"POST {CHAT}", "echo", "200", "-")
    assert (line["tokens_in"], line["tokens_out"]) == ("12", "13")
    assert 0 <= int(line["queue_ms"]) <= int(line["total_ms"])
    assert 0 <= int(line["ttft_ms"]) <= int(line["total_ms"])


def test_a_refused_request_is_a_line_too(server, http):
    http.post(CHAT, json={"model": "gpt-4", **HELLO}, headers={"X-Request-ID": "refused"})
    line = line_of(server, "refused")
    assert (line["model"], line["status"], line["error"]) == ("-", "404", "model_not_found")
    assert (line["tokens_in"], line["tokens_out"], line["queue_ms"], line["ttft_ms"]) == ("-", "-", "-", "-")


def test_no_content_reaches_any_log(server, http):
    canary = {"role": "user", "content": CANARY}
    bodies = [
        {"messages": [canary], "stop": [CANARY + "x"], "user": CANARY, CANARY: CANARY},
        {"messages": [canary], "stream": True},
        {"messages": [canary] * 100},
        {"messages": [canary], "temperature": CANARY},
        {"messages": [canary], "tools": [{"type": CANARY}]},
        {"messages": [{"role": CANARY, "content": CANARY}]},
        {"messages": CANARY},
    ]
    statuses = [http.post(CHAT, json=body).status_code for body in bodies]
    assert statuses == [200, 200, 400, 400, 400, 400, 400]
    for body in (f'{{"messages": "{CANARY}', f'"{CANARY}"', CANARY):
        assert post(http, CHAT, body.encode()).status_code == 400
    assert post(http, CHAT, CANARY.encode(), "text/plain").status_code == 415
    assert http.post(f"{CHAT}?q={CANARY}", json=HELLO).status_code == 200
    broken = raw_post("Transfer-Encoding: chunked") + f"{CANARY}\r\n{CANARY}\r\n0\r\n\r\n".encode()
    assert raw(server, broken, half_close=True).status_code == 400
    http.get("/health", headers={"X-Request-ID": "after-the-canary"})
    line_of(server, "after-the-canary")
    for name in ("app", "api_requests", "errors", "model_operations", "system_metrics"):
        assert CANARY not in server.log(name), name
    assert CANARY not in server.output
