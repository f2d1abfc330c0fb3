"""The manager keeps models served: a runner that dies is replaced, a model that cannot load says why, models make room for each other."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest
from loguru import logger

from src import logs
from src.errors import ModelLoadFailed, ModelNotFound
from src.manager import runner_process
from src.manager.manager import ECHO, Manager, load_first
from src.manager.planning import Planner
from src.manager.runner_process import RunnerProcess
from src.settings import Settings
from tests.support.model_files import gguf_bytes, put
from tests.support.server import Server, wait_until
from tests.support.watching import watching

CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "hello"}]}
ENDLESS = {**HELLO, "ignore_eos": True, "max_tokens": 900}
LIGHT = {"INFERENCE_ENGINE": "llama_cpp", "CONTEXT_LENGTH": 256, "MAX_PARALLEL_SEQUENCES": 2}


def ask(server: Server, model: str | None = None, **fields: object) -> httpx.Response:
    return httpx.post(server.url + CHAT, json={**HELLO, "model": model, "max_tokens": 4, **fields}, timeout=60)


def error(response: httpx.Response) -> dict:
    return response.json()["error"]


def load(server: Server, model: str) -> httpx.Response:
    return httpx.post(server.url + "/v1/models/load", json={"model_name": model}, timeout=60)


def states(server: Server) -> dict[str, str]:
    return {model["id"]: model["state"] for model in httpx.get(server.url + "/v1/models", timeout=10).json()["data"]}


def model_state(server: Server, name: str) -> dict:
    return next(model for model in server.status()["models"] if model["name"] == name)


def kill_runner(server: Server) -> None:
    [pid] = server.pids("runner")
    os.kill(pid, signal.SIGKILL)


def events(response: httpx.Response) -> list:
    return [data if data == "[DONE]" else json.loads(data) for data in re.findall(r"^data: (.*)$", response.text, re.MULTILINE)]


# A runner that dies


@pytest.fixture
def echo():
    with Server(INFERENCE_ENGINE="echo", ECHO_STEP_MS=20) as server:
        yield server


def test_a_runner_that_is_killed_is_replaced_and_the_next_request_is_answered(echo):
    gateway, [runner] = echo.pids("gateway"), echo.pids("runner")
    kill_runner(echo)
    assert ask(echo, max_tokens=100).json()["choices"][0]["message"]["content"] == "user: hello\n"
    echo.wait_healthy()
    assert echo.pids("gateway") == gateway
    assert echo.pids("runner") != [runner]
    assert model_state(echo, "echo")["restarts"] == 1
    assert model_state(echo, "echo")["state"] == "ready"
    assert "Runner for echo crashed (SIGKILL); restarting" in echo.log("model_operations")


def supervised(folder: Path) -> RunnerProcess:
    """The life of a real runner, here in this process."""
    planner = Planner(Settings(inference_engine="echo", log_dir=str(folder / "logs")), folder)
    plan = planner.plan(ECHO, "echo", planner.available("echo"))
    process = RunnerProcess(ECHO, [planner.attempt(ECHO, plan)])
    process.start()
    return process


def test_a_mistake_of_the_manager_itself_fails_the_model_and_leaves_no_process(tmp_path, monkeypatch):
    monkeypatch.setattr(RunnerProcess, "_restart", None)  # a TypeError, once the runner has crashed

    async def main() -> None:
        model = supervised(tmp_path)
        await model.wait_ready()
        os.kill(model.pid, signal.SIGKILL)
        async with model._changed:
            await model._changed.wait_for(lambda: model.state != "ready")
        with pytest.raises(ModelLoadFailed, match="made a mistake \\(TypeError\\)"):
            await model.wait_ready()
        await model.stop(grace=1)

    asyncio.run(main())


def test_a_runner_that_dies_again_and_again_is_given_up_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(runner_process, "BACKOFF", (0, 0))

    async def main() -> None:
        model = supervised(tmp_path)
        pids = []
        for _ in range(3):
            await model.wait_ready()
            pids.append(model.pid)
            os.kill(model.pid, signal.SIGKILL)
            async with model._changed:
                await model._changed.wait_for(lambda: model.state != "ready")
        with pytest.raises(ModelLoadFailed, match="crashed 3 times in a row"):
            await model.wait_ready()
        assert len(set(pids)) == 3
        assert (model.state, model.restarts) == ("failed", 2)
        await model.stop(grace=1)

    asyncio.run(main())


def test_a_runner_is_stopped_at_any_time_and_leaves_nothing(tmp_path):
    told: list[str] = []

    async def main() -> None:
        for wait_ready in (False, True):
            model = supervised(tmp_path)
            while model.pid is None:
                await asyncio.sleep(0.001)
            if wait_ready:
                await model.wait_ready()
            pid, [waiter] = model.pid, [asyncio.ensure_future(model.wait_ready())]
            await model.stop(grace=5)
            await asyncio.gather(waiter, return_exceptions=True)
            assert model.state == "gone"
            assert not psutil.pid_exists(pid)

    sink = logger.add(told.append)
    asyncio.run(main())
    logger.remove(sink)
    assert len(told) == 3, "it was loaded twice and ready once; what ended on request is not called a failure"


# A model that cannot load


@pytest.fixture(scope="module")
def broken(tmp_path_factory, model_path):
    """A folder with a model file that is none, and a model in a format that this engine cannot run."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "broken.gguf").write_bytes(gguf_bytes())
    put(folder, "tensors/config.json", "tensors/model.safetensors")
    with Server(MODELS_DIR=folder, wait=False, **LIGHT) as server:
        wait_until(lambda: "failed to load" in server.log("model_operations"), what="the failure")
        yield server


