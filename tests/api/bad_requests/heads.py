"""Requests that are wrong before their body: routes, methods, names in paths, headers, and how long they say the body is."""

import json

from tests.api.bad_requests.row import CANARY, CHAT, COMPLETIONS, JSON, Row, invalid, missing, raw

BODY = b'{"prompt": "x", "max_tokens": 1}'
SMUGGLED = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 32\r\n\r\n" + BODY


def get(path: str, status: int = 404, code: str = "not_found", param: str | None = None) -> Row:
    return Row(f"GET {path[:60]}", status, code, param, path, None, "GET", {})


def method(name: str, path: str) -> Row:
    return Row(f"{name} {path}", 405, "method_not_allowed", None, path, None, name, {})


def model(name: str) -> list[Row]:
    """A name that is no model's, in a body and in a path. None of it is a path on the disk."""
    return [
        invalid(COMPLETIONS, {"prompt": "x", "model": name}, "model", "model_not_found", status=404),
        invalid("/v1/models/load", {"model_name": name}, "model", "model_not_found", status=404),
    ]


NAMES = (
    "../../etc/passwd",
    "/etc/passwd",
    "..%2f..%2f",
    "a\0b",
    "C:\\x",
    "a/../../b",
    "m" * 4096,
    "\u202e",
    ".",
    "..",
    "echo/",
    "ECHO",
    " echo",
    "echo\n",
)
ROUTES = [
    *(row for name in NAMES for row in model(name)),
    *(
        raw(
            f"GET /v1/models/{path.decode()[:40]}",
            b"GET /v1/models/" + path + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            404,
            "model_not_found",
            "model",
        )
        for path in (
            b"../../etc/passwd",
            b"%2e%2e/%2e%2e/etc/passwd",
            b"..%2f..%2fetc%2fpasswd",
            b"%00",
            b"echo%00",
            b"%ff%fe",
            b"x" * 3000,
        )
    ),
    *(get(path) for path in ("/v1", "/v1/", "/v2/models", "/v1//models", "//v1/models", "/V1/models", "/v1/models/", "/favicon.ico")),
    *(
        get(path)
        for path in (
            "/.env",
            "/v1/../.env",
            "/static/app.py",
            "/admin",
            "/v1/chat/completions/",
            "/v1/completions/x",
            "/v1/models/%0d%0aX",
            "/v1/models//",
        )
    ),
    get("/v1/responses/resp_1", param="id"),
    *(method(name, path) for path in (CHAT, COMPLETIONS, "/v1/embeddings") for name in ("GET", "PUT", "PATCH", "DELETE")),
    *(method(name, "/v1/models") for name in ("POST", "PUT", "DELETE", "TRACE")),
    *(method(name, "/health") for name in ("POST", "DELETE", "PROPFIND")),
    method("PUT", "/v1/models/load"),
    *(missing(f"/v1/models/{path}", {}, "model_name") for path in ("load", "unload", "switch")),
    *(invalid("/v1/models/load", {"model_name": value}, "model_name") for value in (5, "", None, ["echo"])),
    missing("/v1/models/download", {}, "repo"),
    *(invalid("/v1/models/download", {"repo": value}, "repo") for value in ("../x", "/etc", "", 5, "x" * 201, "a b", "http://127.0.0.1/")),
    *(invalid("/v1/models/download", {"repo": "a/b", "name": value}, "name") for value in ("../x", "a/b", ".x", "-x", "", "a\0")),
    invalid("/v1/models/download", {"repo": "a/b", "source": "ftp"}, "source"),
    missing("/v1/admin/log-level", {}, "level"),
    invalid("/v1/admin/log-level", {"level": "LOUD"}, "level"),
]


def with_key(name: str, key: str) -> Row:
    headers = {"Content-Type": JSON, "Idempotency-Key": key}
    return Row(name, 400, "invalid_value", "Idempotency-Key", body={"prompt": "x"}, headers=headers)


HEADERS = [
    with_key("Idempotency-Key with a space", "a b"),
    with_key("Idempotency-Key of 256", "a" * 256),
    with_key("an empty Idempotency-Key", ""),
    Row("another Host", 403, "host_not_allowed", path="/v1/models", method="GET", headers={"Host": "evil.example"}),
    Row("a Host with a path", 403, "host_not_allowed", path="/v1/models", method="GET", headers={"Host": "localhost/v1/models?"}),
    Row(
        "a page of another origin",
        403,
        "origin_not_allowed",
        body={"prompt": "x"},
        headers={"Content-Type": JSON, "Origin": "https://evil.example"},
    ),
    Row("a page without an origin", 403, "origin_not_allowed", body={"prompt": "x"}, headers={"Content-Type": JSON, "Origin": "null"}),
    Row("a long X-Request-ID", 404, "not_found", path="/v1/x", method="GET", headers={"X-Request-ID": CANARY * 100}),
    Row(
        "an X-Request-ID with encoded line breaks",
        404,
        "not_found",
        path="/v1/x",
        method="GET",
        headers={"X-Request-ID": f"a%0d%0aX-{CANARY}: 1"},
    ),
    Row(
        "an X-Request-ID with quotes and spaces",
        404,
        "not_found",
        path="/v1/x",
        method="GET",
        headers={"X-Request-ID": f'a" status=200 {CANARY}'},
    ),
    Row("line breaks in the path", 404, "not_found", path="/v1/x%0d%0a2026-11-25%20ERROR%20made%20up", method="GET", headers={}),
    Row("colours in the path", 404, "not_found", path="/v1/%1b[31mred", method="GET", headers={}),
    Row("a secret in the query", 404, "not_found", path=f"/v1/x?key={CANARY}", method="GET", headers={"Authorization": f"Bearer {CANARY}"}),
]


