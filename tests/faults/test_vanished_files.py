"""A system that removes old files takes what lies in RUN_DIR: the server goes on, and makes it again."""

import os
import signal
import socket
import tempfile
from pathlib import Path

import httpx
import pytest

from tests.support.server import Server, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.macos]


@pytest.fixture(scope="module")
def run_dir():
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "run"


@pytest.fixture(scope="module")
def server(run_dir):
    with Server(INFERENCE_ENGINE="echo", WORKERS=2, RUN_DIR=run_dir) as server:
        yield server


def ask(server: Server) -> str:
    body = {"model": "echo", "messages": [{"role": "user", "content": "still there"}]}
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=10)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["message"]["content"]


@pytest.mark.parametrize("name", ["manager.sock", "runner-1.sock", "loaded.json", "lock"])
def test_the_next_request_is_answered(server, run_dir, name):
    ask(server)
    (run_dir / name).unlink()
    assert "still there" in ask(server)
    if name != "lock":
        wait_until((run_dir / name).exists, timeout=10, what=f"another {name}")


def test_the_watchdogs_socket_answers_again(server, run_dir):
    (run_dir / "health.sock").unlink()

    def answers() -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            try:
                client.connect(str(run_dir / "health.sock"))
            except OSError:
                return False
            client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return client.recv(100).startswith(b"HTTP/1.1 200")

    wait_until(answers, timeout=20, what="an answer")


def test_a_manager_that_is_killed_then_brings_the_models_back(server, run_dir):
    (run_dir / "loaded.json").unlink()
    wait_until((run_dir / "loaded.json").exists, timeout=10, what="another list of models")
    [manager] = server.pids("manager")
    os.kill(manager, signal.SIGKILL)
    wait_until(lambda: server.pids("manager") not in ([manager], []), what="another manager")
    wait_until(lambda: [model["name"] for model in server.status()["models"] if model["state"] == "ready"] == ["echo"], what="the model")
    assert "still there" in ask(server)
