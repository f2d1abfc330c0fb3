"""A model's way through loading, evicting, idling, replacing and falling back, in a real manager with real runners."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import msgspec
import psutil
import pytest
from loguru import logger

from src import logs
from src.engines import ENGINES
from src.errors import ModelDoesNotFit, ModelLoadFailed, ModelNotFound
from src.manager import memory, upkeep
from src.manager.loaded_models import Loaded, LoadedModels
from src.manager.manager import Manager
from src.manager.memory import GIB, Memory
from src.manager.planning import Planner
from src.protocol import ModelReady
from src.settings import Settings
from tests.support.model_files import gguf_bytes

pytestmark = pytest.mark.slow

LIGHT = {"inference_engine": "auto", "context_length": 256, "max_parallel_sequences": 2, "threads": 1}


@pytest.fixture
def models(tmp_path, model_path) -> Path:
    """Three names for the built-in model."""
    folder = tmp_path / "models"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.gguf").symlink_to(model_path)
    return folder


def run(folder: Path, test, **settings: object) -> None:
    """Run a coroutine with a manager of the folder's models, here in this process."""

    async def main() -> None:
        manager = Manager(configured, folder.parent)
        watching = asyncio.create_task(upkeep.Upkeep(manager).run())
        try:
            await asyncio.wait_for(test(manager), 100)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await manager.close()

    configured = Settings(models_dir=str(folder), log_dir=str(folder.parent / "logs"), **{**LIGHT, **settings})
    logs.configure(configured, "manager")
    try:
        asyncio.run(main())
    finally:
        logger.remove()


async def until(condition, what: str, timeout: float = 30) -> object:
    give_up = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < give_up, f"{what} did not come true"
        await asyncio.sleep(0.02)
    return value


def pid_of(manager: Manager, name: str) -> int:
    model = manager.fleet.serving(name)
    assert model
    assert model.pid
    return model.pid


def loaded(manager: Manager) -> list[str]:
    return sorted(model.entry.name for model in manager.fleet.ready())


async def gone(manager: Manager, count: int) -> None:
    await until(lambda: len(manager.fleet.runners()) == count, f"{count} runners")


def options(models: Path, text: str) -> None:
    (models / "models.toml").write_text(text)


# Who makes room


def test_the_longest_unused_model_goes_first(models):
    async def check(manager: Manager) -> None:
        for name in ("a", "b"):
            await manager.load(name)
        await manager.resolve("a")
        await manager.load("c")
        await gone(manager, 2)
        assert loaded(manager) == ["a", "c"]

    run(models, check, max_concurrent_models=2)


async def ask(ready: ModelReady, tokens: int) -> bytes:
    """One request at a runner's socket; its last event."""
    reader, writer = await asyncio.open_unix_connection(ready.socket)
    sampling = '{"seed":1,"temperature":0,"ignore_eos":true}'
    request = f'{{"kind":"Generate","prompts":[{{"kind":"TextPrompt","text":"Hello"}}],"sampling":{sampling},"max_tokens":{tokens}}}\n'
    try:
        writer.write(request.encode())
        return [line async for line in reader][-1]
    finally:
        writer.close()


def test_an_idle_model_goes_before_a_busy_one_that_was_used_longer_ago(models):
    async def check(manager: Manager) -> None:
        busy = asyncio.create_task(ask(await manager.load("a"), 8000))  # half a minute at least
        await manager.load("b")
        await manager.resolve("b")
        await manager.load("c")
        await until(lambda: loaded(manager) == ["a", "c"], "the end of b")
        assert not busy.done(), "else this proves nothing"
        busy.cancel()

    run(models, check, max_concurrent_models=2, context_length=8192)


def test_a_pinned_model_never_goes(models):
    options(models, "[a]\npinned = true\n")

    async def check(manager: Manager) -> None:
        await manager.load("a")
        await manager.load("b")
        await manager.load("c")
        await gone(manager, 2)
        assert loaded(manager) == ["a", "c"]

    run(models, check, max_concurrent_models=2)


def test_where_all_are_pinned_another_is_refused_with_the_reason(models):
    options(models, "[a]\npinned = true\n")

    async def check(manager: Manager) -> None:
        await manager.load("a")
        with pytest.raises(ModelDoesNotFit, match=r"MAX_CONCURRENT_MODELS=1 models are loaded and pinned \(a\)"):
            await manager.load("b")
        assert loaded(manager) == ["a"]

    run(models, check)