def loads_of(server: Server, model: str) -> int:
    return server.log("model_operations").count(f"Loading {model} with")


def test_a_model_that_does_not_load_is_told_with_its_reason(broken):
    for model in ("broken", None):
        response = ask(broken, model)
        assert response.status_code == 503
        assert error(response)["code"] == "model_load_failed"
        assert re.search(r"broken did not load: .{10}", error(response)["message"])
    assert model_state(broken, "broken")["state"] == "failed"
    assert model_state(broken, "broken")["reason"] in error(response)["message"]


def test_the_server_is_not_healthy_without_a_model_that_can_load(broken):
    health = httpx.get(broken.url + "/health", timeout=10)
    assert (health.status_code, health.json()["status"]) == (503, "unavailable")
    assert "broken failed" in health.json()["reason"]


def test_a_model_that_does_not_load_is_not_tried_again_by_requests_but_by_an_explicit_load(broken):
    before = loads_of(broken, "broken")
    for _ in range(3):
        assert ask(broken, "broken").status_code == 503
    assert loads_of(broken, "broken") == before
    assert broken.runners() == []
    response = load(broken, "broken")
    assert (response.status_code, error(response)["code"]) == (503, "model_load_failed")
    assert loads_of(broken, "broken") == before + 1


def test_a_model_in_a_format_that_the_engine_cannot_run_says_what_could(broken):
    response = ask(broken, "tensors")
    assert (response.status_code, error(response)["code"]) == (503, "model_load_failed")
    assert "mlx and vllm can" in error(response)["message"]
    assert states(broken)["tensors"] == "failed"


def put_right(server: Server, model_path: Path) -> httpx.Response:
    path = Path(server.environ["MODELS_DIR"]) / "broken.gguf"
    path.unlink()
    path.symlink_to(model_path)
    return load(server, "broken")


def test_a_model_put_right_is_served_after_an_explicit_load(broken, model_path):
    response = put_right(broken, model_path)
    assert (response.status_code, response.json()["state"]) == (200, "ready")
    assert ask(broken, "broken").status_code == 200
    assert httpx.get(broken.url + "/health", timeout=10).status_code == 200


