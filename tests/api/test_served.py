"""What Gunicorn has a part in: bodies as they come over a connection, broken HTTP, request IDs, clients that leave, lines in the logs."""

import contextlib
import json
import re
import socket
import threading
import time

import httpx
import pytest

from tests.support.openai_api import CHAT, COMPLETIONS, HELLO, check_error, events
from tests.support.raw_http import ask, parsed
from tests.support.server import Server, wait_until

CANARY = "canary-7f3a"
ENDLESS = {**HELLO, "ignore_eos": True}
BODY = json.dumps(HELLO).encode().ljust(200)
JSON = {"Content-Type": "application/json"}
OWN_ID = re.compile(r"[0-9a-f]{32}")
FIELDS = ("model", "status", "error", "tokens_in", "tokens_out", "queue_ms", "ttft_ms", "total_ms")
LINE = re.compile(r"id=(?P<id>\S+) key=- client=\S+ route='(?P<route>.*)' " + " ".join(rf"{name}=(?P<{name}>\S+)" for name in FIELDS) + "$")


def raw_post(*headers: str, path: str = CHAT) -> bytes:
    """The head of a request."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def generated(server: Server) -> int:
    """Tokens generated so far."""
    return server.status()["models"][0]["stats"]["generated"]


def line_of(server: Server, request_id: str) -> dict[str, str]:
    """The one line of a request in api_requests.log, as its fields."""
    wait_until(lambda: f"id={request_id} " in server.log("api_requests"), what="the request's line")
    [line] = [line for line in server.log("api_requests").splitlines() if f"id={request_id} " in line]
    return LINE.search(line).groupdict()


def test_requests_one_after_another_may_share_a_connection(served):
    request = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as connection:
        connection.sendall(request + b"\r\n" + request + b"Connection: close\r\n\r\n")
        assert b"".join(iter(lambda: connection.recv(65536), b"")).count(b"HTTP/1.1 200") == 2


def test_the_next_request_may_come_before_a_chat_is_answered(served):
    body = json.dumps(HELLO).encode()
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as connection:
        connection.sendall(
            raw_post(f"Content-Length: {len(body)}") + body + b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        answers = b"".join(iter(lambda: connection.recv(65536), b""))
    assert b"user: hello" in answers
    assert b'"status":"ok"' in answers


def test_a_chunked_body_is_read(served):
    body = json.dumps(HELLO).encode()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:7], body[7:])) + b"0\r\n\r\n"
    response = parsed(ask(served.port, raw_post("Transfer-Encoding: chunked", "Connection: close") + chunks))
    assert response.json()["choices"][0]["message"]["content"] == "user: hello\n"


def test_the_status_tells_of_engines_models_requests_and_processes(served, served_http):
    status = served_http.get("/v1/system/status").json()
    assert set(status) == {
        "uptime_seconds", "versions", "platform", "engines", "default_model", "models", "unreadable", "requests", "system", "processes",
    }  # fmt: skip
    assert set(status["versions"]) == {"python", "flask", "gunicorn", "gevent"}
    assert set(status["engines"]) == {"mlx", "vllm", "llama_cpp", "echo"}
    assert status["engines"]["echo"] == "available"
    assert status["default_model"] == "echo"
    [model] = status["models"]
    assert (model["name"], model["state"], model["engine"], model["restarts"]) == ("echo", "ready", "echo", 0)
    assert set(model["stats"]) == {
        "running", "waiting", "slots", "kv_used", "kv_total", "prefix_hit", "prefix_asked", "generated", "tokens_per_second",
        "steps", "step_seconds", "compute_seconds", "longest_wait", "admitted", "waited_seconds", "step_age", "resumed", "preempted",
        "invalid_outputs",
    }  # fmt: skip
    assert set(status["requests"]) == {"running", "waiting", "tokens_per_second", "kv_used_tokens", "kv_total_tokens"}
    assert set(status["system"]) == {"cpu_percent", "memory_used_bytes", "memory_total_bytes"}
    assert sorted(use["name"] for use in status["processes"]) == ["gateway", "manager", "master", "runner"]
    assert {use["pid"] for use in status["processes"]} <= {process.pid for process in served.processes()}
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


@pytest.mark.parametrize(
    "path",
    [
        *("gpt-4", "../x", "..", "%2e%2e%2fx", "%252e%252e%252fx", "..%5cx", "..\\x", "C:\\x", "./echo", "%2Fetc%2Fpasswd", "/etc/passwd"),
        *("models/../../x", "../" * 1000 + "etc/passwd", "%00", "echo%00", "%ff%fe", "%0d%0aX:y", "x" * 3000),
    ],
)
@pytest.mark.parametrize("suffix", ["", "/plan"])
def test_a_model_name_in_an_address_is_only_a_name(served, path, suffix):
    request = f"GET /v1/models/{path}{suffix} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    response = parsed(ask(served.port, request.encode()))
    code = response.json()["error"]["code"]
    assert code in ("model_not_found", "not_found")
    check_error(response, 404, code, "model" if code == "model_not_found" else None)


@pytest.mark.parametrize("length", [250_001, 5_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_too_large_is_refused_by_the_name_of_the_limit(served_http, length, chunked):
    body = json.dumps(HELLO).encode().ljust(length)  # what comes before the limit is a request of its own
    parts = iter([body[at : at + 10_000] for at in range(0, length, 10_000)])
    response = served_http.post(CHAT, content=parts if chunked else body, headers=JSON)
    check_error(response, 413, "request_too_large", told="MAX_BODY_BYTES")


@pytest.mark.parametrize("chunked", [False, True])
def test_the_largest_body_is_read(served_http, chunked):
    body = json.dumps(HELLO).encode().ljust(250_000)
    response = served_http.post(CHAT, content=iter([body]) if chunked else body, headers=JSON)
    assert response.status_code == 200


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
def test_a_body_that_breaks_off_is_refused_and_nothing_is_generated(served, data):
    before = generated(served)
    check_error(parsed(ask(served.port, data, half_close=True)), 400, "invalid_json")
    assert generated(served) == before
    assert served.log("errors") == "", "a client's mistake was logged as ours"


def test_a_body_that_comes_too_slowly_is_given_up(served):
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as connection:
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
def test_what_is_not_http_gets_json_all_the_same(served, data, status, code):
    response = parsed(ask(served.port, data))
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert (error["code"], error["type"], error["param"]) == (code, "invalid_request_error", None)
    assert OWN_ID.fullmatch(response.headers["x-request-id"])
    assert "set-cookie" not in response.headers
    wait_until(lambda: f"id={response.headers['x-request-id']} " in served.log("api_requests"), what="the request's line")
    line = next(line for line in served.log("api_requests").splitlines() if response.headers["x-request-id"] in line)
    assert (LINE.search(line)["status"], LINE.search(line)["error"]) == (str(status), code)


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
    def send(stream: bool) -> None:
        answers[stream] = httpx.post(slow.url + CHAT, json={**ENDLESS, "stream": stream}, timeout=30)

    answers: dict[bool, httpx.Response] = {}
    threads = [threading.Thread(target=send, args=[stream]) for stream in (False, True)]
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

    with Server(INFERENCE_ENGINE="echo", LOAD_WAIT_SECONDS=0, wait=False) as server:
        [loading] = wait_until(server.runners, what="the runner")
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


@pytest.mark.parametrize("given", ["", "a b", "a/b", "<b>", "a;b", 'a"b', "a\tb", b"\xe9", "x" * 129, "x" * 8000])
def test_any_other_request_id_is_replaced(served_http, given):
    response = served_http.get("/health", headers={"X-Request-ID": given})
    assert response.status_code == 200
    assert OWN_ID.fullmatch(response.headers["x-request-id"])


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_is_one_line_with_its_tokens_and_times(served, served_http, stream):
    request_id = f"logged-{stream}"
    served_http.post(CHAT, json={**HELLO, "stream": stream}, headers={"X-Request-ID": request_id})
    line = line_of(served, request_id)
    assert (line["route"], line["model"], line["status"], line["error"]) == (f"POST {CHAT}", "echo", "200", "-")
    assert (line["tokens_in"], line["tokens_out"]) == ("12", "13")
    assert 0 <= int(line["queue_ms"]) <= int(line["total_ms"])
    assert 0 <= int(line["ttft_ms"]) <= int(line["total_ms"])


def test_a_refused_request_is_a_line_too(served, served_http):
    served_http.post(CHAT, json={"model": "gpt-4", **HELLO}, headers={"X-Request-ID": "refused"})
    line = line_of(served, "refused")
    assert (line["model"], line["status"], line["error"]) == ("-", "404", "model_not_found")
    assert (line["tokens_in"], line["tokens_out"], line["queue_ms"], line["ttft_ms"]) == ("-", "-", "-", "-")


def test_a_text_that_is_tokenized_is_counted(served, served_http):
    served_http.post("/tokenize", json={"prompt": "ten bytes."}, headers={"X-Request-ID": "tokenized"})
    line = line_of(served, "tokenized")
    assert (line["route"], line["model"], line["tokens_in"], line["tokens_out"]) == ("POST /tokenize", "echo", "10", "-")


def test_without_keys_an_act_of_the_operator_is_a_line_without_a_name(served, served_http):
    assert served_http.post("/v1/admin/log-level", json={"level": "INFO"}).status_code == 200
    wait_until(lambda: "by=- client=127.0.0.1 level=INFO status=200" in served.log("audit"), what="the line")


def test_no_content_reaches_any_log(served, served_http):
    canary = {"role": "user", "content": CANARY}
    bodies = [
        {"messages": [canary], "stop": [CANARY + "x"], "user": CANARY, CANARY: CANARY},
        {"messages": [canary], "stream": True},
        {"messages": [canary], "tools": [{"type": CANARY}]},
        {"messages": [canary] * 100},
        {"messages": [canary], "temperature": CANARY},
        {"messages": [canary], "tools": [{"type": "function", "function": {"name": f"{CANARY} x"}}]},
        {"messages": [{"role": CANARY, "content": CANARY}]},
        {"messages": CANARY},
    ]
    statuses = [served_http.post(CHAT, json=body).status_code for body in bodies]
    assert statuses == [200, 200, 200, 400, 400, 400, 400, 400]
    for body in (f'{{"messages": "{CANARY}', f'"{CANARY}"', CANARY):
        assert served_http.post(CHAT, content=body.encode(), headers=JSON).status_code == 400
    assert served_http.post(CHAT, content=CANARY.encode(), headers={"Content-Type": "text/plain"}).status_code == 415
    assert served_http.post(f"{CHAT}?q={CANARY}", json=HELLO).status_code == 200
    assert served_http.post("/tokenize", json={"prompt": CANARY}).status_code == 200
    broken = raw_post("Transfer-Encoding: chunked") + f"{CANARY}\r\n{CANARY}\r\n0\r\n\r\n".encode()
    assert parsed(ask(served.port, broken, half_close=True)).status_code == 400
    served_http.get("/health", headers={"X-Request-ID": "after-the-canary"})
    line_of(served, "after-the-canary")
    for name in ("app", "api_requests", "errors", "model_operations", "system_metrics"):
        assert CANARY not in served.log(name), name
    assert CANARY not in served.output
