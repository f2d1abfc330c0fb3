"""What the server leaves on a disk is for its own user alone: files whatever the umask it was started with, core files not at all."""

import os
import resource
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx
import psutil
import pytest

from src.settings import ROOT
from tests.support.server import Server, wait_until

PROMPT = "TOP-SECRET-PROMPT"
needs_proc = pytest.mark.skipif(
    not hasattr(psutil.Process, "rlimit"), reason="only Linux shows the limits of other processes; the last test here asks a child"
)


@pytest.fixture
def core_files_allowed():
    """As systemd starts a service that has no LimitCORE."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    hard = resource.RLIM_INFINITY if os.geteuid() == 0 else before[1]
    if hard == 0:
        pytest.skip("core files are forbidden here, whatever the server does")
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, (before[0], hard))


def open_to_others(folder: Path) -> list[str]:
    found = [folder, *folder.rglob("*")]
    return [f"{stat.filemode(path.lstat().st_mode)} {path}" for path in found if path.lstat().st_mode & 0o077 and not path.is_symlink()]


def test_nothing_that_a_server_makes_is_open_to_others_whatever_its_umask():
    with tempfile.TemporaryDirectory(prefix="t-") as short:  # pytest's own folders are too long for a socket's path
        run_dir, logs = Path(short, "run"), Path(short, "logs", "below")
        settings = {"RUN_DIR": run_dir, "LOG_DIR": logs, "RESPONSE_STORE_SIZE": 5, "WORKERS": 2}
        with Server(INFERENCE_ENGINE="echo", umask=0, disposable=True, **settings) as server:
            ask = {"prompt": PROMPT, "max_tokens": 4}
            httpx.post(f"{server.url}/v1/completions", json=ask, headers={"Idempotency-Key": "k"}, timeout=30).raise_for_status()
            httpx.post(f"{server.url}/v1/responses", json={"input": PROMPT}, timeout=30).raise_for_status()
            level = {"level": "DEBUG"}
            httpx.post(f"{server.url}/v1/admin/log-level", json=level, headers=server.operator, timeout=30).raise_for_status()
            wait_until(lambda: (logs / "audit.log").exists())
            made = {path.name for path in [*run_dir.rglob("*"), *logs.rglob("*")]}
            assert {"kept", "responses", "log_level", "lock", "operator_token", "manager.sock", "app.log", "api_requests.log"} <= made
            assert open_to_others(run_dir) + open_to_others(logs.parent) == []


@needs_proc
def test_no_process_of_a_server_may_leave_a_core_file(core_files_allowed):
    with Server(INFERENCE_ENGINE="echo", disposable=True) as server:
        limits = [process.rlimit(psutil.RLIMIT_CORE) for process in server.processes()]
        assert len(limits) >= 4, "master, gateway, manager, runner"
        assert set(limits) == {(0, 0)}
        (runner,) = server.pids("runner")
        os.kill(runner, signal.SIGABRT)
        wait_until(lambda: "SIGABRT" in server.log("model_operations"))
        assert not [path for path in ROOT.iterdir() if path.name == "core" or path.name.startswith("core.")]


@needs_proc
def test_a_setting_allows_them(core_files_allowed):
    with Server(INFERENCE_ENGINE="echo", disposable=True, ALLOW_CORE_DUMPS="true") as server:
        allowed = resource.getrlimit(resource.RLIMIT_CORE)
        (runner,) = server.pids("runner")
        assert {psutil.Process(pid).rlimit(psutil.RLIMIT_CORE) for pid in (server.process.pid, runner)} == {allowed}


def test_a_process_hands_its_limits_on_to_its_children(core_files_allowed):
    code = (
        "import subprocess, sys; from src.process_limits import forbid_core_dumps; "
        "forbid_core_dumps(); subprocess.run([sys.executable, *sys.argv[1:]])"
    )
    child = "import resource; print(*resource.getrlimit(resource.RLIMIT_CORE))"
    done = subprocess.run([sys.executable, "-c", code, "-c", child], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "0"]