@contextlib.contextmanager
def gigabytes(monkeypatch, total: float, needed: float):
    """A machine with so much memory, on which each of the models needs so much of it."""
    real = memory.need

    def need(facts, context_length, sequences, process):
        return real(facts, context_length, sequences, process)._replace(weights=int(needed * GIB))

    def available(device, reserve, taken, share):
        held = sum(int(needed * GIB) for _ in taken.runners)
        return Memory("cuda", int(total * GIB), int(total * GIB) - held - reserve, reserve)

    monkeypatch.setattr(memory, "need", need)
    monkeypatch.setattr(memory, "available", available)
    yield


def test_memory_makes_room_too(models, monkeypatch):
    async def check(manager: Manager) -> None:
        for name in "abc":
            await manager.load(name)
            assert len(manager.fleet.runners()) <= 2, "there is no memory for more"
        assert loaded(manager) == ["b", "c"]

    with gigabytes(monkeypatch, total=13, needed=5):
        run(models, check, max_concurrent_models=3)


def test_what_can_never_fit_is_refused_and_pushes_none_out(models, monkeypatch):
    async def check(manager: Manager) -> None:
        await manager.load("a")
        with gigabytes(monkeypatch, total=10, needed=20), pytest.raises(ModelDoesNotFit, match=r"b needs 2\d\.\d GiB"):
            await manager.load("b")
        assert loaded(manager) == ["a"]

    run(models, check)


@pytest.fixture
def mac(monkeypatch):
    """A Mac with 64 GiB, of which Metal lets programs use 48, and models that take 20 GiB each: none of it in a process's own size,
    and given back late."""
    real, given_back = memory.need, {}

    def need(facts, context_length, sequences, process):
        return real(facts, context_length, sequences, process)._replace(weights=20 * GIB)

    def free_bytes(total):
        """What runners hold, and for a while what those held that are gone."""
        now = time.monotonic()
        alive = {pid for manager in managers for pid in manager.fleet.runners()}
        given_back.update(dict.fromkeys(alive, now))
        return 64 * GIB - sum(20 * GIB for seen in given_back.values() if now - seen < 0.5)

    monkeypatch.setattr(memory, "need", need)
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: SimpleNamespace(total=64 * GIB, available=0))
    monkeypatch.setattr("src.manager.metal.free_bytes", free_bytes)
    monkeypatch.setattr("src.manager.metal.working_set", lambda: 48 * GIB)
    monkeypatch.setattr(Planner, "_device", lambda planner, engine: "mps")
    managers: list[Manager] = []
    return managers


def test_a_mac_switches_between_models_that_do_not_fit_together(models, mac):
    async def check(manager: Manager) -> None:
        mac.append(manager)
        for name in "abc":
            await manager.load(name)
            assert len(manager.fleet.runners()) <= 2, "Metal has no room for three"
        assert loaded(manager) == ["b", "c"]

    run(models, check, max_concurrent_models=3)


def test_a_mac_counts_two_loads_at_once_once_each(models, mac):
    async def check(manager: Manager) -> None:
        mac.append(manager)
        await asyncio.gather(manager.load("a"), manager.load("b"))
        assert loaded(manager) == ["a", "b"]

    run(models, check, max_concurrent_models=2)


# Loading


def test_a_load_of_a_loading_model_joins_it(models):
    async def check(manager: Manager) -> None:
        ready = await asyncio.gather(*(manager.load("a") for _ in range(5)), manager.resolve("a"))
        assert len({one.socket for one in ready}) == 1
        assert len(manager.fleet.runners()) == 1

    run(models, check)


def test_a_load_tells_how_far_it_is(models):
    async def check(manager: Manager) -> None:
        *steps, ready = [step async for step in manager.load_progress("a")]
        assert ready == await manager.resolve("a")
        stages = [step.stage for step in steps]
        assert stages[0] == "found"
        assert stages[-1] == "ready"
        assert "reading_weights" in stages
        assert sorted(stages, key=["found", "reading_weights", "warming_up", "ready"].index) == stages
        assert [step.bytes_read for step in steps] == sorted(step.bytes_read for step in steps)
        assert steps[-1].bytes_read == steps[-1].bytes_total == Path(models / "a.gguf").stat().st_size

    run(models, check)


