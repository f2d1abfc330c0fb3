"""What tests of OpenAI's routes have in common: addresses, a good request, the check of a refusal, the events of a stream."""

import json
import re

import httpx

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HELLO = {"messages": [{"role": "user", "content": "hello"}]}


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


def events(response: httpx.Response) -> list:
    """The data of a stream's events, decoded but for the closing [DONE]."""
    return [data if data == "[DONE]" else json.loads(data) for data in re.findall(r"^data: (.*)$", response.text, re.MULTILINE)]
