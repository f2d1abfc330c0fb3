"""SIGTERM drains, a second one does not wait, SIGHUP renews the gateway and touches no model."""

import os
import shutil
import signal
import subprocess
import sys
import time

import httpx
import pytest

from src.settings import ROOT
from tests.support.answers import Crowd, ask
from tests.support.server import Server, assert_gone, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path):
    """A copy of the service, with a .env and code that may be changed."""
    for name in ("run.py", "gunicorn.conf.py"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_a_second_sigterm_ends_streams_at_once_with_an_error_that_says_so():
    with Server(INFERENCE_ENGINE="echo", ECHO_STEP_MS=50, SHUTDOWN_GRACE_SECONDS=60) as server:
        tree = server.processes()
        with Crowd() as crowd:
            answer = crowd.ask(server, "x" * 500, extra_body={"ignore_eos": True})
            wait_until(lambda: server.status()["requests"]["running"] == 1, what="a stream")
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: "Handling signal: term" in server.output, what="the first one's being heeded")
            time.sleep(0.5)
            assert not answer.done(), "the first one lets it run"
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(40) == 0, "the first one alone would take 60 seconds"
            assert "shutting down" in answer.result().message
        assert_gone(tree)


def reload(server: Server) -> None:
    """Returns once the new workers are there, and the old ones serve nobody any more."""
    before = server.pids("gateway")
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: server.pids("gateway") and not set(server.pids("gateway")) & set(before), what="the new gateway")


def test_sighup_renews_the_gateway_under_load_and_no_request_notices():
    with Server(INFERENCE_ENGINE="echo", ECHO_STEP_MS=10, WORKERS=2) as server, Crowd() as crowd:
        models = server.pids("manager") + server.pids("runner")
        stream = crowd.ask(server, "x" * 300)
        wait_until(lambda: server.status()["requests"]["running"] == 1, what="a stream")
        answers = [crowd.ask(server, f"number {number}") for number in range(40)]
        server.process.send_signal(signal.SIGHUP)
        answers += [crowd.ask(server, f"number {number}") for number in range(40, 80)]
        assert [answer.result().text for answer in answers] == [f"user: number {number}\n" for number in range(80)]
        assert stream.result().text == f"user: {'x' * 300}\n"
        assert server.pids("manager") + server.pids("runner") == models
        assert "Handling signal: hup" in server.output


def test_sighup_reads_settings_and_code_anew_and_keeps_the_old_settings_where_they_are_wrong(folder):
    (folder / ".env").write_text("MAX_BODY_BYTES=2000\n")
    with Server(command=f"{folder / 'run.py'} --mode prod", INFERENCE_ENGINE="echo", MODELS_DIR="models") as server:

        def takes(size: int) -> bool:
            body = {"prompt": "x" * size, "max_tokens": 1}
            return httpx.post(f"{server.url}/v1/completions", json=body, timeout=30).status_code != 413

        models = server.pids("manager") + server.pids("runner")
        assert not takes(3000)
        (folder / ".env").write_text("MAX_BODY_BYTES=5000\nPORT=1\n")
        code = folder / "src" / "api" / "routes" / "system.py"
        code.write_text(code.read_text().replace('status="ok"', 'status="renewed"'))
        reload(server)
        assert takes(3000)
        assert not takes(6000)
        assert httpx.get(f"{server.url}/health").json()["status"] == "renewed"
        (folder / ".env").write_text("MAX_BODY_BYTES=plenty\n")
        reload(server)
        assert "Not reloaded: MAX_BODY_BYTES='plenty' is wrong" in server.output
        assert takes(3000)
        assert not takes(6000)
        assert server.pids("manager") + server.pids("runner") == models


def broke_off(answer) -> bool:
    return bool(answer.exception() or answer.result().error)


@pytest.mark.parametrize("place", ["master", "manager", "gateway"])
def test_streams_and_processes_after_a_kill_of_anything_but_the_runner(place):
    """The manager's death is a pause, a worker's ends its own streams, and the master's ends everything."""
    with Server(INFERENCE_ENGINE="echo", ECHO_STEP_MS=20) as server:
        tree = server.processes()
        with Crowd() as crowd:
            answer = crowd.ask(server, "x" * 150)
            wait_until(lambda: server.status()["requests"]["running"] == 1, what="a stream")
            runner = server.pids("runner")
            os.kill(server.pids(place)[0], signal.SIGKILL)
            if place == "master":
                assert broke_off(answer)
                server.process.wait()
                assert_gone(tree)
                return
            if place == "manager":
                assert answer.result().text == f"user: {'x' * 150}\n"
                assert server.pids("runner") != runner
            else:
                assert broke_off(answer)
                server.wait_healthy()
                wait_until(lambda: server.status()["requests"]["running"] == 0, what="the end of its job")
                assert server.pids("runner") == runner
            assert ask(server, "hello").text == "user: hello\n"
        server.stop()


def test_a_manager_ends_if_its_master_was_killed_while_it_started(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as master:
        pass
    command = [sys.executable, "-m", "src.manager", "http://127.0.0.1:1", str(master.pid)]
    settings = {"INFERENCE_ENGINE": "echo", "RUN_DIR": str(tmp_path / "run"), "LOG_DIR": str(tmp_path / "logs")}
    (tmp_path / "run").mkdir(mode=0o700)
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, **settings}) as manager:
        try:
            assert manager.wait(30) == 0
        finally:
            manager.kill()
    assert not (tmp_path / "run").exists()