def test_a_loading_runner_that_is_killed_has_failed_with_the_reason_and_the_next_load_works(models):
    async def check(manager: Manager) -> None:
        loading = asyncio.create_task(manager.load("a"))
        pid = await until(lambda: next(iter(manager.fleet.runners()), None), "a runner")
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ModelLoadFailed, match=r"its runner crashed while loading \(signal SIGKILL"):
            await loading
        model = manager.fleet.serving("a")
        assert model
        assert model.state == "failed"
        assert "signal SIGKILL" in model.reason
        await manager.load("a")
        assert loaded(manager) == ["a"]

    run(models, check)


def test_a_model_that_was_loaded_before_is_not_given_up_for_a_kill_while_it_loads_again(models):
    async def check(manager: Manager) -> None:
        first = await manager.load("a")
        os.kill(first.pid, signal.SIGKILL)
        loading = await until(lambda: pid_of(manager, "a") != first.pid and pid_of(manager, "a"), "the next runner")
        model = manager.fleet.serving("a")
        assert model
        assert model.state == "loading"
        os.kill(loading, signal.SIGKILL)
        third = await manager.resolve("a")
        assert third.pid not in (first.pid, loading)
        assert model.restarts == 2

    run(models, check)


def test_nor_is_one_that_the_manager_before_had_loaded(models):
    LoadedModels(models.parent / "loaded.json").write(Loaded(None, ("a",)))

    async def check(manager: Manager) -> None:
        loading = asyncio.create_task(manager.load("a"))
        pid = await until(lambda: next(iter(manager.fleet.runners()), None), "a runner")
        os.kill(pid, signal.SIGKILL)
        assert (await loading).pid != pid

    run(models, check)


def test_who_has_to_come_again_is_told_how_long_the_process_took_to_be_ready(models):
    async def check(manager: Manager) -> None:
        began = time.monotonic()
        ready = await manager.load("a")
        model = manager.fleet.serving("a")
        assert model
        assert model.ready
        assert model.ready.load_seconds < ready.retry_after <= time.monotonic() - began + 1

    run(models, check)


def test_a_model_that_is_broken_is_refused_with_the_reason(models):
    (models / "cut.gguf").write_bytes(gguf_bytes()[:-1])

    async def check(manager: Manager) -> None:
        with pytest.raises(ModelLoadFailed, match="cut cannot be loaded: it is cut short"):
            await manager.load("cut")
        with pytest.raises(ModelLoadFailed, match="cut cannot be loaded"):
            await manager.resolve("cut")
        assert manager.fleet.runners() == {}

    run(models, check)


def test_a_model_is_found_by_its_alias_also_for_requests_without_a_load(models):
    options(models, '[a]\naliases = ["gpt-4o-mini"]\ntemperature = 0.5\n')

    async def check(manager: Manager) -> None:
        ready = await manager.resolve("gpt-4o-mini")
        assert (ready.model, ready.sampling) == ("a", {"temperature": 0.5})
        assert await manager.resolve("gpt-4o-mini") == await manager.resolve("a")

    run(models, check)


def test_an_adapter_that_a_loaded_model_has_not_is_no_answer_of_the_model_alone(models):
    async def check(manager: Manager) -> None:
        await manager.load("a")
        (models / "sql").mkdir()
        options(models, '[a.adapters]\nsql = "sql"\n')
        await manager.folder.current()
        with pytest.raises(ModelNotFound, match="a was loaded before its adapter 'sql' was added"):
            await manager.resolve("sql")
        assert (await manager.resolve("a")).adapter == ""

    run(models, check)


def test_options_of_one_model_win_over_the_settings(models):
    options(models, "[a]\ncontext_length = 300\nmax_parallel_sequences = 3\n")

    async def check(manager: Manager) -> None:
        await manager.load("a")
        model = manager.fleet.serving("a")
        assert model
        stats = await model.stats()
        assert (model.ready.context_length, stats.engine.slots) == (300, 3)

    run(models, check)


def test_a_models_toml_that_becomes_wrong_is_told_once_and_changes_nothing(models):
    options(models, '[a]\naliases = ["x"]\n')

    async def check(manager: Manager) -> None:
        assert (await manager.folder.current()).find("x").name == "a"
        options(models, "[a]\npinned = 7\n")
        for _ in range(3):
            assert (await manager.folder.current()).find("x").name == "a"

    run(models, check)
    told = (models.parent / "logs" / "model_operations.log").read_text()
    assert told.count('["a"] pinned = 7 is wrong') == 1


# Another engine


