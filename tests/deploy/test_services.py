"""The unit for systemd and the plist for launchd: valid, hardened, and what they start tells systemd the truth.

No systemd runs here as process 1. What it would be sent goes to a real datagram socket instead; what it would forbid the
service (ProtectSystem and its like) is checked as text only.
"""

import configparser
import os
import plistlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psutil
import pytest

from src.settings import ROOT
from tests.support.programs import program
from tests.support.server import Server, wait_until

pytestmark = pytest.mark.slow

UNIT = ROOT / "deploy/systemd/inference@.service"
PLIST = ROOT / "deploy/launchd/com.example.inference.plist"
INSTALLED = "/opt/inference"


class Systemd:
    """The socket that systemd would listen on, and what was sent to it."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.settimeout(0.2)
        self.told: list[str] = []

    def wait_for(self, beginning: str, timeout: float = 30) -> str:
        """The next line that begins so."""
        give_up = time.monotonic() + timeout
        while time.monotonic() < give_up:
            for line in self.read():
                if line.startswith(beginning):
                    return line
        raise AssertionError(f"{beginning} did not come within {timeout} s: {self.told}")

    def read(self) -> list[str]:
        """Of the next message, or nothing after a moment."""
        try:
            lines = self._socket.recv(4096).decode().split("\n")
        except TimeoutError:
            return []
        self.told += lines
        return lines

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd():
    with tempfile.TemporaryDirectory() as folder:
        listener = Systemd(Path(folder))
        yield listener
        listener.close()


def unit() -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str
    parser.read(UNIT)
    return parser


def test_systemd_finds_no_fault_in_the_unit(tmp_path):
    # As docs/DEPLOYMENT.md installs it, but in the folder where it lies, with the interpreter that runs this.
    (tmp_path / UNIT.name).write_text(
        UNIT.read_text().replace(f"{INSTALLED}/.venv/bin/python", sys.executable).replace(INSTALLED, str(ROOT))
    )
    done = subprocess.run([program("systemd-analyze"), "verify", tmp_path / UNIT.name], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_unit_is_hardened_but_its_models_and_logs_can_be_written(tmp_path):
    service = unit()["Service"]
    assert service["ReadWritePaths"].split() == [f"{INSTALLED}/models", f"{INSTALLED}/logs"]
    (tmp_path / UNIT.name).write_text(UNIT.read_text())
    done = subprocess.run(
        [program("systemd-analyze"), "security", "--offline=true", "--threshold=25", tmp_path / UNIT.name], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-500:]  # exposure at most 2.5 of 10


def test_the_unit_waits_longer_than_the_service_takes_to_end():
    from src.settings import Settings

    service = unit()["Service"]
    longest = Settings().shutdown_grace_seconds + 5 + 10  # the workers' drain, then the manager's stop
    assert int(service["TimeoutStopSec"]) > longest
    assert plistlib.loads(PLIST.read_bytes())["ExitTimeOut"] > longest


def test_unit_and_plist_allow_no_core_file_and_no_file_that_others_may_use():
    plist = plistlib.loads(PLIST.read_bytes())
    assert (unit()["Service"]["LimitCORE"], int(unit()["Service"]["UMask"], 8)) == ("0", 0o077)
    assert (plist["SoftResourceLimits"]["Core"], plist["HardResourceLimits"]["Core"], plist["Umask"]) == (0, 0, 0o077)


def test_unit_and_plist_start_production_mode():
    command = [f"{INSTALLED}/.venv/bin/python", "run.py", "--mode", "prod"]
    assert unit()["Service"]["ExecStart"].split() == command
    plist = plistlib.loads(PLIST.read_bytes())
    assert plist["ProgramArguments"] == command
    assert plist["WorkingDirectory"] == unit()["Service"]["WorkingDirectory"] == INSTALLED
    assert plist["Label"] == PLIST.stem
    assert plist["KeepAlive"] == {"SuccessfulExit": False}
    assert float(plist["EnvironmentVariables"]["WATCHDOG_SECONDS"]) > 60  # Gunicorn replaces one worker that hangs before that


def test_systemd_hears_that_it_is_ready_when_a_model_can_be_asked_and_that_it_stops_when_requests_still_run(systemd):
    with Server(INFERENCE_ENGINE="echo", ECHO_STEP_MS=20, NOTIFY_SOCKET=systemd.path, wait=False) as server:
        systemd.wait_for("READY=1")
        # Gunicorn by itself would have said so before there was a worker.
        assert httpx.get(f"{server.url}/health", timeout=10).status_code == 200
        assert not [line for line in systemd.told if "arbiter" in line]
        # Only who has something to tell is given the socket.
        given = {use["name"] for use in server.status()["processes"] if psutil.Process(use["pid"]).environ().get("NOTIFY_SOCKET")}
        assert "manager" in given
        assert "runner" not in given
        with server.client() as client:
            stream = client.completions.create(model="echo", prompt="x", max_tokens=100, stream=True, extra_body={"ignore_eos": True})
            next(stream)
            server.process.terminate()
            systemd.wait_for("STOPPING=1")
            assert len(list(stream)) > 50  # it ran to its end
        assert server.process.wait(30) == 0


def test_the_watchdog_is_fed_while_requests_are_answered_and_starves_when_they_are_not(systemd):
    with Server(INFERENCE_ENGINE="echo", NOTIFY_SOCKET=systemd.path, WATCHDOG_USEC=900_000, wait=False, disposable=True) as server:
        systemd.wait_for("READY=1")
        for _ in range(3):
            systemd.wait_for("WATCHDOG=1", 5)
        [worker] = server.pids("gateway")
        os.kill(worker, signal.SIGSTOP)
        try:
            wait_until(lambda: "STATUS=not answering" in systemd.read(), what="the status")
            quiet_till = time.monotonic() + 2
            while time.monotonic() < quiet_till:
                assert "WATCHDOG=1" not in systemd.read()
        finally:
            os.kill(worker, signal.SIGCONT)
        systemd.wait_for("WATCHDOG=1")


def test_without_a_model_it_is_not_ready_and_says_why(systemd, tmp_path):
    with Server(MODELS_DIR=tmp_path, NOTIFY_SOCKET=systemd.path, wait=False, disposable=True):
        systemd.wait_for("STATUS=There is no model")
        systemd.wait_for("WATCHDOG=1")  # it answers, and what is started anew has no model either
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            systemd.read()
        assert "READY=1" not in systemd.told


def test_where_there_are_keys_systemd_hears_the_same_but_for_the_reason(systemd, tmp_path):
    with Server(INFERENCE_ENGINE="echo", API_KEY="k", NOTIFY_SOCKET=systemd.path, WATCHDOG_USEC=900_000, wait=False, disposable=True):
        systemd.wait_for("READY=1")
        systemd.wait_for("WATCHDOG=1")
    with Server(MODELS_DIR=tmp_path, API_KEY="k", NOTIFY_SOCKET=systemd.path, wait=False, disposable=True):
        systemd.wait_for("STATUS=not ready: logs/model_operations.log says why")


def test_an_abstract_socket_is_told_too(monkeypatch):
    from src.systemd import Notifier

    name = f"test-notify-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}")
        listener.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        Notifier().send("READY=1", "STATUS=x")
        assert listener.recv(100) == b"READY=1\nSTATUS=x"
    assert "NOTIFY_SOCKET" not in os.environ