def test_a_model_that_cannot_run_here_pushes_none_out(broken, model_path):
    put_right(broken, model_path)
    before = broken.pids("runner")
    assert len(before) == 1, "as many as may be loaded"
    assert load(broken, "tensors").status_code == 503
    assert ask(broken, "tensors").status_code == 503
    assert broken.pids("runner") == before


# Models that make room for each other


@pytest.fixture(scope="module")
def two(tmp_path_factory, model_path):
    folder = tmp_path_factory.mktemp("models")
    for name in ("a.gguf", "b.gguf"):
        (folder / name).symlink_to(model_path)
    with Server(MODELS_DIR=folder, MAX_CONCURRENT_MODELS=1, **LIGHT) as server:
        yield server


@contextlib.contextmanager
def counting_runners(server: Server):
    """The most runners that were seen at any time within."""
    most = [0]

    def count() -> None:
        most[0] = max(most[0], len(server.runners()))

    with watching(count, 0.01):
        yield most


@pytest.mark.slow
def test_asking_for_another_model_switches_to_it(two):
    assert states(two) == {"a": "ready", "b": "available"}
    with counting_runners(two) as most:
        for model in ("b", "a"):
            response = ask(two, model)
            assert (response.status_code, response.json()["model"]) == (200, model)
            assert states(two)[model] == "ready"
            wait_until(lambda: len(two.pids("runner")) == 1, what="the end of the model before")
    assert most == [2], "memory holds both for a moment"
    assert "Unloading a: replaced by b" in two.log("model_operations")


@pytest.mark.slow
def test_a_running_stream_ends_whole_before_its_model_makes_room(two):
    assert ask(two, "a").status_code == 200
    request = {**ENDLESS, "model": "a", "stream": True, "max_tokens": 100}
    with httpx.stream("POST", two.url + CHAT, json=request, timeout=60) as response:
        lines = response.iter_lines()
        next(lines)
        other: list[httpx.Response] = []
        thread = threading.Thread(target=lambda: other.append(ask(two, "b")))
        thread.start()
        received = list(lines)
        thread.join(60)
    assert received[-2:] == ["data: [DONE]", ""]
    assert '"finish_reason":"length"' in received[-4]
    assert other[0].status_code == 200
    wait_until(lambda: len(two.pids("runner")) == 1, what="the end of the model before")


def test_the_model_before_answers_while_another_is_loaded_beside_it(two):
    assert ask(two, "a").status_code == 200
    answers: list[httpx.Response] = []
    waiting = threading.Thread(target=lambda: answers.append(ask(two, "b")))
    waiting.start()
    wait_until(lambda: states(two)["b"] == "loading", what="the load")
    answers.append(ask(two, "a"))
    waiting.join(60)
    assert [(answer.status_code, answer.json().get("model")) for answer in answers] == [(200, "a"), (200, "b")]


def test_requests_for_both_models_at_once_are_all_answered(two):
    answers: list[httpx.Response] = []
    threads = [threading.Thread(target=lambda model=model: answers.append(ask(two, model))) for model in ("a", "b", "b", "a")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted((answer.status_code, answer.json().get("model")) for answer in answers) == [(200, "a")] * 2 + [(200, "b")] * 2


def test_an_unknown_model_is_refused_with_the_names_of_those_there_are(two):
    response = ask(two, "gpt-4")
    assert (response.status_code, error(response)["code"], error(response)["param"]) == (404, "model_not_found", "model")
    assert "Models here: a, b." in error(response)["message"]


def test_a_model_that_comes_or_goes_while_the_server_runs_is_noticed(two, model_path):
    folder = Path(two.environ["MODELS_DIR"])
    (folder / "c.gguf").symlink_to(model_path)
    assert states(two)["c"] == "available"
    (folder / "c.gguf").unlink()
    assert "c" not in states(two)


@pytest.mark.slow
def test_without_load_on_demand_only_the_loaded_model_answers(tmp_path, model_path):
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).symlink_to(model_path)
    with Server(MODELS_DIR=tmp_path, DEFAULT_MODEL="b", LOAD_ON_DEMAND=False, **LIGHT) as server:
        assert ask(server).json()["model"] == "b"
        response = ask(server, "a")
        assert (response.status_code, error(response)["code"], error(response)["param"]) == (404, "model_not_found", "model")
        assert "LOAD_ON_DEMAND" in error(response)["message"]
        assert states(server) == {"a": "available", "b": "ready"}


