"""A model that does not load is told to clients without the folders of this machine; the logs have them."""

import asyncio
import errno

import pytest

from src.errors import ModelLoadFailed
from src.runner import __main__ as runner
from tests.support.in_process import InProcess
from tests.support.openai_api import CHAT

SECRET = "/srv/secret folder/deep"
HELLO = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def failed():
    def fail(*_: object) -> None:
        raise ModelLoadFailed(f"cannot open '{SECRET}/x.gguf': in {SECRET}/y.gguf, line 3")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "load_engine", fail)
        with InProcess() as running:
            yield running


@pytest.mark.parametrize(
    ("method", "route", "body"),
    [
        ("POST", CHAT, HELLO),
        ("POST", CHAT, {**HELLO, "stream": True}),
        ("POST", "/v1/completions", {"prompt": "hi"}),
        ("POST", "/v1/messages", {**HELLO, "max_tokens": 4}),
        ("POST", "/v1/responses", {"input": "hi"}),
        ("POST", "/v1/tokenize", {"prompt": "hi"}),
        ("POST", "/v1/chat/template", HELLO),
        ("POST", "/v1/embeddings", {"input": "hi"}),
        ("GET", "/v1/models", None),
        ("GET", "/v1/models/echo", None),
        ("GET", "/v1/system/status", None),
        ("GET", "/health", None),
    ],
)
def test_no_route_tells_where_a_models_files_lie(failed, method, route, body):
    with failed.http() as http:
        text = http.request(method, route, json=body, headers=failed.operator).text
    assert "y.gguf" in text
    assert "secret" not in text
    assert "deep" not in text
    assert any(SECRET in line for line in failed.errors)


def test_a_download_that_fails_tells_no_folder_either(monkeypatch):
    async def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", f"{SECRET}/x.gguf")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", fail)
    with InProcess() as running, running.http(headers=running.operator) as http:
        failed = http.post("/v1/models/download", json={"source": "huggingface", "repo": "a/b"})
        listed = http.get("/v1/models/download")
    assert failed.status_code == 502
    for answer in (failed, listed):
        assert "'x.gguf'" in answer.text
        assert "secret" not in answer.text
