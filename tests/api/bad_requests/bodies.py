"""Bodies that are no JSON object, or not in the form that they say: before any field is looked at."""

import gzip
import json

from tests.api.bad_requests.row import CANARY, CHAT, COMPLETIONS, JSON, Row, invalid, no_json

GOOD = {"prompt": "x", "max_tokens": 1}
TEXT = json.dumps(GOOD)


def field(name: str, value: str) -> bytes:
    """A good body, but for one field whose JSON is written out."""
    return f'{{"prompt": "x", "max_tokens": 1, "{name}": {value}}}'.encode()


def typed(content_type: str) -> Row:
    return Row(f"Content-Type: {content_type}", 415, "unsupported_media_type", body=GOOD, headers={"Content-Type": content_type})


MALFORMED = [
    no_json(b"", "nothing"),
    no_json(b" \r\n\t", "white space"),
    *(no_json(data) for data in (b"{", b"}", b"[]", b"[{}]", b'"x"', b"42", b"null", b"true", b"{]", b"{'prompt': 'x'}", b"{prompt: 1}")),
    *(
        no_json(data)
        for data in (b'{"prompt": "x",}', b'{"prompt" "x"}', b'{"prompt": }', b'{"prompt": "x"', b'{"prompt": "x}', b"prompt=x")
    ),
    *(no_json(data) for data in (b'{"a": 01}', b'{"a": +1}', b'{"a": .5}', b'{"a": 1.}', b'{"a": 0x1}', b'{"a": 1e}', b'{"a": --1}')),
    *(no_json(data) for data in (b'{"a": tru}', b'{"a": None}', b'{"a": undefined}', b'{"a": "\\x41"}', b'{"a": "\\u12"}', b"// {}\n{}")),
    no_json(TEXT.encode() + b"x", "garbage behind it"),
    no_json(TEXT.encode() * 2, "two objects"),
    no_json(TEXT.encode() + b"\0", "a NUL behind it"),
    no_json(b"\0" + TEXT.encode(), "a NUL before it"),
    no_json(b'{"prompt": "a\0b"}', "a bare NUL in a string"),
    no_json(b'{"prompt": "a\nb"}', "a bare line break in a string"),
    no_json(b"\xef\xbb\xbf" + TEXT.encode(), "a byte order mark"),
    no_json(TEXT.encode("utf-16"), "UTF-16 with a mark"),
    no_json(TEXT.encode("utf-16-le"), "UTF-16"),
    no_json(TEXT.encode("utf-32"), "UTF-32"),
    no_json('{"prompt": "é"}'.encode("latin-1"), "Latin-1"),
    no_json(b'{"prompt": "\xc0\x80"}', "an overlong NUL"),
    no_json(b'{"prompt": "\xed\xa0\x80"}', "a surrogate as UTF-8"),
    no_json(b'{"prompt": "\\ud800"}', "a lone high surrogate"),
    no_json(b'{"prompt": "\\udc00"}', "a lone low surrogate"),
    no_json(b'{"prompt": "\\udc00\\ud800"}', "surrogates in the wrong order"),
    no_json(b'{"\\ud800": 1, "prompt": "x"}', "a lone surrogate in a name"),
    no_json(gzip.compress(TEXT.encode()), "gzip without a word"),
    no_json(bytes(range(256)) * 4, "noise"),
    no_json(b"[" * 100_000, "100,000 lists"),
    no_json(b'{"a":' * 100_000, "100,000 objects"),
    no_json(b'{"prompt": ' + b"[" * 65 + b"]" * 65 + b"}", "66 levels"),
    no_json(b'{"prompt": "x", "user": ' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}", "900 levels where nothing looks"),
    no_json(b'{"messages": [{"role": "user", "content": ' + b"[" * 5000 + b"]" * 5000 + b"}]}", "5,000 levels in a message", CHAT),
]