def test_an_engine_that_fails_to_load_a_model_gives_way_to_another_where_that_is_allowed(models, monkeypatch):
    also = msgspec.structs.replace(ENGINES["mlx"], package=None, formats=frozenset({"gguf"}), prefers=lambda: True)
    monkeypatch.setitem(ENGINES, "mlx", also)  # this process takes it for one that can; the runner finds that it cannot

    async def refused(manager: Manager) -> None:
        with pytest.raises(ModelLoadFailed):
            await manager.load("a")

    async def check(manager: Manager) -> None:
        assert (await manager.load("a")).engine == "llama_cpp"
        model = manager.fleet.serving("a")
        assert model
        assert model.note.startswith("mlx: ")
        assert b'"kind":"Finished"' in await ask(await manager.resolve("a"), 2)

    run(models, refused)
    run(models, check, engine_fallback=True)


# A new version of a model


def test_a_changed_file_is_loaded_beside_the_old_one_and_takes_over(models, model_path, tmp_path):
    async def check(manager: Manager) -> None:
        old = await manager.load("a")
        assert await manager.load("a") == old, "nothing has changed"
        running = asyncio.create_task(ask(old, 100))
        before = pid_of(manager, "a")
        put_in_place(models / "a.gguf", model_path.read_bytes())
        new = await manager.load("a")
        assert pid_of(manager, "a") != before
        assert new.socket != old.socket
        assert b'"kind":"Finished"' in await running, "it ended on the old one"
        await gone(manager, 1)

    run(models, check)


def put_in_place(path: Path, content: bytes) -> None:
    part = path.with_suffix(".part")
    part.write_bytes(content)
    part.replace(path)


@pytest.mark.parametrize("content", [b"GGUF" + b"\xff" * 100, gguf_bytes()], ids=["damaged", "of no model that loads"])
def test_a_new_version_that_does_not_load_leaves_the_old_one_serving(models, content):
    async def check(manager: Manager) -> None:
        old = await manager.load("a")
        put_in_place(models / "a.gguf", content)
        with pytest.raises(ModelLoadFailed):
            await manager.load("a")
        assert await manager.resolve("a") == old
        assert b'"kind":"Finished"' in await ask(old, 2)
        await gone(manager, 1)

    run(models, check)


DUMB = """
import sys
from src.engines.llamacpp.engine import LlamaCppEngine
from src.errors import EngineError
from src.runner import __main__

def refuse(self, job):
    raise EngineError("it cannot say a word")

LlamaCppEngine.add = refuse
__main__.main()
"""


def test_a_new_version_that_does_not_answer_its_canary_leaves_the_old_one_serving(models, model_path, tmp_path, monkeypatch):
    """The fault is put into a real runner: it loads its model, but its engine refuses every prompt."""

    async def check(manager: Manager) -> None:
        old = await manager.load("a")
        python = tmp_path / "python"
        (tmp_path / "dumb.py").write_text(DUMB)
        python.write_text(f'#!/bin/sh\nshift 2\nexec "{real}" "{tmp_path}/dumb.py" "$@"\n')
        python.chmod(0o755)
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        monkeypatch.setattr("sys.executable", str(python))
        put_in_place(models / "a.gguf", model_path.read_bytes())
        with pytest.raises(ModelLoadFailed, match="it cannot say a word"):
            await manager.load("a")
        assert await manager.resolve("a") == old
        assert b'"kind":"Finished"' in await ask(old, 2)

    real = sys.executable
    run(models, check)


def test_changed_options_are_taken_up_by_the_next_load(models):
    async def check(manager: Manager) -> None:
        await manager.load("a")
        options(models, "[a]\ncontext_length = 128\n")
        await manager.load("a")
        model = manager.fleet.serving("a")
        assert model
        assert model.ready.context_length == 128

    run(models, check)


def test_where_memory_does_not_hold_both_the_old_version_ends_first(models, model_path, monkeypatch):
    async def check(manager: Manager) -> None:
        await manager.load("a")
        put_in_place(models / "a.gguf", model_path.read_bytes())
        loading = asyncio.create_task(manager.load("a"))
        most = 0
        while not loading.done():
            most = max(most, len(manager.fleet.runners()))
            await asyncio.sleep(0.01)
        await loading
        assert most == 1

    with gigabytes(monkeypatch, total=8, needed=5):
        run(models, check)


# Switching, unloading