def head(*lines: str, path: str = COMPLETIONS) -> bytes:
    given = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *lines]
    return "\r\n".join(given).encode() + b"\r\n\r\n"


def line(text: str) -> bytes:
    return f"{text}\r\nHost: localhost\r\n\r\n".encode("latin-1")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


CHUNKED = head("Transfer-Encoding: chunked")
END = b"0\r\n\r\n"
NO_HTTP = [
    raw(f"line: {text[:40]!r}", line(text), 400, "invalid_http")
    for text in (
        *(
            "nonsense",
            "GET",
            "GET /health",
            "GET  /health HTTP/1.1",
            "GET /health HTTP/9.9",
            "GET /health HTTP/1.1 x",
            "get /health HTTP/1.1",
        ),
        *("GET health HTTP/1.1", "GET * HTTP/1.1", "G@T /health HTTP/1.1", "GET /\x7f HTTP/1.1", "GET /é HTTP/1.1", "GET /health http/1.1"),
    )
]
HEADS = [
    raw("a header without a colon", line("GET /health HTTP/1.1\r\nnonsense"), 400, "invalid_http"),
    raw("a space before the colon", line("GET /health HTTP/1.1\r\nX : a"), 400, "invalid_http"),
    raw("an empty name", line("GET /health HTTP/1.1\r\n: a"), 400, "invalid_http"),
    raw("a folded header", line("GET /health HTTP/1.1\r\nX-Request-ID: a\r\n b"), 400, "invalid_http"),
    raw("a bare line feed in a header", line("GET /health HTTP/1.1\r\nX-Request-ID: a\nSet-Cookie: b"), 400, "invalid_http"),
    raw("a NUL in a header", line("GET /health HTTP/1.1\r\nX: a\0b"), 400, "invalid_http"),
    raw("a carriage return in a header", line("GET /health HTTP/1.1\r\nX: a\rb"), 400, "invalid_http"),
    raw("two Hosts", line("GET /health HTTP/1.1\r\nHost: evil.example"), 400, "invalid_http"),
    raw("two Content-Types", head("Content-Type: text/plain", "Content-Length: 2") + b"{}", 400, "invalid_http"),
    raw(
        "an underscore in a name",
        line("GET /health HTTP/1.1\r\nX_Forwarded_For: 1.2.3.4\r\nX-Y: z\r\nConnection: close\r\nBad\x01: x"),
        400,
        "invalid_http",
    ),
    raw("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "invalid_http"),
    raw("HTTP/2 without TLS", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "invalid_http"),
    raw("a header of 9 KB", line("GET /health HTTP/1.1\r\nX: " + "a" * 9000), 431, "headers_too_large"),
    raw("a header of 64 KB", line("GET /health HTTP/1.1\r\nX: " + "a" * 65_536), 431, "headers_too_large"),
    raw("a header of 3 MB", line("GET /health HTTP/1.1\r\nX: " + "a" * 3_000_000), 431, "headers_too_large"),
    raw("headers of 300 KB in all", line("GET /health HTTP/1.1\r\n" + f"X: {'a' * 8000}\r\n" * 37 + "Y: b"), 431, "headers_too_large"),
    raw("200 headers", line("GET /health HTTP/1.1\r\n" + "X: a\r\n" * 200 + "Y: b"), 431, "headers_too_large"),
    raw("a name of 9 KB", line("GET /health HTTP/1.1\r\n" + "X" * 9000 + ": a"), 431, "headers_too_large"),
    raw("an address of 5 KB", line("GET /v1/models?" + "a" * 5000 + " HTTP/1.1"), 414, "uri_too_long"),
    raw("an address of 1 MB", line("GET /" + "a" * 1_000_000 + " HTTP/1.1"), 414, "uri_too_long"),
    raw("an expectation of something", head("Content-Length: 2", "Expect: something") + b"{}", 417, "expectation_failed"),
]

# Behind each of them stands a second request, which a server that takes another end of the body for the right one would execute.
SMUGGLING = [
    raw(name, data + SMUGGLED, status, code)
    for name, data, status, code in (
        ("Content-Length and Transfer-Encoding", head("Content-Length: 5", "Transfer-Encoding: chunked") + END, 400, "invalid_http"),
        ("Transfer-Encoding and Content-Length", head("Transfer-Encoding: chunked", "Content-Length: 5") + END, 400, "invalid_http"),
        ("chunked twice", head("Transfer-Encoding: chunked, chunked") + END, 400, "invalid_http"),
        ("two Transfer-Encodings", head("Transfer-Encoding: chunked", "Transfer-Encoding: identity") + END, 400, "invalid_http"),
        ("xchunked", head("Transfer-Encoding: xchunked") + END, 501, "unsupported_transfer_coding"),
        ("chunked with a tab before it", head("Transfer-Encoding:\x0bchunked") + END, 400, "invalid_http"),
        ("a space behind Transfer-Encoding", head("Transfer-Encoding : chunked") + END, 400, "invalid_http"),
        ("Transfer-Encoding: identity", head("Transfer-Encoding: identity") + b"", 400, "invalid_http"),
        ("Transfer-Encoding: gzip", head("Transfer-Encoding: gzip") + b"", 400, "invalid_http"),
        ("an empty Transfer-Encoding", head("Transfer-Encoding: ") + b"", 501, "unsupported_transfer_coding"),
        ("two lengths in one", head("Content-Length: 5,5") + b"hello", 400, "invalid_http"),
        ("two lengths", head("Content-Length: 5", "Content-Length: 5") + b"hello", 400, "invalid_http"),
        ("two lengths that differ", head("Content-Length: 5", "Content-Length: 0") + b"hello", 400, "invalid_http"),
        ("a negative length", head("Content-Length: -1") + b"", 400, "invalid_http"),
        ("a length with a sign", head("Content-Length: +5") + b"hello", 400, "invalid_http"),
        ("a hexadecimal length", head("Content-Length: 0x5") + b"hello", 400, "invalid_http"),
        ("an empty length", head("Content-Length: ") + b"", 400, "invalid_http"),
        ("a length with a point", head("Content-Length: 5.0") + b"hello", 400, "invalid_http"),
        ("a length in other digits", head("Content-Length: \xb2") + b"", 400, "invalid_http"),
        ("chunked in HTTP/1.0", head("Transfer-Encoding: chunked").replace(b"HTTP/1.1", b"HTTP/1.0") + END, 400, "invalid_http"),
        ("a chunk's size that is none", CHUNKED + b"zz\r\n" + BODY + b"\r\n" + END, 400, "invalid_json"),
        ("a chunk's size with 0x", CHUNKED + b"0x20\r\n" + BODY + b"\r\n" + END, 400, "invalid_json"),
        ("a negative chunk", CHUNKED + b"-20\r\n" + BODY + b"\r\n" + END, 400, "invalid_json"),
        ("a chunk's size with an underscore", CHUNKED + b"2_0\r\n" + BODY + b"\r\n" + END, 400, "invalid_json"),
        ("a chunk's size with a space before it", CHUNKED + b" 20\r\n" + BODY + b"\r\n" + END, 400, "invalid_json"),
        ("a chunk that is longer than it says", CHUNKED + b"5\r\n" + BODY + b"\r\n" + END, 400, "invalid_json"),
        ("a chunk's end without a carriage return", CHUNKED + b"20\n" + BODY + b"\n0\n\n", 400, "invalid_json"),
        ("a carriage return in a chunk's extension", CHUNKED + b"20;a\rb\r\n" + BODY + b"\r\n" + END, 400, "invalid_json"),
        ("a chunk for every space", CHUNKED + chunk(b" ") * 10_000 + chunk(b'{"prompt": "x", "max_tokens": 1}') + END, 400, "invalid_json"),
        ("a trailer that is a length", CHUNKED + chunk(BODY) + b"0\r\nContent-Length: 5\r\n\r\n", 400, "invalid_json"),
        ("a trailer that is no header", CHUNKED + chunk(BODY) + b"0\r\nnonsense\r\n\r\n", 400, "invalid_json"),
    )
]
BROKEN_OFF = [
    raw(name, data, 400, "invalid_json", half_close=True)
    for name, data in (
        ("half of the body", head("Content-Length: 1000") + BODY),
        ("nothing of the body", head("Content-Length: 1000")),
        ("a chunk without its end", CHUNKED + b"20\r\n" + BODY),
        ("chunks without the last", CHUNKED + chunk(BODY)),
        ("a last chunk without its end", CHUNKED + chunk(BODY) + b"0\r\n"),
        ("half of a chunk's size", CHUNKED + b"2"),
    )
]
TOO_LONG = [
    Row("a length of 100 GB", 413, "request_too_large", raw=head("Content-Length: 100000000000") + BODY),
    Row("a length of 4,000 digits", 400, "invalid_http", raw=head("Content-Length: " + "9" * 4300 + "9") + BODY),
    Row("10 MB in chunks", 413, "request_too_large", raw=CHUNKED + chunk(json.dumps({"prompt": "x" * 500_000}).encode()) * 20 + END),
]

ROWS = [*ROUTES, *HEADERS, *NO_HTTP, *HEADS, *SMUGGLING, *BROKEN_OFF, *TOO_LONG]