NUMBERS = [
    *(no_json(field(name, value)) for name in ("temperature", "top_p", "n") for value in ("NaN", "Infinity", "-Infinity", "nan")),
    *(no_json(field(name, value)) for name in ("temperature", "max_tokens", "seed") for value in ("1e999", "-1e999", "1e400")),
    *(invalid(COMPLETIONS, field("n", value), "n") for value in (str(2**63), str(2**64), "1" + "0" * 400, "1" + "0" * 4000, "1e3", "1.5")),
    *(invalid(COMPLETIONS, field("seed", value), "seed") for value in (str(2**63), str(-(2**63) - 1), "1" + "0" * 400, "0.5", "1e300")),
    *(invalid(COMPLETIONS, field("top_k", value), "top_k") for value in (str(2**31), str(2**64), "-2", "1.5", "1e10")),
    *(invalid(COMPLETIONS, field("max_tokens", value), "max_tokens") for value in ("0", "-2", str(2**31), str(2**63), "1.5", "1e300")),
    invalid(COMPLETIONS, field("temperature", "1" + "0" * 400), "temperature"),
    no_json(field("temperature", "1" + "0" * 5000), "a number of 5,000 digits"),
]

TWICE = [  # the last of a field's values counts, as for every reader of JSON in Python, and it is checked
    invalid(COMPLETIONS, b'{"prompt": "x", "n": 1, "n": 0}', "n"),
    invalid(COMPLETIONS, b'{"prompt": "x", "prompt": 5}', "prompt"),
    invalid(CHAT, b'{"messages": [{"role": "user", "content": "x", "role": "king"}]}', "messages[0].role"),
    invalid(COMPLETIONS, b'{"prompt": "x", "model": "echo", "model": "../echo"}', "model", "model_not_found", status=404),
]

MEDIA_TYPES = [
    *map(
        typed,
        ("text/plain", "text/json", "application/xml", "application/jsonp", "multipart/form-data; boundary=x", "application/x-ndjson"),
    ),
    *map(typed, ("application/x-www-form-urlencoded", "nonsense", "*/*", "application/*", "json", f"application/{CANARY}", "")),
    Row("no Content-Type", 415, "unsupported_media_type", body=GOOD, headers={}),
    Row(
        "Content-Encoding: gzip",
        415,
        "unsupported_media_type",
        body=gzip.compress(TEXT.encode()),
        headers={"Content-Type": JSON, "Content-Encoding": "gzip"},
    ),
    Row("Content-Encoding: br", 415, "unsupported_media_type", body=b"x", headers={"Content-Type": JSON, "Content-Encoding": "br"}),
]

HUGE = b"x" * 10_000_000
SIZES = [
    Row("a prompt of 10 MB", 413, "request_too_large", body=b'{"prompt": "' + HUGE + b'"}', told="MAX_BODY_BYTES"),
    Row("a name of a field of 10 MB", 413, "request_too_large", body=b'{"' + HUGE + b'": 1}'),
    Row(
        "a message of 7 MB", 400, "context_length_exceeded", "messages", CHAT, {"messages": [{"role": "user", "content": "x" * 7_000_000}]}
    ),
    Row("a prompt of 7 MB", 400, "context_length_exceeded", "prompt", body={"prompt": "x" * 7_000_000}),
    Row("a prompt of 7 MB of emoji", 400, "context_length_exceeded", "prompt", body=b'{"prompt": "' + "😀".encode() * 1_750_000 + b'"}'),
    Row("a prompt of 1 MB of combining marks", 400, "context_length_exceeded", "prompt", body={"prompt": "é" * 150_000}),
    Row(
        "a million lists as messages",
        400,
        "invalid_json",
        None,
        CHAT,
        b'{"messages": [' + b"[]," * 1_000_000 + b"[]]}",
        told="MAX_JSON_CONTAINERS",
    ),
    Row("a million prompts", 400, "invalid_value", "prompt", body=b'{"prompt": [' + b'"",' * 1_000_000 + b'""]}', told="MAX_PROMPTS"),
    Row(
        "a million stops", 400, "invalid_value", "stop", body=b'{"prompt": "x", "stop": [' + b'"a",' * 1_000_000 + b'"a"]}', told="MAX_STOP"
    ),
    Row("a role of 1 MB", 400, "invalid_value", "messages[0].role", CHAT, {"messages": [{"role": CANARY * 100_000, "content": "x"}]}),
    Row("a model's name of 1 MB", 404, "model_not_found", "model", body={"prompt": "x", "model": "m" * 1_000_000}),
]

ROWS = [*MALFORMED, *NUMBERS, *TWICE, *MEDIA_TYPES, *SIZES]