# What there is to load at the start


def test_an_unknown_default_model_is_told_at_the_start_and_to_who_relies_on_it():
    with Server(INFERENCE_ENGINE="echo", DEFAULT_MODEL="gpt-4") as server:
        told = "The model gpt-4 is not loaded at the start: The model 'gpt-4' does not exist. Models here: echo."
        wait_until(lambda: told in server.output, what="the word on the terminal")
        assert told in server.log("errors")
        response = ask(server)
        assert (response.status_code, error(response)["code"]) == (404, "model_not_found")
        assert "'gpt-4' does not exist. Models here: echo." in error(response)["message"]
        assert ask(server, "echo").status_code == 200


@pytest.mark.slow
def test_a_folder_without_models_is_told_and_the_first_model_put_there_is_served(tmp_path, model_path):
    with Server(MODELS_DIR=tmp_path, wait=False, **LIGHT) as server:
        wait_until(lambda: "There is no model to load yet" in server.output, what="the warning")
        response = wait_until(lambda: try_health(server), what="an answer")
        assert response.status_code == 503
        assert "no model" in response.json()["reason"]
        assert error(ask(server))["code"] == "model_not_found"
        (tmp_path / "late.gguf").symlink_to(model_path)
        assert ask(server).json()["model"] == "late"


def try_health(server: Server) -> httpx.Response | None:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(server.url + "/health", timeout=10)
    return None


def in_a_manager(folder: Path, test, **settings: object) -> None:
    """Run a test in the process that asks: with a real manager, but without a server around it."""

    async def main() -> None:
        manager = Manager(configured, folder)
        try:
            await test(manager)
        finally:
            await manager.close()

    configured = Settings(log_dir=str(folder / "logs"), **settings)
    logs.configure(configured, "manager")
    try:
        asyncio.run(main())
    finally:
        logger.remove()


def test_loads_that_come_together_start_one_runner(tmp_path):
    async def check(manager: Manager) -> None:
        ready = await asyncio.gather(*(manager.load("echo") for _ in range(5)), manager.resolve(None), manager.resolve("echo"))
        assert len({one.socket for one in ready}) == 1
        assert len(manager.fleet.runners()) == 1

    in_a_manager(tmp_path, check, inference_engine="echo")


def test_the_default_model_is_the_first_of_the_folder_or_the_one_set(tmp_path):
    def default_model(**settings: object) -> str | None:
        manager = Manager(Settings(models_dir=str(tmp_path), **settings), tmp_path)
        return manager.default_model(asyncio.run(manager.folder.current()))

    put(tmp_path, "b.gguf", "a.gguf")
    assert default_model() == "a"
    assert default_model(default_model="b") == "b"
    shutil.rmtree(tmp_path)
    assert default_model() is None


def test_load_first_gives_up_on_a_model_that_is_not_there(tmp_path):
    async def check(manager: Manager) -> None:
        assert await load_first(manager) is None
        with pytest.raises(ModelNotFound, match="'nowhere' does not exist"):
            await manager.resolve(None)

    in_a_manager(tmp_path, check, inference_engine="echo", default_model="nowhere")


def test_closing_the_manager_ends_its_runners(tmp_path):
    pids = []

    async def check(manager: Manager) -> None:
        await manager.load("echo")
        pids.extend(manager.fleet.runners())

    began = time.monotonic()
    in_a_manager(tmp_path, check, inference_engine="echo")
    assert len(pids) == 1
    assert not psutil.pid_exists(pids[0])
    assert time.monotonic() - began < 20
