"""Chats that a key asks for: short ones, and one that runs until its client hangs up. To a Server or an InProcess."""

import contextlib
from collections.abc import Iterator

import httpx

from tests.support.in_process import InProcess
from tests.support.openai_api import CHAT
from tests.support.server import Server

HELLO = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}  # 12 tokens and 4
ENDLESS = {**HELLO, "max_tokens": 10_000, "ignore_eos": True}


def chat(server: Server | InProcess, key: str = "", body: object = HELLO, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with server.http(timeout=60) as http:
        return http.post(CHAT, json=body, headers={"x-api-key": key, **named})


def statuses(server: Server | InProcess, number: int, key: str = "", **headers: str) -> list[int]:
    return [chat(server, key, **headers).status_code for _ in range(number)]


@contextlib.contextmanager
def streaming(server: Server | InProcess, key: str = "", body: dict = ENDLESS) -> Iterator[Iterator[str]]:
    """The lines of a request that runs until the block ends; then its client hangs up."""
    with server.http(timeout=60) as http, http.stream("POST", CHAT, json={**body, "stream": True}, headers={"x-api-key": key}) as response:
        assert response.status_code == 200, response.read()
        lines = response.iter_lines()
        next(lines)
        yield lines
