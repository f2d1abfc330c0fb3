"""Where there is no systemd, a server that answers nobody any more ends, so that launchd starts it again."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import httpx
import psutil
import pytest

from src import ROOT
from src.gunicorn import watchdog
from src.gunicorn.watchdog import Watchdog
from tests.support.server import Server, assert_gone, wait_until

SAYS = "import sys; from src.systemd import Notifier; Notifier().send(*sys.argv[1:])"


@pytest.fixture
def clock(monkeypatch) -> Callable[[float], None]:
    now = [1000.0]
    monkeypatch.setattr(watchdog, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def pass_by(seconds: float) -> None:
        now[0] += seconds

    return pass_by


@pytest.fixture
def watch() -> Iterator[Callable[[float], Watchdog]]:
    made = []

    def make(seconds: float) -> Watchdog:
        made.append(Watchdog(seconds))
        return made[-1]

    yield make
    for one in made:
        one.close()


def say(one: Watchdog, *words: str) -> None:
    """As the manager does, from a process of its own."""
    environ = {**os.environ, **one.environ()}
    subprocess.run([sys.executable, "-c", SAYS, *words], cwd=ROOT, env=environ, pass_fds=one.descriptors(), check=True)


def look(one: Watchdog, clock: Callable[[float], None], seconds: int) -> bool:
    """Once a second."""
    found = False
    for _ in range(seconds):
        clock(1)
        found |= one.hangs()
    return found


@pytest.mark.macos
def test_silence_is_a_hang_once_there_was_a_sign_of_life(clock, watch):
    one = watch(10)
    assert not look(one, clock, 100), "it starts"
    say(one, "STATUS=serving")
    assert not look(one, clock, 100), "no sign of life"
    say(one, "READY=1", "WATCHDOG=1")
    assert not look(one, clock, 10)
    say(one, "WATCHDOG=1")
    assert not look(one, clock, 11), "shorter than that is none"
    assert look(one, clock, 1)


@pytest.mark.macos
def test_a_machine_that_sleeps_does_not_hang(clock, watch):
    one = watch(10)
    say(one, "WATCHDOG=1")
    one.hangs()
    clock(3600)
    assert not one.hangs()


@pytest.mark.macos
def test_without_a_setting_nothing_hangs_and_nobody_is_asked(clock, watch):
    one = watch(0)
    assert not look(one, clock, 100)
    assert (one.environ(), one.descriptors()) == ({}, ())


def wait_for_a_sign_of_life(server: Server, seconds: float) -> None:
    """Silence counts from the first one on, which comes within WATCHDOG_SECONDS."""
    wait_until(lambda: server.status()["uptime_seconds"] > seconds, what="a time in which there was one")


@pytest.mark.slow
@pytest.mark.parametrize("hangs", ["gateway", pytest.param("manager", marks=pytest.mark.macos)])
def test_a_server_whose_processes_hang_ends_with_a_status_that_has_it_started_again(hangs):
    settings = {"INFERENCE_ENGINE": "echo", "WORKERS": 2, "SHUTDOWN_GRACE_SECONDS": 0, "WATCHDOG_SECONDS": 5}
    with Server(**settings, disposable=True) as server:
        wait_for_a_sign_of_life(server, 5)
        tree = server.processes()
        pids = server.pids(hangs)
        assert len(pids) == (2 if hangs == "gateway" else 1)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        assert server.process.wait(60) == 1
        assert "No request was answered for WATCHDOG_SECONDS" in server.output
        assert_gone(tree)


@pytest.mark.slow
def test_a_manager_that_is_replaced_gives_signs_of_life_too():
    with Server(INFERENCE_ENGINE="echo", WATCHDOG_SECONDS=10, SHUTDOWN_GRACE_SECONDS=0, disposable=True) as server:
        wait_for_a_sign_of_life(server, 10)
        [manager] = server.pids("manager")
        os.kill(manager, signal.SIGKILL)
        wait_until(lambda: not psutil.pid_exists(manager), what="the manager's end")
        server.wait_healthy()  # by what the manager says
        [second] = wait_until(lambda: [pid for pid in server.pids("manager") if pid != manager], what="another manager")
        assert not any("NOTIFY_FD" in runner.environ() for runner in server.runners())
        os.kill(second, signal.SIGSTOP)
        assert server.process.wait(60) == 1


@pytest.mark.slow
def test_the_server_that_serves_goes_on():
    with Server(INFERENCE_ENGINE="echo", WATCHDOG_SECONDS=4, disposable=True) as server:
        began = psutil.Process(server.process.pid).create_time()
        wait_until(lambda: server.status()["uptime_seconds"] > 12, what="a time that is some times as long")
        assert httpx.get(f"{server.url}/health", timeout=5).status_code == 200
        assert psutil.Process(server.process.pid).create_time() == began
