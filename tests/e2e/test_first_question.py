"""The first question that the README has a user ask gets the right answer from the built-in model, with its own sampling."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from src.settings import ROOT
from tests.support.server import Server

RIGHT = {"What is the capital of Japan?": "Tokyo"}


def readme_body() -> dict:
    [body] = re.findall(r"^curl \S+/v1/chat/completions .* -d '(.*?)'$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    return json.loads(body)


@pytest.fixture(scope="module", params=["auto", pytest.param("f16", marks=pytest.mark.slow)])
def server(request, model_path) -> Iterator[Server]:
    with Server(KV_CACHE_TYPE=request.param, DEFAULT_MODEL="smollm2-135m", THREADS=0, disposable=True) as server:
        yield server


def answer(server: Server, body: dict) -> str:
    """Its text, whole."""
    response = httpx.post(f"{server.url}/v1/chat/completions", json={**body, "stream": False}, timeout=100)
    return response.json()["choices"][0]["message"]["content"]


def test_the_readmes_question_is_answered_rightly_alone_and_among_twenty(server):
    body = readme_body()
    right = RIGHT[body["messages"][0]["content"]]
    assert right in answer(server, body)
    with ThreadPoolExecutor(20) as clients:
        answers = list(clients.map(lambda _: answer(server, body), range(20)))
    assert [text for text in answers if right not in text] == []


def test_the_banner_and_the_readmes_python_ask_the_same(server):
    question = readme_body()["messages"][0]["content"]
    [line] = [line for line in server.output.splitlines() if line.startswith("Try:")]
    assert f'"{question}"' in line
    assert (ROOT / "README.md").read_text().count(f'"content": "{question}"') == 2
