"""A bad request, and what it is to be told."""

import json
from typing import Any, NamedTuple

CHAT, COMPLETIONS, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"
EMBEDDINGS, TOKENIZE, DETOKENIZE, TEMPLATE = "/v1/embeddings", "/v1/tokenize", "/v1/detokenize", "/v1/chat/template"
JSON = "application/json"
USER = {"role": "user", "content": "hello"}
CANARY = "canary-5b21"  # in what no log and no answer may repeat


class Row(NamedTuple):
    """`body`: JSON, or the bytes to send; `raw`: the whole request, byte by byte, in place of all that."""

    name: str
    status: int
    code: str | None
    param: str | None = None
    path: str = COMPLETIONS
    body: Any = None
    method: str = "POST"
    headers: dict[str, str] = {"Content-Type": JSON}  # noqa: RUF012 - never changed
    raw: bytes | None = None
    half_close: bool = False
    told: str = ""

    @property
    def content(self) -> bytes | None:
        return self.body if self.body is None or isinstance(self.body, bytes) else json.dumps(self.body).encode()


def invalid(path: str, body: Any, param: str | None, code: str = "invalid_value", told: str = "", status: int = 400) -> Row:
    return Row(f"{path} {param} {_shown(body)}", status, code, param, path, body, told=told)


def missing(path: str, body: Any, param: str) -> Row:
    return invalid(path, body, param, "missing_required_parameter")


def unsupported(path: str, body: Any, param: str) -> Row:
    return invalid(path, body, param, "unsupported_parameter")


def no_json(body: bytes, name: str = "", path: str = COMPLETIONS) -> Row:
    return Row(f"no JSON: {name or repr(body[:40])}", 400, "invalid_json", None, path, body)


def raw(name: str, data: bytes, status: int, code: str, param: str | None = None, half_close: bool = False) -> Row:
    return Row(name, status, code, param, raw=data, half_close=half_close)


def _shown(body: Any) -> str:
    text = repr(body) if isinstance(body, bytes) else json.dumps(body)
    return text if len(text) < 90 else f"{text[:60]}... of {len(text)}"
