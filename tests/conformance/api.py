"""A server under test, over HTTP. Knows no engine and nothing of how the server is built."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.conformance import fold

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
MESSAGES, RESPONSES = "/v1/messages", "/v1/responses"
ERROR_KEYS = {"message", "type", "param", "code"}


@dataclass
class Stream:
    """A reply of server-sent events, whole."""

    response: httpx.Response
    text: str
    names: list[str] = field(default_factory=list)  # of the events that have one
    data: list[Any] = field(default_factory=list)  # JSON, decoded; "[DONE]" as it stands

    @property
    def chunks(self) -> list[dict[str, Any]]:
        return [event for event in self.data if event != "[DONE]"]


class Api:
    """With `streams`, every answer is asked for both ways; the two have to be equal, and the streamed one is handed on."""

    def __init__(self, url: str, model: str, key: str = "none", *, keep_alive: bool = True) -> None:
        headers = {"Authorization": f"Bearer {key}", "x-api-key": key}
        kept = httpx.Limits() if keep_alive else httpx.Limits(max_keepalive_connections=0)
        self.http = httpx.Client(base_url=url, timeout=120, headers=headers, limits=kept)
        self.url = url
        self.model = model
        self.streams = False
        self._warm: set[str] = set()

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        version = {"anthropic-version": "2023-06-01"} if path.startswith(MESSAGES) else {}
        return self.http.post(path, json={"model": self.model, **body}, headers=version)

    def stream(self, path: str, body: dict[str, Any]) -> Stream:
        response = self.post(path, {**body, "stream": True})
        return read_events(response)

    def ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request at temperature 0, which has to be answered with 200."""
        body = {"temperature": 0, **body}
        if not self.streams:
            return answered(self.post(path, body))
        self._warm_up(path, body)
        plain = answered(self.post(path, body))
        usage = {"stream_options": {"include_usage": True}} if path in (CHAT, COMPLETIONS) else {}
        stream = self.stream(path, {**body, **usage})
        assert stream.response.status_code == 200, stream.text
        folded = FOLDS[path](stream.chunks)
        fold.assert_same(plain, folded)
        return folded

    def chat(self, content: str | list[Any] = "Tell me about the sea.", **fields: Any) -> dict[str, Any]:
        return self.ask(CHAT, {"messages": [{"role": "user", "content": content}], "max_tokens": 16, **fields})

    def complete(self, prompt: Any = "The sea is", **fields: Any) -> dict[str, Any]:
        return self.ask(COMPLETIONS, {"prompt": prompt, "max_tokens": 16, **fields})

    def refuse(self, path: str, body: dict[str, Any], status: int, code: str, param: str | None, told: str = "") -> None:
        """The request is refused in these words, whether it asks for a stream or not. A server that answers it all the same
        is not asked for more than a few tokens."""
        few = {"max_tokens": 4} if path in (CHAT, COMPLETIONS) else {}
        for stream in (False, True):
            refused(self.post(path, {**few, **body, "stream": stream}), status, code, param, told)

    def tokens(self, text: str) -> list[int]:
        return answered(self.post("/v1/tokenize", {"prompt": text, "add_special_tokens": False}))["tokens"]

    def _warm_up(self, path: str, body: dict[str, Any]) -> None:
        """Both forms are to find the same prefix computed: sums of floats depend on what is computed together."""
        known = json.dumps([path, body], sort_keys=True)
        if known not in self._warm:
            self._warm.add(known)
            answered(self.post(path, body))


FOLDS = {CHAT: fold.chat, COMPLETIONS: fold.completion, MESSAGES: fold.message, RESPONSES: fold.response}


def answered(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, f"{response.status_code}: {response.text[:500]}"
    return response.json()


def refused(response: httpx.Response, status: int, code: str | None, param: str | None = None, told: str = "") -> dict[str, Any]:
    """OpenAI's error object: all four keys, string or null, and a status that belongs to its type."""
    assert response.status_code == status, f"{response.status_code}: {response.text[:500]}"
    assert response.headers["content-type"].startswith("application/json")
    body = response.json()
    assert set(body) == {"error"}
    error = body["error"]
    assert set(error) == ERROR_KEYS
    assert isinstance(error["message"], str)
    assert error["message"]
    assert isinstance(error["type"], str)
    assert error["code"] == code, error
    assert error["param"] == param, error
    assert told in error["message"]
    return error


def read_events(response: httpx.Response) -> Stream:
    """Server-sent events by the rules of the HTML standard, as far as such APIs use them."""
    stream = Stream(response, response.text)
    if not response.headers["content-type"].startswith("text/event-stream"):
        return stream
    for event in response.text.split("\n\n"):
        name, data = _fields(event)
        if data is None:
            continue
        if name:
            stream.names.append(name)
        stream.data.append(data if data == "[DONE]" else json.loads(data))
    return stream


def _fields(event: str) -> tuple[str | None, str | None]:
    name = data = None
    for line in _lines(event):
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            data = line.removeprefix("data: ")
    return name, data


def _lines(event: str) -> Iterator[str]:
    for line in event.split("\n"):
        if line and not line.startswith(":"):
            yield line