def test_a_switch_takes_the_place_of_the_default_model(models):
    async def check(manager: Manager) -> None:
        await manager.load("a")
        await manager.switch("b", None)
        await gone(manager, 1)
        assert (manager.default_model(await manager.folder.current()), loaded(manager)) == ("b", ["b"])
        assert (await manager.resolve(None)).model == "b"

    run(models, check, max_concurrent_models=3)


def test_a_switch_may_name_whose_place_is_taken(models):
    async def check(manager: Manager) -> None:
        for name in "ab":
            await manager.load(name)
        await manager.switch("c", "b")
        await gone(manager, 2)
        assert loaded(manager) == ["a", "c"]

    run(models, check, max_concurrent_models=3)


def test_a_switch_to_a_model_that_does_not_load_changes_nothing(models):
    (models / "bad.gguf").write_bytes(gguf_bytes())

    async def check(manager: Manager) -> None:
        await manager.load("a")
        with pytest.raises(ModelLoadFailed):
            await manager.switch("bad", None)
        assert (manager.default_model(await manager.folder.current()), loaded(manager)) == ("a", ["a"])

    run(models, check)


def test_an_unload_waits_for_running_requests_and_ends_the_process(models):
    async def check(manager: Manager) -> None:
        running = asyncio.create_task(ask(await manager.load("a"), 60))
        pid = pid_of(manager, "a")
        await manager.unload("a")
        assert b'"kind":"Finished"' in await running
        assert not psutil.pid_exists(pid)
        await manager.unload("a")
        with pytest.raises(ModelNotFound):
            await manager.unload("nowhere")

    run(models, check)


def test_a_model_whose_file_is_gone_can_be_unloaded(models):
    async def check(manager: Manager) -> None:
        await manager.load("a")
        (models / "a.gguf").unlink()
        await manager.unload("a")
        assert manager.fleet.runners() == {}

    run(models, check)


# By themselves


def test_an_idle_model_is_unloaded_and_loaded_again_when_it_is_asked_for(models):
    async def check(manager: Manager) -> None:
        await manager.load("a")
        await gone(manager, 0)
        await manager.resolve("a")
        assert loaded(manager) == ["a"]

    run(models, check, model_idle_seconds=0.5)
    assert "idle for 0.5 s" in (models.parent / "logs" / "model_operations.log").read_text()


def test_a_model_at_work_or_pinned_or_with_a_ttl_of_its_own_is_not_idle(models):
    options(models, "[b]\npinned = true\n[c]\nttl = 0\n")

    async def check(manager: Manager) -> None:
        running = asyncio.create_task(ask(await manager.load("a"), 250))
        for name in "bc":
            await manager.load(name)
        while not running.done():
            assert loaded(manager) == ["a", "b", "c"]
            await asyncio.sleep(0.05)
        await until(lambda: loaded(manager) == ["b", "c"], "the end of a")

    run(models, check, model_idle_seconds=0.5, max_concurrent_models=3)


def test_a_runner_that_is_too_old_is_replaced_and_no_request_is_lost(models):
    async def check(manager: Manager) -> None:
        await manager.load("a")
        first = pid_of(manager, "a")
        while pid_of(manager, "a") == first:
            assert b'"kind":"Finished"' in await ask(await manager.resolve("a"), 3)
        assert b'"kind":"Finished"' in await ask(await manager.resolve("a"), 3)

    run(models, check, runner_max_age=1.5)


def test_a_runner_that_has_grown_is_replaced(models, monkeypatch):
    async def check(manager: Manager) -> None:
        await manager.load("a")
        first = pid_of(manager, "a")
        model = manager.fleet.serving("a")
        assert model
        await asyncio.sleep(2 * upkeep.WATCH_SECONDS)
        assert pid_of(manager, "a") == first
        model.child.first_private_bytes -= 51 * 2**20  # as if it had been so much smaller at its start
        await until(lambda: pid_of(manager, "a") != first, "a fresh runner")
        await gone(manager, 1)

    run(models, check, runner_max_rss_growth=50)
    assert "has grown by 5" in (models.parent / "logs" / "model_operations.log").read_text()


def test_a_model_that_was_removed_and_put_back_is_found_again(models):
    async def check(manager: Manager) -> None:
        shutil.move(models / "a.gguf", models / "later")
        with pytest.raises(ModelNotFound, match="Models here: b, c"):
            await manager.load("a")
        shutil.move(models / "later", models / "a.gguf")
        await manager.load("a")

    run(models, check)
