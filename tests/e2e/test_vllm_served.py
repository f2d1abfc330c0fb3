"""vLLM's processes behind the server: none outlives it, whichever is killed, and none can be reached from outside."""

import os
import signal
from collections.abc import Iterator

import psutil
import pytest

from src.engines import why_not
from tests.e2e.conftest import MODEL, settings_of
from tests.support.server import Server, assert_gone, wait_until

if reason := why_not("vllm"):
    pytest.skip(reason, allow_module_level=True)

SETTINGS = {**settings_of("vllm"), "CONTEXT_LENGTH": 256, "MAX_PARALLEL_SEQUENCES": 2}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(**SETTINGS) as server:
        yield server


def ask(server: Server) -> str:
    reply = server.client().completions.create(model=MODEL, prompt="The capital of France is", max_tokens=8, temperature=0)
    return reply.choices[0].text


def runner(server: Server) -> psutil.Process:
    return psutil.Process(server.pids("runner")[0])


def core(server: Server) -> psutil.Process:
    return next(process for process in server.processes() if "EngineCore" in " ".join(process.cmdline()))


def test_whoever_is_killed_leaves_nothing_behind_and_the_model_answers_again(server):
    answer = ask(server)
    assert "Paris" in answer
    for victim_of in (runner, core):
        family = [core(server), *core(server).children(recursive=True)]
        victim_of(server).kill()
        assert_gone(family)
        wait_until(lambda: server.status()["models"][0]["state"] == "ready", 300, "the model, loaded again")
        assert ask(server) == answer


def test_nothing_but_the_server_listens_beyond_this_machine(server):
    for process in server.processes():
        listening = [each.laddr for each in process.net_connections("inet") if each.status == psutil.CONN_LISTEN]
        assert all(address.ip in ("127.0.0.1", "::1") for address in listening), (process.cmdline(), listening)


def test_a_server_killed_as_a_whole_takes_vllms_processes_along():
    with Server(**SETTINGS) as server:
        tree = server.processes()
        assert sum("VLLM" in " ".join(process.cmdline()) for process in tree) == 2, "the core and its worker"
        for pid in (*server.pids("manager"), *server.pids("runner"), *server.pids("gateway"), server.process.pid):
            os.kill(pid, signal.SIGKILL)
        server.process.wait()
        assert_gone(tree)
