"""A real server for tests: Gunicorn, manager and runner as a user starts them, on a free port; nothing of it is left behind."""

import contextlib
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil

from src import operator_token
from src.settings import ROOT

# The command line of existing service files; only the address and the number of requests differ.
PLAIN_GUNICORN = (
    "-m gunicorn --bind 127.0.0.1:{port} --workers 1 --worker-class gevent --worker-connections 1000 --timeout 300 --keep-alive 5 "
    "--max-requests 5 --max-requests-jitter 0 --access-logfile - --error-logfile - src.api.app:application"
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition: Callable[[], object], timeout: float = 30, what: str = "the condition") -> object:
    """The first true value of the condition; fails the test after `timeout` seconds without one."""
    give_up = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < give_up, f"{what} did not come true within {timeout} s"
        time.sleep(0.05)
    return value


def _runs(process: psutil.Process, module: str) -> bool:
    with contextlib.suppress(psutil.Error):
        return module in process.cmdline()
    return False


class Server:
    """One running service. Settings are keyword arguments in capitals. A disposable one is killed at its end, which is quicker.
    `key` is what its status is asked with, where it needs one; `umask` -1 is this process's."""

    def __init__(
        self,
        *,
        command: str = "run.py --mode prod",
        program: str = sys.executable,
        wait: bool = True,
        disposable: bool = False,
        key: str = "none",
        umask: int = -1,
        **settings: object,
    ) -> None:
        self.port = free_port()
        self.key = key
        self._disposable = disposable
        self.folder = Path(tempfile.mkdtemp(prefix="test-server-"))
        self.url = f"{'https' if 'TLS_CERTFILE' in settings else 'http'}://127.0.0.1:{self.port}"
        self.trusted: Any = ssl.create_default_context(cafile=str(settings["TLS_CERTFILE"])) if "TLS_CERTFILE" in settings else True
        # One thread: on a machine with other work, threads that wait for each other take ten times as long.
        defaults = {"CONTEXT_LENGTH": 1024, "THREADS": 1, "SHUTDOWN_GRACE_SECONDS": 15}
        defaults |= {"LOG_DIR": self.folder / "logs", "PORT": self.port}
        self.environ = {**os.environ, **{key: str(value) for key, value in {**defaults, **settings}.items()}}
        self.output_path = self.folder / "output"
        with self.output_path.open("wb") as output:
            self.process = subprocess.Popen(
                [program, *command.format(port=self.port).split()],
                cwd=ROOT, env=self.environ, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True, umask=umask,
            )  # fmt: skip
        if wait:
            self.wait_healthy()

    @property
    def output(self) -> str:
        return self.output_path.read_text(errors="replace")

    @property
    def operator(self) -> dict[str, str]:
        """What shows that a request comes from the operator, where there are no keys."""
        token = operator_token.find(self.environ.get("RUN_DIR", ""), self.port)
        return {"Authorization": f"Bearer {token.read_text().strip()}"}

    def log(self, name: str) -> str:
        path = self.folder / "logs" / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def wait_healthy(self, timeout: float = 240) -> None:
        def healthy() -> bool:
            assert self.process.poll() is None, f"the server ended:\n{self.output}"
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(f"{self.url}/health", timeout=5, verify=self.trusted).status_code == 200
            return False

        try:
            wait_until(healthy, timeout, "the server's health")
        except BaseException:  # among them what ends a test that takes too long
            print(self.output)
            self.kill()
            raise

    def client(self, **options: object) -> openai.OpenAI:
        http = options.setdefault("http_client", openai.DefaultHttpxClient(verify=self.trusted))
        client = openai.OpenAI(base_url=f"{self.url}/v1", **{"api_key": self.key, "max_retries": 0, "timeout": 120, **options})
        # Its connections are closed before they are garbage themselves, of which Python would warn in whatever test runs then.
        weakref.finalize(client, http.close)
        return client

    def async_client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=120)

    def http(self, **options: object) -> httpx.Client:
        return httpx.Client(base_url=self.url, verify=self.trusted, **{"timeout": 30, **options})

    def status(self) -> dict:
        with self.http(headers={"Authorization": f"Bearer {self.key}"}, timeout=10) as http:
            return http.get("/v1/system/status").json()

    def processes(self) -> list[psutil.Process]:
        """The whole tree, the master first."""
        with contextlib.suppress(psutil.NoSuchProcess):
            master = psutil.Process(self.process.pid)
            return [master, *master.children(recursive=True)]
        return []

    def runners(self) -> list[psutil.Process]:
        """The runner processes there are, as the system knows them: those that have ended, but were not waited for, do not count."""
        processes, found = self.processes(), []
        managers = {process.pid for process in processes if _runs(process, "src.manager")}
        for process in processes:
            with contextlib.suppress(psutil.Error):
                # A child that a runner has forked has its command line until it becomes another program.
                if _runs(process, "src.runner") and process.ppid() in managers:
                    found.append(process)
        return found

    def pids(self, name: str) -> list[int]:
        """Process ids by their place: master, gateway, manager, runner."""
        return [use["pid"] for use in self.status()["processes"] if use["name"] == name]

    def stop(self, timeout: float = 40) -> int:
        """SIGTERM, as systemd sends it. Returns the exit status; fails if a process is left."""
        tree = self.processes()
        self.process.terminate()
        status = self.process.wait(timeout)
        assert_gone(tree)
        return status

    def kill(self) -> None:
        """Whatever is still there ends now, all of it at once: stopped first, so that none starts another or tidies up for one that is
        gone already."""
        for end in (psutil.Process.suspend, psutil.Process.kill):
            for process in self.processes():
                with contextlib.suppress(psutil.NoSuchProcess):
                    end(process)
        self.process.wait()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, kind: type | None, error: object, traceback: object) -> None:
        if error is not None:
            print(self.output[-5000:])
        if self.process.poll() is None:
            self.stop() if kind is None and not self._disposable else self.kill()


def assert_gone(tree: list[psutil.Process], timeout: float = 10) -> None:
    """Every process of the tree has ended; those that have not are killed and named."""
    _, alive = psutil.wait_procs(tree, timeout)
    names = [" ".join(process.cmdline()) for process in alive]
    for process in alive:
        process.kill()
    assert not alive, f"left behind: {names}"
