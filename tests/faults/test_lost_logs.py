"""Logs that cannot be written cost no request: each process says so once, and goes on writing when it can."""

import os
import select
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from src.settings import ROOT
from tests.support.answers import ask
from tests.support.server import Server, free_port, wait_until

NO_FOLDER_CAN_BE_MADE_IN = "/sys/kernel"  # not even by root
COMPLAINT = "logs are not written to"
FILES = ("app", "api_requests", "model_operations", "system_metrics", "audit", "errors")


def remove(logs: Path) -> None:
    shutil.rmtree(logs.resolve())


def make_again(logs: Path) -> None:
    logs.resolve().mkdir()


def fill_disk(logs: Path) -> None:
    """All bytes that are written to these files are one too many."""
    for name in FILES:
        path = logs / f"{name}.log"
        path.unlink(missing_ok=True)
        path.symlink_to("/dev/full")


def free_disk(logs: Path) -> None:
    for name in FILES:
        (logs / f"{name}.log").unlink()


def make_read_only(logs: Path) -> None:
    """A link, since root may write everywhere else."""
    target = logs.resolve()
    target.rename(target.with_name("kept"))
    target.symlink_to(NO_FOLDER_CAN_BE_MADE_IN)


def make_writable(logs: Path) -> None:
    target = logs.parent / "target"
    target.unlink()
    target.with_name("kept").rename(target)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logs")
    (folder / "target").mkdir()
    (folder / "logs").symlink_to("target")
    with Server(INFERENCE_ENGINE="echo", ECHO_STEP_MS=10, LOG_DIR=folder / "logs") as server:
        yield server, folder / "logs"


def written(logs: Path) -> str:
    path = logs / "api_requests.log"
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize(
    ("lose", "find"), [(remove, make_again), (fill_disk, free_disk), (make_read_only, make_writable)], ids=["removed", "full", "read-only"]
)
def test_logs_that_are_lost_while_it_serves(server, lose: Callable[[Path], None], find: Callable[[Path], None]):
    server, logs = server
    assert ask(server, "before").text == "user: before\n"
    wait_until(lambda: written(logs), what="a line")
    lose(logs)
    for number in range(5):
        assert ask(server, f"{number}").text == f"user: {number}\n"
        assert httpx.get(f"{server.url}/health").status_code == 200
    wait_until(lambda: COMPLAINT in server.output, what="its being told")
    find(logs)
    before = written(logs)
    assert ask(server, "after").text == "user: after\n"
    wait_until(lambda: "POST /v1/chat/completions" in written(logs)[len(before) :], what="a new line")
    gateway = [line for line in server.output.splitlines() if COMPLAINT in line]
    assert len(gateway) <= 3, "each of gateway, manager and runner says it once"
    assert "Traceback" not in server.output


@pytest.mark.slow
def test_a_folder_that_cannot_be_made_at_the_start_is_used_once_it_can(tmp_path):
    (tmp_path / "link").symlink_to(NO_FOLDER_CAN_BE_MADE_IN)
    with Server(INFERENCE_ENGINE="echo", LOG_DIR=tmp_path / "link" / "logs") as server:
        assert ask(server, "hello").text == "user: hello\n"
        assert 1 <= server.output.count(COMPLAINT) <= 3
        (tmp_path / "link").unlink()
        (tmp_path / "link").mkdir()

        def served_and_written() -> bool:
            assert ask(server, "hello").text == "user: hello\n"
            return "POST /v1/chat/completions" in written(tmp_path / "link" / "logs")

        wait_until(served_and_written, what="a line")
        assert server.output.count(COMPLAINT) <= 3


@pytest.mark.slow
def test_a_terminal_that_nobody_reads_keeps_no_request_waiting(tmp_path):
    """Standard error is a pipe that is full: every write to it would wait for ever."""
    port = free_port()
    environ = {**os.environ, "INFERENCE_ENGINE": "echo", "PORT": str(port), "LOG_LEVEL": "DEBUG", "ENABLE_LOG_FILE": "false"}
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(tmp_path / "pipe", os.O_WRONLY)
    process = subprocess.Popen(
        [sys.executable, "run.py"], cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, stdout=writer, stderr=subprocess.STDOUT
    )
    try:
        url = f"http://127.0.0.1:{port}"

        def healthy() -> bool:
            try:
                return httpx.get(f"{url}/health", timeout=5).status_code == 200
            except httpx.TransportError:
                return False

        wait_until(healthy, timeout=60, what="health")
        fill(tmp_path / "pipe")
        for number in range(3):
            body = {"model": "echo", "messages": [{"role": "user", "content": str(number)}]}
            answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=20)
            assert answer.json()["choices"][0]["message"]["content"] == f"user: {number}\n"
            httpx.post(f"{url}/v1/models/load", json={"model_name": "echo"}, timeout=20).raise_for_status()
            httpx.post(f"{url}/v1/models/unload", json={"model_name": "echo"}, timeout=20).raise_for_status()  # the manager writes a line
        process.terminate()
        assert process.wait(40) == 0, "the master too goes on without a reader"
    finally:
        process.kill()
        process.wait()
        os.close(reader)
        os.close(writer)


def fill(pipe: Path) -> None:
    """Through an end of its own, whose writes do not wait, till nothing more goes in."""
    end = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    try:
        while True:
            os.write(end, b"x" * select.PIPE_BUF)
    except BlockingIOError:
        pass
    finally:
        os.close(end)
